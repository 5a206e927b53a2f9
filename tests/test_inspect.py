"""`zoo inspect`: what a bundle's files hold, and what differs between two bundles."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from click.testing import CliRunner

import export
import zoo
from serve.bundle.difference import compare
from serve.bundle.graph_file import read_graph
from serve.bundle.inspect import describe
from serve.bundle.manifest import Manifest
from serve.bundle.weights import KINDS, block_of, kind_of, read_graphs, weights_of
from serve.commands.looking import inspect_
from serve.errors import BundleError
from zoo.checkpoints.deferred import without_values

NAMES = ("encoder/segments-postnorm", "decoder/experts", "encoder-decoder/learned-unshared")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("inspect")
    for name in NAMES:
        export.to_onnx(tiny.model(name), root / name, verify=False)
    other = tiny.model(NAMES[0])
    weight = next(w for w in other.weights if w.path.endswith("block_1/feed_forward/up/kernel"))
    value = np.array(weight)
    value[3, 4] += 0.25
    weight.assign(value)
    export.to_onnx(other, root / "one-weight", verify=False)
    export.to_onnx(tiny.model(NAMES[0]), root / "portable", target="portable", verify=False)
    return {**{name: root / name for name in NAMES}, "one": root / "one-weight",
            "portable": root / "portable"}  # fmt: skip


def shown(*arguments: Any) -> str:
    answered = CliRunner().invoke(inspect_, [str(argument) for argument in arguments])
    assert answered.exit_code == 0, answered.exception
    return answered.stdout


# --- reading a graph ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_graphs_are_read_as_onnx_reads_them(name, bundles) -> None:
    manifest = Manifest.load(bundles[name])
    for spec in manifest.graphs.values():
        found = read_graph(manifest.path(spec.file))
        expected = onnx.load(manifest.path(spec.file))
        assert found.operators == spec.operators
        outer = [node for node in found.nodes if node.operator != "Loop"]
        named = {node.outputs[0]: node for node in outer}
        for node in expected.graph.node:
            if node.op_type == "Loop":
                continue
            twin = named[node.output[0]]
            assert (twin.operator, twin.inputs) == (node.op_type, tuple(node.input))
            whole = {a.name: a.i for a in node.attribute if a.type == onnx.AttributeProto.INT}
            assert twin.numbers == whole
        bodies = [a.g for n in expected.graph.node for a in n.attribute if n.op_type == "Loop"]
        stored_there = [t for g in (expected.graph, *bodies) for t in g.initializer]
        assert len(found.tensors) == len(stored_there)
        for tensor in stored_there:
            stored, value = found.tensors[tensor.name], onnx.numpy_helper.to_array(tensor)
            assert (stored.shape, stored.dtype) == (value.shape, str(value.dtype))
            assert stored.raw
            assert stored.data().tobytes() == value.tobytes()


def test_types_that_numpy_lacks(tmp_path) -> None:
    """Packed weights, brain floats, and values that stand in the graph as numbers."""
    values = np.array([1.0, -2.5, 3.0, 0.0], "float32")
    tensors = [
        onnx.helper.make_tensor("four", onnx.TensorProto.INT4, [5], [1, -2, 3, -8, 7]),
        onnx.helper.make_tensor("brain", onnx.TensorProto.BFLOAT16, [4], values),
        onnx.helper.make_tensor("listed", onnx.TensorProto.FLOAT, [2, 2], values),
        onnx.helper.make_tensor("half", onnx.TensorProto.FLOAT16, [4], values),
    ]
    raw = onnx.numpy_helper.from_array(values.astype("float16"), "raw half")
    graph = onnx.helper.make_graph([], "g", [], [], [*tensors, raw])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "g.onnx")
    found = read_graph(tmp_path / "g.onnx").tensors
    assert [found[t.name].dtype for t in tensors] == ["int4", "bfloat16", "float32", "float16"]
    assert found["four"].shape == (5,)
    np.testing.assert_array_equal(found["raw half"].floats(), values)
    stored = dataclasses.replace(found["raw half"], dtype="bfloat16")
    brain = (values.view("uint32") >> 16).astype("uint16")
    (tmp_path / "b").write_bytes(brain.tobytes())
    stored = dataclasses.replace(stored, file=tmp_path / "b", offset=0)
    np.testing.assert_array_equal(stored.floats(), values)


@pytest.mark.parametrize("text", [b"", b"\x0a\xff\xff", b"no graph at all", b"\x3a\x7f"])
def test_what_is_no_graph_is_refused(text, tmp_path) -> None:
    (tmp_path / "g.onnx").write_bytes(text)
    with pytest.raises(BundleError, match=r"g\.onnx is not an ONNX file"):
        read_graph(tmp_path / "g.onnx")
    with pytest.raises(BundleError, match="cannot be read: No such file"):
        read_graph(tmp_path / "none.onnx")


def test_weights_that_are_cut_are_refused(bundles) -> None:
    manifest = Manifest.load(bundles[NAMES[0]])
    tensors = read_graphs(manifest)["model"].tensors.values()
    stored = next(tensor for tensor in tensors if tensor.file.suffix == ".data")
    with pytest.raises(BundleError, match="ends before the weight 'x'"):
        dataclasses.replace(stored, name="x", offset=1 << 40).data()


# --- what weights are for -------------------------------------------------------------------------


@pytest.mark.parametrize("name", tiny.named())
def test_every_weight_has_a_kind(name) -> None:
    """Named parts of the layers, not "other", but for what no kind is meant for."""
    other, task = set(), tiny.task_of(name)
    labels = tiny.LABELS if "classification" in task else None
    with without_values():
        model = zoo.TaskModel(tiny.CONFIGS[name], task, labels=labels)
    assert len(model.weights) > 5
    for weight in model.weights:
        kind = kind_of(weight.path.split("/", 1)[1])
        assert kind in KINDS
        if kind == "other":
            other.add(weight.path.split("/")[-2])
    assert other <= {"types", "ngrams", "projection", "output_projection"} | {
        part for part in other if part.startswith("grams_")
    }


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("decoder/embeddings/tokens/table", "token embedding"),
        ("encoder/embeddings/positions/table", "positions"),
        ("rotary_cos_decoder_1_PyFunc", "positions"),
        ("decoder/block_3/attention/query/kernel", "attention"),
        ("decoder/block_3/attention/query/kernel/zero_point", "attention"),
        ("decoder/block_3/cross_attention/query_norm/norm/scale", "norm"),
        ("decoder/block_11/feed_forward/router/kernel/scale", "feed-forward"),
        ("encoder/block_0/feed_forward_norm/scale", "norm"),
        ("head/norm/scale", "norm"),
        ("head/dense/kernel", "head"),
        ("const_fold_opt__64", "other"),
    ],
)
def test_kinds(path, kind) -> None:
    assert kind_of(path) == kind


def test_blocks_of_weights_and_nodes() -> None:
    assert block_of("decoder/block_3/attention/query/kernel") == "decoder/block_3"
    assert block_of("model_1/encoder_1/block_12_1/attention_1/query_1/MatMul") == "encoder/block_12"
    assert block_of("decoder/embeddings/tokens/table") is None


@pytest.mark.parametrize("name", NAMES)
def test_totals_are_the_models(name, bundles) -> None:
    model, facts = tiny.model(name), describe(bundles[name])
    assert facts["parameters"] == model.count_params()
    kinds, dtypes = facts["weights"]["kinds"], facts["weights"]["dtypes"]
    for table in (kinds, dtypes):
        assert sum(row["parameters"] for row in table.values()) == model.count_params()
    expected: dict[str, int] = {}
    for weight in model.weights:
        kind = kind_of(weight.path.split("/", 1)[1])
        expected[kind] = expected.get(kind, 0) + math.prod(weight.shape)
    assert {k: row["parameters"] for k, row in kinds.items() if row["parameters"]} == expected
    assert dtypes["float32"]["bytes"] >= 4 * model.count_params()
    assert all(row["bytes"] == sum(row["dtypes"].values()) for row in kinds.values())


def test_weights_of_two_graphs_are_counted_once(bundles, tmp_path) -> None:
    """An encoder-decoder whose sides share their embedding, in two graphs over one file."""
    model = tiny.model("encoder-decoder/sinusoidal-postnorm")
    manifest = export.to_onnx(model, tmp_path / "b", verify=False)
    graphs = read_graphs(manifest)
    table = "encoder/embeddings/tokens/table"
    assert table in graphs["encoder"].tensors
    assert table in graphs["decoder"].tensors
    assert describe(manifest)["parameters"] == model.count_params()
    assert sum(graph.parameters for graph in manifest.graphs.values()) > model.count_params()
    used = sum(w.tensor.bytes for w in weights_of(graphs).values())
    assert manifest.files["model.onnx.data"].bytes <= used + 4096 + 64 * len(model.weights)


def packed_bundle(folder: Path, source: Path) -> Path:
    """The bundle with one kernel as four bits a number, the way MatMulNBits reads it."""
    manifest = Manifest.load(source)
    proto = onnx.load(source / "model.onnx")
    name = "encoder/block_0/feed_forward/up/kernel"
    kept = [tensor for tensor in proto.graph.initializer if tensor.name != name]
    old = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    inner, outer = old.dims
    blocks = -(-inner // 16)
    new = {
        name: np.zeros((outer, blocks, 8), "uint8"),
        f"{name}/scale": np.ones(outer * blocks, "float32"),
        f"{name}/zero_point": np.zeros((outer, -(-blocks // 2)), "uint8"),
    }
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in new.items())
    node = next(node for node in proto.graph.node if name in node.input)
    operator = onnx.helper.make_node(
        "MatMulNBits", [node.input[0], *new], list(node.output), node.name,
        domain="com.microsoft", K=inner, N=outer, bits=4, block_size=16,
    )  # fmt: skip
    node.CopyFrom(operator)
    folder.mkdir()
    onnx.save(proto, folder / "model.onnx")
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    files = {name: type(spec).of(folder / name) for name, spec in manifest.files.items()
             if (folder / name).is_file()}  # fmt: skip
    manifest.model_copy(update={"files": files, "precision": "int4"}).save(folder)
    return folder


def test_packed_weights_count_as_what_they_hold(bundles, tmp_path) -> None:
    packed = packed_bundle(tmp_path / "packed", bundles[NAMES[0]])
    facts, plain = describe(packed), describe(bundles[NAMES[0]])
    assert facts["parameters"] == plain["parameters"] == tiny.model(NAMES[0]).count_params()
    inner, outer = 24, 35
    ff = facts["weights"]["kinds"]["feed-forward"]
    saved = 4 * inner * outer - outer * 2 * 8 - 4 * outer * 2 - outer
    assert plain["weights"]["kinds"]["feed-forward"]["bytes"] - ff["bytes"] == saved
    assert set(ff["dtypes"]) == {"float32", "uint8"}
    assert "uint8" in shown(packed)
    found = compare(bundles[NAMES[0]], packed)
    name = "encoder/block_0/feed_forward/up/kernel"
    assert found["facts"]["precision"] == ["float32", "int4"]
    assert found["tensors"]["changed"] == {name: ["float32[24, 35]", "uint8[35, 2, 8]"]}
    assert set(found["tensors"]["second_only"]) == {f"{name}/scale", f"{name}/zero_point"}
    assert found["operators"]["model"]["MatMulNBits"] == [None, 1]
    assert found["sizes"]["bytes of feed-forward"][1] == ff["bytes"]


def test_quantised_weights_are_forms_of_their_weights(bundles, tmp_path) -> None:
    """Kernels in 8 bits: the same parameters, in another form, with what belongs to them."""
    model = tiny.model("encoder/shared-narrow-embedding")
    export.to_onnx(model, tmp_path / "plain", verify=False)
    quantised = export.to_onnx(model, tmp_path / "int8", precision="int8", verify=False)
    assert describe(quantised)["parameters"] == model.count_params()
    found = compare(tmp_path / "plain", tmp_path / "int8")
    down = found["tensors"]["changed"]["encoder/block_0/feed_forward/down/kernel"]
    assert down[0] == "float32[35, 24]"
    assert down[1].startswith("int8[35, 24] + float32[")
    joined = found["tensors"]["changed"]["encoder/block_0/attention/query_key_value/kernel"]
    assert joined[0] == "float32[24, 24] + float32[24, 24] + float32[24, 24]"
    assert joined[1].startswith("int8[24, 72] + float32[")
    assert found["sizes"]["bytes of int8"][0] == 0 < found["sizes"]["bytes of int8"][1]
    assert "/down/kernel: float32[35, 24] -> int8[35, 24] + " in shown(
        tmp_path / "plain", tmp_path / "int8"
    )


# --- the command ----------------------------------------------------------------------------------


def test_inspect_prints_operators_and_kinds(bundles) -> None:
    text = shown(bundles[NAMES[1]])
    for word in ("token embedding", "feed-forward", "GroupQueryAttention 2", "Loop 1", "nodes:"):
        assert word in text
    facts = json.loads(shown(bundles[NAMES[1]], "--json"))
    assert facts["graphs"]["model"]["nodes"] == sum(facts["graphs"]["model"]["operators"].values())


def test_a_bundle_is_the_same_as_itself(bundles) -> None:
    assert shown(bundles[NAMES[0]], bundles[NAMES[0]]).startswith("the same: ")
    found = json.loads(shown(bundles[NAMES[0]], bundles[NAMES[0]], "--json"))
    assert not found["tensors"]["values"]
    assert found["tensors"]["equal"] > 30


def test_one_number_that_differs_is_found(bundles) -> None:
    found = compare(bundles[NAMES[0]], bundles["one"])
    name = "encoder/block_1/feed_forward/up/kernel"
    gap = found["tensors"]["values"].pop(name)
    assert gap["largest"] == pytest.approx(0.25)
    assert gap["share"] == 1 / (24 * 35)
    assert not found["tensors"]["values"]
    assert not found["operators"]
    same = compare(bundles[NAMES[0]], bundles[NAMES[0]])["tensors"]["equal"]
    assert found["tensors"]["equal"] == same - 1
    text = shown(bundles[NAMES[0]], bundles["one"])
    assert f"{name}: by at most 0.25, 0.1% of its numbers" in text
    assert "model.onnx.data: " in text


def test_targets_differ_in_operators_alone(bundles) -> None:
    found = compare(bundles[NAMES[0]], bundles["portable"])
    assert found["facts"]["target"] == ["onnxruntime", "portable"]
    assert found["operators"]["model"]["MultiHeadAttention"] == [2, None]
    assert not found["tensors"]["values"]
    assert all("/query_key_value/" in name for name in found["tensors"]["changed"])  # joined biases


def test_other_models_differ_in_interfaces(bundles) -> None:
    found = compare(bundles[NAMES[0]], bundles[NAMES[1]])
    assert found["facts"]["task"] == ["fill-mask", "text-generation"]
    rows = found["interfaces"]["model"]
    assert rows["input token_type_ids"] == ["int64[batch_size, sequence_length]", None]
    assert "input token_type_ids" in shown(bundles[NAMES[0]], bundles[NAMES[1]])


def test_what_is_no_bundle_is_refused(bundles, tmp_path) -> None:
    answered = CliRunner().invoke(inspect_, [str(bundles[NAMES[0]]), str(tmp_path)])
    assert isinstance(answered.exception, BundleError)
