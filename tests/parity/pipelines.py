"""Pipelines of classes, entities and masks beside those of transformers, on small random models.

    .venv-parity/bin/python -m tests.parity.pipelines --out build/parity
    .venv/bin/python -m tests.parity.pipelines --out build/parity --compare

The first makes the models and answers with transformers' pipelines; the second exports the same
folders and answers with `serve`. Last line of stdout: one JSON object. Exit code 1 if an answer is
another one.
"""

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

TOLERANCE = 1e-4  # 1.4e-5 at most was met, of raw logits; 3.8e-6 of probabilities
FOLDER = "pipelines"
FILE = "answers.json"
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
INFERENCE = ["contradiction", "neutral", "entailment"]
AGGREGATIONS = ("none", "simple", "first", "average", "max")
WORDS = [
    "The",
    "cat",
    "seaboat",
    "milk",
    "honeysun",
    "x",
    "sat",
    "red",
    "Dänemark",
    "Ångström",
    "looked",
    "bread.",
    "(old)",
    "house,",
    "12,50",
    "wind's",
    "Montréal's",
    "it!",
]
PLAIN = [word for word in WORDS if word.isascii() and word.isalpha()]
"""Where a word ends, transformers guesses by spaces for tokenizers without marks of continuation,
and takes tokens that hold half a character, or nothing but a space, for words: `serve` does not."""
SPECIAL = 5
"""Ids below are special tokens."""
LABELS = ["the sea", "bread and milk", "a cold wind", "an old house"]
SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 37,
    "max_position_embeddings": 130,
    "initializer_range": 0.5,
}


def texts(count: int, words: list[str], seed: int) -> list[str]:
    """Random words; the same in both environments."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=rng.randrange(1, 14))) for _ in range(count)]


def calls() -> Iterator[tuple[str, str, list[Any], dict[str, Any]]]:
    """(model, task, inputs, settings), in the words of `serve`."""
    for kind in AGGREGATIONS:
        yield "bert-tags", "token-classification", texts(30, WORDS, 1), {"aggregation": kind}
        yield "roberta-tags", "token-classification", texts(30, PLAIN, 2), {"aggregation": kind}
    split = [{"tokens": text.split()} for text in texts(20, PLAIN, 3)]  # theirs splits them again
    yield "bert-tags", "token-classification", split, {"aggregation": "first"}
    pairs = [tuple(texts(2, WORDS, seed)) for seed in range(100, 120)]
    for inputs in (texts(30, WORDS, 4), pairs):
        yield "bert-inference", "text-classification", inputs, {}
        yield "bert-several", "text-classification", inputs, {"top_k": 2}
        yield "bert-one", "text-classification", inputs, {}
        yield "bert-measure", "text-classification", inputs, {}
    for several in (False, True):
        for template in ("This example is {}.", "{} or not"):
            settings = {
                "candidate_labels": LABELS,
                "multi_label": several,
                "hypothesis_template": template,
            }
            yield "bert-inference", "zero-shot-classification", texts(12, WORDS, 5), settings
    one = {"candidate_labels": LABELS[:1]}
    yield "bert-inference", "zero-shot-classification", texts(12, WORDS, 6), one
    masked = [f"{text} [MASK] {text[::-1]}" for text in texts(20, WORDS, 7)]
    yield "bert-masked", "fill-mask", masked, {"top_k": 4}
    yield "bert-masked", "fill-mask", masked, {"targets": ["sea", "the", "red"]}


def reference(out: Path) -> dict[str, Any]:
    """Makes the models, and answers every call with transformers' pipelines."""
    import torch
    from transformers import pipeline
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    make_models(out)
    opened: dict[tuple[str, str], Any] = {}
    answers = []
    for model, task, inputs, settings in calls():
        key = model, task
        if key not in opened:
            opened[key] = pipeline(task, model=str(out / model), device=-1)
        answers.append([their_answer(opened[key], task, item, settings) for item in inputs])
    (out / FILE).write_text(json.dumps(answers))
    return {"calls": len(answers), "answers": sum(map(len, answers))}


def make_models(out: Path) -> None:
    """A folder for each model, with its tokenizer."""
    import torch
    import transformers as hf

    bert, roberta = word_pieces(), byte_pairs()
    bert_sizes = {**SIZES, "vocab_size": len(bert)}
    roberta_sizes = {**SIZES, "vocab_size": len(roberta), "type_vocab_size": 1, "pad_token_id": 1}
    tags, inference = named(TAGS), named(INFERENCE)
    several = {**named(["sea", "sun", "wind"]), "problem_type": "multi_label_classification"}
    measure = {**named(["stars"]), "problem_type": "regression"}
    classes = hf.BertForSequenceClassification
    rows: list[tuple[str, Any, dict[str, Any], Any]] = [
        ("bert-tags", hf.BertForTokenClassification, bert_sizes | tags, bert),
        ("roberta-tags", hf.RobertaForTokenClassification, roberta_sizes | tags, roberta),
        ("bert-inference", classes, bert_sizes | inference, bert),
        ("bert-several", classes, bert_sizes | several, bert),
        ("bert-one", classes, bert_sizes | named(["good"]), bert),
        ("bert-measure", classes, bert_sizes | measure, bert),
        ("bert-masked", hf.BertForMaskedLM, bert_sizes, bert),
    ]
    for seed, (name, kind, config, tokenizer) in enumerate(rows):
        torch.manual_seed(seed)
        model = kind(kind.config_class(**config))
        model.save_pretrained(out / name)
        tokenizer.save_pretrained(out / name)


def named(labels: list[str]) -> dict[str, Any]:
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: at for at, label in enumerate(labels)},
    }


def word_pieces() -> Any:
    """BERT's kind of tokenizer, over pieces of one to three letters."""
    from transformers import BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted({letter for word in WORDS for letter in word.lower()} | set("anostremdl"))
    whole = ["the", "cat", "sea", "red", "sat", "wind", "house", "boat", "honey", "sun"]
    pieces = [*letters, *whole, *(f"##{piece}" for piece in [*letters, "boat", "sun", "ed", "re"])]
    return BertTokenizer(vocab={piece: at for at, piece in enumerate([*special, *pieces])})


def byte_pairs() -> Any:
    """RoBERTa's kind of tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import RobertaTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([*(f" {word[0]}" for word in PLAIN), " cat sat sea boat"] * 9, trainer)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    return RobertaTokenizerFast(tokenizer_object=made)


def their_answer(opened: Any, task: str, item: Any, settings: dict[str, Any]) -> Any:
    """A plain form of an answer: rows that begin with a score."""
    if task == "token-classification":
        given = {"aggregation_strategy": settings["aggregation"]}
        if isinstance(item, dict):
            found = opened(item["tokens"], is_split_into_words=True, **given)
            found = found[0] if found and isinstance(found[0], list) else found
        else:
            found = opened(item, **given)
        name = "entity" if settings["aggregation"] == "none" else "entity_group"
        return [[float(row["score"]), row[name], row["start"], row["end"]] for row in found]
    if task == "zero-shot-classification":
        found = opened(item, **settings)
        return [
            [score, label] for score, label in zip(found["scores"], found["labels"], strict=True)
        ]
    if task == "text-classification":
        given = {"text": item[0], "text_pair": item[1]} if isinstance(item, tuple) else item
        found = opened(given, top_k=settings.get("top_k"))
        return [[row["score"], row["label"]] for row in found]
    return [[row["score"], row["token"], row["sequence"]] for row in opened(item, **settings)]


def without_special(rows: list[list[Any]]) -> list[list[Any]]:
    """Texts with a special token at the mask are shown otherwise by them: without it."""
    return [row[:2] if row[1] < SPECIAL else row for row in rows]


def our_answer(result: Any, task: str, settings: dict[str, Any]) -> Any:
    """The same of ours."""
    if task == "token-classification":
        if settings["aggregation"] == "none":
            return [[t.score, t.label, t.start, t.end] for t in result.tokens if t.label != "O"]
        return [[s.score, s.label, s.start, s.end] for s in result.spans]
    if task == "fill-mask":
        return [[fill.score, fill.token_id, fill.text] for fill in result.masks[0]]
    return [[score, label] for label, score in result.scores.items()]


def compare(out: Path) -> dict[str, Any]:
    """Exports the models and answers the calls with `serve`; `problems` says what differs."""
    import export
    import serve
    import zoo
    from zoo.quiet import start_tensorflow

    start_tensorflow()
    theirs = json.loads((out / FILE).read_text())
    problems: list[str] = []
    gaps: dict[str, float] = {}
    entries = 0
    with tempfile.TemporaryDirectory(prefix="zoo-parity-") as temporary:
        bundles: dict[str, Path] = {}
        for (model, task, inputs, settings), expected in zip(calls(), theirs, strict=True):
            if model not in bundles:
                bundles[model] = Path(temporary) / model
                export.to_onnx(zoo.from_pretrained(out / model), bundles[model])
            pipeline = serve.load(bundles[model], task)
            results = pipeline(inputs, long="error", **settings)
            for item, result, right in zip(inputs, results, expected, strict=True):
                found = our_answer(result, task, settings)
                if task == "fill-mask":
                    found, right = without_special(found), without_special(right)
                gap = largest_gap(found, right)
                gaps[task] = max(gaps.get(task, 0.0), gap)
                entries += len(right)
                if not gap <= TOLERANCE:
                    problems.append(f"{model}, {settings}, {item!r}: {found[:4]}, not {right[:4]}")
    return {"calls": len(theirs), "entries": entries, "gaps": gaps, "problems": problems[:20]}


def largest_gap(ours: Any, theirs: Any) -> float:
    """Largest difference of scores; infinite where anything else differs."""
    if [row[1:] for row in ours] != [row[1:] for row in theirs]:
        return float("inf")
    return max((abs(a[0] - b[0]) for a, b in zip(ours, theirs, strict=True)), default=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/parity"))
    parser.add_argument("--compare", action="store_true")
    args = parser.parse_args()
    found = (compare if args.compare else reference)(args.out / FOLDER)
    for problem in found.get("problems", []):
        print(problem)
    for task, value in found.get("gaps", {}).items():
        print(f"{task}: {value:.1e}")
    print(json.dumps(found))
    sys.exit(bool(found.get("problems")))


if __name__ == "__main__":
    main()
