"""Errors of the runtime: each message names the value, what was expected and what to do."""


class ServeError(Exception):
    """Base of every error that `serve` raises on purpose."""


class BundleError(ServeError):
    """A bundle is missing a part, was changed, or has a schema that this version does not know."""


class InputError(ServeError, ValueError):
    """A request holds a value that the model or the settings cannot take."""


class ProviderError(ServeError):
    """An execution provider was asked for that this installation does not have."""
