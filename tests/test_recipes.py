"""Recipes: every file in configs/ loads, mistakes are named, overrides are checked."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from training_worker import recipe_mapping

from zoo.backbones.config import ARCHITECTURES
from zoo.commands import collect_listing, list_
from zoo.config import to_mapping
from zoo.errors import ConfigError
from zoo.training.load import (
    apply_override,
    available_recipes,
    dump_recipe,
    find_recipe,
    load_recipe,
    recipe_from_mapping,
)
from zoo.training.recipe import TASKS
from zoo.training.yaml_text import dump, parse

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
MAPPING = recipe_mapping(Path("data.jsonl"))


def changed(**sections):
    return {name: {**MAPPING[name], **facts} for name, facts in sections.items()}


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_file(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.description
    again = recipe_from_mapping(parse(dump_recipe(recipe)))
    assert again == recipe


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"trainig": {}}, "did you mean 'training'?"),
        (changed(training={"batch_sise": 3}), "'training.batch_sise'; did you mean 'batch_size'?"),
        (changed(training={"epochs": 0}), "training.epochs: got 0"),
        (changed(training={"steps": 5}), "'epochs' or 'steps'"),
        (changed(training={"gradient_accumulation_steps": 3}), "not divisible"),
        (changed(data={"source": "dates"}), "'source' or 'train'"),
        (changed(tokenizer={"path": "x"}), "'kind' (to train) or 'path'"),
        (changed(model={"architecture": "decoder"}), "needs 'encoder'"),
        (changed(model={"hidden_dmi": 8}), "unknown key 'hidden_dmi'; did you mean 'hidden_dim'?"),
        (changed(model={"num_heads": 3}), "hidden_dim"),
        (changed(training={"schedule": {"warmup_steps": 1, "warmup_ratio": 0.1}}), "not both"),
        ({"name": "a/b"}, "name: got 'a/b'"),
        ({"task": "translation"}, "task: got 'translation'"),
    ],
)
def test_mistake_is_named(changes, expected):
    with pytest.raises(ConfigError) as caught:
        recipe_from_mapping({**MAPPING, **changes})
    assert expected in str(caught.value)


def test_tasks_stand_on_known_architectures():
    from zoo.tasks import TASKS as MODEL_TASKS

    for task, architecture in TASKS.items():
        assert ARCHITECTURES[architecture] in MODEL_TASKS[task].architectures
    trainable = {name for name, task in MODEL_TASKS.items() if task.trains}
    assert set(TASKS) == trainable


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("training.epochs=3", ("training", "epochs"), 3),
        ("training.optimizer.learning_rate=1e-5", ("training", "optimizer", "learning_rate"), 1e-5),
        ("training.early_stopping.patience=2", ("training", "early_stopping", "patience"), 2),
        ("training.buckets=[8, 16]", ("training", "buckets"), [8, 16]),
        ("model.num_layers=2", ("model", "num_layers"), 2),
        ("model.dropout=0", ("model", "dropout"), 0),
        ("evaluation.group=null", ("evaluation", "group"), None),
        ("data.limit.test=5", ("data", "limit", "test"), 5),
        ("name=other", ("name",), "other"),
    ],
)
def test_override(override, path, value):
    mapping = to_mapping(recipe_from_mapping(apply_override(MAPPING, override)))
    for key in path:
        mapping = mapping[key]
    assert mapping == value


def test_override_leaves_the_mapping_alone():
    before = json.dumps(MAPPING)
    apply_override(MAPPING, "training.optimizer.learning_rate=1")
    assert json.dumps(MAPPING) == before


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.optimiser.epsilon=1", "no setting 'training.optimiser'; did you mean 'optim"),
        ("training.epoch=1", "no setting 'training.epoch'; did you mean 'epochs'?"),
        ("training.epochs.x=1", "'training.epochs' is a value"),
        ("model.num_layer=1", "did you mean 'num_layers'"),
        ("training.epochs", "a dotted path and a value"),
        (".x=1", "a dotted path and a value"),
        ("name=[", "--set 'name=['"),
    ],
)
def test_wrong_override(override, expected):
    with pytest.raises(ConfigError) as caught:
        apply_override(MAPPING, override)
    assert expected in str(caught.value)


def test_yaml_traps():
    text = "a: 1e-3\nb: [no, off, yes, true]\nc: 1E5\nd: -2e+2\ne: 1.0.0\nf: 12\ng: .5\nh: '1e3'\n"
    value = parse(text)
    assert value["a"] == 1e-3
    assert value["b"] == ["no", "off", "yes", True]
    assert (value["c"], value["d"], value["g"], value["f"]) == (1e5, -200.0, 0.5, 12)
    assert (value["e"], value["h"]) == ("1.0.0", "1e3")
    assert parse(dump(value)) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4, column 3: the key 'c' stands twice"),
        ("a: [1\n", "line 2"),
        ("a: !!python/object:os.system {}\n", "line 1"),
    ],
)
def test_bad_yaml(text, expected):
    with pytest.raises(ConfigError) as caught:
        parse(text, "x.yaml")
    assert "x.yaml" in str(caught.value)
    assert expected in str(caught.value)


def test_recipe_is_found_by_path_and_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = RECIPES[0].stem
    assert find_recipe(name).samefile(RECIPES[0])
    assert find_recipe(f"{name}.yaml").samefile(RECIPES[0])
    (tmp_path / "configs").mkdir()
    mine = tmp_path / "configs" / f"{name}.yaml"
    mine.write_text(dump({**MAPPING, "name": name}), encoding="utf-8")
    assert find_recipe(name).samefile(mine)  # the user's own comes first
    assert set(available_recipes()) >= {path.stem for path in RECIPES}
    with pytest.raises(ConfigError, match="did you mean"):
        find_recipe(name[:-1] + "z")


def test_list_json():
    result = CliRunner().invoke(list_, ["--json"])
    assert result.exit_code == 0, result.output
    listing = json.loads(result.output)
    rest = {"families", "shapes", "tasks", "architectures", "tokenizers", "sources"}
    assert set(listing) == {"recipes", *rest}
    assert {recipe["name"] for recipe in listing["recipes"]} >= {path.stem for path in RECIPES}


def test_list_table_names_everything():
    result = CliRunner().invoke(list_, [])
    assert result.exit_code == 0, result.output
    listing = collect_listing()
    named = ("shapes", "tasks", "architectures", "sources")
    for name in (name for title in named for name in listing[title]):
        assert name in result.output


def test_recipes_and_listing_load_no_framework():
    code = (
        "import sys, zoo.commands, zoo.evaluation; zoo.commands.collect_listing(); "
        "sys.exit(','.join({'tensorflow', 'keras'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_recipe_is_frozen():
    recipe = recipe_from_mapping(MAPPING)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.name = "other"
