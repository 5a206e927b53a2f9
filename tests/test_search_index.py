"""The index of a folder and of texts: what is read, kept, brought up to date; and its file."""

import json
import os
import shutil

import numpy as np
import pytest
import search_cases
import serve_bundles as bundles
from search_cases import found, index_of

import serve
from serve.errors import IndexFileError, InputError
from serve.search.building import fingerprint
from serve.search.index import Index


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return search_cases.make_bundles(tmp_path_factory.mktemp("search"))


@pytest.fixture
def embedder(bundle):
    return search_cases.Counting(serve.load(bundle))


@pytest.fixture
def folder(tmp_path):
    return search_cases.make_notes(tmp_path / "notes")


# --- a folder -------------------------------------------------------------------------------------


def test_a_folder_is_read_and_found(folder, embedder):
    index = index_of(folder, embedder, passage_tokens=10, passage_overlap=3)
    assert index.file.path == folder.with_name("notes.index")
    assert index.changes.added == ("below/some.jsonl", "bread.md", "story.txt")
    assert (index.changes.unchanged, index.changes.skipped) == (0, {})
    assert len(index) == index.changes.embedded == len(embedder.embedded)
    for query in ("the cat", "a red boat", "bread"):
        hits = index.search(query, top_k=len(index) + 5)
        vectors = embedder.embed([hit.text for hit in hits])
        expected = (vectors @ embedder.embed([query])[0]).tolist()
        assert np.allclose([hit.score for hit in hits], expected, atol=1e-5)
        assert expected == sorted(expected, reverse=True)
        assert len(hits) == len(index)
        for hit in hits:
            assert hit.similarity == hit.score
            json.dumps(hit.to_dict())
            if hit.line is None:
                content = (folder / hit.source).read_bytes().decode("utf-8-sig")
                assert content[hit.start : hit.end] == hit.text
    records = {hit.line: hit for hit in hits if hit.source == "below/some.jsonl"}
    assert (records[1].id, records[1].metadata) == ("7", {"topic": "weather"})
    assert (records[3].id, records[3].metadata, records[3].text) == (None, {}, "a red boat")
    assert not any("not to be found" in hit.text for hit in hits)


def test_places_are_characters_without_a_byte_order_mark(folder, embedder):
    index = index_of(folder, embedder, passage_tokens=8)
    hits = [hit for hit in index.search("bread", top_k=99) if hit.line is None]
    assert {hit.source for hit in hits} == {"bread.md", "story.txt"}
    for hit in hits:
        with (folder / hit.source).open(encoding="utf-8-sig", newline="") as file:
            assert file.read()[hit.start : hit.end] == hit.text


def test_several_queries_and_fewer_hits(folder, embedder):
    index = index_of(folder, embedder)
    together = index.search(["the cat", "bread"], top_k=2)
    alone = [index.search("the cat", top_k=2), index.search("bread", top_k=2)]
    assert [[hit.text for hit in hits] for hits in together] == [
        [hit.text for hit in hits] for hits in alone
    ]
    assert [len(hits) for hits in together] == [2, 2]
    scores = [hit.score for hit in index.search("the cat")]
    least = (scores[0] + scores[1]) / 2
    assert len(index.search("the cat", min_similarity=least)) == 1
    assert index.search([]) == []
    with pytest.raises(InputError, match="top_k=0"):
        index.search("a", top_k=0)


def test_only_what_has_changed_is_embedded(folder, embedder):
    index_of(folder, embedder)
    embedder.embedded.clear()
    path = folder.with_name("notes.index")
    before = path.read_bytes()
    assert index_of(folder, embedder).changes.unchanged == 3
    assert path.read_bytes() == before

    os.utime(folder / "story.txt", ns=(1, 1))  # another time, the same content
    changes = index_of(folder, embedder).changes
    assert (changes.unchanged, changes.changed, embedder.embedded) == (3, (), [])

    (folder / "bread.md").write_text("the sun is low", encoding="utf-8")
    (folder / "new.txt").write_text("a table", encoding="utf-8")
    (folder / "story.txt").unlink()
    index = index_of(folder, embedder)
    changes = index.changes
    assert (changes.added, changes.changed, changes.removed, changes.unchanged) == (
        ("new.txt",),
        ("bread.md",),
        ("story.txt",),
        1,
    )
    assert sorted(embedder.embedded) == ["a table", "the sun is low"]
    assert (changes.embedded, changes.reused) == (2, 2)
    fresh = index_of(folder, embedder, path=folder.with_name("fresh.index"))
    for query in ("the cat", "boat", "sun"):
        assert found(index, query) == found(fresh, query)


def test_the_same_size_and_time_are_not_read_again(folder, embedder):
    index_of(folder, embedder)
    path = folder / "bread.md"
    stamp, size = path.stat().st_mtime_ns, path.stat().st_size
    path.write_bytes(b"x" * size)
    os.utime(path, ns=(stamp, stamp))
    assert index_of(folder, embedder).changes.unchanged == 3
    os.utime(path, ns=(stamp, stamp + 1))
    assert index_of(folder, embedder).changes.changed == ("bread.md",)


def test_what_cannot_be_read_is_skipped_and_said(folder, embedder):
    index_of(folder, embedder)
    (folder / "bread.md").write_bytes(b"caf\xe9")
    (folder / "broken.jsonl").write_text('{"text": "a"}\n{"text": 3}\n', encoding="utf-8")
    (folder / "no.jsonl").write_text("{\n", encoding="utf-8")
    changes = index_of(folder, embedder).changes
    assert changes.removed == ("bread.md",)
    assert "not UTF-8" in changes.skipped["bread.md"]
    assert "line 2 is not an object with a text under 'text'" in changes.skipped["broken.jsonl"]
    assert "line 1 is not JSON" in changes.skipped["no.jsonl"]
    assert changes.unchanged == 2


def test_an_interrupted_build_leaves_the_index_as_it_was(folder, embedder, monkeypatch):
    index_of(folder, embedder)
    path = folder.with_name("notes.index")
    before = path.read_bytes()
    (folder / "new.txt").write_text("a table", encoding="utf-8")

    def interrupted(texts, **_):
        if texts:
            raise KeyboardInterrupt
        return np.zeros((0, bundles.WIDTH), np.float32)

    monkeypatch.setattr(embedder, "embed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        index_of(folder, embedder)
    assert path.read_bytes() == before
    assert sorted(file.name for file in folder.parent.iterdir()) == ["notes", "notes.index"]


def test_an_index_in_use_may_be_replaced(folder, embedder):
    index = index_of(folder, embedder)
    before = found(index, "bread")
    (folder / "bread.md").write_text("the sun is low", encoding="utf-8")
    index_of(folder, embedder)
    assert found(index, "bread") == before


def test_settings_are_kept_and_others_build_anew(folder, embedder):
    index = index_of(folder, embedder, passage_tokens=6, passage_overlap=1, dimensions=9)
    assert index.file.vectors.shape[1] == 9
    embedder.embedded.clear()
    assert index_of(folder, embedder).file.facts.settings.passage_tokens == 6
    assert not embedder.embedded
    again = index_of(folder, embedder, passage_tokens=12)
    assert again.file.facts.settings.passage_overlap == 1
    assert len(embedder.embedded) == len(again) < len(index)
    with pytest.raises(InputError, match="an index has no setting 'chunk'"):
        index_of(folder, embedder, chunk=3)
    with pytest.raises(InputError, match="passage_tokens='x'"):
        index_of(folder, embedder, passage_tokens="x")


def test_prompts_stand_before_queries_and_passages(folder, embedder):
    index = index_of(folder, embedder, query_prompt="the ", document_prompt="a ")
    plain = index_of(folder, embedder, path=folder.with_name("plain.index"))
    hit = index.search("cat")[0]
    expected = embedder.similarity(["the cat"], [f"a {hit.text}"])[0, 0]
    assert np.isclose(hit.score, expected, atol=1e-5)
    assert not np.isclose(plain.search("cat")[0].score, expected, atol=1e-3)
    assert "a " not in hit.text[:2]


def test_another_model_is_refused(folder, embedder, bundle, tmp_path):
    index_of(folder, embedder)
    other = serve.load(bundle.with_name("states"), task="sentence-similarity")
    assert fingerprint(other.manifest) != fingerprint(embedder.manifest)
    for attempt in (
        lambda: Index.of_folder(other, folder),
        lambda: Index(folder.with_name("notes.index"), other),
    ):
        with pytest.raises(IndexFileError, match="was made with another model"):
            attempt()
    rebuilt = Index.of_folder(other, folder, rebuild=True)
    assert rebuilt.file.facts.bundle.fingerprint == fingerprint(other.manifest)
    assert rebuilt.file.facts.settings.pooling == "mean"


def test_the_fingerprint_is_of_what_decides_vectors(bundle, tmp_path):
    first, second = (shutil.copytree(bundle, tmp_path / name) for name in "ab")
    load = serve.Manifest.load
    load(first).model_copy(update={"name": "other", "source": {"x": 1}}).save(first)
    assert fingerprint(load(first)) == fingerprint(load(bundle))
    load(second).model_copy(update={"pooling": "mean"}).save(second)
    assert fingerprint(load(second)) != fingerprint(load(bundle))


def test_states_need_a_pooling(folder, bundle):
    states = serve.load(bundle.with_name("states"))
    with pytest.raises(InputError, match="pooling is 'none': pass pooling='mean'"):
        Index.of_folder(states, folder)
    index = Index.of_folder(states, folder, pooling="max")
    hit = index.search("bread")[0]
    expected = states.similarity(["bread"], [hit.text], pooling="max")[0, 0]
    assert np.isclose(hit.score, expected, atol=1e-5)


def test_folders_without_texts(tmp_path, embedder):
    with pytest.raises(InputError, match="is not there: expected a folder"):
        index_of(tmp_path / "none", embedder)
    (tmp_path / "a.txt").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="is a file: expected a folder"):
        index_of(tmp_path / "a.txt", embedder)
    with pytest.raises(InputError, match=r"holds no text: expected files that end in \['.rs'\]"):
        index_of(tmp_path, embedder, path=tmp_path / "x.index", suffixes=[".rs"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text(" \n", encoding="utf-8")
    index = index_of(tmp_path / "empty", embedder)
    assert len(index) == 0 and index.search("a") == []
