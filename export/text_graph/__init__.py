"""Tokenizers as ONNX graphs: the ids that the `tokenizers` library gives, computed from strings.

The graphs read a text's bytes through one operator of onnxruntime-extensions and compute the rest
with plain integer operators over flat arrays: one element per character, or per token, of the whole
batch, with the number of its row beside it.
"""
