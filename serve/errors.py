"""Errors of the runtime: each message names the value, what was expected and what to do."""


class ServeError(Exception):
    """Base of every error that `serve` raises on purpose."""


class BundleError(ServeError):
    """A bundle is missing a part, was changed, or has a schema that this version does not know."""


class IndexFileError(ServeError):
    """A search index is missing, broken, or was made with another model."""


class InputError(ServeError, ValueError):
    """A request holds a value that the model or the settings cannot take.

    Attributes:
        message: What is wrong, and what to do.
        row: Which of several inputs it is about, from 0; None where it is about none of them alone.
    """

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.row = row

    def __str__(self) -> str:
        return self.message if self.row is None else f"input {self.row}: {self.message}"


class ProviderError(ServeError):
    """An execution provider was asked for that this installation does not have."""
