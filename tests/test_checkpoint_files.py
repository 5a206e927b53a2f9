"""Checkpoint folders: memory-mapped reading, values that come late, what is refused and why."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import zoo
from zoo.checkpoints import tensors
from zoo.checkpoints.deferred import initialize, without_values
from zoo.checkpoints.tensors import TensorFolder
from zoo.errors import DataError

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 41,
    "hidden_size": 12,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "max_position_embeddings": 16,
    "tie_word_embeddings": True,
    "attention_dropout": 0.5,
}
IDS = {"input_ids": np.array([[5, 7, 11, 2]])}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A tiny Llama as a folder."""
    config = zoo.families.family("llama").decode(CONFIG)
    zoo.TaskModel(config, "text-generation").save_pretrained(tmp_path / "tiny", model_type="llama")
    return tmp_path / "tiny"


def logits(model: zoo.TaskModel) -> np.ndarray:
    return np.asarray(model(IDS)["logits"])


@pytest.mark.parametrize("held", [0, 10**9])
def test_a_file_is_mapped_anew_once_enough_of_it_was_read(folder, held, monkeypatch) -> None:
    expected = logits(zoo.from_pretrained(folder))
    with TensorFolder(folder) as given:
        count = len(given.places)
    mapped = []
    real = TensorFolder._open

    def noted(self: TensorFolder, file: str):
        if file not in self._files:
            mapped.append(file)
        return real(self, file)

    monkeypatch.setattr(TensorFolder, "_open", noted)
    monkeypatch.setattr(tensors, "HELD_BYTES", held)
    assert np.array_equal(logits(zoo.from_pretrained(folder)), expected)
    assert len(mapped) == {0: count, 10**9: 1}[held]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_read_as_float32(folder, dtype) -> None:
    stored = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}[dtype]
    with TensorFolder(folder) as given:
        halved = {name: given.read(name).astype(stored) for name in given.places}
    save_file(halved, folder / "model.safetensors", {"format": "pt"})
    model = zoo.from_pretrained(folder)
    table = model.decoder.embeddings.tokens.table
    assert table.dtype == "float32"
    expected = halved["model.embed_tokens.weight"].astype(np.float32)
    assert np.array_equal(np.asarray(table), expected)
    half = zoo.from_pretrained(folder, dtype=dtype)
    assert half.decoder.embeddings.tokens.table.dtype == dtype
    assert np.allclose(logits(half).astype(np.float32), logits(model), atol=0.02)


def test_a_new_head_is_drawn_and_the_rest_is_the_files(folder) -> None:
    model = zoo.from_pretrained(folder, task="text-classification", labels=["a", "b", "c"])
    kernel = np.asarray(model.head.logits.kernel)
    assert kernel.shape == (12, 3)
    assert 0.005 < kernel.std() < 0.05
    with TensorFolder(folder) as given:
        expected = given.read("model.norm.weight")
    assert np.array_equal(np.asarray(model.decoder.final_norm.scale), expected)
    model(IDS, training=True)  # dropout's seeds have their values too


def test_a_model_without_values_gets_its_first_ones() -> None:
    config = zoo.families.family("llama").decode(CONFIG)
    with without_values() as waiting:
        model = zoo.TaskModel(config, "text-generation")
    assert {id(v) for v in model.weights} <= {id(v) for v in waiting}
    assert all(variable._value is None for variable in waiting)
    initialize(waiting)
    assert np.isfinite(logits(model)).all()
    assert np.asarray(model.decoder.embeddings.tokens.table).std() > 0.005


def test_all_problems_of_a_folder_come_in_one_error(folder) -> None:
    with TensorFolder(folder) as given:
        changed = {name: given.read(name) for name in given.places}
    del changed["model.layers.1.self_attn.k_proj.weight"]
    changed["model.layers.0.mlp.up_proj.weight"] = np.zeros((3, 12), np.float32)
    changed["model.layers.0.surprise"] = np.zeros(2, np.float32)
    save_file(changed, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError) as caught:
        zoo.from_pretrained(folder)
    text = str(caught.value)
    assert "3 problems" in text
    assert "missing model.layers.1.self_attn.k_proj.weight" in text
    assert "mis-shaped model.layers.0.mlp.up_proj.weight" in text
    assert "unused model.layers.0.surprise [2]" in text


def test_pickles_are_refused_with_what_converts_them(folder) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"pickled weights .*save_pretrained\('FOLDER'\)"):
        zoo.from_pretrained(folder)


def test_a_broken_file_and_an_unknown_type_are_named(folder) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"model\.safetensors cannot be read"):
        zoo.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "model_type": "lama"}))
    with pytest.raises(zoo.ConfigError, match=r"'lama' is not known.*llama"):
        zoo.from_pretrained(folder)
