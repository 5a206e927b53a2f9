"""What every engine is given: ids drawn alike in every environment, and how much there is to do."""

import numpy as np

THREADS = 2
FIRST, LAST = 5, 30000  # ids that are no special tokens of any size
SOURCE, TARGET = (32, 48), 40  # tokens of a text to translate, and of its translation
REQUESTS = 16
PROMPTS, ANSWERS = (16, 128), (64, 128)  # tokens of the requests that share steps
PERIOD = 32  # tokens of a text before it repeats itself
GAP = 0.03  # seconds between the arrivals of two requests


def ids(rows: int, length: int, seed: int = 0) -> np.ndarray:
    """[rows, length] ids."""
    return np.random.default_rng(seed).integers(FIRST, LAST, (rows, length))


def ragged(lengths: list[int], seed: int = 0) -> list[list[int]]:
    """A row of ids of each length."""
    return [ids(1, length, seed + i)[0].tolist() for i, length in enumerate(lengths)]


def between(bounds: tuple[int, int], count: int, seed: int) -> list[int]:
    """Lengths, both bounds included."""
    low, high = bounds
    return np.random.default_rng(seed).integers(low, high + 1, count).tolist()


def sources(batch: int) -> list[list[int]]:
    """Texts to translate."""
    return ragged(between(SOURCE, batch, seed=1))


def requests() -> tuple[list[list[int]], list[int]]:
    """Prompts, and how many tokens each is answered with."""
    return ragged(between(PROMPTS, REQUESTS, seed=2)), between(ANSWERS, REQUESTS, seed=3)


def encoder_inputs(batch: int, length: int) -> dict[str, np.ndarray]:
    """Texts to encode, without padding."""
    found = ids(batch, length)
    return {
        "input_ids": found,
        "attention_mask": np.ones_like(found),
        "token_type_ids": np.zeros_like(found),
    }


def circle() -> list[int]:
    """A prompt that goes round a circle of `benchmarks.sizes.circling` four times."""
    return 4 * list(range(10 * PERIOD, 11 * PERIOD))


def words(rows: list[list[int]]) -> list[list[str]]:
    """Rows of ids as the words of `benchmarks.sizes.save`'s tokenizer, which CTranslate2 takes."""
    return [[f"w{i}" for i in row] for row in rows]
