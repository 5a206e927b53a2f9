"""What there is to choose from, without any import that takes time: commands list it."""

PRECISIONS = (
    "float32",
    "float16",
    "bfloat16",
    "int8",
    "int8-static",
    "int8-weights",
    "int4",
    "int8-int4",
)
"""What `to_onnx` takes. "int8-int4" reads with int8 and writes with int4: a decoder's prompt goes
through a graph of its own, over the same cache; an encoder-decoder's encoder is int8, its decoder
int4.
"""
QUANTIZED = PRECISIONS[3:]
BLOCK_SIZES = (16, 32, 64, 128, 256)
HEADS = ("float32", "int8", "int8-weights", "int4")
EMBEDDINGS = ("float32", "int8")
