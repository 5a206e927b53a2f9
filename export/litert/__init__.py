"""LiteRT (TensorFlow Lite): a folder with one .tflite file and what it takes to answer from it."""

from export.litert.folder import to_litert

__all__ = ["to_litert"]
