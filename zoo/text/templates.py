"""The special tokens of an encoder, encoder-decoder or decoder, and where they stand."""

from tokenizers import Tokenizer, processors

ROLES: dict[str, dict[str, str]] = {
    "encoder": {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    "seq2seq": {"pad": "<pad>", "eos": "</s>", "unk": "<unk>", "bos": "<s>"},
    "decoder": {"pad": "<pad>", "bos": "<|endoftext|>", "eos": "<|endoftext|>"},
}
_SHAPES = {  # template -> for one text, for two; a number is the token type
    "encoder": ("[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"),
    "seq2seq": ("$A:0 </s>:0", "$A:0 </s>:0 $B:0 </s>:0"),
}
_NEEDS_UNKNOWN = ("wordpiece", "unigram", "char")


def roles(kind: str, template: str) -> dict[str, str]:
    """Role to token; kinds that can meet unknown text get an unknown token."""
    tokens = dict(ROLES[template])
    if kind in _NEEDS_UNKNOWN:
        tokens.setdefault("unk", "<unk>")
    return tokens


def apply(backend: Tokenizer, kind: str, template: str) -> None:
    """Give a trained tokenizer the post-processor of its template."""
    steps: list[processors.PostProcessor] = []
    if kind in ("bpe", "byte"):
        # In spans that people read, the space that a piece carries is not part of the word.
        steps.append(processors.ByteLevel(trim_offsets=kind == "bpe" and template == "encoder"))
    if template in _SHAPES:
        single, pair = _SHAPES[template]
        used = [token for token in ROLES[template].values() if f"{token}:" in pair]
        numbered = [(token, backend.token_to_id(token)) for token in used]
        steps.append(processors.TemplateProcessing(single, pair, numbered))
    if steps:
        backend.post_processor = steps[0] if len(steps) == 1 else processors.Sequence(steps)
