"""keras-nlp's models taken over: hidden states, heads, folders; skipped where it is not installed.

`make parity` runs it in an environment that has it.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import zoo
from zoo.checkpoints import keras_nlp
from zoo.checkpoints.keras_nlp_twins import TWINS
from zoo.errors import ConfigError, DataError

keras_hub = pytest.importorskip("keras_hub")

TOLERANCE = 1e-5
VOCABULARY = 53
SHAPE = {"vocabulary_size": VOCABULARY, "num_layers": 2, "hidden_dim": 24, "intermediate_dim": 44}
PLAIN = {**SHAPE, "num_heads": 3, "max_sequence_length": 19}
GATED = {**SHAPE, "num_query_heads": 4, "num_key_value_heads": 2}
LLAMA_3 = {
    "rope_max_wavelength": 500000,
    "rope_frequency_adjustment_factor": 8.0,
    "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 4.0,
    "rope_pretraining_sequence_length": 16,
}
T5 = {**SHAPE, "num_heads": 3}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertBackbone", {**PLAIN, "num_segments": 3}),
    "roberta": ("RobertaBackbone", PLAIN),
    "xlm-roberta": ("XLMRobertaBackbone", PLAIN),
    "distilbert": ("DistilBertBackbone", PLAIN),
    "gpt2": ("GPT2Backbone", PLAIN),
    "opt": ("OPTBackbone", PLAIN),
    "llama": ("LlamaBackbone", GATED),
    "llama-tied": ("LlamaBackbone", {**GATED, "tie_word_embeddings": True}),
    "llama3": ("Llama3Backbone", {**GATED, **LLAMA_3}),
    "mistral": ("MistralBackbone", {**GATED, "sliding_window": 3, "layer_norm_epsilon": 1e-5}),
    "mistral-wide": (
        "MistralBackbone",
        {**GATED, "sliding_window": None, "head_dim": 10, "rope_scaling_factor": 2.0},
    ),
    "qwen": ("QwenBackbone", {**GATED, "rope_max_wavelength": 1000000}),
    "qwen-local": (
        "QwenBackbone",
        {
            **GATED,
            "tie_word_embeddings": False,
            "use_sliding_window_attention": True,
            "sliding_window_size": 4,
        },
    ),
    "gemma": ("GemmaBackbone", {**GATED, "head_dim": 10}),
    "gemma2": (
        "GemmaBackbone",
        {
            **GATED,
            "head_dim": 10,
            "use_post_ffw_norm": True,
            "use_post_attention_norm": True,
            "attention_logit_soft_cap": 5.0,
            "final_logit_soft_cap": 3.0,
            "use_sliding_window_attention": True,
            "sliding_window_size": 4,
        },
    ),
    "bart": ("BartBackbone", PLAIN),
    "t5": ("T5Backbone", {**T5, "use_gated_activation": False}),
    "t5-gated": (
        "T5Backbone",
        {
            **T5,
            "key_value_dim": 10,
            "tie_embedding_weights": False,
            "activation": keras_hub.src.utils.keras_utils.gelu_approximate,
        },
    ),
}
LENGTHS = (11, 4, 7)


def shaken(model: Any) -> Any:
    """The model with every weight away from zero, one and its neighbours."""
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if "seed_generator" not in variable.path:
            draw = rng.uniform(-0.3, 0.3, variable.shape)
            norm = variable.path.endswith(("/gamma", "/weight"))
            variable.assign(draw + 1.0 if norm else draw)
    return model


def backbone_of(name: str) -> Any:
    cls, config = CASES[name]
    return shaken(getattr(keras_hub.models, cls)(**config))


def rows(lengths: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype("int32")
    ids = np.random.default_rng(seed).integers(4, VOCABULARY, mask.shape, dtype="int32")
    return np.where(mask == 1, ids, 1), mask


def inputs_of(backbone: Any) -> dict[str, np.ndarray]:
    """Theirs by name; odd lengths, padded."""
    ids, mask = rows(LENGTHS, 1)
    decoder_ids, decoder_mask = rows((5, 9, 3), 2)
    given = {
        "token_ids": ids,
        "padding_mask": mask,
        "segment_ids": ids % 3 * mask,
        "encoder_token_ids": ids,
        "encoder_padding_mask": mask,
        "decoder_token_ids": decoder_ids,
        "decoder_padding_mask": decoder_mask,
    }
    return {name: given[name] for name in backbone.input}


def ours_of(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = {
        "token_ids": "input_ids",
        "encoder_token_ids": "input_ids",
        "padding_mask": "attention_mask",
        "encoder_padding_mask": "attention_mask",
        "segment_ids": "token_type_ids",
        "decoder_token_ids": "decoder_input_ids",
    }
    return {names[name]: value for name, value in given.items() if name in names}


def gap(ours: Any, theirs: Any, mask: np.ndarray) -> float:
    difference = np.abs(np.asarray(ours) - np.asarray(theirs))
    return float((difference * mask[..., None]).max())


@pytest.mark.parametrize("name", CASES)
def test_states_and_logits_are_theirs(name: str) -> None:
    backbone = backbone_of(name)
    given = inputs_of(backbone)
    out = backbone(given)
    if isinstance(out, dict):
        out = out.get("decoder_sequence_output", out.get("sequence_output"))
    mask = given.get("decoder_padding_mask", given.get("padding_mask"))
    model = zoo.from_keras_nlp(backbone)
    inputs = ours_of(given)
    if model.architecture == "encoder":
        assert model.task == "feature-extraction"
        assert gap(model(inputs)["last_hidden_state"], out, mask) <= TOLERANCE
        return
    scale = model.config.logit_scale or 1.0
    theirs = backbone.token_embedding(out * scale, reverse=True)
    assert gap(model(inputs)["logits"], theirs, mask) <= TOLERANCE
    if model.architecture == "decoder":
        states = zoo.from_keras_nlp(backbone, task="feature-extraction")(inputs)
        assert gap(states["last_hidden_state"], out, mask) <= TOLERANCE


def test_every_twin_is_compared() -> None:
    assert {cls for cls, _ in CASES.values()} == set(TWINS)


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
def test_a_classifier_comes_with_its_head(name: str) -> None:
    cls = CASES[name][0].replace("Backbone", "TextClassifier")
    theirs = shaken(getattr(keras_hub.models, cls)(backbone_of(name), num_classes=5))
    given = inputs_of(theirs.backbone)
    model = zoo.from_keras_nlp(theirs)
    assert model.task == "text-classification"
    assert model.labels == [f"LABEL_{i}" for i in range(5)]
    difference = np.asarray(model(ours_of(given))["logits"]) - np.asarray(theirs(given))
    assert np.abs(difference).max() <= TOLERANCE


def test_a_masked_language_model_comes_with_its_head() -> None:
    theirs = shaken(keras_hub.models.RobertaMaskedLM(backbone_of("roberta")))
    given = inputs_of(theirs.backbone)
    positions = np.tile(np.arange(given["token_ids"].shape[1]), (len(LENGTHS), 1))
    model = zoo.from_keras_nlp(theirs)
    assert model.task == "fill-mask"
    expected = theirs({**given, "mask_positions": positions})
    assert gap(model(ours_of(given))["logits"], expected, given["padding_mask"]) <= TOLERANCE


def test_a_head_without_a_twin_is_refused_and_its_backbone_is_not() -> None:
    theirs = keras_hub.models.BertMaskedLM(backbone_of("bert"))
    with pytest.raises(ConfigError, match="head of a BertMaskedLM has no twin"):
        zoo.from_keras_nlp(theirs)
    model = zoo.from_keras_nlp(theirs.backbone, task="token-classification", labels=["a", "b"])
    assert model.labels == ["a", "b"]


@pytest.mark.parametrize("name", ["roberta", "llama3", "bart", "t5-gated", "gemma2"])
def test_what_is_taken_over_is_saved_as_a_hugging_face_folder(name: str, tmp_path) -> None:
    model = zoo.from_keras_nlp(backbone_of(name))
    model.save_pretrained(tmp_path / "saved")
    again = zoo.from_pretrained(tmp_path / "saved")
    inputs = ours_of(inputs_of(backbone_of(name)))
    for output, value in model(inputs).items():
        assert np.array_equal(np.asarray(again(inputs)[output]), np.asarray(value))


def test_a_preset_folder_is_loaded(tmp_path) -> None:
    backbone = backbone_of("gpt2")
    backbone.save_to_preset(str(tmp_path / "preset"))
    ids = ours_of(inputs_of(backbone))
    model = zoo.from_keras_nlp(str(tmp_path / "preset"))
    expected = zoo.from_keras_nlp(backbone)(ids)["logits"]
    assert np.array_equal(np.asarray(model(ids)["logits"]), np.asarray(expected))


def test_a_preset_that_cannot_be_loaded_is_named(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"preset '.*empty' cannot be loaded .*save_to_preset"):
        zoo.from_keras_nlp(str(tmp_path / "empty"))


def test_a_preset_without_the_library_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(DataError, match="pip install keras-hub"):
        zoo.from_keras_nlp("bert_tiny_en_uncased")


def test_all_problems_come_in_one_error(monkeypatch) -> None:
    twin = TWINS["GPT2Backbone"]
    rows_left = tuple(row for row in twin.rows if "feed_forward/up/bias" not in row.ours[0])
    wrong = tuple(
        dataclasses.replace(row, theirs=("layer_norm/gone",))
        if row.ours == ("decoder/final_norm/offset",)
        else row
        for row in twin.rows
    )
    backbone = backbone_of("gpt2")
    monkeypatch.setitem(TWINS, "GPT2Backbone", dataclasses.replace(twin, rows=wrong))
    with pytest.raises(DataError, match=r"(?s)2 problems.*missing layer_norm/gone.*unused layer_"):
        zoo.from_keras_nlp(backbone)
    monkeypatch.setitem(TWINS, "GPT2Backbone", dataclasses.replace(twin, rows=rows_left))
    with pytest.raises(DataError, match=r"no row for decoder/block_0/feed_forward/up/bias"):
        zoo.from_keras_nlp(backbone)


def test_an_unknown_class_or_value_is_an_error() -> None:
    albert = keras_hub.models.AlbertBackbone(
        vocabulary_size=9, num_layers=1, num_heads=1, embedding_dim=2, hidden_dim=2,
        intermediate_dim=2,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="AlbertBackbone has no twin"):
        zoo.from_keras_nlp(albert)
    config = {**backbone_of("bert").get_config(), "scores": "squared"}
    twin = TWINS["BertBackbone"]
    with pytest.raises(ConfigError, match="scores = 'squared' not understood"):
        twin.translate(config, tied=True, where="config")
    for name, change in (
        ("llama", {"rope_position_scaling_factor": 2.0}),
        ("gemma2", {"query_head_dim_normalize": False}),
        ("gemma", {"layer_norm_epsilon": 1e-5}),
    ):
        cls, config = CASES[name]
        changed = getattr(keras_hub.models, cls)(**{**config, **change})
        with pytest.raises(ConfigError, match=f"{next(iter(change))} = "):
            zoo.from_keras_nlp(changed)


def test_the_longest_text_is_given_where_theirs_has_none() -> None:
    assert zoo.from_keras_nlp(backbone_of("llama"), max_length=77).config.max_length == 77
    assert zoo.from_keras_nlp(backbone_of("t5"), max_length=77).config.max_length == 77
    with pytest.raises(ConfigError, match="has its own longest text"):
        zoo.from_keras_nlp(backbone_of("bert"), max_length=77)


def test_names_of_their_variables_do_not_depend_on_what_was_made_before() -> None:
    first = list(keras_nlp.named_variables(backbone_of("t5")))
    assert first == list(keras_nlp.named_variables(backbone_of("t5")))
    assert len(set(first)) == len(first)
    assert json.dumps(first).count("#2") == CASES["t5"][1]["num_layers"]
