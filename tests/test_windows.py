"""Windows and cuts of long encodings, against the truncation of the tokenizers library."""

import random

import pytest
import serve_bundles as bundles

from serve.bundle.manifest import TokenizerSpec
from serve.errors import InputError
from serve.text.tokenizer import TextTokenizer
from serve.text.windows import Window, best_places, read_cut, read_windows

WORDS = ["the", "cat", "sat", "on", "mats", "and", "looked", "at", "boats,", "honey", "or", "sea"]
FIELDS = ("ids", "type_ids", "tokens", "offsets", "word_ids", "sequence_ids", "special_tokens_mask")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t")
    bundles.wordpiece_tokenizer(folder)
    return TextTokenizer(folder / "tokenizer.json", TokenizerSpec(max_length=32))


def text(rng, most):
    return " ".join(rng.choices(WORDS, k=rng.randrange(most)))


def truncated(tokenizer, texts, length, stride, strategy):
    """What the library makes of it."""
    tokenizer.backend.enable_truncation(length, stride=stride, strategy=strategy)
    try:
        encoding = tokenizer.backend.encode(*texts)
    finally:
        tokenizer.backend.no_truncation()
    return [encoding, *encoding.overflowing]


def assert_same(pieces, expected):
    assert len(pieces) == len(expected)
    for piece, right in zip(pieces, expected, strict=True):
        for name in FIELDS:
            assert list(getattr(piece, name)) == list(getattr(right, name)), name


@pytest.mark.parametrize("kind", ["one", "first", "second"])
def test_windows_are_those_of_the_library(tokenizer, kind):
    rng = random.Random(0)
    split = 0
    for _ in range(60):
        texts = [text(rng, 60)] if kind == "one" else [text(rng, 4), text(rng, 60)]
        if kind == "first":
            texts.reverse()
        length, stride = rng.randrange(16, 40), rng.randrange(5)
        encoding = tokenizer.encode(texts[:1], texts[1:] or None)[0]
        reading = read_windows(encoding, length, stride, "second" if kind == "second" else "first")
        strategy = "only_second" if kind == "second" else "only_first"
        assert_same(reading.pieces, truncated(tokenizer, texts, length, stride, strategy))
        split += len(reading.pieces) > 1
        assert not reading.truncated
        sliding = 1 if kind == "second" else 0
        if len(reading.pieces) > 1:
            assert sum(reading.weights) == encoding.sequence_ids.count(sliding)
            assert min(reading.weights) > 0
    assert split > 20


def test_cuts_are_those_of_the_library(tokenizer):
    rng = random.Random(1)
    cut = 0
    for case in range(90):
        texts = [text(rng, 40), text(rng, 40)][: 1 + bool(case % 3)]
        length = rng.randrange(8, 40)
        encoding = tokenizer.encode(texts[:1], texts[1:] or None)[0]
        reading = read_cut(encoding, length)
        assert_same(reading.pieces, truncated(tokenizer, texts, length, 0, "longest_first")[:1])
        assert reading.truncated == (len(encoding) > length)
        cut += reading.truncated
    assert cut > 30


def test_the_longer_text_of_a_pair_is_split(tokenizer):
    long, short = "the cat sat on the mat " * 9, "a red boat"
    for pair, part in (((long, short), 0), ((short, long), 1)):
        encoding = tokenizer.encode([pair[0]], [pair[1]])[0]
        reading = read_windows(encoding, 24)
        assert len(reading.pieces) > 2
        whole = [
            t for t, s in zip(encoding.ids, encoding.sequence_ids, strict=True) if s == 1 - part
        ]
        for piece in reading.pieces:
            kept = [t for t, s in zip(piece.ids, piece.sequence_ids, strict=True) if s == 1 - part]
            assert kept == whole
            assert len(piece) <= 24


def test_what_cannot_be_split(tokenizer):
    encoding = tokenizer.encode(["the cat " * 20], ["the sea " * 20])[0]
    with pytest.raises(InputError, match="leaves no room"):
        read_windows(encoding, 32)
    with pytest.raises(InputError, match="may not be cut"):
        read_cut(encoding, 32, "first")
    encoding = tokenizer.encode(["the cat " * 20])[0]
    with pytest.raises(InputError, match=r"stride=30.*expected 0 to 29"):
        read_windows(encoding, 32, 30)
    assert len(read_windows(encoding, 32, 29).pieces) == 40 - 30 + 1


def test_tokens_are_read_where_most_is_around_them(tokenizer):
    rng = random.Random(2)
    for _ in range(30):
        encoding = tokenizer.encode([" ".join(rng.choices(WORDS, k=rng.randrange(1, 70)))])[0]
        reading = read_windows(encoding, rng.randrange(12, 32), rng.randrange(9))
        places = best_places(reading)
        ids = [reading.pieces[piece].ids[at] for piece, at in places]
        assert ids == list(encoding.ids)[1:-1]
        offsets = [reading.pieces[piece].offsets[at] for piece, at in places]
        assert offsets == list(encoding.offsets)[1:-1]
        for number, (chosen, _) in enumerate(places):
            assert chosen == best_window(reading, number)


def best_window(reading, number):
    """The window with the most tokens on the side where it has fewer, by going through all."""
    found = []
    for at, piece in enumerate(reading.pieces):
        if not isinstance(piece, Window):
            return 0
        size = len(piece) - 2
        if piece.start <= number < piece.start + size:
            left = number - piece.start if at else 999
            right = piece.start + size - 1 - number if at < len(reading.pieces) - 1 else 999
            found.append((-min(left, right), at))
    return min(found)[1]
