"""What the documents say is so: the README's Python runs, links and commands exist."""

import re
import runpy
from pathlib import Path

import click
import pytest

import zoo
from zoo.__main__ import COMMANDS, cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_ten_lines_train_export_and_serve(tmp_path, monkeypatch, capsys):
    code = PYTHON[0]
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith("import")]
    assert len(lines) <= 10
    script = tmp_path / "readme.py"
    script.write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script))
    assert "good" in capsys.readouterr().out
    assert (tmp_path / "bundles" / "reviews" / "manifest.json").is_file()


def test_the_lines_on_checkpoints_read_train_and_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokenizer = zoo.Tokenizer.train("wordpiece", ["a fine film", "a dull plot"], vocab_size=60)
    config = zoo.EncoderConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_dim=24,
        num_layers=1,
        num_heads=2,
        norm_position="post",
        embedding_norm=True,
        token_types=2,
    )
    given = zoo.TaskModel(config, "fill-mask")
    given.tokenizer = tokenizer
    given.save_pretrained("checkpoints/my-bert", model_type="bert")
    first = [line for line in PYTHON[0].splitlines() if line.startswith(("import", "examples"))]
    (tmp_path / "readme.py").write_text("\n".join(first) + "\n" + PYTHON[1], encoding="utf-8")
    runpy.run_path(str(tmp_path / "readme.py"))
    again = zoo.from_pretrained("checkpoints/reviews")
    assert (again.task, again.labels) == ("text-classification", ["bad", "good"])
    assert again.tokenizer.encode("a fine film").ids == tokenizer.encode("a fine film").ids


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link


def test_the_readme_names_every_command_and_their_options_exist():
    shown = re.findall(r"^zoo (\w+)(.*)$", README, flags=re.MULTILINE)
    assert {name for name, _ in shown} == set(COMMANDS)
    for name, rest in shown:
        command = cli.get_command(click.Context(cli), name)
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"(?<!\w)--[\w-]+", rest)) <= known


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (\w[\w-]*)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_the_recipe_of_the_documents_is_one():
    from zoo.training.load import recipe_from_mapping
    from zoo.training.yaml_text import parse

    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    recipe = recipe_from_mapping(parse(text, "recipes.md"), "recipes.md")
    assert recipe.task == "text-classification"
