"""Optimum's ORTModel classes, beside transformers with the same weights."""

from pathlib import Path
from typing import Any

import numpy as np

from .registry import Case, Found

TOLERANCE = 3e-5  # 1.9e-6 at most was met
NEW_TOKENS = 10
LENGTHS = (3, 9, 6)
"""Tokens of a batch's rows."""
ORDINARY = 5
"""Ids below are the special tokens'."""

CLASSES = {
    "text-classification": "SequenceClassification",
    "token-classification": "TokenClassification",
    "question-answering": "QuestionAnswering",
    "fill-mask": "MaskedLM",
    "feature-extraction": "FeatureExtraction",
    "text-generation": "CausalLM",
    "text2text-generation": "Seq2SeqLM",
}
"""The task's class: ORTModelFor... of Optimum; transformers calls FeatureExtraction Model."""


def cases() -> list[Case]:
    heads = {
        "sequence-classification": "text-classification",
        "token-classification": "token-classification",
        "question-answering": "question-answering",
        "masked-lm": "fill-mask",
        "base-model": "feature-extraction",
    }
    found = [
        Case(f"{family}-{head}", f"{family}/{head}", task)
        for family in ("bert", "roberta")
        for head, task in heads.items()
    ]
    others = {
        "distilbert/sequence-classification": "text-classification",
        "modernbert/masked-lm": "fill-mask",
        "deberta-v2/token-classification": "token-classification",
    }
    found += [Case(name.replace("/", "-"), name, task) for name, task in others.items()]
    # Each has a position scheme of its own; the last two's heads are not those Optimum assumes.
    decoders: dict[str, dict[str, Any]] = {
        "gpt2/plain": {},
        "opt/plain": {},
        "bloom/even-heads": {},
        # What newer configs call partial_rotary_factor, as transformers 4 reads it.
        "gpt_neox/plain": {"rope_parameters": None, "rotary_pct": 0.34},
        "llama/grouped": {},
        "mistral/window": {},
        "qwen3/grouped": {},
        "phi3/grouped": {},
    }
    # transformers 4.57 itself fails to generate where T5's stacks differ in depth.
    pairs: dict[str, dict[str, Any]] = {
        "t5/plain": {"num_decoder_layers": 2},
        "bart/plain": {},
        "marian/plain": {},
        "m2m_100/plain": {},
        "pegasus/plain": {},
    }
    for task, table in (("text-generation", decoders), ("text2text-generation", pairs)):
        found += [Case(n.replace("/", "-"), n, task, config) for n, config in table.items()]
    return found


def export(case: Case, checkpoint: Path, out: Path) -> None:
    import zoo
    from export import to_onnx

    model = zoo.from_pretrained(checkpoint, task=case.task)
    to_onnx(model, out, target="portable", layout="optimum")


def check(case: Case, checkpoint: Path, out: Path) -> Found:
    import optimum.onnxruntime
    import torch
    import transformers

    torch.set_num_threads(1)
    name = CLASSES[case.task]
    theirs = "Model" if name == "FeatureExtraction" else f"ModelFor{name}"
    reference = getattr(transformers, f"Auto{theirs}").from_pretrained(
        checkpoint, attn_implementation="eager", dtype=torch.float32
    )
    model = getattr(optimum.onnxruntime, f"ORTModelFor{name}").from_pretrained(out)
    if case.task in ("text-generation", "text2text-generation"):
        return _generated(case, model, reference.eval())
    feeds = batch(reference.config.vocab_size, reference.config.pad_token_id or 0, left=False)
    with torch.no_grad():
        expected, found = reference.eval()(**feeds), model(**feeds)
    gaps = []
    mask = feeds["attention_mask"].numpy() == 1
    for key, value in found.items():
        other = expected[key].numpy()
        by_token = other.shape[:2] == mask.shape
        pair = (value.numpy()[mask], other[mask]) if by_token else (value.numpy(), other)
        gaps.append(float(np.abs(pair[0] - pair[1]).max()))
    return Found(difference=max(gaps), tolerance=TOLERANCE)


def batch(vocab_size: int, pad: int, left: bool) -> dict[str, Any]:
    """Rows of `LENGTHS`, padded on one side."""
    import torch

    rng = np.random.default_rng(7)
    width = max(LENGTHS)
    steps = np.arange(width)
    lengths = np.array(LENGTHS)[:, None]
    mask = steps >= width - lengths if left else steps < lengths
    ids = np.where(mask, rng.integers(ORDINARY, vocab_size - 1, mask.shape), pad)
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask.astype("int64")),
    }


def _generated(case: Case, model: Any, reference: Any) -> Found:
    """Greedy and with two beams; a batch padded on the left (on the right where an encoder reads
    it), and its longest row alone.
    """
    import torch

    decoder = case.task == "text-generation"
    config = reference.config
    pad = config.pad_token_id if config.pad_token_id is not None else 0
    several = batch(config.vocab_size, pad, left=decoder)
    longest = int(np.argmax(LENGTHS))
    alone = {key: value[longest : longest + 1] for key, value in several.items()}
    total = equal = 0
    problems = []
    for beams in (1, 2):
        for rows, feeds in (("batch", several), ("one row", alone)):
            settings = {
                "max_new_tokens": NEW_TOKENS,
                "num_beams": beams,
                "do_sample": False,
                "pad_token_id": pad,
            }
            with torch.no_grad():
                expected = reference.generate(**feeds, **settings)
                found = model.generate(**feeds, **settings)
            start = feeds["input_ids"].shape[1] if decoder else 1
            expected, found = expected[:, start:], found[:, start:]
            same = expected.shape == found.shape and int((expected == found).sum())
            total, equal = total + expected.numel(), equal + int(same)
            if same != expected.numel():
                problems.append(f"{beams} beams, {rows}: {found.tolist()} != {expected.tolist()}")
    return Found(tokens=(total, equal), problems=problems)
