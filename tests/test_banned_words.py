"""Words that are never written, however tokens might spell them."""

import gzip
import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import serve_bundles as bundles
from tokenizers import Tokenizer, decoders, models

import serve
from serve.bundle.manifest import TokenizerSpec
from serve.decoding.banned_words import BannedWords
from serve.errors import InputError
from serve.text.token_bytes import TokenBytes
from serve.text.tokenizer import TextTokenizer


@pytest.fixture(scope="module", params=["buffer", "grow"])
def writer(tmp_path_factory, request):
    return serve.load(bundles.decoder_bundle(tmp_path_factory.mktemp("w") / "b", request.param))


def tokenizer(folder, pieces, decoder) -> TextTokenizer:
    backend = Tokenizer(models.WordLevel({piece: at for at, piece in enumerate(pieces)}, pieces[0]))
    if decoder is not None:
        backend.decoder = decoder
    backend.save(str(folder / "tokenizer.json"))
    return TextTokenizer(folder / "tokenizer.json", TokenizerSpec(file="t", max_length=64))


def test_exactly_the_tokens_that_complete_a_word(tmp_path):
    """Every row of up to three pieces: what would complete a word is banned, no more."""
    pieces = ["▁a", "a", "b", "ab", "ba", "▁ab", "bab", "<0x61>", "<0xC3>", "<0xA9>", "é", "▁"]
    decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    table = TokenBytes(tokenizer(tmp_path, pieces, decoder))
    words = ["aab", "é", "b a", "aa"]
    banned = BannedWords(table, words)
    seen = 0
    for size in range(4):
        for row in itertools.product(range(len(pieces)), repeat=size):
            answer = np.array(row, np.int64)
            text = b"".join(table.rest[token] for token in row)
            if any(word.encode() in text for word in words):
                continue
            out = {*banned.always.tolist(), *banned.completing(answer).tolist()}
            for token in range(len(pieces)):
                whole = text + table.rest[token]
                assert (token in out) == any(word.encode() in whole for word in words), (row, token)
                seen += token in out
    assert seen > 100


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"do_sample": True, "temperature": 5.0, "num_return_sequences": 6, "seed": 3},
        {"num_beams": 4, "num_return_sequences": 4},
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
        {"repetition_penalty": 3.0},
        {"prompt_lookup": 4},
    ],
)
def test_an_answer_never_holds_a_word(writer, how):
    draw = random.Random(1)
    met = 0
    for prompt in ("the cat", "日本語", "bread and honey"):
        free = writer(prompt, max_new_tokens=24, **how)
        texts = [one.text for one in (free, *free.sequences)]
        windows = [text[at : at + 3] for text in texts for at in range(len(text) - 2)]
        whole = [one for one in windows if "\ufffd" not in one]
        words = draw.sample(whole, min(3, len(whole)))
        met += len(words)
        held = writer(prompt, max_new_tokens=24, bad_words=words, **how)
        for one in (held, *held.sequences):
            assert not any(word in one.text for word in words), (words, one.text)
        alone = writer([prompt, "the sea"], max_new_tokens=24, bad_words=words, **how)[0]
        assert alone.token_ids == held.token_ids
    assert met >= 3


def test_a_ban_stands_above_a_constraint(writer):
    pytest.importorskip("llguidance")
    assert writer("the", choices=["bread", "honey"], bad_words="ea").text == "honey"
    stuck = writer("the", regex="bread", bad_words=["ead"])
    assert (stuck.finish_reason, stuck.text) == ("constraint", "brea")
    with pytest.raises(InputError, match="each of them holds one of bad_words"):
        writer("the", choices=["bread"], bad_words=["ead"])


@pytest.mark.parametrize("wrong", ["", [""], 5, [5], {"a": 1}, ["\ud800"]])
def test_words_that_are_none(writer, wrong):
    with pytest.raises(InputError, match=r"^bad_words"):
        writer("the", bad_words=wrong)


def test_a_tokenizer_that_looks_at_neighbours_is_refused(tmp_path):
    """Without a table of bytes a word cannot be promised, so rows of tokens have to be given."""
    pieces = ["low</w>", "er</w>", "low", "er", "a"]
    made = tokenizer(tmp_path, pieces, decoders.BPEDecoder(suffix="</w>"))
    with pytest.raises(InputError, match=r"bad_words cannot be followed.*bad_words_ids"):
        BannedWords.of(made, ["lower"])


REAL = Path(__file__).parents[2] / "shared" / "data" / "tokenizers"
NAMES = ["minimind", "phi-3-mini", "roberta-base", "t5-small"]


def real(name: str, folder: Path) -> TextTokenizer:
    packed, plain = (REAL / name / file for file in ("tokenizer.json.gz", "tokenizer.json"))
    if not packed.exists() and not plain.exists():
        pytest.skip(f"{REAL / name} is not here")
    text = gzip.decompress(packed.read_bytes()) if packed.exists() else plain.read_bytes()
    (folder / "tokenizer.json").write_bytes(text)
    return TextTokenizer(folder / "tokenizer.json", TokenizerSpec(max_length=64))


@pytest.mark.parametrize("name", NAMES)
def test_tokens_that_spell_the_word_by_any_pieces(name, tmp_path):
    """Rows of pieces of the words alone: without the ban nearly all rows would hold one."""
    made = real(name, tmp_path)
    words = ["banana", "na n", "café", "日本"]
    banned, table = BannedWords.of(made, words), TokenBytes.of(made)
    whole = b" ".join(word.encode() for word in words)
    pieces = [number for number, text in enumerate(table.rest) if text and text in whole]
    draw, free, long = random.Random(2), 0, 0
    for _ in range(60):
        ids, loose = [], []
        for _ in range(200):
            loose.append(draw.choice(pieces))
            out = {*banned.always.tolist(), *banned.completing(np.array(ids, np.int64)).tolist()}
            if allowed := [token for token in pieces if token not in out]:
                ids.append(draw.choice(allowed))
        for text in (made.decode(ids), made.decode([pieces[0], *ids])):
            assert not any(word in text for word in words), (text, ids)
        free += any(word in made.decode(loose) for word in words)
        long += len(ids) == 200
    assert free > 10 and long == 60
