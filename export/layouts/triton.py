"""An entry of a Triton model repository: `<model>/config.pbtxt` and a bundle in `<model>/1/`.

https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md

Models that read a text once run in Triton's onnxruntime backend: ids in, logits or vectors out.
Models that generate run in its Python backend, text in, text out: the loop has to stand beside the
cache, which sent along with each token would cost more than the token.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from export.bundle import to_onnx
from export.errors import ExportError
from export.layouts.tf_serving import checked_version
from export.staging import staged
from serve.bundle.manifest import Manifest, TensorSpec
from zoo.text.json_file import write_atomically

CONFIG, LABELS, PYTHON_MODEL = "config.pbtxt", "labels.txt", "model.py"
TYPES = {"int64": "TYPE_INT64", "float32": "TYPE_FP32", "float16": "TYPE_FP16"}


class Word(str):
    """A name that stands without quotes: an enumeration's value."""


def to_triton(
    model: Any,
    out: str | os.PathLike[str],
    *,
    version: int | str = 1,
    max_batch_size: int = 32,
    queue_delay: float = 0.001,
    overwrite: bool = False,
    **settings: Any,
) -> Manifest:
    """Exports a model as an entry of a Triton model repository.

    The version's folder is a bundle, which `serve` opens too; clients find the tokenizer in it.

    Args:
        model: A `zoo.TaskModel`.
        out: The entry: a folder in the repository, by whose name Triton calls the model. Other
            versions that it holds stay; its config.pbtxt must be the same for all.
        version: A whole number from 1.
        max_batch_size: Most rows of one run.
        queue_delay: How long a request may wait for others to share its run, seconds.
        overwrite: Replace the version where it exists.
        **settings: Those of `to_onnx`, but for `name` and `layout`.

    Returns:
        The bundle's manifest.

    Raises:
        ExportError: An argument is none that Triton takes, the entry holds another config.pbtxt, or
            the export fails; the entry is then as it was.
    """
    entry, number = Path(out), checked_version(version)
    if max_batch_size < 1:
        raise ExportError(f"max_batch_size = {max_batch_size}: expected at least 1")
    if not 0 <= queue_delay <= 60:
        raise ExportError(f"queue_delay = {queue_delay}: expected 0 to 60 seconds")
    existed, before = entry.is_dir(), set(_beside(entry))
    try:
        with staged(entry / str(number), overwrite) as folder:
            # Not right below: the folder of an export is locked, and to_onnx locks its parent.
            made = folder / "made" / "bundle"
            manifest = to_onnx(model, made, name=entry.name, **settings)
            for path in made.iterdir():
                path.rename(folder / path.name)
            shutil.rmtree(folder / "made")
            if manifest.generation is not None:
                shutil.copyfile(Path(__file__).with_name("triton_model.py"), folder / PYTHON_MODEL)
            _write_beside(entry, _files(manifest, entry.name, max_batch_size, queue_delay))
    except BaseException:
        for name in set(_beside(entry)) - before:
            (entry / name).unlink()
        if not existed:
            with contextlib.suppress(OSError):
                entry.rmdir()
        raise
    return Manifest.load(entry / str(number), check="size")


def _beside(entry: Path) -> list[str]:
    """The files of an entry that all its versions share."""
    return [name for name in (CONFIG, LABELS) if (entry / name).is_file()]


def _files(manifest: Manifest, name: str, rows: int, delay: float) -> dict[str, str]:
    files = {CONFIG: config_text(config(manifest, name, rows, delay))}
    if _has_classes(manifest):
        files[LABELS] = "".join(f"{label}\n" for label in manifest.labels or ())
    return files


def _write_beside(entry: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = entry / name
        if path.is_file() and path.read_text(encoding="utf-8") != text:
            raise ExportError(
                f"{path} is of another model or has other settings: choose another folder, or "
                "remove the file to replace it for all versions"
            )
    for name, text in files.items():
        write_atomically(entry / name, text)


def _has_classes(manifest: Manifest) -> bool:
    """Whether the model's rows of logits are scores of classes, one each."""
    return manifest.task == "text-classification" and bool(manifest.labels)


def config(manifest: Manifest, name: str, rows: int, delay: float) -> dict[str, Any]:
    """What config.pbtxt says: fields of Triton's ModelConfig by name.

    Args:
        manifest: The bundle's manifest.
        name: The model's name.
        rows: Most rows of one run.
        delay: How long a request may wait, seconds.
    """
    batching = {"max_queue_delay_microseconds": round(delay * 1e6)}
    about = {"name": name, "max_batch_size": rows, "dynamic_batching": batching}
    if manifest.generation is not None:
        return {
            **about,
            "backend": "python",
            "input": [
                {"name": "text", "data_type": Word("TYPE_STRING"), "dims": [1]},
                {
                    "name": "max_new_tokens",
                    "data_type": Word("TYPE_INT32"),
                    "dims": [1],
                    "optional": True,
                },
            ],
            "output": [{"name": "generated_text", "data_type": Word("TYPE_STRING"), "dims": [1]}],
        }
    graph = manifest.graphs["model"]
    outputs = [_tensor(tensor) for tensor in graph.outputs]
    if _has_classes(manifest):
        outputs[0]["label_filename"] = LABELS
    return {
        **about,
        "backend": "onnxruntime",
        "default_model_filename": graph.file,
        "input": [_tensor(tensor) for tensor in graph.inputs],
        "output": outputs,
    }


def _tensor(tensor: TensorSpec) -> dict[str, Any]:
    """A tensor without its batch axis, which `max_batch_size` stands for."""
    if tensor.dtype not in TYPES:
        raise ExportError(f"Triton has no type for {tensor.name}, which is {tensor.dtype}")
    dims = [axis if isinstance(axis, int) else -1 for axis in tensor.shape[1:]]
    return {"name": tensor.name, "data_type": Word(TYPES[tensor.dtype]), "dims": dims}


def config_text(fields: Mapping[str, Any]) -> str:
    """Fields in protobuf's text format."""
    return "".join(f"{line}\n" for line in _lines(fields))


def _lines(fields: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in fields.items():
        values: Sequence[Any] = value if isinstance(value, list) else [value]
        if isinstance(values[0], Mapping):
            for item in values:
                yield f"{indent}{name} {{"
                yield from _lines(item, indent + "  ")
                yield f"{indent}}}"
        elif isinstance(value, list):
            yield f"{indent}{name}: [{', '.join(map(_scalar, values))}]"
        else:
            yield f"{indent}{name}: {_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | Word):
        return str(value)
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
