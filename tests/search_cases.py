"""Small bundles and folders of texts for the tests of semantic search."""

from pathlib import Path

import serve_bundles as bundles

from serve.search.index import Index

STORY = (
    "The cat sat on the mat. It looked at the old house by the sea!\n\n"
    "A red boat sails over the sea, the wind is cold. The sun is low\nand bread is on the table."
)


def make_bundles(folder: Path) -> Path:
    """A bundle that makes vectors; beside it `states`, and `pairs` for reranking."""
    bundles.encoder_bundle(folder / "b", "sentence-similarity", pooling="cls", normalize=True)
    bundles.encoder_bundle(folder / "states", "feature-extraction")
    bundles.encoder_bundle(folder / "pairs", "text-classification", ["score"])
    return folder / "b"


class Counting:
    """An embedder that remembers what it was asked for."""

    def __init__(self, pipeline):
        self.pipeline = pipeline
        self.embedded = []

    def __getattr__(self, name):
        return getattr(self.pipeline, name)

    def embed(self, texts, **settings):
        self.embedded += texts
        return self.pipeline.embed(texts, **settings)


def make_notes(root: Path) -> Path:
    """Three files, of which one is in a folder below and has two records."""
    (root / "below").mkdir(parents=True)
    (root / ".hidden").mkdir()
    (root / "story.txt").write_text(STORY, encoding="utf-8")
    (root / "bread.md").write_bytes(b"\xef\xbb\xbf# Bread\r\n\r\nmilk and honey")
    (root / "below" / "some.jsonl").write_text(
        '{"id": 7, "text": "the wind is cold", "topic": "weather"}\n\n{"text": "a red boat"}\n',
        encoding="utf-8",
    )
    (root / "picture.png").write_bytes(b"\x89PNG")
    (root / ".hidden" / "x.txt").write_text("not to be found", encoding="utf-8")
    return root


def index_of(folder, embedder, **settings):
    return Index.of_folder(embedder, folder, **settings)


def found(index, query, **settings):
    return [(hit.source, hit.start, hit.text) for hit in index.search(query, **settings)]
