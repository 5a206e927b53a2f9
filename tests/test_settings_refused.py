"""Settings, requests and choices that cannot be meant: each is refused by name."""

import numpy as np
import pytest
import serve_bundles as bundles

import serve
from serve import Engine, Generator, InputError, Request
from serve.bundle.manifest import GenerationSpec
from serve.decoding.settings import GenerationSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bundles.decoder_bundle(tmp_path_factory.mktemp("w") / "b")


@pytest.fixture(scope="module")
def writer(folder):
    return serve.load(folder)


@pytest.fixture(scope="module")
def chat(folder):
    return serve.load(folder, task="chat", template="plain")


CONTRADICTIONS = [
    ({"choices": []}, "choices is empty"),
    ({"choices": ["a"], "stop": "b"}, "choices and stop='b'"),
    ({"do_sample": False, "temperature": 0.5}, "do_sample=False .* temperature=0.5"),
    ({"do_sample": False, "top_k": 4}, "do_sample=False .* top_k=4"),
    ({"min_new_tokens": 5, "max_new_tokens": 4}, "min_new_tokens=5 is more than max_new_tokens=4"),
    ({"num_beams": 4, "num_beam_groups": 2, "do_sample": True}, "num_beam_groups=2: .* not drawn"),
    ({"num_beams": 4, "num_beam_groups": 2, "top_k": 9}, "num_beam_groups=2: .* not drawn"),
    ({"num_beams": 4, "diversity_penalty": 0.5}, "diversity_penalty=0.5 .* num_beam_groups"),
    ({"draft_tokens": 3}, "draft_tokens=3 is for a draft model"),
    ({"logprobs": 10**6}, "logprobs=1000000: the model has"),
    ({"forced_bos_token_id": 3}, "forced_bos_token_id=3 is for encoder-decoders"),
]
WRONG_TYPES = [
    ({"stop": 5}, "stop=5"),
    ({"stop": ["\ud800"]}, "stop is not valid Unicode: .* at character 0"),
    ({"logit_bias": [1]}, r"logit_bias=\[1\]"),
    ({"logit_bias": {3: float("nan")}}, "logit_bias holds 3: nan"),
    ({"bad_words_ids": 5}, "bad_words_ids=5"),
    ({"instruction": 5}, "instruction=5"),
    ({"num_beams": 10**30}, "expected a whole number from 1 to 10000"),
    ({"temperature": 1e9}, "up to 10000"),
]
UNKNOWN = [
    ({"temprature": 1}, "did you mean 'temperature'"),
    ({"bad_word": "x"}, "did you mean 'bad_words'"),
    ({"instructions": "x"}, "did you mean 'instruction'"),
    ({"xyzzy": 1}, "expected one of .*bad_words, .*instruction, .*long"),
]


@pytest.mark.parametrize(("given", "message"), CONTRADICTIONS + WRONG_TYPES + UNKNOWN)
def test_settings(writer, given, message):
    with pytest.raises(InputError, match=message):
        writer("the cat", **given)


def test_what_a_model_says_gives_way():
    spec = GenerationSpec(
        do_sample=True, temperature=0.5, min_new_tokens=9, stop=["END"], num_beams=4,
        num_beam_groups=2, diversity_penalty=0.5,
    )  # fmt: skip
    for given in (
        {"do_sample": False},
        {"max_new_tokens": 4},
        {"choices": ["a"]},
        {"diversity_penalty": 1.0},
        {"do_sample": False, "temperature": 1.0, "top_p": 1.0},
    ):
        GenerationSettings.for_model(spec, **given)
    assert GenerationSettings.for_model(spec, choices=["a"]).stop == ()


def test_minus_infinity_rules_a_token_out(writer):
    first = writer("the cat", max_new_tokens=1).token_ids[0]
    without = writer("the cat", max_new_tokens=3, logit_bias={first: -np.inf})
    assert first not in without.token_ids


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1.5], "holds 1.5"), (["abc"], "holds 'abc'"), ("abc", "input_ids='abc'"), (7, "=7"),
        ([True], "holds True"), (np.zeros(3), "array of float64"), ([[1]], r"holds \[1\]"),
        (np.zeros((1, 3), np.int64), r"shape \(1, 3\)"),
    ],
)  # fmt: skip
def test_ids_of_requests(ids, message):
    with pytest.raises(InputError, match=message):
        Request(ids, GenerationSettings())
    with pytest.raises(InputError, match=message.replace("input_ids", "prefix")):
        Request([1], GenerationSettings(), ids)


def test_what_is_no_request(folder):
    generator = Generator(folder)
    with pytest.raises(InputError, match=r"settings=\{'max_new_tokens': 3\}"):
        Request([1], {"max_new_tokens": 3})
    with pytest.raises(InputError, match=r"^input 1: input_ids holds 'a'"):
        generator.complete([[1], ["a"]])
    with pytest.raises(InputError, match="settings=5"):
        generator.complete([[1]], 5)
    engine = Engine(generator, slots=1, positions=8)
    with pytest.raises(InputError, match=r"\[1, 2\]: expected a `Request`"):
        engine.submit([1, 2])
    assert not engine.busy


@pytest.mark.parametrize(
    "given", [{"slots": "a"}, {"slots": 0}, {"positions": 0}, {"positions": -5}, {"chunk": 1.5}]
)
def test_sizes_of_engines(writer, given):
    [(name, value)] = given.items()
    with pytest.raises(InputError, match=f"{name}={value!r}: expected a whole number from 1"):
        Engine(writer.generator, **given)
    most = Engine(writer.generator, slots=1, positions=10**9).cache.capacity
    assert most == writer.generator.max_length


def test_choices_of_a_pipeline(folder, chat):
    with pytest.raises(InputError, match="prefix_cache='64MB': expected a number of bytes"):
        serve.load(folder, prefix_cache="64MB")
    with pytest.raises(InputError, match="draft=5: expected the folder"):
        serve.load(folder, draft=5)
    with pytest.raises(InputError, match="template=5"):
        serve.load(folder, task="chat", template=5)
    with pytest.raises(InputError, match="bundle=None"):
        serve.load(None)
    with pytest.raises(InputError, match="variables='x'"):
        chat("the cat", variables="x")
    with pytest.raises(InputError, match="did you mean 'overflow'"):
        chat("the cat", overflw="error")
    with pytest.raises(InputError, match="role 'system'"):
        chat("the cat", instruction="be brief")


@pytest.mark.parametrize("text", ["the \ud83d cat", ["the cat", "the \ud83d cat"]])
def test_half_a_character_of_a_text(writer, chat, text):
    with pytest.raises(
        InputError, match=r"half a character \(the lone surrogate U\+D83D\) at .* 4"
    ):
        writer(text)
    with pytest.raises(InputError, match=r"half a character"):
        chat(text)


STRANGE = [
    5, -1, 1.5, float("nan"), float("inf"), "x", "", [], [1], ["a"], {}, {"a": 1}, True, object(),
    b"x", np.array([1, 2]), np.float32(1), [[]], [None], 10**30, -(10**30), {"a"},
]  # fmt: skip


def test_strange_values_are_taken_or_refused_as_input(writer, chat):
    """No setting lets a value through to where it fails as something else."""
    refused = 0
    for pipeline in (writer, chat):
        for name in pipeline.setting_names():
            for value in STRANGE:
                if name in ("long", "overflow") and isinstance(value, np.ndarray):
                    continue  # compared with texts
                try:
                    pipeline("the cat", **{"max_new_tokens": 1, name: value})
                except InputError:
                    refused += 1
    assert refused > 800
