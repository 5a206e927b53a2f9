"""A Triton entry: its config.pbtxt in Triton's own schema, its graph beside transformers.

The server itself is not run: no package carries it.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .registry import Case, Found

TOLERANCE = 3e-5  # 1.3e-6 at most was met
ROWS, DELAY = 16, 0.002


def cases() -> list[Case]:
    return [
        Case("bert", "bert/sequence-classification", "text-classification"),
        Case("distilbert", "distilbert/question-answering", "question-answering"),
        Case("roberta", "roberta/token-classification", "token-classification"),
        Case("modernbert", "modernbert/masked-lm", "fill-mask"),
    ]


def export(case: Case, checkpoint: Path, out: Path) -> None:
    import zoo
    from export.layouts.triton import to_triton

    model = zoo.from_pretrained(checkpoint, task=case.task)
    to_triton(model, out, max_batch_size=ROWS, queue_delay=DELAY)


def check(case: Case, checkpoint: Path, out: Path) -> Found:
    import onnxruntime
    import torch
    import transformers

    from .optimum import CLASSES, batch

    schema = model_config_schema()
    config = parsed(schema, (out / "config.pbtxt").read_text())
    session = onnxruntime.InferenceSession(out / "1" / config.default_model_filename)
    problems = []
    if (config.name, config.max_batch_size, config.backend) != (out.name, ROWS, "onnxruntime"):
        problems.append(f"name, rows or backend: {config.name}, {config.max_batch_size}")
    if config.dynamic_batching.max_queue_delay_microseconds != round(DELAY * 1e6):
        problems.append("the queue's delay is not the one asked for")
    for kind, stated, own in (
        ("input", config.input, session.get_inputs()),
        ("output", config.output, session.get_outputs()),
    ):
        said = {t.name: (schema.DataType.Name(t.data_type), list(t.dims)) for t in stated}
        real = {t.name: described(t) for t in own}
        if said != real:
            problems.append(f"{kind}s: config.pbtxt says {said}, the graph {real}")
    for tensor in config.output:
        if tensor.label_filename:
            names = (out / tensor.label_filename).read_text().splitlines()
            if len(names) != tensor.dims[-1]:
                problems.append(f"{len(names)} labels for {list(tensor.dims)}")
    torch.set_num_threads(1)
    reference = getattr(transformers, f"AutoModelFor{CLASSES[case.task]}").from_pretrained(
        checkpoint, attn_implementation="eager", dtype=torch.float32
    )
    feeds = batch(reference.config.vocab_size, reference.config.pad_token_id or 0, left=False)
    with torch.no_grad():
        expected = reference.eval()(**feeds)
    given = {t.name: np.zeros(feeds["input_ids"].shape, "int64") for t in session.get_inputs()}
    given |= {name: value.numpy() for name, value in feeds.items()}
    names = [tensor.name for tensor in config.output]
    mask = given["attention_mask"] == 1
    gaps = []
    for name, value in zip(names, session.run(names, given), strict=True):
        gap = np.abs(value - expected[name].numpy())
        gaps.append(float((gap[mask] if gap.shape[:2] == mask.shape else gap).max()))
    return Found(difference=max(gaps), tolerance=TOLERANCE, problems=problems)


def model_config_schema() -> Any:
    """tritonclient's model_config.proto, without the gRPC client around it."""
    spec = importlib.util.find_spec("tritonclient")
    assert spec is not None and spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    own = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert own is not None and own.loader is not None
    module = importlib.util.module_from_spec(own)
    sys.modules[own.name] = module
    own.loader.exec_module(module)
    return module


def parsed(schema: Any, text: str) -> Any:
    """The text as a ModelConfig; an unknown field is an error."""
    from google.protobuf import text_format

    return text_format.Parse(text, schema.ModelConfig())


def described(tensor: Any) -> tuple[str, list[int]]:
    """A graph's tensor in Triton's words; its batch axis is the first."""
    types = {"tensor(int64)": "TYPE_INT64", "tensor(float)": "TYPE_FP32"}
    dims = [axis if isinstance(axis, int) else -1 for axis in tensor.shape[1:]]
    return types[tensor.type], dims
