"""Answers that follow expressions, schemas, lists and grammars, whatever the scores say."""

import gc
import json
import re
import weakref
from pathlib import Path

import numpy as np
import pytest
import serve_bundles as bundles
import tokenizer_cases
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from serve.bundle.manifest import TokenizerSpec
from serve.decoding.constraints import Grammar
from serve.decoding.settings import GenerationSettings
from serve.errors import InputError
from serve.text.token_bytes import TokenBytes
from serve.text.tokenizer import TextTokenizer

pytest.importorskip("llguidance")
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "β", "日本"]}, "maxItems": 3},
        "member": {"type": ["boolean", "null"]},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
CHOICES = ("日本語", "日本", "😀 smile", 'a.b/c\n"d\\', " lead", "naïve")


def open_tokenizer(path: Path) -> TextTokenizer:
    return TextTokenizer(path, TokenizerSpec(max_length=100))


def byte_level(folder: Path) -> TextTokenizer:
    bundles.bpe_tokenizer(folder)
    return open_tokenizer(folder / "tokenizer.json")


def fallback(folder: Path) -> TextTokenizer:
    """BPE of the Llama kind: spaces as ▁, the first one dropped, bytes for what is not known."""
    words = ["▁", "a", "b", "n", "m", "e", "1", "2", ":", ",", "{", "}", '"', "▁a", "日", "ab"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    model = models.BPE({t: i for i, t in enumerate(tokens)}, [("▁", "a"), ("a", "b")])
    model.byte_fallback, model.unk_token, model.fuse_unk = True, "<unk>", True
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.add_tokens([AddedToken("<extra>", normalized=False)])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return open_tokenizer(folder / "tokenizer.json")


def words(folder: Path, decoder=None, suffix: str = "") -> TextTokenizer:
    """Whole words and letters, which the decoder sets side by side."""
    texts = ["yes", "no", "maybe", "not", "at", "all", "17", "x"]
    known = {t + suffix: i for i, t in enumerate(["</s>", "##s", *texts])}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="x" + suffix))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if decoder is not None:
        tokenizer.decoder = decoder
    tokenizer.save(str(folder / "tokenizer.json"))
    return open_tokenizer(folder / "tokenizer.json")


def real(name: str):
    return tokenizer_cases.real(name, open_tokenizer)


CAPABLE = [byte_level, fallback, real("phi-3-mini"), real("roberta-base"), real("minimind")]


def draws(tokenizer: TextTokenizer, count: int, padding: int = 7, **constraint) -> list[str]:
    """Texts of a model whose scores are noise."""
    size, end = tokenizer.backend.get_vocab_size() + padding, 1
    settings = GenerationSettings(**constraint)
    grammar = Grammar.compile(settings, tokenizer, [end], size)
    rng, texts = np.random.default_rng(0), []
    for _ in range(count):
        matcher, ids = grammar.start(), []
        for _ in range(400):
            scores = rng.normal(size=size).astype(np.float32)
            matcher.mask(scores)
            assert not matcher.stuck
            token = int(scores.argmax())
            assert token < size - padding, "a row beyond the tokenizer's"
            if token == end:
                break
            assert not matcher.complete
            ids.append(token)
            matcher.advance(token)
        else:
            raise AssertionError(f"no end after {tokenizer.decode(ids)!r}")
        texts.append(tokenizer.decode(ids))
    return texts


@pytest.mark.parametrize("make", CAPABLE)
@pytest.mark.parametrize(
    "regex",
    [
        r"[A-Z][a-zé]{2,5}( \d{1,3}){0,2}",
        r" ?(日本|中文){1,3}[!?。]",
        r"(a|ab)(c|bcd)?/\d\d\n\"x\\",
        "[^a]{3}",
    ],
)
def test_every_draw_matches_the_expression(make, regex, tmp_path):
    texts = draws(make(tmp_path), 200, regex=regex)
    wrong = [text for text in texts if not re.fullmatch(regex, text)]
    assert not wrong
    assert len(set(texts)) > 5


@pytest.mark.parametrize("make", CAPABLE)
def test_every_draw_is_an_instance_of_the_schema(make, tmp_path):
    tokenizer = make(tmp_path)
    for given in (SCHEMA, json.dumps(SCHEMA)):
        texts = draws(tokenizer, 100, json_schema=given)
        for text in texts:
            value = json.loads(text)
            assert {"name", "age", "tags"} <= set(value) <= set(SCHEMA["properties"])
            assert isinstance(value["name"], str) and len(value["name"]) <= 12
            assert isinstance(value["age"], int) and 0 <= value["age"] <= 150
            assert len(value["tags"]) <= 3 and set(value["tags"]) <= {"a", "β", "日本"}
            assert value.get("member") in (True, False, None)
        assert len(set(texts)) > 50


@pytest.mark.parametrize("make", CAPABLE)
def test_every_draw_is_one_of_the_choices(make, tmp_path):
    texts = draws(make(tmp_path), 200, choices=CHOICES)
    assert set(texts) == set(CHOICES)


def test_every_draw_follows_the_grammar(tmp_path):
    grammar = 'start: sum\nsum: term ("+" term)*\nterm: /[0-9]{1,2}/ | "(" sum ")"'
    for text in draws(byte_level(tmp_path), 50, grammar=grammar):
        assert re.fullmatch(r"[0-9+()]+", text)
        assert isinstance(eval(text.replace("0", "1")), int)


def test_a_vocabulary_of_few_characters_writes_what_it_can(tmp_path):
    """T5's words have no braces, but letters."""
    [make] = real("t5-small").values
    tokenizer = make(tmp_path)
    assert set(draws(tokenizer, 60, choices=["yes", "yes, sir", "Not at all"])) == {
        "yes", "yes, sir", "Not at all",
    }  # fmt: skip
    with pytest.raises(InputError, match="'日本', which the model's tokenizer cannot write"):
        draws(tokenizer, 1, choices=["yes", "日本"])
    with pytest.raises(InputError, match="no token with which an answer could begin"):
        draws(tokenizer, 1, json_schema={"type": "object"})


@pytest.mark.parametrize("decoder", [None, decoders.WordPiece("##", False)])
def test_words_that_a_decoder_sets_apart(decoder, tmp_path):
    tokenizer = words(tmp_path, decoder)
    grammar_of = {"choices": ["yes", "not at all", "17 no"]}
    size = tokenizer.backend.get_vocab_size()
    grammar = Grammar.compile(GenerationSettings(**grammar_of), tokenizer, [0], size)
    matcher = grammar.start()
    for word in ("not", "at", "all"):
        assert not matcher.complete
        matcher.advance(tokenizer.backend.token_to_id(word))
    assert matcher.complete


def test_pieces_of_words(tmp_path):
    bundles.wordpiece_tokenizer(tmp_path)
    regex = r"[a-z]{3,6}(, [a-z]{2,4}){0,2}"
    texts = draws(open_tokenizer(tmp_path / "tokenizer.json"), 100, regex=regex)
    assert all(re.fullmatch(regex, text) for text in texts) and len(set(texts)) > 50


def test_the_space_before_a_first_word_may_be_a_token(tmp_path):
    """Llama writes 12 as ▁ 1 2, of which the text is 12."""
    tokenizer = fallback(tmp_path)
    size = tokenizer.backend.get_vocab_size()
    space, one, two = (tokenizer.backend.token_to_id(token) for token in ("▁", "1", "2"))
    for text, rows in {"12": ([space, one, two], [one, two]), " 1": ([space, space, one],)}.items():
        grammar = Grammar.compile(GenerationSettings(choices=[text]), tokenizer, [2], size)
        for ids in rows:
            matcher = grammar.start()
            for token in ids:
                scores = np.zeros(size, np.float32)
                matcher.mask(scores)
                assert np.isfinite(scores[token])
                matcher.advance(token)
            assert matcher.complete
            assert tokenizer.decode(ids) == text


def test_decoders_that_look_at_neighbours_are_refused_by_name(tmp_path):
    tokenizer = words(tmp_path, decoders.BPEDecoder("</w>"), "</w>")
    tokenizer.backend.add_tokens(["half", "part"])
    with pytest.raises(InputError, match="decoder BPEDecoder writes"):
        TokenBytes(tokenizer)


@pytest.mark.parametrize("make", [*CAPABLE, real("t5-small")])
def test_the_bytes_of_tokens_make_the_text_of_the_decoder(make, tmp_path):
    tokenizer = make(tmp_path)
    table = TokenBytes(tokenizer)
    rng = np.random.default_rng(1)
    same = 0
    for _ in range(300):
        ids = rng.integers(0, len(table.rest), 5).tolist()
        made, text = table.text(ids), tokenizer.decode(ids)
        if "\ufffd" not in text and "\ufffd" not in made:
            assert made == text
            same += 1
    assert same > 20 or make is byte_level


def test_end_tokens_may_follow_exactly_where_the_text_may_end(tmp_path):
    tokenizer = byte_level(tmp_path)
    size = tokenizer.backend.get_vocab_size()
    settings = GenerationSettings(regex="a(bc)?")
    grammar = Grammar.compile(settings, tokenizer, [1, 0], size)
    letters = {letter: tokenizer.backend.token_to_id(letter) for letter in "abc"}
    matcher = grammar.start()
    seen = []
    for letter in "abc":
        scores = np.full(size, 2.0, np.float32)
        matcher.mask(scores)
        seen.append(np.isfinite(scores[:2]).all())
        assert np.isfinite(scores[:2]).any() == seen[-1]
        assert scores[letters[letter]] == 2.0 and scores[letters["b" if letter != "b" else "c"]] < 0
        matcher.advance(letters[letter])
    assert seen == [False, True, False]
    scores = np.arange(size, dtype=np.float32)
    matcher.mask(scores)
    assert matcher.complete and not matcher.stuck
    assert np.flatnonzero(np.isfinite(scores)).tolist() == [0, 1] and scores[1] == 1


def test_forks_go_their_own_ways(tmp_path):
    tokenizer = byte_level(tmp_path)
    size = tokenizer.backend.get_vocab_size()
    grammar = Grammar.compile(GenerationSettings(choices=["ab", "ac", "b"]), tokenizer, [1], size)
    a, b, c = (tokenizer.backend.token_to_id(letter) for letter in "abc")
    one = grammar.start()
    one.advance(a)
    two, three = one.fork(), one.fork()
    two.advance(b)
    assert two.complete and not one.complete and not three.complete
    three.advance(c)
    one.advance(b)
    assert one.complete and three.complete
    fresh = grammar.start()
    scores = np.zeros(size, np.float32)
    fresh.mask(scores)
    assert np.isfinite(scores[[a, b]]).all() and np.isinf(scores[c])


def test_a_token_that_may_not_follow_is_refused(tmp_path):
    tokenizer = byte_level(tmp_path)
    size = tokenizer.backend.get_vocab_size()
    grammar = Grammar.compile(GenerationSettings(choices=["ab"]), tokenizer, [1], size)
    wrong = tokenizer.backend.token_to_id("c")
    with pytest.raises(InputError, match=f"token {wrong} may not follow"):
        grammar.start().advance(wrong)
    matcher = grammar.start()
    matcher.advance(0)  # a special token writes nothing
    matcher.advance(tokenizer.backend.token_to_id("a"))


def test_equal_requests_share_a_grammar(tmp_path):
    tokenizer = byte_level(tmp_path)
    size = tokenizer.backend.get_vocab_size()
    one, same, other = (
        Grammar.compile(GenerationSettings(regex=regex), tokenizer, [1], size)
        for regex in ("a+", "a+", "a*")
    )
    assert one is same and one is not other
    assert one.vocabulary is other.vocabulary


def test_grammars_go_with_their_tokenizer(tmp_path):
    tokenizer = byte_level(tmp_path)
    Grammar.compile(GenerationSettings(regex="a+"), tokenizer, [1], 300)
    alive = weakref.ref(tokenizer)
    del tokenizer
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ({"regex": "(a"}, r'^regex=.*: regex ".*\(a.*": unclosed group$'),
        ({"regex": "a(?=b)"}, "look-around"),
        ({"regex": r"(a)\1"}, "backreferences"),
        ({"regex": ""}, "at least one character"),
        ({"regex": "\ud800"}, "not valid Unicode"),
        ({"json_schema": "{"}, "is not JSON"),
        ({"json_schema": [1]}, "expected a dict"),
        ({"json_schema": {"type": "strin"}}, "strin"),
        ({"json_schema": {"type": "string", "x-guidance": 1}}, "x-guidance"),
        ({"json_schema": {"enum": {1, 2}}}, "cannot be written as JSON"),
        ({"json_schema": {"propertys": {}}}, "'propertys' at #, .*did you mean 'properties'"),
        (
            {"json_schema": {"properties": {"a": {"anyOf": [{"lenght": 3}]}}}},
            "'lenght' at #/properties/a/anyOf/0",
        ),
        ({"json_schema": {"type": "array", "items": {"nullable": True}}}, "'nullable' at #/items"),
        ({"json_schema": {"additionalItems": False}}, "'additionalItems' .* not supported"),
        ({"json_schema": {"not": {"type": "string"}}}, 'Unimplemented keys: \\["not"\\]$'),
        ({"grammar": "start: nothing"}, "nothing"),
        ({"grammar": "start: A\nA: /(a/"}, r'line 2, column \d+: regex "\(a": unclosed group$'),
        ({"grammar": "nofile.lark"}, "if it is the name of a file: there is none"),
        ({"choices": ["\ud800"]}, "not valid Unicode"),
        ({}, "no constraint"),
    ],
)
def test_wrong_constraints_are_refused_with_the_reason(constraint, message, tmp_path):
    tokenizer = byte_level(tmp_path)
    with pytest.raises(InputError, match=message):
        Grammar.compile(GenerationSettings(**constraint), tokenizer, [1], 400)


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"propertys": {"type": "integer"}}},  # a name, not a keyword
        {"const": {"propertys": 1}},
        {"enum": [{"propertys": 1}]},
        {"type": "string", "title": "t", "x-mine": 1, "description": "d", "default": "a"},
        {"$defs": {"a": {"type": "null"}}, "anyOf": [{"$ref": "#/$defs/a"}, {"type": "integer"}]},
    ],
)
def test_names_and_values_are_no_keywords(schema, tmp_path):
    tokenizer = byte_level(tmp_path)
    Grammar.compile(GenerationSettings(json_schema=schema), tokenizer, [1], 400)


def test_the_form_of_json_can_be_chosen(tmp_path):
    tokenizer = byte_level(tmp_path)
    schema = {"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 2}
    assert set(draws(tokenizer, 20, json_schema=schema)) == {"[1, 1]"}
    schema["x-guidance"] = {"item_separator": ","}
    assert set(draws(tokenizer, 20, json_schema=schema)) == {"[1,1]"}
