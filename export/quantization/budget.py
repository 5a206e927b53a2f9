"""How much a quantised bundle may lose, and which layers stay in float32 until it holds.

Quality is measured through `serve`, on the float32 bundle and on the quantised one: a task's metric
on data, or, without data, how often both would say the same on text of the model's own.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import ExportError
from export.quantization.agreement import Agreement
from export.quantization.calibration import batches_of, ranges_of, texts_of
from export.quantization.finding import Finder
from export.quantization.settings import Quantization
from export.reference import TEXTS
from serve.bundle.manifest import Manifest
from serve.bundle.selfcheck import relative_difference
from serve.decoding.generator import Generator
from serve.decoding.settings import GenerationSettings
from serve.runtime.session import Session

LOWER_IS_BETTER = ("perplexity", "bits_per_byte", "nll", "loss", "wer", "cer")
AGREEMENT = "agreement"
PROBES = 32
"""Texts that sensitivity is measured on."""


@dataclass(frozen=True)
class Budget:
    """What may be lost.

    Attributes:
        max_drop: Most that the metric may be worse than the float32 bundle's, in its own units.
        metric: A metric of the task, such as "accuracy"; None: the task's first. Without data it is
            "agreement", the share of positions where both bundles' likeliest class is the same
            (1 for the float32 bundle).
    """

    max_drop: float
    metric: str | None = None

    def __post_init__(self) -> None:
        if not self.max_drop >= 0:
            raise ExportError(f"max_drop = {self.max_drop}: expected 0 or more")


class Trial:
    """Finds the quantisation that keeps to a budget.

    Args:
        bundle: Has `converted`, `quantizable`, `write` and `ranges`, see `export.bundle`.
        settings: What was asked for.
        data: Examples, or None.
        bench: A folder to work in; it is gone when all is settled.
        say: Told what is being done.
    """

    def __init__(
        self,
        bundle: Any,
        settings: Quantization,
        data: Sequence[dict[str, Any]] | None,
        bench: Path,
        say: Callable[[str], None],
    ) -> None:
        self.bundle, self.settings, self.data, self.bench, self.say = (
            bundle,
            settings,
            data,
            bench,
            say,
        )

    def settle(self, budget: Budget | None) -> tuple[Quantization, dict[str, Any]]:
        """The settings to write, and what the manifest says of the search.

        Raises:
            ExportError: The budget does not hold, whatever is left in float32.
        """
        settings = self.settings
        if self.data is not None and not self.data:
            raise ExportError("there is no example in the data: give some")
        needed = budget is not None or settings.precision == "int8-static"
        if not needed:
            return settings, {}
        try:
            self.bench.mkdir()
            base = self._write(None, "float32")
            if settings.precision == "int8-static":
                self._calibrate(base)
            if budget is None:
                return settings, {}
            return self._search(base, budget)
        finally:
            shutil.rmtree(self.bench, ignore_errors=True)

    def _write(self, settings: Quantization | None, name: str) -> Manifest:
        folder = self.bench / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return self.bundle.write(settings, folder)

    def _calibrate(self, base: Manifest) -> None:
        self.say("calibrating")
        folder = self.bench / "calibration"
        folder.mkdir()
        (converted,) = self.bundle.quantizable()
        self.bundle.ranges = ranges_of(
            converted, batches_of(base, texts_of(self.data or [])), folder
        )
        shutil.rmtree(folder)

    # --- the search ---

    def _search(self, base: Manifest, budget: Budget) -> tuple[Quantization, dict[str, Any]]:
        measure = self._measure(base, budget)
        final = self._write(self.settings, "all")
        before, after = measure(base), measure(final)
        worse = -1 if measure.name in LOWER_IS_BETTER else 1
        tried: dict[int, float] = {0: worse * (before - after)}
        order: list[str] = []
        groups: dict[str, frozenset[str]] = {}
        harm: dict[str, float] = {}
        count = 0
        if not tried[0] <= budget.max_drop:
            groups = self._groups()
            harm = self._sensitivity(base, groups)
            order = sorted(groups, key=lambda name: (-harm[name], name))
            count = self._fewest(measure, before, worse, order, groups, tried, budget)
        left = frozenset(name for group in order[:count] for name in groups[group])
        settings = self.settings.leaving(self.settings.leave | left)
        if count:
            final = self._write(settings, "final")
        facts: dict[str, Any] = {
            "metric": measure.name,
            "float32": before,
            "quantized": before - worse * tried[count],
            "drop": tried[count],
            "max_drop": budget.max_drop,
            "examples": measure.count,
            "kept_in_float32": order[:count],
            "sensitivity": {name: round(harm[name], 6) for name in order[:8]},
        }
        facts |= self._sizes(base, final)
        return settings, {"quality": facts}

    def _fewest(
        self,
        measure: "Measure",
        before: float,
        worse: int,
        order: list[str],
        groups: dict[str, frozenset[str]],
        tried: dict[int, float],
        budget: Budget,
    ) -> int:
        """How many of the groups, most sensitive first, must stay in float32: doubled until the
        budget holds, then halved back.
        """

        def drop(count: int) -> float:
            if count not in tried:
                self.say(f"measuring {measure.name} with {count} of {len(order)} groups in float32")
                left = frozenset(name for group in order[:count] for name in groups[group])
                manifest = self._write(self.settings.leaving(self.settings.leave | left), "part")
                tried[count] = worse * (before - measure(manifest))
            return tried[count]

        count = 1
        while count < len(order) and not drop(count) <= budget.max_drop:
            count *= 2
        if count >= len(order):
            count = len(order) - 1
            if count < 1 or not drop(count) <= budget.max_drop:
                best = min(tried.values())
                raise ExportError(
                    f"precision {self.settings.precision!r} loses {best:.4g} of "
                    f"{measure.name} ({before:.4g} in float32) even with all but one of "
                    f"{len(order)} groups of layers in float32; {budget.max_drop:g} is allowed. "
                    "Raise max_drop, or choose another precision"
                )
        low, high = 0, count  # low does not hold, high does
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if drop(middle) <= budget.max_drop else (middle, high)
        return high

    def _groups(self) -> dict[str, frozenset[str]]:
        """The weights by layer: a block's attention, its feed-forward layer, tables, the head."""
        groups: dict[str, set[str]] = {}
        for converted in self.bundle.quantizable():
            finder = Finder(converted)
            names = {linear.weight for linear in finder.linears()}
            names |= {table for _, table in finder.tables()}
            for name in names - self.settings.leave:
                groups.setdefault(name.rsplit("/", 2)[0], set()).add(name)
        return {name: frozenset(weights) for name, weights in groups.items()}

    def _sensitivity(self, base: Manifest, groups: dict[str, frozenset[str]]) -> dict[str, float]:
        """How far outputs move, relatively, when one group alone is quantised."""
        probes = self._probes(base)
        expected = _outputs(base, probes)
        everything = frozenset().union(*groups.values())
        harm = {}
        for i, (name, weights) in enumerate(groups.items(), 1):
            self.say(f"sensitivity of {name} ({i} of {len(groups)})")
            alone = self.settings.leaving(self.settings.leave | (everything - weights))
            found = _outputs(self._write(alone, "part"), probes)
            gaps = [relative_difference(f, e) for f, e in zip(found, expected, strict=True)]
            harm[name] = float(np.mean(gaps))
        return harm

    def _probes(self, base: Manifest) -> list[Any]:
        if self.data and base.tokenizer is not None:
            return _ids(base, texts_of(self.data[:PROBES]))
        return own_ids(base)

    # --- measures ---

    def _measure(self, base: Manifest, budget: Budget) -> "Measure":
        if self.data is None or budget.metric == AGREEMENT:
            if budget.metric not in (None, AGREEMENT):
                raise ExportError(
                    f"metric {budget.metric!r} is measured on data: give data, or leave it out"
                )
            return OwnAgreement(base)
        return DataMetric(self.data, budget.metric)

    def _sizes(self, base: Manifest, final: Manifest) -> dict[str, Any]:
        """Bytes and milliseconds of both bundles, in turn on the same inputs."""
        probes = self._probes(base)[:8]
        times: dict[str, list[float]] = {"float32": [], "quantized": []}
        runners = {"float32": _runner(base), "quantized": _runner(final)}
        for turn in range(4):
            for name, run in runners.items():
                started = time.perf_counter()
                run(probes)
                if turn:
                    times[name].append(1000 * (time.perf_counter() - started))
        sizes = {
            name: sum(spec.bytes for spec in manifest.files.values())
            for name, manifest in (("float32", base), ("quantized", final))
        }
        return {
            "bytes": sizes,
            "milliseconds": {name: round(float(np.median(v)), 2) for name, v in times.items()},
        }


class Measure:
    """A figure of a bundle: called with its manifest."""

    name: str
    count: int

    def __call__(self, manifest: Manifest) -> float:
        raise NotImplementedError


class DataMetric(Measure):
    """A metric of the task on examples, through `serve`."""

    def __init__(self, data: Sequence[dict[str, Any]], metric: str | None) -> None:
        self.data, self.count = data, len(data)
        self.name = metric or ""

    def __call__(self, manifest: Manifest) -> float:
        from export.evaluate import evaluate_bundle

        _refuse_strange_labels(self.data, manifest)
        result = evaluate_bundle(manifest, self.data)
        numbers = {
            k: v for k, v in result.items() if isinstance(v, int | float) and k not in _COUNTS
        }
        if not self.name:
            self.name = _first_metric(numbers)
        if self.name not in numbers:
            raise ExportError(
                f"metric {self.name!r} is not measured for {manifest.task}: "
                f"expected one of {sorted(numbers)}"
            )
        return float(numbers[self.name])


def _refuse_strange_labels(data: Sequence[dict[str, Any]], manifest: Manifest) -> None:
    """Examples whose labels the model does not have measure nothing."""
    if manifest.task != "text-classification" or not manifest.labels:
        return
    for number, example in enumerate(data, 1):
        if "label" not in example or str(example["label"]) not in manifest.labels:
            raise ExportError(
                f"example {number} of the data has the label {example.get('label')!r}; "
                f"expected one of {manifest.labels[:10]}"
            )


_COUNTS = ("count", "examples", "seconds", "tokens")
_MAIN = ("accuracy", "macro_f1", "f1", "exact_match", "bits_per_byte", "perplexity", "nll", "chrf")


def _first_metric(numbers: dict[str, Any]) -> str:
    return next((name for name in _MAIN if name in numbers), next(iter(sorted(numbers)), ""))


class OwnAgreement(Measure):
    """How often a bundle's likeliest class is that of the float32 bundle, on the model's own text.

    Outputs that are no logits (embeddings) agree by the cosine of their vectors.
    """

    name = AGREEMENT

    def __init__(self, base: Manifest) -> None:
        self.ids = own_ids(base)
        self.count = len(self.ids)
        self.expected = _outputs(base, self.ids)
        self.logits = any(tensor.name.endswith("logits") for tensor in _answering(base).outputs)

    def __call__(self, manifest: Manifest) -> float:
        found = _outputs(manifest, self.ids)
        agreement, cosines = Agreement(), []
        for ours, theirs in zip(found, self.expected, strict=True):
            agreement("logits", ours, theirs)
            norms = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
            cosines.append(float(np.mean((ours * theirs).sum(-1) / np.maximum(norms, 1e-12))))
        return agreement.figures()["top1"] if self.logits else float(np.mean(cosines))


def own_ids(manifest: Manifest, seed: int = 0) -> list[Any]:
    """Token ids to compare models on: what a language model writes itself, from beginnings of
    texts in many scripts; for others those texts.
    """
    if manifest.tokenizer is not None:
        ids = _ids(manifest, list(TEXTS))
    else:
        rng = np.random.default_rng(seed)
        size = _vocabulary(manifest)
        ids = [rng.integers(0, size, 12).tolist() for _ in range(len(TEXTS))]
    if manifest.architecture != "decoder" or manifest.cache is None:
        return ids
    generator = Generator(manifest)
    prompts = [row[: max(1, len(row) // 2)] for row in ids]
    room = min(48, generator.max_length - max(map(len, prompts)))
    settings = GenerationSettings(max_new_tokens=max(1, room), do_sample=True, seed=seed)
    written = generator.generate_ids(prompts, settings)
    return [prompt + new for prompt, new in zip(prompts, written, strict=True)]


def _ids(manifest: Manifest, texts: Sequence[Any]) -> list[Any]:
    """Each text's inputs, without padding."""
    rows = []
    for text in texts:
        feeds = next(iter(batches_of(manifest, [text])))
        rows.append(feeds if manifest.cache is None else feeds["input_ids"][0].tolist())
    return rows


def _vocabulary(manifest: Manifest) -> int:
    """The size of the vocabulary, or 2, ids that every model has."""
    sizes = [t.shape[-1] for t in _answering(manifest).outputs if t.name.endswith("logits")]
    whole = manifest.cache is not None or manifest.task == "fill-mask"
    return int(sizes[0]) if whole and isinstance(sizes[0], int) else 2


def _answering(manifest: Manifest) -> Any:
    name = "decoder" if manifest.architecture == "encoder-decoder" and manifest.cache else "model"
    return manifest.graphs[name]


def _runner(manifest: Manifest) -> Callable[[list[Any]], list[np.ndarray]]:
    """Runs inputs through a bundle, one at a time: its first output for each, [positions, C]."""
    if manifest.cache is None:
        session = Session(manifest.path(manifest.graphs["model"].file))
        name = manifest.graphs["model"].outputs[0].name

        def run(rows: list[Any]) -> list[np.ndarray]:
            return [_flat(session.run(_feeds(row, session), [name])[name]) for row in rows]

        return run
    generator = Generator(manifest)

    def step(rows: list[Any]) -> list[np.ndarray]:
        found = []
        for row in rows:
            if generator.encoder is None:  # half is read at once, the rest by token, as in use
                half = max(1, len(row) // 2)
                prompt, rest = row[:half], row[half:]
            else:
                prompt, rest = [_start(generator)], row
            decoding, logits = generator.start([row], [prompt], len(rest) + 1)
            lines = [logits.copy()]
            lines += [decoding.step(np.array([token])).copy() for token in rest[:-1]]
            found.append(np.concatenate(lines))
        return found

    return step


def _start(generator: Generator) -> int:
    return int(generator.defaults.decoder_start_token_id or 0)


def _feeds(row: Any, session: Session) -> dict[str, np.ndarray]:
    if isinstance(row, dict):
        return row
    ids = np.array([row])
    return {
        name: ids if name.endswith("input_ids") else np.ones_like(ids) for name in session.inputs
    } | ({"token_type_ids": np.zeros_like(ids)} if "token_type_ids" in session.inputs else {})


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1])


def _outputs(manifest: Manifest, rows: list[Any]) -> list[np.ndarray]:
    return _runner(manifest)(rows)
