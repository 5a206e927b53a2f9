"""What a model has to beat: character n-grams with a linear classifier, and a byte n-gram model.

Both are tuned on the validation split, as the models are, and know nothing of Keras.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.errors import DataError


def baseline(task: str, examples: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Trains, tunes and measures the baseline of a task.

    Args:
        task: "text-classification" or "text-generation".
        examples: those of "train", "validation" and "test".

    Returns:
        The measures of the test split, what was chosen on validation, and the seconds it took.

    Raises:
        DataError: the task has no baseline, or a split is empty.
    """
    if task not in _BASELINES:
        raise DataError(f"task is {task!r}, expected one with a baseline: {sorted(_BASELINES)}")
    for split in ("train", "validation", "test"):
        if not examples.get(split):
            raise DataError(f"the {split} split is empty; a baseline needs train, validation, test")
    start = time.perf_counter()
    result = _BASELINES[task](examples)
    return {**result, "seconds": time.perf_counter() - start}


@dataclass
class CharNgramClassifier:
    """Linear SVM on tf-idf of the character n-grams inside words.

    Whether capitals count is chosen on validation too.

    Args:
        ngrams: shortest and longest n-gram.
        costs: values of C to choose from; ties go to the smaller.
        tuning_examples: C is chosen with so many training examples, then all are fitted.
    """

    ngrams: tuple[int, int] = (1, 4)
    costs: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    tuning_examples: int = 30_000

    def fit(
        self,
        texts: Sequence[str],
        labels: Sequence[str],
        validation_texts: Sequence[str],
        validation_labels: Sequence[str],
    ) -> "CharNgramClassifier":
        """Chooses capitals and C by macro F1 on validation, then fits on all training texts."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.metrics import f1_score
        from sklearn.svm import LinearSVC

        targets = np.asarray(labels)
        some = np.random.default_rng(0).permutation(len(targets))[: self.tuning_examples]
        self.scores: dict[str, float] = {}
        best = -1.0
        for capitals in (False, True):
            vectorizer = TfidfVectorizer(
                analyzer="char_wb",
                ngram_range=self.ngrams,
                lowercase=not capitals,
                min_df=2,
                sublinear_tf=True,
                dtype=np.float32,
            )
            features = vectorizer.fit_transform(texts)
            validation = vectorizer.transform(validation_texts)
            for cost in self.costs:
                trial = LinearSVC(C=cost, random_state=0).fit(features[some], targets[some])
                predicted = trial.predict(validation)
                score = float(f1_score(validation_labels, predicted, average="macro"))
                self.scores[f"C={cost:g}{', capitals' if capitals else ''}"] = score
                if score > best:
                    best, self.cost, self.capitals = score, cost, capitals
                    self._vectorizer, chosen = vectorizer, features
        self.num_features = chosen.shape[1]
        self._classifier = LinearSVC(C=self.cost, random_state=0).fit(chosen, targets)
        return self

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The label of each text."""
        return [str(label) for label in self._classifier.predict(self._vectorizer.transform(texts))]


class NgramLanguageModel:
    """Interpolated modified Kneser-Ney over bytes (Chen and Goodman, 1999).

    An n-gram is a 64-bit polynomial hash of its bytes, a table of n-grams a sorted array.

    Args:
        order: n; a byte is predicted from the n - 1 before it.
    """

    def __init__(self, order: int) -> None:
        if order < 1:
            raise DataError(f"order is {order}, expected at least 1")
        self.order = order

    def fit(self, texts: Iterable[str]) -> "NgramLanguageModel":
        """Counts the n-grams of the texts.

        Raises:
            DataError: there is no byte to count.
        """
        grams, contexts = _ngrams(texts, self.order)
        if not grams[0].size:
            raise DataError("the texts hold no byte; expected something to count")
        at = np.arange(grams[0].size)
        self._tables = []
        for gram, context in zip(reversed(grams), reversed(contexts), strict=True):
            # Lower orders count in how many contexts an n-gram stands, not how often.
            gram, first, counts = np.unique(gram[at], return_index=True, return_counts=True)
            at = at[first]
            self._tables.append(_Table(gram, context[at], counts))
        self._tables.reverse()
        return self

    def log2_probabilities(self, texts: Iterable[str]) -> np.ndarray:
        """log2 probability of each byte given those before it in its text. Shape (bytes,)."""
        grams, contexts = _ngrams(texts, self.order)
        probabilities = np.full(grams[0].size, 1 / 256)
        for table, gram, context in zip(self._tables, grams, contexts, strict=True):
            probabilities = table.interpolate(gram, context, probabilities)
        return np.log2(probabilities)

    def bits_per_byte(self, texts: Iterable[str]) -> float:
        """Mean bits needed for a byte of the texts."""
        return float(-self.log2_probabilities(texts).mean())


class _Table:
    """The n-grams of one length with their discounted counts."""

    def __init__(self, grams: np.ndarray, contexts: np.ndarray, counts: np.ndarray) -> None:
        self.grams = grams
        n1, n2, n3, n4 = (max(int((counts == count).sum()), 1) for count in (1, 2, 3, 4))
        y = n1 / (n1 + 2 * n2)
        discounts = np.array([1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        kind = np.minimum(counts, 3) - 1
        # Few data may give discounts that no count can bear, or none at all.
        discount = np.clip(discounts, 0.1, [0.9, 1.9, 2.9])[kind]
        self.contexts, group = np.unique(contexts, return_inverse=True)
        totals = np.bincount(group, counts)
        self.reserved = np.bincount(group, discount) / totals
        self.shares = (counts - discount) / totals[group]

    def interpolate(self, grams: np.ndarray, contexts: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """Probabilities of the last bytes, `lower` being those from the next shorter n-grams."""
        at, known = _find(self.grams, grams)
        share = np.where(known, self.shares[at], 0.0)
        at, known = _find(self.contexts, contexts)
        return np.where(known, share + self.reserved[at] * lower, lower)


def _find(sorted_values: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    at = np.minimum(np.searchsorted(sorted_values, values), len(sorted_values) - 1)
    return at, sorted_values[at] == values


def _ngrams(texts: Iterable[str], order: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Hashes of the n-grams that end at each byte, and of what precedes it in them, by length."""
    parts = [np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8) for text in texts]
    data = np.concatenate([np.zeros(0, np.uint8), *parts]).astype(np.uint64) + np.uint64(1)
    starts = np.cumsum([0, *map(len, parts)])[:-1]
    starts = starts[starts < len(data)]
    grams, contexts = [], []
    hashes = np.zeros_like(data)
    for _ in range(order):
        context = np.roll(hashes, 1)
        context[starts] = 0
        hashes = data + context * np.uint64(0x9E3779B97F4A7C15)
        grams.append(hashes)
        contexts.append(context)
    return grams, contexts


def _classification(examples: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    from sklearn.metrics import accuracy_score, f1_score

    columns = {
        split: ([e["text"] for e in members], [str(e["label"]) for e in members])
        for split, members in examples.items()
    }
    model = CharNgramClassifier().fit(*columns["train"], *columns["validation"])
    texts, labels = columns["test"]
    predicted = model.predict(texts)
    return {
        "name": f"char {model.ngrams[0]}-{model.ngrams[1]}-grams, tf-idf, linear SVM",
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
        "chosen": {"C": model.cost, "capitals": model.capitals},
        "validation": {"macro_f1": model.scores},
        "features": model.num_features,
    }


def _language_model(examples: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    texts = {split: [e["text"] for e in members] for split, members in examples.items()}
    validation: dict[int, float] = {}
    for order in range(1, 17):
        model = NgramLanguageModel(order).fit(texts["train"])
        validation[order] = model.bits_per_byte(texts["validation"])
    best = min(validation, key=lambda order: validation[order])
    return {
        "name": f"byte {best}-grams, interpolated modified Kneser-Ney",
        "bits_per_byte": NgramLanguageModel(best).fit(texts["train"]).bits_per_byte(texts["test"]),
        "chosen": {"order": best},
        "validation": {"bits_per_byte by order": validation},
    }


_BASELINES = {"text-classification": _classification, "text-generation": _language_model}
