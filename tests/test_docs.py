"""What the documents say is so: the README's Python runs, links and commands exist."""

import re
import runpy
from pathlib import Path

import click
import pytest

from zoo.__main__ import COMMANDS, cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_ten_lines_train_export_and_serve(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith("import")]
    assert len(lines) <= 10
    script = tmp_path / "readme.py"
    script.write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script))
    assert "good" in capsys.readouterr().out
    assert (tmp_path / "bundles" / "reviews" / "manifest.json").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
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
