"""The rows of a matrix that lie nearest to a query: numpy, or faiss where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np

from serve.errors import InputError

Backend = Literal["numpy", "faiss", "faiss-ivf"]
Nearest = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""(queries [Q, D], k) -> scores [Q, k], best first, and rows [Q, k]."""

_BLOCK_BYTES = 32 * 2**20  # scores held at a time
_QUERIES = 256
_COPIED = 65536  # rows at a time
_ROUNDS, _PER_CELL = 10, 64  # of k-means: passes, and vectors that it looks at for each cell
_LEAST_CELLS, _SHARE = 8, 16  # a query looks at so many cells, or at one in so many


def nearest(vectors: np.ndarray, backend: Backend = "numpy") -> Nearest:
    """How to find the rows of `vectors` with the largest inner product.

    Args:
        vectors: [N, D] float32, of length 1: the inner product is the cosine. May be a memory map,
            which "numpy" reads from disk as it goes; the others copy it.
        backend: "numpy" compares a query with every row; so does "faiss" (`IndexFlatIP`).
            "faiss-ivf" sorts the rows into cells around their k-means (`IndexIVFFlat`) and
            compares a query with those of the nearest cells: many times as fast where there are
            many rows, and it may miss some.

    Raises:
        InputError: There is no such backend, or faiss is not installed.
    """
    if backend not in get_args(Backend):
        raise InputError(f"backend={backend!r}: expected one of {list(get_args(Backend))}")
    if backend == "numpy":
        return lambda queries, k: largest(vectors, queries, k)
    return _faiss(vectors, backend)


def largest(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` largest inner products of every query: scores [Q, k] and rows [Q, k].

    The matrix is read in blocks, so that memory depends on neither its size nor the number of
    queries. Of equal scores the earlier row comes first.
    """
    k = min(k, len(vectors))
    scores = np.empty((len(queries), k), np.float32)
    rows = np.empty((len(queries), k), np.int64)
    for at in range(0, len(queries), _QUERIES):
        part = slice(at, at + _QUERIES)
        scores[part], rows[part] = _largest(vectors, queries[part], k)
    return scores, rows


def _largest(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    block = max(4 * k, _BLOCK_BYTES // (4 * len(queries)), 1)
    best: np.ndarray = np.empty((len(queries), 0), np.float32)
    rows: np.ndarray = np.empty((len(queries), 0), np.int64)
    for at in range(0, len(vectors), block):
        found = queries @ vectors[at : at + block].T
        if k < found.shape[1]:
            kept = np.argpartition(found, found.shape[1] - k, axis=1)[:, -k:]
        else:
            kept = np.broadcast_to(np.arange(found.shape[1]), found.shape)
        best = np.concatenate([best, np.take_along_axis(found, kept, 1)], axis=1)
        rows = np.concatenate([rows, kept + at], axis=1)
        order = np.lexsort((rows, -best))[:, :k]
        best = np.take_along_axis(best, order, 1)
        rows = np.take_along_axis(rows, order, 1)
    return best, rows


def _faiss(vectors: np.ndarray, backend: Backend) -> Nearest:
    try:
        import faiss
    except ImportError:
        raise InputError(
            f"backend={backend!r} needs faiss, which is not installed: "
            "pip install 'keras-text-zoo[search]', or take backend='numpy'"
        ) from None
    rows, width = vectors.shape
    index: Any = faiss.IndexFlatIP(width)
    if backend == "faiss-ivf":
        cells = max(1, min(int(4 * rows**0.5), rows // _PER_CELL))
        index = faiss.IndexIVFFlat(index, width, cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1  # fewer than it likes are no reason to complain
        index.cp.niter, index.cp.max_points_per_centroid = _ROUNDS, _PER_CELL
        index.nprobe = min(cells, max(_LEAST_CELLS, cells // _SHARE))
        index.train(np.ascontiguousarray(vectors, np.float32))
    for at in range(0, rows, _COPIED):
        index.add(np.ascontiguousarray(vectors[at : at + _COPIED], np.float32))

    def find(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return index.search(np.ascontiguousarray(queries, np.float32), min(k, rows))

    return find
