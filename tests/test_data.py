"""Reading, cleaning and splitting."""

import gzip
import json
from pathlib import Path

import pytest

from zoo.data import (
    Cleaner,
    read,
    read_parallel,
    split_examples,
    stable_fraction,
    stable_split,
)
from zoo.data.clean import strip_html
from zoo.errors import ConfigError, DataError

SHARED = Path(__file__).parents[2] / "shared" / "data"


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_plain_text(tmp_path):
    path = write(tmp_path / "a.txt", "\ufefffirst\n\n  \nsecond\r\nthird")
    assert [e["text"] for e in read(path)] == ["first", "second", "third"]
    assert [e["text"] for e in read(path, unit="paragraph")] == ["first", "second\nthird"]
    assert [e["text"] for e in read(path, unit="file")] == ["first\n\n  \nsecond\nthird"]
    assert [e["text"] for e in read(path, limit=1)] == ["first"]


def test_gzip_is_seen_by_its_bytes(tmp_path):
    packed = gzip.compress(b"a,b\n1,2\n")
    for name in ("a.csv.gz", "a.csv"):
        assert list(read(write(tmp_path / name, packed))) == [{"a": "1", "b": "2"}]


def test_csv(tmp_path):
    path = write(tmp_path / "a.csv", 'label,review\n1,"fine, ""really""\nso"\n\n0,bad\n')
    assert list(read(path)) == [
        {"label": "1", "review": 'fine, "really"\nso'},
        {"label": "0", "review": "bad"},
    ]
    assert list(read(path, text="review", label="label"))[1] == {"text": "bad", "label": "0"}
    assert next(read(path, header=False, text=1)) == {"text": "review"}
    semicolons = write(tmp_path / "b.csv", "a;b\n1;2\n")
    assert list(read(semicolons, delimiter=";")) == [{"a": "1", "b": "2"}]


def test_tsv_takes_quotes_as_text(tmp_path):
    path = write(tmp_path / "a.tsv", 'she said "no\tx\nan "open quote\ty\tmore\n')
    rows = list(read(path, header=False, text=0, label=1))
    assert rows == [
        {"text": 'she said "no', "label": "x"},
        {"text": 'an "open quote', "label": "y"},
    ]


def test_encodings(tmp_path):
    path = write(tmp_path / "a.txt", "你好\n世界\n".encode("gb18030"))
    assert [e["text"] for e in read(path, encoding="gb18030")] == ["你好", "世界"]
    mixed = write(tmp_path / "b.txt", b"fine\nna\xefve\n")
    with pytest.raises(DataError, match=r"b\.txt, line 2: byte 0xef is not utf-8; give encoding="):
        list(read(mixed))
    assert [e["text"] for e in read(mixed, errors="replace")] == ["fine", "na\ufffdve"]
    with pytest.raises(ConfigError, match="unknown encoding"):
        list(read(mixed, encoding="utf-9"))


def test_json(tmp_path):
    rows = [{"text": "a", "n": 1}, {"text": "é", "n": 2}]
    lines = "\n".join(json.dumps(row) for row in rows) + "\n\n"
    assert list(read(write(tmp_path / "a.jsonl", lines))) == rows
    assert list(read(write(tmp_path / "b.json", lines))) == rows  # lines under the other name
    assert list(read(write(tmp_path / "c.json", json.dumps(rows)))) == rows
    assert list(read(tmp_path / "a.jsonl", label="n")) == [{"label": 1}, {"label": 2}]


def test_squad(tmp_path):
    answers = [{"text": "b", "answer_start": 2}]
    question = {"id": "q", "question": "what?", "answers": answers}
    article = {"title": "t", "paragraphs": [{"context": "a b", "qas": [question]}]}
    path = write(tmp_path / "a.json", json.dumps({"version": "1.1", "data": [article]}))
    expected = {**question, "context": "a b", "title": "t"}
    assert list(read(path)) == list(read(path, format="squad")) == [expected]
    del article["paragraphs"][0]["context"]
    path = write(tmp_path / "b.json", json.dumps({"data": [article]}))
    with pytest.raises(DataError, match=r"article 0, question 'q'.*context"):
        list(read(path))


def test_conll(tmp_path):
    path = write(tmp_path / "a.conll", "-DOCSTART- O\n\nJo\tX\tB-PER\nran\tY\tO\n\t\nyes\tZ\tO\n")
    assert list(read(path)) == [
        {"tokens": ["Jo", "ran"], "tags": ["B-PER", "O"]},
        {"tokens": ["yes"], "tags": ["O"]},
    ]
    with pytest.raises(DataError, match="line 2: 'alone'; expected a token and a tag"):
        list(read(write(tmp_path / "b.conll", "a O\nalone\n")))


def test_parquet_and_arrow(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    rows = [{"text": "a", "label": 1, "tokens": ["x"]}, {"text": "é", "label": 0, "tokens": []}]
    table = pa.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert list(read(tmp_path / "a.parquet")) == rows
    assert list(read(tmp_path / "a.parquet", text="text")) == [{"text": "a"}, {"text": "é"}]
    # What `datasets.DatasetDict.save_to_disk` writes: streams, with their names in state.json.
    for split in ("train", "test"):
        folder = tmp_path / "saved" / split
        folder.mkdir(parents=True)
        name = "data-00000-of-00001.arrow"
        with pa.ipc.new_stream(folder / name, table.schema) as stream:
            stream.write_table(table)
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert list(read(tmp_path / "saved", split="test")) == rows
    assert list(read(tmp_path / "saved" / "train", label="label")) == [{"label": 1}, {"label": 0}]
    assert list(read(tmp_path / "saved" / "train" / name)) == rows
    with pa.ipc.new_file(tmp_path / "b.arrow", table.schema) as stream:
        stream.write_table(table)
    assert list(read(tmp_path / "b.arrow")) == rows
    with pytest.raises(DataError, match="has the splits train, test; none was asked for"):
        list(read(tmp_path / "saved"))
    with pytest.raises(DataError, match="no column 'body'; it has text, label, tokens"):
        list(read(tmp_path / "a.parquet", text="body"))
    with pytest.raises(DataError, match="not readable as parquet"):
        list(read(write(tmp_path / "c.parquet", "no")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no state\.json"):
        list(read(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("name", "text", "options", "kind", "message"),
    [
        ("a.csv", "a,b\n1,2\n3\n", {}, DataError, r"a\.csv, line 3: 1 columns, expected 2"),
        ("a.csv", 'a,b\n1,"2\n', {}, DataError, "line 2: unexpected end of data; quoting=False"),
        ("a.csv", "a,a\n1,2\n", {}, DataError, "comes twice"),
        ("a.csv", "a,b\n1,2\n", {"text": "c"}, DataError, "line 2: no column 'c'; it has 'a', 'b'"),
        ("a.csv", "1,2\n3\n", {"header": False, "text": 1}, DataError, "line 2: no column 1"),
        ("a.jsonl", '{"a": 1}\n{"a": \n', {}, DataError, "line 2: not JSON"),
        ("a.jsonl", "[1]\n", {}, DataError, "line 1: a list; expected one JSON object"),
        ("a.json", '{\n"a": 1,\n}', {}, DataError, "line 3, column 1: not JSON"),
        ("a.json", '"a"', {}, DataError, "holds a str; expected a list of objects"),
        ("a.json", "[1]", {}, DataError, "item 0: a int; expected an object"),
        ("a.json", "[]", {"format": "squad"}, DataError, 'expected an object with "data"'),
        ("a.xyz", "", {}, ConfigError, "cannot tell the format"),
        ("a.txt", "", {"format": "jsnl"}, ConfigError, "did you mean 'jsonl'"),
        ("a.txt", "", {"unit": "word"}, ConfigError, "unit='word'"),
        ("a.txt.gz", b"\x1f\x8b\x08broken", {}, DataError, "cannot be read"),
        ("a.txt", "", {"format": "dataset"}, DataError, "is a file"),
    ],
)
def test_wrong_files(tmp_path, name, text, options, kind, message):
    with pytest.raises(kind, match=message):
        list(read(write(tmp_path / name, text), **options))


def test_missing_files(tmp_path):
    for path in (tmp_path / "a.csv", tmp_path / "folder"):
        with pytest.raises(DataError, match="no such file or folder"):
            read(path)
    with pytest.raises(DataError, match="which does not fit"):
        read(tmp_path, format="csv")


def test_parallel_lines(tmp_path):
    a = write(tmp_path / "a.en", "one\n\nthree\n")
    b = write(tmp_path / "a.de", "eins\n\ndrei\n")
    assert list(read_parallel(a, b))[::2] == [
        {"source": "one", "target": "eins"},
        {"source": "three", "target": "drei"},
    ]
    short = write(tmp_path / "b.de", "eins\n")
    with pytest.raises(DataError, match=r"b\.de: ends at line 1; .*a\.en goes on"):
        list(read_parallel(a, short))


def test_strip_html():
    page = (
        "<html><head><title>no</title></head><body><p>a &amp; <b>b</b>&nbsp;c<br/>d</p>"
        "<script>var x = '<p>';</script><ul><li>e<li>f</ul>1 < 2 &eacute;"
    )
    assert strip_html(page) == "a & b\u00a0c\nd\ne\nf\n1 < 2 é"
    assert strip_html("plain") == "plain"


def test_cleaner():
    cleaner = Cleaner(html=True, min_length=2, max_length=10)
    texts = ["<b>one</b>", "one", " o\u200bn\x00e\r\n", "e\u0301a", "x", " ", "a" * 11, "two\tb"]
    kept = list(cleaner({"text": text, "label": i} for i, text in enumerate(texts)))
    assert [(e["text"], e["label"]) for e in kept] == [("one", 0), ("éa", 3), ("two b", 7)]
    assert cleaner.counts == {"kept": 3, "duplicate": 2, "too short": 1, "empty": 1, "too long": 1}


def test_cleaner_keeps_what_it_should():
    family = "👩‍👩‍👧"
    assert Cleaner().text(family) == family
    assert Cleaner(whitespace="lines").text("a  b \n\n c") == "a b\n\nc"
    assert Cleaner(whitespace="keep").text(" a\r\nb ") == " a\nb "
    assert Cleaner(unicode="nfkc").text("ＡＢ①") == "AB1"
    assert Cleaner().text("a\ud800b") == "ab"
    pairs = [{"source": "a", "target": "x"}, {"source": "a", "target": "y"}]
    assert list(Cleaner()(pairs)) == pairs
    questions = [{"question": " q ", "context": " c "}] * 2
    assert list(Cleaner()(questions)) == questions  # offsets point into the context
    with pytest.raises(ConfigError, match="unicode='nfz'"):
        Cleaner(unicode="nfz")
    with pytest.raises(ConfigError, match="whitespace='drop'"):
        Cleaner(whitespace="drop")


def test_fractions_never_change():
    """Known values: a change here would mix training and held-out data of every user."""
    found = [
        round(stable_fraction(key, seed), 6) for key, seed in (("a", 0), ("a", 1), ("你好", 0))
    ]
    assert found == KNOWN
    assert stable_fraction(["a", 1]) == stable_fraction(["a", 1])


KNOWN = [0.08534, 0.321431, 0.582085]


def test_split_ignores_order_and_company():
    examples = [{"text": f"text {i}"} for i in range(2000)]
    train, held_out = split_examples(examples, 0.1, key="text")
    assert 150 < len(held_out) < 250 and len(train) + len(held_out) == 2000
    backwards = split_examples(examples[::-2], 0.1, key=lambda e: e["text"])[1]
    assert {e["text"] for e in backwards} <= {e["text"] for e in held_out}
    wider = split_examples(examples, 0.3, key="text")[1]
    assert {e["text"] for e in held_out} <= {e["text"] for e in wider}
    other = split_examples(examples, 0.1, seed=1, key="text")[1]
    assert other != held_out
    assert split_examples(examples, 0)[1] == split_examples(examples, 1)[0] == []
    with pytest.raises(ConfigError, match=r"fraction=1\.5"):
        stable_split("a", 1.5)


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("classification/thucnews_title/dev.txt", {"format": "tsv", "header": False}, 10000),
        ("classification/chnsenticorp_htl/ChnSentiCorp_htl_all.csv.gz", {}, 7766),
        ("classification/ag_news/first5600.csv.gz", {"header": False}, 5600),
        ("ner/wnut17/wnut17train.conll", {}, 3394),
        ("ner/resume_zh/dev.char.bmes", {}, 463),
        ("qa/xquad/xquad.zh.json", {}, 1190),
        ("qa/cmrc2018/cmrc2018_dev.json.gz", {}, 3219),
        ("similarity/stsb/sts-dev.csv", {"format": "tsv", "header": False, "text": 5}, 1500),
        ("translation/tatoeba-eng-cmn/cmn.txt.gz", {"format": "tsv", "header": False}, 20133),
        ("fewclue/tnews/dev_few_all.json", {}, 1098),
        ("lm/tinyshakespeare/input.txt.gz", {"unit": "paragraph"}, 7222),
    ],
)
def test_real_files(name, options, count):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no {name} here")
    assert sum(1 for _ in read(path, **options)) == count
