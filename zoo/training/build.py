"""From a recipe to its parts: examples, labels, tokenizer, model config, batches, model."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.backbones.config import ARCHITECTURES, TransformerConfig, fact_names
from zoo.config import from_mapping
from zoo.errors import DataError
from zoo.text import Tokenizer
from zoo.training.recipe import DataRecipe, Recipe

__all__ = [
    "Parts",
    "build_model",
    "load_examples",
    "make_batches",
    "model_config",
    "prepare",
    "train_tokenizer",
]

Example = dict[str, Any]
SPLITS = ("train", "validation", "test")
_TEMPLATES = {"encoder": "encoder", "decoder": "decoder", "encoder-decoder": "seq2seq"}
_TEXT_FIELDS = ("text", "pair", "question", "context", "source", "target")


@dataclass(frozen=True)
class Parts:
    """What training needs beside the model itself."""

    examples: dict[str, list[Example]]
    labels: list[str] | None
    tokenizer: Tokenizer
    config: TransformerConfig
    data_hash: str


def prepare(recipe: Recipe, tokenizer: Tokenizer | None = None) -> Parts:
    """Reads the data, trains or loads the tokenizer and completes the model's config.

    Args:
        recipe: The recipe.
        tokenizer: One that exists already (a run that is resumed).
    """
    examples = load_examples(recipe.data, recipe.training.seed)
    labels = find_labels(recipe.task, examples["train"])
    if labels is not None and len(labels) < 2:
        raise DataError(f"The training examples have one label, {labels}: nothing to learn.")
    if tokenizer is None:
        tokenizer = train_tokenizer(recipe, examples["train"])
    config = model_config(recipe, tokenizer)
    return Parts(examples, labels, tokenizer, config, hash_examples(examples))


def load_examples(
    data: DataRecipe, seed: int = 0, splits: Sequence[str] = SPLITS
) -> dict[str, list[Example]]:
    """Returns the examples of the `splits`; validation and test may be empty.

    Raises:
        DataError: There is nothing to train on, or a file is not as described.
        ConfigError: There is no such source, or it has no such option.
    """
    if data.source is not None:
        from zoo.data.sources import build

        examples = {split: build(data.source, split, seed, **data.options) for split in splits}
    else:
        examples = {split: _read(data, getattr(data, split)) for split in SPLITS}
        if not data.validation and data.validation_fraction:
            from zoo.data import split_examples

            train, held_out = split_examples(examples["train"], data.validation_fraction)
            examples |= {"train": train, "validation": held_out}
    if not examples.get("train", True):
        raise DataError(f"No training example in {data.source or data.train}.")
    limits = data.limit if isinstance(data.limit, dict) else dict.fromkeys(SPLITS, data.limit)
    return {split: examples[split][: limits.get(split)] for split in splits}


def _read(data: DataRecipe, path: str | None) -> list[Example]:
    if path is None:
        return []
    from zoo.data import Cleaner, read

    examples = read(path, data.format, **data.reader, **data.columns)
    return list(examples if data.cleaning is None else Cleaner(**data.cleaning)(examples))


def find_labels(task: str, examples: Sequence[Example]) -> list[str] | None:
    """Returns the sorted label names of the tasks that have them, else None."""
    try:
        if task == "text-classification":
            return sorted({str(example["label"]) for example in examples})
        if task == "token-classification":
            return sorted({str(tag) for example in examples for tag in example["tags"]})
    except (KeyError, TypeError) as error:
        raise DataError(
            f"Task {task} needs examples with 'label' (or 'tokens' and 'tags'); missing: {error}."
        ) from None
    return None


def texts_of(examples: Sequence[Example]) -> Iterator[str]:
    """Yields every text of the examples."""
    for example in examples:
        for name in _TEXT_FIELDS:
            if isinstance(example.get(name), str):
                yield example[name]
        if "tokens" in example:
            yield " ".join(example["tokens"])


def train_tokenizer(recipe: Recipe, examples: Sequence[Example]) -> Tokenizer:
    """Trains the tokenizer that a recipe describes, or loads the one that it names."""
    facts = recipe.tokenizer
    if facts.path is not None:
        return Tokenizer.load(facts.path)
    return Tokenizer.train(
        facts.kind,
        texts_of(examples),
        vocab_size=facts.vocab_size,
        lowercase=facts.lowercase,
        min_frequency=facts.min_frequency,
        normalization=facts.normalization,
        template=facts.template or _TEMPLATES[recipe.model.architecture],
        byte_fallback=facts.byte_fallback,
    )


def model_config(recipe: Recipe, tokenizer: Tokenizer) -> TransformerConfig:
    """Completes the recipe's facts with what the tokenizer and the lengths imply."""
    architecture, training = recipe.model.architecture, recipe.training
    implied: dict[str, Any] = {
        "vocab_size": tokenizer.vocab_size,
        "max_length": training.max_length,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": tokenizer.pad_token_id,
        "max_target_length": training.max_target_length,
    }
    known = fact_names(architecture)
    facts = {key: value for key, value in implied.items() if key in known and value is not None}
    return from_mapping(
        ARCHITECTURES[architecture], facts | recipe.model.facts, f"recipe {recipe.name}: model"
    )


def hash_examples(examples: Mapping[str, Sequence[Example]]) -> str:
    """Returns the SHA-256 of all examples in their order."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for example in examples[split]:
            line = json.dumps([split, example], ensure_ascii=False, sort_keys=True, default=str)
            digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def make_batches(recipe: Recipe, parts: Parts, split: str, **changes: Any) -> Any:
    """Returns the `tf.data` batches of a split, in a fixed order unless `shuffle_seed` is given.

    `changes` are arguments of `zoo.data.batches`, in place of those that follow from the recipe.
    """
    from zoo.data import batches

    training = recipe.training
    settings: dict[str, Any] = {
        "batch_size": training.batch_size,
        "labels": parts.labels,
        "max_length": training.max_length,
        "max_target_length": training.max_target_length,
        "buckets": training.buckets,
        "decoder_start_token_id": getattr(parts.config, "decoder_start_token_id", None),
    }
    return batches(parts.examples[split], parts.tokenizer, recipe.task, **settings | changes)


def build_model(recipe: Recipe, config: TransformerConfig, labels: list[str] | None) -> Any:
    """Builds the model of a recipe with fresh weights."""
    from zoo.tasks import TaskModel

    return TaskModel(config, task=recipe.task, labels=labels, head=recipe.model.head or None)
