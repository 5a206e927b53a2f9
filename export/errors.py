"""Errors of the export: each message names the value, what was expected and what to do."""


class ExportError(Exception):
    """An export cannot be made as asked; nothing was written to its folder."""


class VerificationError(ExportError):
    """An exported graph does not agree with the Keras model it came from."""
