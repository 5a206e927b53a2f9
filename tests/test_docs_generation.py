"""The Python of docs/generation.md runs, and its settings exist."""

import re
from pathlib import Path

import serve_bundles as bundles

from serve.pipelines.text_generation import TextGenerator
from serve.pipelines.text_to_text import Translator

PAGE = (Path(__file__).parent.parent / "docs" / "generation.md").read_text(encoding="utf-8")


def test_the_examples_run(tmp_path, monkeypatch, capsys):
    for name in ("stories", "chat"):
        bundles.decoder_bundle(tmp_path / "bundles" / name)
    monkeypatch.chdir(tmp_path)
    parts = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    # The tiny model holds 64 positions.
    text = "\n".join(parts).replace("max_new_tokens=60", "max_new_tokens=40")
    text = text.replace("max_new_tokens=64", "max_new_tokens=40")
    names = {}
    exec(compile(text, "generation.md", "exec"), names)
    assert len(names["best"].token_ids) <= 40
    assert re.search(r"^-\d+\.\d+ ", capsys.readouterr().out, flags=re.MULTILINE)


def test_the_settings_exist():
    table = PAGE[PAGE.index("| | settings |") : PAGE.index("A result has")]
    named = set(re.findall(r"`([a-z_]+)`", table))
    assert len(named) > 30
    assert named <= {*TextGenerator.setting_names(), "draft"}
    assert {"source_language", "target_language"} <= set(Translator.setting_names())
