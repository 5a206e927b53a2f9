"""The report: which layer a tensor is of, differences by layer, profiles, and the page itself."""

import html.parser
import itertools
import json
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tiny

import export
from export.report import write_report
from export.report.differences import along_blocks, layer_differences
from export.report.latency import WARM, Profile, Shape, _summed, profile, shapes_of
from export.report.scopes import Scope, scope_of_node, scope_of_tensor
from serve.bundle.inspect import describe
from serve.bundle.manifest import Manifest
from zoo.layers.linear import Linear
from zoo.layers.norm import Norm

# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path", "block", "section"),
    [
        (
            "model_1/encoder_1/block_0_3/attention_1/query_1/add:0",
            "encoder/block_0/attention/query",
            "encoder/block_0",
            "attention",
        ),
        ("decoder_1/block_12_1/feed_forward_norm_1/PyFunc:0",
         "decoder/block_12/feed_forward_norm", "decoder/block_12", "norm"),
        ("InsertedPrecisionFreeCast_decoder_1/block_2_1/feed_forward_1/up_1/MatMul:0",
         "decoder/block_2/feed_forward/up", "decoder/block_2", "feed-forward"),
        ("model_1/encoder_1/embeddings_1/tokens_1/GatherV2:0",
         "encoder/embeddings/tokens", None, "embeddings"),
        ("model_1/head_1/dense_1/MatMul:0", "head/dense", None, "head"),
        ("decoder_1/strided_slice:0", "decoder", None, "other"),
    ],
)  # fmt: skip
def test_scopes_of_tensors(name, path, block, section) -> None:
    scope = scope_of_tensor(name)
    assert scope is not None
    assert (scope.path, scope.block, scope.section) == (path, block, section)


def test_what_has_no_scope() -> None:
    assert scope_of_tensor("logits") is None
    assert scope_of_tensor("a/b/MatMul:0/whole") is None
    by_weight = scope_of_node("fused_3", [], ["x", "decoder/block_1/attention/output/bias"])
    assert by_weight == Scope("decoder/block_1/attention/output")
    by_tensor = scope_of_node("BiasGelu_token_0", ["m/encoder_1/block_1_1/feed_forward_1/P:0"], [])
    assert by_tensor.block == "encoder/block_1"


# --- differences ----------------------------------------------------------------------------------

CASES = [
    ("encoder/shared-narrow-embedding", "onnxruntime"),
    ("encoder/two-rotary-bases", "portable"),
    ("decoder/sandwich-softcaps", "onnxruntime"),
    ("decoder/experts", "portable"),
    ("encoder-decoder/learned-unshared", "portable"),
    ("encoder-decoder/relative-rms", "onnxruntime"),
]


@pytest.mark.parametrize(("name", "target"), CASES)
def test_layers_of_a_graph_are_those_of_keras(name, target, tmp_path) -> None:
    model = tiny.model(name)
    manifest = export.to_onnx(model, tmp_path / "b", target=target, verify=False)
    rows = layer_differences(model, manifest)
    assert max(row.relative for row in rows) < 5e-6  # measured 6e-7
    assert max(row.largest for row in rows) < 1e-4
    found = {row.path for row in rows}
    layers = {
        layer.weights[0].path.split("/", 1)[1].rpartition("/")[0]
        for layer in model._flatten_layers()
        if isinstance(layer, Linear | Norm) and layer.weights
    }
    assert found - layers == set(model.spec.outputs)
    missing = {path for path in layers - found if "cross_attention" not in path}
    if target == "portable":
        assert missing <= {"head/output"}  # that tensor is the output itself
    else:  # maps whose bias has moved into the operator behind
        assert all(p.endswith(("query", "key", "value", "up", "dense", "output")) for p in missing)
    lines = along_blocks(rows)
    sides = [s for s in (model.encoder, model.decoder) if s is not None]
    for line, stack in zip(lines.values(), sides, strict=True):
        numbers = [label for label, _ in line if label != "in"]
        assert numbers == [str(i + 1) for i in range(len(stack.layers))]
    assert all(row.order <= next_.order for line in lines.values()
               for (_, row), (_, next_) in itertools.pairwise(line))  # fmt: skip


@pytest.mark.parametrize("name", ["encoder/segments-postnorm", "decoder/rotary-grouped-gated"])
def test_a_difference_shows_where_it_arises(name, tmp_path) -> None:
    model = tiny.model(name)
    manifest = export.to_onnx(model, tmp_path / "b", target="portable", verify=False)
    weight = next(w for w in model.weights if w.path.endswith("block_1/feed_forward/down/kernel"))
    weight.assign(keras.ops.convert_to_numpy(weight) * 1.01)
    rows = layer_differences(model, manifest)
    wrong = [row for row in rows if row.relative > 1e-4]
    assert wrong[0].path.endswith("block_1/feed_forward/down")
    assert wrong[0].relative == pytest.approx(0.01, rel=0.5)  # less where there is a bias
    assert not any("block_0" in row.path for row in wrong)
    assert wrong[-1].path == "logits"


def test_padding_does_not_count(tmp_path) -> None:
    """A decoder's graph computes something for padding, and not what Keras computes."""
    model = tiny.model("decoder/rotary-grouped-gated")
    manifest = export.to_onnx(model, tmp_path / "b", verify=False)
    for rows, length in ((1, 7), (4, 13)):
        found = layer_differences(model, manifest, rows=rows, length=length, seed=rows)
        assert max(row.relative for row in found) < 5e-6


# --- profiles -------------------------------------------------------------------------------------


def events(durations: list[list[int]]) -> list[dict[str, Any]]:
    """A profile of runs of two nodes that take so many microseconds, the second one twice a run."""
    made: list[dict[str, Any]] = [{"cat": "Session", "name": "session_initialization", "ts": 0}]
    at = 100
    for first, second in durations:
        made.append({"cat": "Session", "name": "model_run", "ts": at, "dur": first + 2 * second})
        pieces = (("MatMul", "m/encoder_1/block_0_1/attention_1/query_1/MatMul", first),)
        pieces += (("Add", "other", second),) * 2
        for operator, name, spent in pieces:
            args = {"op_name": operator}
            made.append({"cat": "Node", "name": f"{name}_kernel_time", "ts": at, "dur": spent,
                         "args": args})  # fmt: skip
            at += spent
        at += 50
    return made


def test_profiles_are_summed_by_median_without_the_first_runs() -> None:
    runs = [[9000, 9000]] * WARM + [[1000, 10], [2000, 20], [60000, 30]]
    shape = Shape("model", 2, 3)
    found = _summed(shape, events(runs), {})
    assert found.runs == 3
    assert found.milliseconds == pytest.approx(2.04)
    assert found.best == pytest.approx(1.02)
    assert found.operators == {"MatMul": [pytest.approx(2.0), 1], "Add": [pytest.approx(0.04), 2]}
    assert found.blocks["encoder/block_0"] == {"attention": pytest.approx(2.0)}
    assert found.blocks[""] == {"other": pytest.approx(0.04)}
    assert (found.nodes, shape.tokens, shape.label) == (2, 6, "2 × 3")


@pytest.mark.parametrize(
    ("name", "count"),
    [("encoder/segments-postnorm", 3), ("decoder/experts", 3),
     ("encoder-decoder/relative-rms", 5)],
)  # fmt: skip
def test_every_shape_runs_and_is_attributed(name, count, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("export.report.latency.SECONDS", 0.0)
    model = tiny.model(name)
    manifest = export.to_onnx(model, tmp_path / "b", verify=False)
    shapes = shapes_of(manifest, 40)
    assert len(shapes) == count
    for found in profile(manifest, shapes, 37):
        assert found.runs >= 4
        assert 0 < found.best <= found.milliseconds
        by_operator = sum(spent for spent, _ in found.operators.values())
        by_block = sum(sum(sections.values()) for sections in found.blocks.values())
        assert by_operator == pytest.approx(by_block)
        side = found.shape.graph if found.shape.graph != "model" else model.architecture
        blocks = {b for b in found.blocks if b}
        stack = model.encoder if side == "encoder" else model.decoder
        assert {f"{side}/block_{i}" for i in range(len(stack.blocks))} <= blocks


# --- the page -------------------------------------------------------------------------------------


class Checked(html.parser.HTMLParser):
    """A page's text, and whether its tags are balanced and it asks for nothing outside of it."""

    VOID = ("meta", "br", "path", "use", "image", "rect", "circle")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.pictures = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        named = dict(attrs)
        for name in ("src", "href", "xlink:href", "data", "srcset"):
            assert (named.get(name) or "#").startswith("#"), (tag, named)
        assert tag not in ("script", "link", "iframe")
        self.pictures += tag == "svg" and "picture" in (named.get("class") or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def checked(path: Path) -> Checked:
    page = Checked()
    text = path.read_text(encoding="utf-8")
    page.feed(text)
    page.close()
    assert page.open == []
    assert not re.search(r"@import|url\((?!#)", text)
    assert "#0a000" not in text  # all colours are the page's
    return page


SHAPES = [Shape("model", 1, 6), Shape("model", 2, 9)]


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_report_of_an_encoder(precision, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("export.report.latency.SECONDS", 0.0)
    labels = ["<b>good</b> & bad", "other"]
    model = tiny.model("encoder/segments-postnorm", "text-classification", labels=labels)
    export.to_onnx(model, tmp_path / "b", name="a <name>", precision=precision)
    said: list[str] = []
    path = write_report(model, tmp_path / "b", tmp_path / "out", shapes=SHAPES,
                        progress=said.append)  # fmt: skip
    assert path == tmp_path / "out" / "index.html"
    assert len(said) == 4
    page = checked(path)
    text = " ".join(page.text)
    facts = describe(tmp_path / "b")
    assert page.pictures == 5  # size, operators, blocks, stream, layers
    for word in ("a <name>", "<b>good</b> & bad", f"{facts['parameters']:,}", "token embedding",
                 "2 × 9", "padded-rows", "encoder block 1", "onnxruntime",
                 f"{facts['verification']['largest']:.1e}", "input_ids int64"):  # fmt: skip
        assert word in text, word
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    assert data["bundle"]["name"] == "a <name>"
    assert [row["shape"]["length"] for row in data["profiles"]] == [6, 9]
    outputs = [row for row in data["differences"][""] if row["path"] == "logits"]
    limit = 1e-5 if precision == "float32" else 0.5
    assert 0 < outputs[0]["relative"] < limit


def test_a_report_of_two_graphs_over_one_cache(tmp_path, monkeypatch) -> None:
    """A decoder whose prompts go through a graph in 8 bits, and whose steps through one in 4."""
    monkeypatch.setattr("export.report.latency.SECONDS", 0.0)
    model = tiny.model("decoder/rotary-grouped-gated")
    manifest = export.to_onnx(model, tmp_path / "b", precision="int8-int4", verify=False)
    assert describe(manifest)["parameters"] == model.count_params()
    shapes = [Shape("prefill", 2, 5), Shape("model", 2, 1, 5)]
    path = write_report(model, tmp_path / "b", tmp_path / "out", shapes=shapes)
    text = " ".join(checked(path).text)
    for word in ("prefill: by operator", "2 × 1 after 5", "exported without verification"):
        assert word in text
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    gaps = {}
    for name, rows in data["differences"].items():
        gaps[name] = np.mean([r["relative"] for r in rows if "/block_" in r["path"]])
    assert set(gaps) == {"prefill", "model"}
    assert gaps["prefill"] < gaps["model"]


def test_an_existing_folder_is_kept(tmp_path) -> None:
    model = tiny.model("encoder/sinusoidal")
    export.to_onnx(model, tmp_path / "b", verify=False)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    with pytest.raises(export.ExportError, match="exists already"):
        write_report(model, tmp_path / "b", tmp_path / "out", shapes=[])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
    write_report(model, tmp_path / "b", tmp_path / "out", shapes=[], overwrite=True)
    assert "Medians of runs" not in " ".join(checked(tmp_path / "out" / "index.html").text)
    Manifest.load(tmp_path / "b", check="full")  # a report leaves the bundle as it is


def test_profiles_are_data() -> None:
    found = Profile(Shape("model", 1, 1), 1, 1.0, 1.0)
    assert (found.operators, found.blocks) == ({}, {})
