"""Text that grows by tokens: whole characters only, and stop strings wherever tokens end."""

from pathlib import Path

import numpy as np
import pytest
import serve_bundles as bundles
import tokenizer_cases
from tokenizers import AddedToken, Tokenizer, decoders, models

from serve.bundle.manifest import TokenizerSpec
from serve.text.assembling import Detokenizer, TextAssembler
from serve.text.stops import StopMatcher
from serve.text.tokenizer import TextTokenizer

TEXTS = [
    *bundles.TEXTS,
    "Ελληνικά, русский, עברית, العربية, हिन्दी, தமிழ், ไทย, 한국어, ქართული",
    "👩‍👩‍👧‍👦 🏳️‍🌈 🇯🇵 👍🏽 ✨",
    "tabs\tand\n\nlines  and   spaces ,  don't , do n't .",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 é é ﷺ 龘 \u200b\u00ad end",
]


def open_tokenizer(path: Path) -> TextTokenizer:
    return TextTokenizer(path, TokenizerSpec(max_length=100, adds_special_tokens=False))


def byte_level(folder: Path) -> TextTokenizer:
    bundles.bpe_tokenizer(folder)
    return open_tokenizer(folder / "tokenizer.json")


def wordpiece(folder: Path) -> TextTokenizer:
    bundles.wordpiece_tokenizer(folder)
    return open_tokenizer(folder / "tokenizer.json")


def fallback(folder: Path) -> TextTokenizer:
    """BPE of the Llama kind: most of what is not ASCII is written in bytes."""
    letters = "▁abcdefghijklmnopqrstuvwxyz日"
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    model = models.BPE({token: i for i, token in enumerate(tokens)}, [])
    model.byte_fallback, model.unk_token = True, "<unk>"
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.add_tokens([AddedToken("<extra>", normalized=False)])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return open_tokenizer(folder / "tokenizer.json")


def real(name: str):
    return tokenizer_cases.real(name, open_tokenizer)


ALL = [
    byte_level, wordpiece, fallback,
    *map(real, ("phi-3-mini", "t5-small", "roberta-base", "minimind")),
]  # fmt: skip


def rows_of(tokenizer: TextTokenizer, count: int) -> list[list[int]]:
    """Ids of the texts, and random ids, some of them mostly bytes."""
    rng = np.random.default_rng(0)
    rows = [list(encoding.ids) for encoding in tokenizer.encode(TEXTS)]
    size = tokenizer.backend.get_vocab_size()
    rows += [rng.integers(0, size, rng.integers(1, 30)).tolist() for _ in range(count)]
    found = (tokenizer.backend.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
    if pieces := [token for token in found if token is not None]:
        for _ in range(count):
            row = rng.integers(0, size, 12).tolist()
            for text in rng.choice(list("aé日😀 "), 4):
                row[rng.integers(0, 12) : 0] = [pieces[byte] for byte in text.encode()]
            rows.append(row)
    return rows


@pytest.mark.parametrize("make", ALL)
def test_pieces_are_whole_and_add_up_to_the_text(make, tmp_path):
    tokenizer = make(tmp_path)
    whole = 0
    for ids in rows_of(tokenizer, 300):
        detokenizer = Detokenizer(tokenizer)
        pieces = [*(detokenizer.push(token) for token in ids), detokenizer.finish()]
        text = tokenizer.decode(ids)
        assert "".join(pieces) == text
        if "\ufffd" not in text:
            whole += 1
            assert not any("\ufffd" in piece for piece in pieces)
    assert whole > 8


def first_end(tokenizer: TextTokenizer, ids: list[int], stops: list[str]) -> int | None:
    """At which token a stop string is complete, by decoding everything every time."""
    for count in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:count])
        if any(stop in text for stop in stops):
            return count
    return None


@pytest.mark.parametrize("make", ALL)
def test_stops_are_noticed_at_their_last_token(make, tmp_path):
    tokenizer = make(tmp_path)
    rng, met = np.random.default_rng(1), 0
    for ids in rows_of(tokenizer, 150):
        text = tokenizer.decode(ids)
        at = int(rng.integers(0, max(1, len(text) - 1)))
        stops = [text[at : at + int(rng.integers(1, 9))] or "x", "no such text"]
        if "\ufffd" in stops[0]:
            continue
        matcher = StopMatcher(tokenizer, stops)
        ends = [count for count in range(1, len(ids) + 1) if matcher.ends(ids[:count])]
        expected = first_end(tokenizer, ids, stops)
        assert (ends[0] if ends else None) == expected
        met += expected is not None
    assert met > 20


@pytest.mark.parametrize("make", ALL)
def test_what_the_matcher_stops_at_the_assembler_cuts(make, tmp_path):
    tokenizer = make(tmp_path)
    for ids in rows_of(tokenizer, 0):
        text = tokenizer.decode(ids)
        stops = [text[5:8]]
        matcher, assembler = StopMatcher(tokenizer, stops), TextAssembler(tokenizer, stops)
        shown = ""
        for count, token in enumerate(ids, 1):
            shown += assembler.push(token)
            if matcher.ends(ids[:count]):
                break
        assert shown + assembler.finish() == text[: text.find(stops[0])]
        assert assembler.stopped


def test_only_the_newest_token_counts(tmp_path):
    tokenizer = byte_level(tmp_path)
    [encoding] = tokenizer.encode(["a stop! and more"])
    matcher = StopMatcher(tokenizer, ["stop"])
    told = [matcher.ends(encoding.ids[:count]) for count in range(1, len(encoding.ids) + 1)]
    assert told.count(True) == 1
    assert not StopMatcher(tokenizer, []).ends(encoding.ids)
    assert not matcher.ends([])


def test_a_long_answer_is_not_decoded_again(tmp_path, monkeypatch):
    tokenizer = byte_level(tmp_path)
    [encoding] = tokenizer.encode(["the old house by the sea " * 40])
    seen = []
    decode = tokenizer.decode
    monkeypatch.setattr(tokenizer, "decode", lambda ids: seen.append(len(ids)) or decode(ids))
    StopMatcher(tokenizer, ["END"]).ends(encoding.ids)
    assert max(seen) < 20


@pytest.mark.parametrize("make", ALL)
def test_what_goes_on_from_a_text_keeps_its_space(make, tmp_path):
    tokenizer = make(tmp_path)
    spaces = 0
    for ids in rows_of(tokenizer, 60):
        for cut in range(1, len(ids), 3):
            begun = tokenizer.decode(ids[:cut])
            whole = tokenizer.decode(ids)
            if "\ufffd" in begun + whole or not whole.startswith(begun):
                continue  # the cut goes through a character
            detokenizer = Detokenizer(tokenizer, ids[:cut])
            pieces = [*map(detokenizer.push, ids[cut:]), detokenizer.finish()]
            assert begun + "".join(pieces) == whole
            spaces += whole[len(begun) : len(begun) + 1] == " "
    assert spaces > 5
