"""What the rooms of this folder raise."""

from export.errors import ExportError


class InexactError(ExportError):
    """A part of a tokenizer that cannot be repeated exactly inside a graph."""
