"""Semantic search: how soon an index is built, brought up to date and asked.

    python -m benchmarks.search --vectors 100000 --width 384 [--bundle BUNDLE --texts 2000]

The nearest rows of a matrix of unit vectors in a thousand clouds, by numpy from a memory map and by
faiss; with a bundle, also the building of an index from texts of 20 to 200 words. Milliseconds are
the best of 20 tries, as others may use the machine. Last line of stdout: one JSON object.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from serve.search.nearest import nearest

REPEATS = 20
TOP = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--threads", type=int, help="of the model")
    args = parser.parse_args()
    found: dict[str, Any] = {"vectors": args.vectors, "width": args.width}
    found["nearest"] = search(args.vectors, args.width)
    for name, row in found["nearest"].items():
        print(f"{name:12}", "  ".join(f"{key} {value:g}" for key, value in row.items()))
    if args.bundle is not None:
        found["index"] = build(args.bundle, args.texts, args.threads)
        print(
            "index       ", "  ".join(f"{key} {value:g}" for key, value in found["index"].items())
        )
    print(json.dumps(found))


def search(count: int, width: int) -> dict[str, dict[str, float]]:
    """Milliseconds per query, alone and 32 at once; share of the true nearest that is found."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="zoo-search-") as folder:
        path = Path(folder) / "vectors"
        stored = np.memmap(path, np.float32, "w+", shape=(count, width))
        topics = unit(rng.normal(size=(1000, width)))
        for at in range(0, count, 10_000):
            rows = min(10_000, count - at)
            around = unit(rng.normal(size=(rows, width)))
            stored[at : at + rows] = unit(topics[rng.integers(0, 1000, rows)] + around)
        stored.flush()
        vectors = np.memmap(path, np.float32, "r", shape=(count, width))
        # near some row each, as queries are
        near = vectors[rng.integers(0, count, 32)] + 0.5 * unit(rng.normal(size=(32, width)))
        queries = unit(near).astype(np.float32)
        _, true = nearest(vectors)(queries, TOP)
        results = {}
        for backend in ("numpy", "faiss", "faiss-ivf"):
            began = time.process_time()
            find = nearest(vectors, backend)
            ready = time.process_time() - began
            _, rows = find(queries, TOP)
            hits = [len(set(a) & set(b)) for a, b in zip(true.tolist(), rows.tolist(), strict=True)]
            results[backend] = {
                "ready cpu s": round(ready, 2),
                "one ms": round(best_ms(lambda find=find: find(queries[:1], TOP)), 3),
                "32 ms": round(best_ms(lambda find=find: find(queries, TOP)), 3),
                "recall": sum(hits) / (TOP * len(hits)),
            }
        return results


def build(bundle: Path, count: int, threads: int | None) -> dict[str, float]:
    """Texts per second of a new index, seconds of an update by one text, of opening and a query."""
    import serve
    from serve.search.index import Index

    rng = np.random.default_rng(0)
    words = np.array(["the", "a", "sea", "boat", "old", "red", "house", "wind", "bread", "and"])
    texts = [" ".join(rng.choice(words, rng.integers(20, 200))) for _ in range(count)]
    embedder = serve.load(bundle, threads=threads)
    embedder.embed(texts[:8])
    with tempfile.TemporaryDirectory(prefix="zoo-search-") as folder:
        path = Path(folder) / "texts.index"
        began = time.process_time()
        build_s, index = timed(lambda: Index.of_texts(embedder, texts, path))
        cpu_s = time.process_time() - began
        texts[-1] = "another text"
        update_s, _ = timed(lambda: Index.of_texts(embedder, texts, path))
        open_s, index = timed(lambda: Index(path, embedder))
        return {
            "texts": count,
            "passages": len(index),
            "texts/s": round(count / build_s, 1),
            "texts/cpu s": round(count / cpu_s, 1),
            "tokens/s": round(sum(map(len, embedder.tokenizer.encode(texts))) / build_s),
            "update s": round(update_s, 3),
            "open ms": round(1000 * open_s, 2),
            "query ms": round(best_ms(lambda: index.search("a red boat on the sea")), 2),
        }


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def best_ms(work: Callable[[], Any]) -> float:
    work()
    return 1000 * min(timed(work)[0] for _ in range(REPEATS))


if __name__ == "__main__":
    main()
