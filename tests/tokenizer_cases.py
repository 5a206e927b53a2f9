"""Real tokenizers beside the repository, as parameters of tests; skipped where they are missing."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from serve.text.tokenizer import TextTokenizer

REAL = Path(__file__).parents[2] / "shared" / "data" / "tokenizers"


def real(name: str, open_tokenizer: Callable[[Path], TextTokenizer]):
    """A function of a folder that puts a tokenizer's file there and opens it."""

    def opened(folder: Path) -> TextTokenizer:
        packed, plain = (REAL / name / file for file in ("tokenizer.json.gz", "tokenizer.json"))
        if not packed.exists() and not plain.exists():
            pytest.skip(f"{REAL / name} is not here")
        text = gzip.decompress(packed.read_bytes()) if packed.exists() else plain.read_bytes()
        (folder / "tokenizer.json").write_bytes(text)
        return open_tokenizer(folder / "tokenizer.json")

    return pytest.param(opened, id=name)
