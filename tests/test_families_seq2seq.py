"""What encoder-decoder checkpoints alone have: heads that the file decides on, tensors that files
lack, settings of generation, tasks of both stacks and of the encoder.
"""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import zoo
from zoo.families import family

SMALL: dict[str, Any] = {"vocab_size": 37, "d_model": 24, "decoder_start_token_id": 3}
T5 = {**SMALL, "d_kv": 8, "d_ff": 35, "num_heads": 3, "num_layers": 2, "num_decoder_layers": 1}
BART = {
    **SMALL,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 35,
    "decoder_ffn_dim": 29,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
}
KINDS = {"t5": T5, "bart": BART, "mbart": BART, "pegasus": BART}
IDS = np.array([[5, 9, 7, 2], [8, 2, 1, 1]], "int32")
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], "int32")


def saved(folder: Path, kind: str, task: str = "text2text-generation", **keys: Any) -> Any:
    """A model of the family with all weights drawn, written to `folder`."""
    keras.utils.set_random_seed(3)
    labels = ["first", "second", "third"] if task == "text-classification" else None
    found = family(kind)
    config = found.decode({**KINDS[kind], **keys})
    head = found.head_facts(found.form(task), {})
    model = zoo.TaskModel(config, task, labels=labels, head=head)
    rng = np.random.default_rng(3)
    for weight in model.weights:
        if "float" in weight.dtype:
            weight.assign(rng.normal(0.0, 0.3, weight.shape))
    model.save_pretrained(folder, model_type=kind)
    return model


def rewrite(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def logits(model: Any) -> np.ndarray:
    feeds = {"input_ids": IDS, "attention_mask": MASK}
    if model.generates:
        feeds["decoder_input_ids"] = IDS
    return np.asarray(model(feeds)["logits"])


@pytest.mark.parametrize("said", [True, False])
def test_the_file_says_whether_the_head_is_tied(said, tmp_path) -> None:
    """The reference writes `tie_word_embeddings: true` beside a head that differs."""
    model = saved(tmp_path, "t5", tie_word_embeddings=False, scale_decoder_outputs=False)
    tensors = load_file(tmp_path / "model.safetensors")
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "tie_word_embeddings": said}))
    own = zoo.from_pretrained(tmp_path)
    assert not own.config.tie_embeddings
    np.testing.assert_array_equal(logits(own), logits(model))
    for same in (None, tensors["shared.weight"]):
        given = {k: v for k, v in tensors.items() if k != "lm_head.weight"}
        rewrite(tmp_path, given if same is None else {**given, "lm_head.weight": same})
        tied = zoo.from_pretrained(tmp_path)
        assert tied.config.tie_embeddings
        assert tied.config.logit_scale is None
        assert np.abs(logits(tied) - logits(model)).max() > 0.1


def test_the_head_of_a_tied_t5_reads_scaled_states(tmp_path) -> None:
    values = {"tie_word_embeddings": True}
    assert family("t5").decode({**T5, **values}).logit_scale == pytest.approx(24**-0.5)
    assert family("mt5").decode({**T5, **values}).logit_scale is None


def test_a_file_may_lack_the_bias_of_the_logits(tmp_path) -> None:
    model = saved(tmp_path, "bart")
    tensors = load_file(tmp_path / "model.safetensors")
    bias = tensors.pop("final_logits_bias")
    assert bias.shape == (1, 37)
    rewrite(tmp_path, tensors)
    without = zoo.from_pretrained(tmp_path)
    np.testing.assert_allclose(logits(without) + bias, logits(model), atol=1e-5)


def test_pegasus_computes_the_tables_that_a_file_lacks(tmp_path) -> None:
    saved(tmp_path, "pegasus")
    tensors = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if "embed_positions" not in name}
    assert len(tensors) - len(kept) == 2
    rewrite(tmp_path, kept)
    model = zoo.from_pretrained(tmp_path)
    table = np.asarray(model.decoder.embeddings.positions.table)
    angles = np.arange(40)[:, None] / 10000 ** (np.arange(12) / 12)
    np.testing.assert_allclose(table, np.hstack([np.sin(angles), np.cos(angles)]), atol=1e-5)
    rewrite(tmp_path, {k: v for k, v in kept.items() if "layernorm_embedding" not in k})
    zoo.from_pretrained(tmp_path)  # it has none
    saved(tmp_path, "bart")
    tensors = load_file(tmp_path / "model.safetensors")
    rewrite(tmp_path, {k: v for k, v in tensors.items() if "embed_positions" not in k})
    with pytest.raises(zoo.DataError, match=r"missing model\.encoder\.embed_positions\.weight"):
        zoo.from_pretrained(tmp_path)


GENERATION = {"forced_bos_token_id": 7, "forced_eos_token_id": 2, "num_beams": 5, "max_length": 30}


@pytest.mark.parametrize("place", ["config.json", "generation_config.json"])
def test_what_a_folder_says_of_generation_is_kept(place, tmp_path) -> None:
    saved(tmp_path / "given", "mbart", eos_token_id=2)
    file = tmp_path / "given" / place
    file.write_text(json.dumps({**json.loads(file.read_text()), **GENERATION}))
    model = zoo.from_pretrained(tmp_path / "given")
    model.save_pretrained(tmp_path / "ours")
    written = json.loads((tmp_path / "ours" / "generation_config.json").read_text())
    ids = {"decoder_start_token_id": 3, "eos_token_id": 2, "pad_token_id": 1, "bos_token_id": 0}
    assert written == {**ids, **GENERATION}


@pytest.mark.parametrize("kind", ["bart", "mbart", "t5"])
def test_both_stacks_classify(kind, tmp_path) -> None:
    """The decoder reads the text behind its start token; its state at the last token counts."""
    model = saved(tmp_path, kind, "text-classification")
    again = zoo.from_pretrained(tmp_path)
    assert (again.task, again.architecture) == ("text-classification", "encoder-decoder")
    assert again.head_facts == model.head_facts
    found = logits(again)
    np.testing.assert_array_equal(found, logits(model))
    for row, length in enumerate(MASK.sum(axis=1)):
        ids = IDS[row : row + 1, :length]
        memory = again.encode(ids, np.ones_like(ids))[1]
        begun = np.concatenate([[[3]], ids[:, :-1]], axis=1)
        read, _, _ = again.decoder(begun, memory=memory)
        expected = again.head(read[:, -1:], attention_mask=np.ones((1, 1)))
        np.testing.assert_allclose(found[row], np.asarray(expected)[0], atol=1e-5)


def test_an_encoder_alone_gives_features(tmp_path) -> None:
    """From a file of the whole model, and written as one of the encoder."""
    whole = saved(tmp_path / "whole", "t5")
    alone = zoo.from_pretrained(tmp_path / "whole", task="feature-extraction")
    assert alone.decoder is None
    assert alone.architecture == "encoder"
    expected, _ = whole.encode(IDS, MASK)
    found = alone({"input_ids": IDS, "attention_mask": MASK})["last_hidden_state"]
    np.testing.assert_array_equal(found, expected)
    alone.save_pretrained(tmp_path / "alone")
    assert not [n for n in load_file(tmp_path / "alone" / "model.safetensors") if "decoder" in n]
    again = zoo.from_pretrained(tmp_path / "alone")
    assert again.task == "feature-extraction"
    np.testing.assert_array_equal(
        again({"input_ids": IDS, "attention_mask": MASK})["last_hidden_state"], found
    )


@pytest.mark.parametrize("task", ["feature-extraction", "text-classification"])
def test_an_untied_head_is_left_to_its_task(task, tmp_path, caplog) -> None:
    saved(tmp_path, "t5", tie_word_embeddings=False)
    with caplog.at_level("INFO"):
        model = zoo.from_pretrained(tmp_path, task=task)
    assert "left out tensors of other tasks" in caplog.text
    assert "lm_head.weight" in caplog.text
    table = load_file(tmp_path / "model.safetensors")["shared.weight"]
    np.testing.assert_array_equal(model.encoder.embeddings.tokens.table, table)


def test_other_vocabularies_on_both_sides_are_refused() -> None:
    keys = {"pad_token_id": 1, "decoder_vocab_size": 38, "share_encoder_decoder_embeddings": False}
    with pytest.raises(zoo.ConfigError, match="decoder_vocab_size = 38 is not supported"):
        family("marian").decode({**BART, **keys})


def test_a_head_count_must_fit_the_width() -> None:
    with pytest.raises(zoo.ConfigError, match=r"decoder_num_heads = 5: .*divide hidden_dim \(24\)"):
        family("bart").decode({**BART, "decoder_attention_heads": 5})
