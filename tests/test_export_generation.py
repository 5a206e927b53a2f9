"""What a bundle holds of its checkpoint's defaults of generation."""

import json
import logging

import pytest
import tiny
from tokenizers import AddedToken, Tokenizer, models

import export
import zoo
from export.generation_defaults import generation_spec, language_tokens
from serve.decoding.settings import GenerationSettings
from zoo.text import languages

SEQ2SEQ = tiny.named("encoder-decoder")[0]
DECODER = tiny.named("decoder")[0]
BART = {
    "bos_token_id": 0, "eos_token_id": [2, 5], "forced_bos_token_id": 7, "forced_eos_token_id": [2],
    "num_beams": 4, "length_penalty": 2.0, "early_stopping": True, "no_repeat_ngram_size": 3,
    "max_length": 30, "min_length": 6, "bad_words_ids": [[9], [3, 4]], "renormalize_logits": True,
    "stop_strings": "END", "suppress_tokens": [], "top_k": 0, "num_beam_groups": 1,
}  # fmt: skip


def said(name, generation=None, config=None):
    model = tiny.model(name)
    model.pretrained = {"model_type": "x", "config": config or {}, "generation": generation or {}}
    return model


def differing(spec):
    plain = generation_spec(tiny.model(SEQ2SEQ)).model_dump()
    return {name: value for name, value in spec.model_dump().items() if value != plain.get(name)}


def test_a_checkpoints_defaults_are_the_bundles():
    assert differing(generation_spec(said(SEQ2SEQ, BART))) == {
        "eos_token_id": [2, 5], "forced_bos_token_id": 7, "forced_eos_token_id": 2, "num_beams": 4,
        "length_penalty": 2.0, "early_stopping": True, "no_repeat_ngram_size": 3, "max_length": 30,
        "min_length": 6, "max_new_tokens": 29, "bad_words_ids": [[9], [3, 4]],
        "renormalize_logits": True, "stop": ["END"],
    }  # fmt: skip


def test_older_checkpoints_say_it_in_config_json():
    config = {"num_beams": 3, "forced_eos_token_id": 2, "max_length": None, "vocab_size": 99}
    assert differing(generation_spec(said(SEQ2SEQ, config=config))) == {
        "num_beams": 3, "forced_eos_token_id": 2,
    }  # fmt: skip
    newer = generation_spec(said(SEQ2SEQ, {"num_beams": 2}, config))
    assert differing(newer) == {"num_beams": 2}  # the file of its own is all that counts then


def test_lengths():
    def lengths(name, generation, asked=None):
        spec = generation_spec(said(name, generation), asked)
        return spec.max_new_tokens, spec.max_length

    longest = tiny.model(SEQ2SEQ).decoder.length
    assert lengths(SEQ2SEQ, {}) == (min(64, longest), None)
    assert lengths(SEQ2SEQ, {"max_length": 11}) == (10, 11)
    assert lengths(SEQ2SEQ, {"max_length": 11, "max_new_tokens": 7}) == (7, None)
    assert lengths(SEQ2SEQ, {"max_length": 11}, 8) == (8, None)
    assert lengths(SEQ2SEQ, {"max_length": 4096}) == (longest, longest)
    assert lengths(DECODER, {"max_length": 20})[1] == 20
    assert lengths(DECODER, {"max_length": 20})[0] == lengths(DECODER, {})[0]


def test_what_cannot_be_kept_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        spec = generation_spec(
            said(
                DECODER, {"temperature": 0.0, "do_sample": True, "encoder_repetition_penalty": 2.0}
            )
        )
    assert spec.do_sample
    assert spec.temperature == 1.0
    assert "temperature=0.0" in caplog.text
    assert "encoder_repetition_penalty = 2.0" in caplog.text


def test_models_without_a_checkpoint_have_plain_defaults():
    spec = generation_spec(tiny.model(SEQ2SEQ))
    assert set(spec.model_dump()) == {
        "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "max_new_tokens",
        "do_sample", "temperature", "top_k", "top_p",
    }  # fmt: skip
    assert generation_spec(tiny.model(tiny.named("encoder")[0])) is None


def wrapped(*tokens, special=True):
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "en_XX": 1}, "<unk>"))
    backend.add_tokens([AddedToken(token, special=special) for token in tokens])
    return zoo.text.Tokenizer(backend)


def test_tokens_of_languages():
    found = language_tokens(wrapped("__fr__", "zho_Hans", "de_DE", "<extra_id_0>", "fr", "__pad__"))
    assert found == {"fr": 2, "zho_Hans": 3, "de_DE": 4}
    assert language_tokens(wrapped("__fr__", special=False)) == {}
    names = [*languages.MBART, *languages.MBART50_MORE, *languages.NLLB]
    assert set(language_tokens(wrapped(*names))) == set(names)
    codes = {*languages.M2M100, *languages.WMT21}
    assert set(language_tokens(wrapped(*(f"__{code}__" for code in codes)))) == codes


def test_a_bundle_begins_with_them(tmp_path):
    model = said(SEQ2SEQ, BART)
    model.tokenizer = wrapped("fr_XX")
    manifest = export.to_onnx(model, tmp_path / "out", verify=False)
    assert manifest.generation.language_token("fr") == 2
    settings = GenerationSettings.for_model(manifest.generation)
    assert (settings.num_beams, settings.forced_bos_token_id, settings.stop) == (4, 7, ("END",))
    assert settings.max_length == 30
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written["stop_strings"] == ["END"]
    assert written["num_beams"] == 4
    assert not {"stop", "language_tokens"} & set(written)


@pytest.mark.parametrize("place", ["generation_config.json", "config.json"])
def test_from_the_folder_of_a_checkpoint(place, tmp_path):
    config = zoo.families.family("mbart").decode({"d_model": 12, "encoder_layers": 1,
        "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "encoder_ffn_dim": 9, "decoder_ffn_dim": 9, "vocab_size": 40,
        "max_position_embeddings": 20})  # fmt: skip
    folder = tmp_path / "given"
    zoo.TaskModel(config, "text2text-generation").save_pretrained(folder, model_type="mbart")
    (folder / "generation_config.json").unlink()
    file = folder / place
    values = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**values, "forced_bos_token_id": 7, "num_beams": 5}))
    spec = generation_spec(zoo.from_pretrained(folder))
    assert (spec.forced_bos_token_id, spec.num_beams) == (7, 5)
