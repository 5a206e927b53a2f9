"""A tokenizer as TensorFlow operators: strings to ids and back inside a graph.

What decides an id is read from `tokenizer.json` alone, and sets of characters are asked of the
`tokenizers` library itself, so that no other version of Unicode gets a word in. Nothing but
TensorFlow's own operators is used.
"""
