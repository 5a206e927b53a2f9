"""Errors of the zoo: each message names the value, what was expected and what to do."""


class ZooError(Exception):
    """Base of every error that `zoo` raises on purpose."""


class ConfigError(ZooError, ValueError):
    """A configuration or recipe holds a value that cannot be used."""


class DataError(ZooError, ValueError):
    """Input data are missing or not of the form that was asked for."""


class RunError(ZooError):
    """A run folder cannot be written, read or resumed."""
