"""Checkpoints: Hugging Face folders, both ways; keras-nlp's models."""

from zoo.checkpoints.keras_nlp import from_keras_nlp
from zoo.checkpoints.load import from_pretrained
from zoo.checkpoints.save import save_pretrained

__all__ = ["from_keras_nlp", "from_pretrained", "save_pretrained"]
