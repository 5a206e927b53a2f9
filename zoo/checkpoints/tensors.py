"""Safetensors folders: one file or shards, read tensor by tensor, written whole or not at all."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import DataError
from zoo.text.files import read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack")
HELD_BYTES = 64 * 1024**2
CONVERSION = (
    'python -c "from transformers import AutoModel as M; '
    "M.from_pretrained('FOLDER').save_pretrained('FOLDER')\" "
    "(with your task's class in the place of AutoModel)"
)


class TensorFolder:
    """The tensors of a folder by name; nothing is read before it is asked for.

    Raises:
        DataError: There are no safetensors, or a file is broken.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Any] = {}
        self._read: dict[str, int] = {}
        self.places = self._find()

    def __enter__(self) -> "TensorFolder":
        return self

    def __exit__(self, *_: object) -> None:
        for opened in self._files.values():
            opened.__exit__(None, None, None)

    def _find(self) -> dict[str, str]:
        folder = self.folder
        if (folder / SINGLE).is_file():
            return dict.fromkeys(self._open(SINGLE).keys(), SINGLE)
        if (folder / INDEX).is_file():
            places = read_json(folder / INDEX).get("weight_map")
            if not isinstance(places, dict):
                raise DataError(f"{folder / INDEX} has no weight_map")
            outside = sorted({f for f in places.values() if Path(str(f)).name != f})
            if outside:
                raise DataError(f"{folder / INDEX} names files outside its folder: {outside}")
            missing = sorted({f for f in places.values() if not (folder / f).is_file()})
            if missing:
                raise DataError(f"{folder}: shards are missing: {', '.join(missing)}")
            return places
        pickles = [name for name in PICKLES if (folder / name).is_file()]
        if pickles:
            raise DataError(
                f"{folder} holds {', '.join(pickles)} and no {SINGLE}: pickled weights can run "
                f"code and are not read. Convert them where PyTorch is installed: {CONVERSION}"
            )
        raise DataError(f"{folder} has no weights: expected {SINGLE}, or shards with {INDEX}")

    def _open(self, file: str) -> Any:
        from safetensors import SafetensorError, safe_open

        if file not in self._files:
            try:
                opened = safe_open(self.folder / file, framework="numpy")
            except (SafetensorError, OSError) as error:
                raise DataError(f"{self.folder / file} cannot be read: {error}") from error
            self._files[file] = opened.__enter__()
        return self._files[file]

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        return tuple(self._open(self.places[name]).get_slice(name).get_shape())

    def read(self, name: str) -> np.ndarray:
        """A tensor as float32 (half precisions widened), or as it is where it holds no floats."""
        array = self._open(self.places[name]).get_tensor(name)
        self._let_go(self.places[name], array.nbytes)
        return array.astype(np.float32, copy=False) if array.dtype.kind in "fV" else array

    def _let_go(self, file: str, count: int) -> None:
        """Maps a file anew when enough of it has been read: pages of a map stay in memory."""
        self._read[file] = self._read.get(file, 0) + count
        if self._read[file] > HELD_BYTES:
            self._files.pop(file).__exit__(None, None, None)
            del self._read[file]


def write_tensors(tensors: Iterator[tuple[str, np.ndarray]], folder: Path, limit: int) -> None:
    """Writes tensors as one file, or as shards of at most `limit` bytes with their index."""
    from safetensors.numpy import save_file

    shards: list[dict[str, np.ndarray]] = [{}]
    size = total = 0
    files: list[str] = []
    places: dict[str, str] = {}

    def flush() -> None:
        file = f"model-{len(files) + 1:05d}.safetensors"
        save_file(shards[-1], folder / file, {"format": "pt"})
        places.update(dict.fromkeys(shards[-1], file))
        files.append(file)
        shards.append({})

    for name, array in tensors:
        if shards[-1] and size + array.nbytes > limit:
            flush()
            size = 0
        shards[-1][name] = np.ascontiguousarray(array)
        size += array.nbytes
        total += array.nbytes
    flush()
    if len(files) == 1:
        (folder / files[0]).rename(folder / SINGLE)
        return
    renamed = {
        file: f"model-{i + 1:05d}-of-{len(files):05d}.safetensors" for i, file in enumerate(files)
    }
    for file, name in renamed.items():
        (folder / file).rename(folder / name)
    index = {
        "metadata": {"total_size": total},
        "weight_map": {name: renamed[file] for name, file in places.items()},
    }
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
