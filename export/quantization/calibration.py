"""What a graph's tensors hold on data: the ranges that static quantisation rounds to."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export.errors import ExportError
from export.onnx import Converted, WeightsFile, write_graph
from export.quantization.finding import Finder
from serve.bundle.manifest import Manifest
from serve.runtime.session import Session
from serve.text.tokenizer import TextTokenizer

COVERED = 99.99
"""Percent of a batch's values that its range covers; a range is the mean over batches."""

Feeds = dict[str, np.ndarray]


def texts_of(examples: Sequence[dict[str, Any]]) -> list[Any]:
    """What the model would be asked about each example: texts, pairs or lists of words."""
    found: list[Any] = []
    for example in examples:
        if "tokens" in example:
            found.append(" ".join(example["tokens"]))
        elif "question" in example:
            found.append((example["question"], example["context"]))
        elif "pair" in example:
            found.append((example["text"], example["pair"]))
        else:
            found.append(example.get("text", example.get("source")))
        if found[-1] is None:
            raise ExportError(
                f"an example with the keys {sorted(example)} holds no text to calibrate on"
            )
    return found


def batches_of(manifest: Manifest, texts: Sequence[Any], size: int = 8) -> Iterator[Feeds]:
    """Inputs of a bundle's (first) graph for texts and pairs; of the cache only that it is empty.

    Raises:
        ExportError: The bundle has no tokenizer.
    """
    if manifest.tokenizer is None:
        raise ExportError("texts need a tokenizer: give to_onnx one")
    tokenizer = TextTokenizer.of(manifest)
    graph = manifest.graphs["encoder" if "encoder" in manifest.graphs else "model"]
    for start in range(0, len(texts), size):
        rows = [text if isinstance(text, tuple) else (text, None) for text in texts[start:][:size]]
        encodings = []
        for first, second in rows:
            encodings += tokenizer.encode([first], None if second is None else [second])
        feeds = {name: np.asarray(value) for name, value in tokenizer.batch(encodings).items()}
        for tensor in graph.inputs:
            if tensor.name.startswith("past_key_values."):
                axes: list[Any] = [len(rows), *tensor.shape[1:]]
                axes[2] = feeds["input_ids"].shape[1] if _in_place(manifest) else 0
                feeds[tensor.name] = np.zeros(axes, tensor.dtype)
        yield feeds


def _in_place(manifest: Manifest) -> bool:
    return manifest.cache is not None and manifest.cache.layout == "buffer"


def ranges_of(
    converted: Converted, batches: Iterator[Feeds], folder: Path
) -> dict[str, tuple[float, float]]:
    """The range of what each linear map reads, by the tensor's name.

    Args:
        converted: A float32 graph.
        batches: Its inputs.
        folder: An empty folder to work in.
    """
    wanted = sorted({linear.x for linear in Finder(converted).linears()})
    proto = onnx.ModelProto()
    proto.CopyFrom(converted.proto)
    known = {value.name for value in proto.graph.output}
    for name in wanted:
        if name not in known:
            proto.graph.output.append(onnx.ValueInfoProto(name=name))
    with WeightsFile(folder) as weights:
        path = folder / "calibration.onnx"
        write_graph(Converted(converted.graph, proto, converted.weights), path, weights)
    session = Session(path)
    lows: dict[str, list[float]] = {name: [] for name in wanted}
    highs: dict[str, list[float]] = {name: [] for name in wanted}
    for feeds in batches:
        found = session.run(feeds, wanted)
        for name in wanted:
            low, high = np.percentile(found[name], (100 - COVERED, COVERED))
            lows[name].append(float(low))
            highs[name].append(float(high))
    if not next(iter(lows.values()), [0.0]):
        raise ExportError("there is no example to calibrate on: give some")
    return {name: (float(np.mean(lows[name])), float(np.mean(highs[name]))) for name in wanted}
