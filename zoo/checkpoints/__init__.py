"""Checkpoints: Hugging Face folders, both ways."""

from zoo.checkpoints.load import from_pretrained
from zoo.checkpoints.save import save_pretrained

__all__ = ["from_pretrained", "save_pretrained"]
