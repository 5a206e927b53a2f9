"""sentence-transformers: its ONNX backend beside its torch backend and `serve`, same weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from .registry import Case, Found

TOLERANCE = 1e-5  # 1.4e-6 at most was met
LONGEST = 12
"""Tokens that the model reads of a text: the last text is longer."""
TEXTS = (
    "A fine film.",
    "",
    "a dull plot, dull and dull",
    "Straße, naïve café 我们 🙂",
    "The plot of a fine film was dull, and the film of a dull plot was fine, and so on and on.",
)
SERVED = "served.json"
"""What `serve` answers, beside the export."""


def cases() -> list[Case]:
    rows = {
        "mean": ("bert/base-model", "mean", True),
        "cls": ("distilbert/base-model", "cls", False),
        "max": ("modernbert/base-model", "max", True),
        "last": ("qwen3/grouped", "last", True),
    }
    return [
        Case(
            f"{source.partition('/')[0]}-{name}",
            source,
            "sentence-similarity",
            config={"pad_token_id": 0},
            settings={"pooling": pooling, "normalize": normalize},
        )
        for name, (source, pooling, normalize) in rows.items()
    ]


def write_folder(folder: Path, width: int, pooling: str = "mean", normalize: bool = True) -> None:
    """The files of sentence-transformers beside a checkpoint, as its own folders have them."""
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{kind}" if i else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    modes = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens", "last": "lasttoken"}
    chosen: dict[str, Any] = {"word_embedding_dimension": width}
    chosen |= {f"pooling_mode_{m}": k == pooling for k, m in modes.items()}
    files = {
        "modules.json": modules,
        "1_Pooling/config.json": chosen,
        "sentence_bert_config.json": {"max_seq_length": LONGEST, "do_lower_case": False},
    }
    for name, values in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(values))


def export(case: Case, checkpoint: Path, out: Path) -> None:
    import serve
    import zoo
    from export import to_onnx

    tokenizer = zoo.Tokenizer.train("wordpiece", list(TEXTS), vocab_size=90)
    tokenizer.save(checkpoint)
    if case.family != "bert":  # the others know no segments
        without_segments(checkpoint)
    width = json.loads((checkpoint / "config.json").read_text()).get("hidden_size", 36)
    write_folder(checkpoint, width, **case.settings)
    model = zoo.from_pretrained(checkpoint, task=case.task)
    to_onnx(model, out, target="portable", layout="optimum")
    vectors = [answer.values for answer in serve.load(out)(list(TEXTS), long="cut")]
    (out.parent / SERVED).write_text(json.dumps(np.asarray(vectors).tolist()))


def without_segments(folder: Path) -> None:
    """Takes segments from what the folder's tokenizer makes."""
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text())
    names = values["model_input_names"]
    values["model_input_names"] = [name for name in names if name != "token_type_ids"]
    path.write_text(json.dumps(values))


def check(case: Case, checkpoint: Path, out: Path) -> Found:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    plain = {"attn_implementation": "eager"}
    reference = SentenceTransformer(str(checkpoint), device="cpu", model_kwargs=plain)
    expected = reference.encode(list(TEXTS))
    model = SentenceTransformer(str(out), backend="onnx", device="cpu")
    found = model.encode(list(TEXTS))
    served = np.array(json.loads((out.parent / SERVED).read_text()))
    problems = []
    if model.max_seq_length != LONGEST:
        problems.append(f"max_seq_length = {model.max_seq_length}, expected {LONGEST}")
    gaps = {"sentence-transformers": found - expected, "serve": served - expected}
    gap = max(float(np.abs(value).max()) for value in gaps.values())
    return Found(difference=gap, tolerance=TOLERANCE, problems=problems)
