"""What constrained output adds to a step: masks of real tokenizers, under scores that are noise.

    python -m benchmarks.constraints [--tokenizers FOLDER] [--draws 60]

The first request with a tokenizer prepares its table; "again" is another form with the same
tokenizer. Microseconds are of one sequence and one step.
"""

import argparse
import gzip
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import report
from serve.bundle.manifest import TokenizerSpec
from serve.decoding.constraints import Grammar
from serve.decoding.settings import GenerationSettings
from serve.text.tokenizer import TextTokenizer

TOKENIZERS = ("minimind", "phi-3-mini", "roberta-base")
END = 1
FORMS: dict[str, dict[str, Any]] = {
    "choices": {"choices": tuple(f"option {number}" for number in range(50))},
    "regex": {"regex": r"[A-Z][a-z]{2,9}( \d{1,3}){0,2}"},
    "json_schema": {
        "json_schema": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 40},
                "age": {"type": "integer", "minimum": 0, "maximum": 150},
                "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 4},
            },
            "required": ["name", "age", "tags"],
            "additionalProperties": False,
        }
    },
}


def opened(folder: Path, into: Path) -> TextTokenizer:
    """A tokenizer, whose file may be packed."""
    packed = folder / "tokenizer.json.gz"
    data = (
        gzip.decompress(packed.read_bytes())
        if packed.exists()
        else (folder / "tokenizer.json").read_bytes()
    )
    path = into / f"{folder.name}.json"
    path.write_bytes(data)
    return TextTokenizer(path, TokenizerSpec(max_length=1000))


def measure(tokenizer: TextTokenizer, form: dict[str, Any], draws: int) -> dict[str, float]:
    """Seconds of the compilation, and of the parts of a step."""
    size = tokenizer.backend.get_vocab_size()
    began = time.perf_counter()
    grammar = Grammar.compile(GenerationSettings(**form), tokenizer, [END], size)
    compiled = time.perf_counter() - began
    rng = np.random.default_rng(0)
    spent: dict[str, list[float]] = {"mask": [], "advance": [], "fork": []}
    for _ in range(draws):
        matcher = grammar.start()
        for _ in range(200):
            scores = rng.normal(size=size).astype(np.float32)
            began = time.perf_counter()
            matcher.mask(scores)
            spent["mask"].append(time.perf_counter() - began)
            token = int(scores.argmax())
            if token == END:
                break
            began = time.perf_counter()
            matcher.fork()
            spent["fork"].append(time.perf_counter() - began)
            began = time.perf_counter()
            matcher.advance(token)
            spent["advance"].append(time.perf_counter() - began)
    masks = sorted(spent["mask"])
    return {
        "compile ms": 1e3 * compiled,
        "mask us": 1e6 * statistics.median(masks),
        "95 % below us": 1e6 * masks[int(0.95 * len(masks))],
        "advance us": 1e6 * statistics.median(spent["advance"]),
        "fork us": 1e6 * statistics.median(spent["fork"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizers", type=Path, default=Path("../shared/data/tokenizers"))
    parser.add_argument("--draws", type=int, default=60)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in TOKENIZERS:
            tokenizer = opened(args.tokenizers / name, Path(folder))
            size = tokenizer.backend.get_vocab_size()
            for form, given in FORMS.items():
                found = measure(tokenizer, given, args.draws)
                rows.append({"tokenizer": name, "tokens": size, "form": form, **found})
    report("constraints", rows)


if __name__ == "__main__":
    main()
