"""Generation defaults in a manifest, and what settings make of them."""

import json
from dataclasses import fields

import pytest

from serve.bundle.manifest import GenerationSpec
from serve.decoding.settings import GenerationSettings
from serve.errors import InputError

OLD = {
    "bos_token_id": None, "eos_token_id": [1], "pad_token_id": 0, "decoder_start_token_id": 0,
    "max_new_tokens": 10, "do_sample": False, "temperature": 1.0, "top_k": None, "top_p": None,
}  # fmt: skip
FULL = {
    **OLD, "min_p": 0.1, "typical_p": 0.9, "max_length": 142, "min_length": 56, "min_new_tokens": 3,
    "num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5, "length_penalty": 2.0,
    "early_stopping": "never", "repetition_penalty": 1.1, "no_repeat_ngram_size": 3,
    "encoder_no_repeat_ngram_size": 4, "bad_words_ids": [[5], [6, 7]], "suppress_tokens": [8],
    "begin_suppress_tokens": [9], "forced_bos_token_id": 2, "forced_eos_token_id": 1,
    "renormalize_logits": True, "stop": ["END"], "language_tokens": {"fr_XX": 11},
}  # fmt: skip


def test_old_manifests_are_valid_and_stay_as_they_are():
    spec = GenerationSpec.model_validate(OLD)
    assert json.loads(spec.model_dump_json()) == OLD
    assert spec.model_dump(exclude_none=True) == {k: v for k, v in OLD.items() if v is not None}


def test_what_differs_from_the_defaults_is_written():
    spec = GenerationSpec.model_validate(FULL)
    assert json.loads(spec.model_dump_json()) == FULL
    assert GenerationSpec.model_validate_json(spec.model_dump_json()) == spec


def test_every_default_is_that_of_the_settings():
    """A default that is left out of the file must mean the same to whoever reads it."""
    known = {one.name for one in fields(GenerationSettings)}
    assert {*FULL} - {"bos_token_id", "decoder_start_token_id", "language_tokens"} <= known
    spec, plain = GenerationSpec(max_new_tokens=7), GenerationSettings()
    assert GenerationSettings.for_model(spec) == plain
    for name in known & set(GenerationSpec.model_fields) - {"max_new_tokens"}:
        value, default = getattr(spec, name), getattr(plain, name)
        assert value == (list(default) if isinstance(default, tuple) else default), name


def test_settings_begin_with_the_models_defaults():
    spec = GenerationSpec.model_validate(FULL)
    settings = GenerationSettings.for_model(spec, length_penalty=0.5)
    assert settings.num_beams == 4
    assert settings.length_penalty == 0.5
    assert settings.bad_words_ids == ((5,), (6, 7))
    assert settings.stop == ("END",)
    assert settings.max_length == 142
    assert settings.max_new_tokens is None  # what fits, up to the model's default
    assert GenerationSettings.for_model(spec, max_new_tokens=200).max_length is None
    alone = GenerationSettings.for_model(spec, num_beams=1)
    assert (alone.num_beam_groups, alone.diversity_penalty) == (1, 0.0)
    contrastive = GenerationSettings.for_model(spec, penalty_alpha=0.6, top_k=4)
    assert (contrastive.num_beams, contrastive.do_sample) == (1, False)


@pytest.mark.parametrize(
    "wrong",
    [{"num_beams": 0}, {"min_p": 2}, {"early_stopping": "soon"}, {"bad_words_ids": [5]}, {"x": 1}],
)
def test_wrong_defaults_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GenerationSpec.model_validate({**OLD, **wrong})


def test_languages_by_name():
    spec = GenerationSpec(language_tokens={"fr_XX": 8, "zho_Hans": 5, "zho_Hant": 6, "de": 7})
    assert spec.language_token("fr_XX") == spec.language_token("fr") == 8
    assert spec.language_token("zho_Hans") == 5
    assert spec.language_token("de") == 7
    with pytest.raises(InputError, match="'zho': expected one of zho_Hans, zho_Hant"):
        spec.language_token("zho")
    with pytest.raises(InputError, match="'it': expected one of de, fr_XX, zho_Hans, zho_Hant"):
        spec.language_token("it")
    with pytest.raises(InputError, match="no tokens of languages"):
        GenerationSpec().language_token("fr")
