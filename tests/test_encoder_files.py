"""Encoder families: files of older make, and what only some files hold."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import zoo
from serve.pipelines.encoder import class_scores
from zoo.families import family

SMALL = {
    "vocab_size": 31,
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 17,
    "max_position_embeddings": 24,
}
V3 = {
    **SMALL,
    "relative_attention": True,
    "position_buckets": 6,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
}


def folder_of(path: Path, model_type: str, values: dict[str, Any], task: str) -> Path:
    """A folder of a new model, as the zoo writes it."""
    config = family(model_type).decode(values)
    model = zoo.TaskModel(config, task, labels=["one"] if "class" in task else None)
    for weight in model.weights:
        rng = np.random.default_rng(len(weight.path))
        weight.assign(rng.normal(0.0, 0.3, weight.shape))
    model.save_pretrained(path, model_type=model_type)
    return path


def rewrite(path: Path, tensors: dict[str, np.ndarray], **config: Any) -> None:
    """Other tensors, and other keys (None: none such)."""
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    values = {**json.loads((path / "config.json").read_text()), **config}
    kept = {key: value for key, value in values.items() if value is not None}
    (path / "config.json").write_text(json.dumps(kept))


def test_nomic_files_in_the_words_of_gpt2_mean_the_same() -> None:
    names = {
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "intermediate_size": "n_inner",
        "max_position_embeddings": "n_positions",
    }
    older = {names.get(key, key): value for key, value in SMALL.items()}
    older |= {
        "activation_function": "swiglu",
        "layer_norm_epsilon": 1e-12,
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_scaling_factor": None,
        "qkv_proj_bias": False,
        "mlp_fc1_bias": False,
        "prenorm": False,
        "use_flash_attn": True,
        "pad_vocab_size_multiple": 64,
    }
    nomic = family("nomic_bert")
    assert nomic.decode(older) == nomic.decode(SMALL)


@pytest.mark.parametrize(
    ("model_type", "key", "value"),
    [
        ("deberta-v2", "conv_kernel_size", 3),
        ("deberta-v2", "pos_att_type", "p2p"),
        ("deberta-v2", "embedding_size", 8),
        ("nomic_bert", "prenorm", True),
        ("nomic_bert", "rotary_scaling_factor", 2.0),
        ("nomic_bert", "activation_function", "gelu"),
        ("mpnet", "relative_attention_num_buckets", 64),
        ("roberta", "is_decoder", True),
        ("modernbert", "layer_types", ["full_attention", "another"]),
        ("bert", "position_embedding_type", "relative_key"),
    ],
)
def test_what_would_change_the_numbers_is_refused_by_name(model_type, key, value) -> None:
    keys = V3 if model_type == "deberta-v2" else SMALL
    with pytest.raises(zoo.ConfigError, match=key):
        family(model_type).decode({**keys, key: value})


def test_the_published_head_of_deberta_v3_is_read(tmp_path, caplog) -> None:
    """Its file names no architecture, and the head otherwise than config.json would have it."""
    path = folder_of(tmp_path / "v3", "deberta-v2", V3, "fill-mask")
    before = load_file(path / "model.safetensors")
    tensors = {
        name.replace("cls.predictions.transform", "lm_predictions.lm_head").replace(
            "cls.predictions", "lm_predictions.lm_head"
        ): value
        for name, value in before.items()
    }
    assert set(tensors) != set(before)
    tensors["mask_predictions.classifier.weight"] = np.zeros((1, 12), "float32")
    rewrite(path, tensors, architectures=None)
    caplog.set_level("WARNING")
    zoo.from_pretrained(path, task="fill-mask").save_pretrained(tmp_path / "again")
    assert "the head is new" not in caplog.text
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert again.keys() == before.keys()
    assert all(np.array_equal(again[name], before[name]) for name in before)


@pytest.fixture
def discriminator(tmp_path) -> Path:
    values = {**SMALL, "embedding_size": 8}
    path = folder_of(tmp_path / "electra", "electra", values, "token-classification")
    rng = np.random.default_rng(3)
    tensors = load_file(path / "model.safetensors")
    weight, bias = (tensors.pop(f"classifier.{name}") for name in ("weight", "bias"))
    tensors |= {
        "discriminator_predictions.dense.weight": rng.normal(size=(12, 12)).astype("float32"),
        "discriminator_predictions.dense.bias": rng.normal(size=12).astype("float32"),
        "discriminator_predictions.dense_prediction.weight": weight,
        "discriminator_predictions.dense_prediction.bias": bias,
    }
    rewrite(
        path, tensors, architectures=["ElectraForPreTraining"], hidden_act="relu", id2label=None
    )
    return path


def test_a_discriminator_scores_each_token(discriminator, tmp_path) -> None:
    model = zoo.from_pretrained(discriminator)
    assert model.task == "token-classification"
    assert model.labels == ["replaced"]
    ids = np.array([[3, 7, 11, 2]])
    states = zoo.from_pretrained(discriminator, task="feature-extraction")({"input_ids": ids})
    tensors = load_file(discriminator / "model.safetensors")
    dense, last = (
        (
            tensors[f"discriminator_predictions.{n}.weight"].T,
            tensors[f"discriminator_predictions.{n}.bias"],
        )
        for n in ("dense", "dense_prediction")
    )
    hidden = np.maximum(np.asarray(states["last_hidden_state"]) @ dense[0] + dense[1], 0.0)
    expected = hidden @ last[0] + last[1]
    np.testing.assert_allclose(np.asarray(model({"input_ids": ids})["logits"]), expected, atol=1e-5)

    model.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again" / "model.safetensors").keys() == tensors.keys()
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    assert written["architectures"] == ["ElectraForPreTraining"]


def test_a_discriminator_with_labels_of_ones_own_gets_a_new_head(
    discriminator, tmp_path, caplog
) -> None:
    caplog.set_level("WARNING")
    model = zoo.from_pretrained(discriminator, "token-classification", labels=["O", "B", "I"])
    assert "the head is new" in caplog.text
    assert model({"input_ids": np.array([[3, 7]])})["logits"].shape == (1, 2, 3)
    model.save_pretrained(tmp_path / "again")
    assert "classifier.weight" in load_file(tmp_path / "again" / "model.safetensors")
    again = zoo.from_pretrained(tmp_path / "again")
    assert again.labels == ["O", "B", "I"]


def test_files_keep_their_own_words(tmp_path) -> None:
    path = folder_of(tmp_path / "bert", "bert", {**SMALL, "hidden_act": "gelu_new"}, "fill-mask")
    rewrite(path, load_file(path / "model.safetensors"), hidden_act="gelu_new", use_cache=False)
    zoo.from_pretrained(path).save_pretrained(tmp_path / "again")
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    assert written["hidden_act"] == "gelu_new"
    assert written["use_cache"] is False


def test_a_single_class_is_weighed_against_its_absence() -> None:
    scores = class_scores(np.array([[0.0], [2.0]], "float32"))
    np.testing.assert_allclose(scores, [[0.5], [1.0 / (1.0 + np.exp(-2.0))]])
    two = class_scores(np.array([[0.0, 0.0]], "float32"))
    np.testing.assert_allclose(two, [[0.5, 0.5]])
