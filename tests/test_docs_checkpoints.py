"""The page on checkpoints: its Python runs in order, its family is one, its lists are true."""

import importlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import zoo
import zoo.families
from zoo.checkpoints.count import count_parameters
from zoo.checkpoints.load import preset_config
from zoo.checkpoints.tensors import CONVERSION

PAGE = (Path(__file__).parent.parent / "docs" / "checkpoints.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
STEPS = [block for block in BLOCKS if not block.startswith("# zoo/families/")]
FAMILIES = [block for block in BLOCKS if block.startswith("# zoo/families/")]


@pytest.fixture
def bert(tmp_path, monkeypatch) -> None:
    """A tiny folder where the page's Python looks for one."""
    monkeypatch.chdir(tmp_path)
    tokenizer = zoo.Tokenizer.train(
        "wordpiece", ["a fine film", "a dull plot"], vocab_size=60, model_max_length=16
    )
    config = zoo.EncoderConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_dim=24,
        num_layers=1,
        num_heads=2,
        max_length=16,
        norm_position="post",
        norm_epsilon=1e-12,
        embedding_norm=True,
        token_types=2,
    )
    model = zoo.TaskModel(config, "fill-mask")
    model.tokenizer = tokenizer
    model.save_pretrained("checkpoints/my-bert", model_type="bert")


@pytest.mark.usefixtures("bert")
def test_the_python_runs_in_order(capsys) -> None:
    names: dict[str, object] = {}
    for block in STEPS:
        exec(compile(block, "docs/checkpoints.md", "exec"), names)
    printed = capsys.readouterr().out
    assert printed.startswith("fill-mask ")
    assert "(2, 24)" in printed
    assert zoo.from_pretrained("checkpoints/reviews").labels == ["bad", "good"]
    assert Path("bundles/reviews/manifest.json").is_file()
    assert Path("bundles/reviews-saved-model/saved_model.pb").is_file()


@pytest.fixture
def olmo(tmp_path, monkeypatch):
    """The page's family as a module among the families."""
    (block,) = FAMILIES
    (tmp_path / "olmo.py").write_text(block, encoding="utf-8")
    monkeypatch.setattr(zoo.families, "__path__", [*zoo.families.__path__, str(tmp_path)])
    zoo.families._modules.cache_clear()
    importlib.invalidate_caches()
    yield zoo.families.family("olmo")
    zoo.families._modules.cache_clear()
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    monkeypatch.delitem(__import__("sys").modules, "zoo.families.olmo")
    monkeypatch.delattr(zoo.families, "olmo")


def test_the_new_family_is_one(olmo, tmp_path) -> None:
    preset = olmo.presets["olmo-1b"]
    assert count_parameters(preset_config(olmo, "olmo-1b"), preset.task) == preset.parameters
    config = olmo.decode(
        {
            "vocab_size": 37,
            "hidden_size": 12,
            "intermediate_size": 20,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "max_position_embeddings": 16,
            "eos_token_id": 2,
        }
    )
    model = zoo.TaskModel(config, "text-generation")
    model.save_pretrained(tmp_path / "saved", model_type="olmo")
    again = zoo.from_pretrained(tmp_path / "saved")
    ids = {"input_ids": np.array([[5, 9, 4]])}
    assert np.array_equal(np.asarray(again(ids)["logits"]), np.asarray(model(ids)["logits"]))
    with pytest.raises(zoo.ConfigError, match=r"clip_qkv = 8\.0 is not supported"):
        olmo.decode({**olmo.encode(config), "clip_qkv": 8.0})


def test_the_command_that_converts_is_that_of_the_error() -> None:
    (command,) = re.findall(r"^python -c .*$", PAGE, flags=re.MULTILINE)
    assert command.replace("AutoModelForMaskedLM", "AutoModel") in CONVERSION


def test_every_keras_nlp_backbone_is_named() -> None:
    from zoo.checkpoints.keras_nlp_twins import TWINS

    (line,) = re.findall(r"^Backbones: (.*?);", PAGE, flags=re.MULTILINE | re.DOTALL)
    named = {re.sub(r"[^a-z0-9]", "", name.lower()) for name in line.replace("\n", " ").split(", ")}
    assert {cls.removesuffix("Backbone").lower() for cls in TWINS} | {"gemma2"} == named
