"""Writes what passed into the documents: the README's table of families and `docs/families.md`.

    python -m tests.parity.document --out build/parity

reads `parity.json` (`tests.parity.compare`) and `bundles.json` (`tests.parity.bundles`). A family
of which a case or an export failed is left out, and the command says so and exits with 1.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from zoo.families import family, model_types

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- families -->", "<!-- /families -->"
SHORT = {
    "fill-mask": "masked LM",
    "text-classification": "classify",
    "token-classification": "tag",
    "question-answering": "answer",
    "feature-extraction": "features",
    "sentence-similarity": "embed",
    "text-generation": "generate",
    "text2text-generation": "text to text",
}


def passed(parity: dict[str, Any], bundles: dict[str, Any]) -> tuple[list[str], list[str]]:
    """(families of which everything passed, those of which something did not)."""
    good, bad = [], []
    for name in model_types():
        compared = parity["families"].get(name, {}).get("state") in ("ok", "refused")
        forms = bundles["families"].get(name, {})
        exported = all(form in forms for form in ("onnxruntime", "portable", "saved_model"))
        (good if compared and exported else bad).append(name)
    return good, bad


def rows(names: list[str], parity: dict[str, Any], bundles: dict[str, Any]) -> list[list[str]]:
    """The cells of the table."""
    found = []
    for name in names:
        compared, forms = parity["families"][name], bundles["families"][name]
        points = [compared[p] for p in ("embeddings", "first_layer", "output", "cached")]
        onnx = max(forms["onnxruntime"], forms["portable"], forms["saved_model"])
        kind = family(name).config.__name__.removesuffix("Config")
        kind = {"EncoderDecoder": "encoder-decoder"}.get(kind, kind.lower())
        found.append(
            [
                f"`{name}`",
                kind,
                ", ".join(SHORT[task] for task in forms["tasks"]),
                f"{max(p for p in points if p is not None):.0e}",
                compared["read_back"],
                f"{onnx:.0e}",
            ]
        )
    order = ["encoder", "decoder", "encoder-decoder"]
    return sorted(found, key=lambda cells: (order.index(cells[1]), cells[0]))


def table(cells: list[list[str]]) -> str:
    """Markdown."""
    head = ["`model_type`", "kind", "tasks", "against transformers", "read back", "exports"]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def presets() -> str:
    """Markdown: published shapes and their parameters."""
    lines = ["| preset | `model_type` | parameters | counted as |", "|---|---|---|---|"]
    for name in model_types():
        lines += [
            f"| {preset} | `{name}` | {facts.parameters:,} | {facts.task} |"
            for preset, facts in family(name).presets.items()
        ]
    return "\n".join(lines)


def replace_between(path: Path, text: str) -> None:
    """Puts `text` between the markers of a document.

    Raises:
        SystemExit: The document has no markers.
    """
    document = path.read_text(encoding="utf-8")
    if BEGIN not in document or END not in document:
        raise SystemExit(f"{path} has no {BEGIN} ... {END} to write between")
    before, rest = document.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/parity"))
    args = parser.parse_args()
    parity, bundles = (
        json.loads((args.out / f"{name}.json").read_text()) for name in ("parity", "bundles")
    )
    good, bad = passed(parity, bundles)
    written = table(rows(good, parity, bundles))
    replace_between(ROOT / "README.md", written)
    replace_between(ROOT / "docs" / "families.md", f"{written}\n\n## Presets\n\n{presets()}")
    print(f"{len(good)} families written")
    if bad:
        print(f"left out, since something of theirs failed: {', '.join(bad)}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
