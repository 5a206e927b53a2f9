"""The Python of docs/pipelines.md runs, and its settings exist."""

import re
from pathlib import Path

import serve_bundles as bundles

from serve.bundle.manifest import Manifest
from serve.pipelines import PIPELINES, pipeline_class

PAGE = (Path(__file__).parent.parent / "docs" / "pipelines.md").read_text(encoding="utf-8")
MADE = {
    "reviews": ("text-classification", ["good", "bad"]),
    "inference": ("text-classification", ["entailment", "neutral", "contradiction"]),
    "names": ("token-classification", ["O", "B-PER", "I-PER"]),
    "masks": ("fill-mask", None),
}


def test_the_examples_run(tmp_path, monkeypatch, capsys):
    for name, (task, labels) in MADE.items():
        bundles.encoder_bundle(tmp_path / "bundles" / name, task, labels)
    (tmp_path / "reviews.txt").write_text("a fine film\na dull plot\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    parts = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(compile("\n".join(parts), "pipelines.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "'truncated': False" in shown
    assert "food" in shown
    assert "[" in shown.splitlines()[-1]


def test_the_settings_exist(tmp_path):
    manifest = Manifest.load(bundles.encoder_bundle(tmp_path / "masks", "fill-mask"))
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    by_task = {section.split("\n", 1)[0]: section for section in sections}
    assert {"text-classification", "token-classification", "fill-mask"} <= set(by_task)
    for task in set(by_task) & set(PIPELINES):
        section = by_task[task]
        made_for = PIPELINES[task].bundles[0]
        kind = pipeline_class(manifest.model_copy(update={"task": made_for}), task)
        named = set(re.findall(r"\b([a-z_]+)=", section)) - {"task"}
        assert named
        assert named <= set(kind.setting_names()), task
