"""ONNX bundles of every tiny model and target: graphs, weights, names, and values against Keras."""

import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from onnx.helper import tensor_dtype_to_np_dtype
from onnx.reference import ReferenceEvaluator
from tolerances import close

import export
import zoo
from export.onnx import all_nodes
from export.tolerances import TOLERANCES
from serve.bundle.manifest import Manifest
from serve.decoding.generator import Generator
from serve.runtime.session import Session, SessionOptions

TARGETS = ("onnxruntime", "portable")
CASES = [(name, target) for name in tiny.named() for target in TARGETS]
each_bundle = pytest.mark.parametrize(("name", "target"), CASES, scope="module")


class Evaluator:
    """ONNX' own evaluator: written in numpy, it shares nothing with ONNX Runtime."""

    def __init__(self, path: Path) -> None:
        proto = onnx.load(path)
        inputs = {value.name: value.type.tensor_type.elem_type for value in proto.graph.input}
        given = {t.name: t for t in proto.graph.initializer if t.name in inputs}
        for tensor in given.values():  # else the evaluator prefers it to what is fed
            proto.graph.initializer.remove(tensor)
        self.defaults = {name: onnx.numpy_helper.to_array(tensor) for name, tensor in given.items()}
        self.types = {name: tensor_dtype_to_np_dtype(kind) for name, kind in inputs.items()}
        self.runtime = ReferenceEvaluator(proto)

    def run(self, feeds: dict[str, Any]) -> dict[str, np.ndarray]:
        feeds = {**self.defaults, **feeds}
        ready = {name: np.asarray(feeds[name], kind) for name, kind in self.types.items()}
        return dict(zip(self.runtime.output_names, self.runtime.run(None, ready), strict=True))


def unoptimised(path: Path) -> Session:
    """ONNX Runtime that runs a graph as it is written."""
    return Session(path, SessionOptions(optimization="none"))


RUNTIMES = {"optimised": Session, "unoptimised": unoptimised, "evaluator": Evaluator}


@dataclasses.dataclass
class Exported:
    """A bundle, the model it came from, and its graphs."""

    name: str
    target: str
    model: zoo.TaskModel
    manifest: Manifest
    runtime: Callable[[Path], Any] = Session
    _sessions: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.manifest.folder

    def graph(self, name: str) -> onnx.ModelProto:
        return onnx.load(self.folder / self.manifest.graphs[name].file, load_external_data=False)

    def within(self, runtime: Callable[[Path], Any]) -> "Exported":
        """The same bundle, run by something else."""
        return dataclasses.replace(self, runtime=runtime, _sessions={})

    def session(self, name: str) -> Any:
        if name not in self._sessions:
            self._sessions[name] = self.runtime(self.folder / self.manifest.graphs[name].file)
        return self._sessions[name]

    def run(self, graph: str, feeds: dict[str, Any]) -> dict[str, np.ndarray]:
        return self.session(graph).run(feeds)

    @property
    def decoder(self) -> str:
        return "decoder" if self.model.encoder else "model"

    @property
    def blocks(self) -> int:
        return sum(len(stack.blocks) for stack in (self.model.encoder, self.model.decoder) if stack)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[tuple[str, str], Exported]:
    """Every bundle that the tests have asked for."""
    return {}


@pytest.fixture(scope="module")
def bundle(made, tmp_path_factory):
    def get(name: str, target: str) -> Exported:
        if (name, target) not in made:
            model = tiny.model(name)
            out = tmp_path_factory.mktemp("bundles") / "bundle"
            made[name, target] = Exported(
                name, target, model, export.to_onnx(model, out, target=target)
            )
        return made[name, target]

    return get


# --- what every bundle must be --------------------------------------------------------------------


@each_bundle
def test_export_is_verified_and_checked(name, target, bundle) -> None:
    """`to_onnx` replays its reference values through serve, prefill and steps included."""
    exported = bundle(name, target)
    report = exported.manifest.verification
    close(report["largest"], 0.0, f"{target}_bundle")
    assert report["tolerance"] == TOLERANCES["float32"]
    assert set(report["cases"]) == {"one-token", "one-row", "padded-rows"}
    if exported.model.decoder:
        assert set(report["cases"]["padded-rows"]["sequence"]) == {"prefill", "chunks", "steps"}
    for graph in exported.manifest.graphs.values():
        onnx.checker.check_model(str(exported.folder / graph.file), full_check=target == "portable")
    Manifest.load(exported.folder, check="full")


@each_bundle
def test_names_and_axes_are_those_of_the_contract(name, target, bundle) -> None:
    exported = bundle(name, target)
    facts = (exported.model.decoder or exported.model.encoder).config
    cache = ("batch_size", facts.num_kv_heads, "past_sequence_length", facts.head_dim)
    for kind, graph in exported.manifest.graphs.items():
        proto = exported.graph(kind).graph
        found = {
            value.name: tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
            for value in (*proto.input, *proto.output)
        }
        assert found == {t.name: tuple(t.shape) for t in (*graph.inputs, *graph.outputs)}
        integers = {"input_ids", "attention_mask", "token_type_ids", "encoder_attention_mask"}
        for value in proto.input:
            integer = value.name in integers | {"logits_to_keep"}
            kind_ = onnx.TensorProto.INT64 if integer else onnx.TensorProto.FLOAT
            assert value.type.tensor_type.elem_type == kind_
        if kind == exported.decoder and exported.model.decoder:
            prefix = "decoder." if exported.model.encoder else ""
            for i in range(len(exported.model.decoder.blocks)):
                assert found[f"past_key_values.{i}.{prefix}key"] == cache
                assert found[f"present.{i}.{prefix}value"][1::2] == cache[1::2]
            assert found["logits_to_keep"] == ()
            assert graph.optional_inputs == ["logits_to_keep"]
        else:
            assert graph.optional_inputs == []
            assert found["input_ids"] == ("batch_size", "sequence_length")
        assert ("token_type_ids" in found) == bool(facts.token_types)


def expected_operators(model: zoo.TaskModel, graph: str) -> Counter:
    """The fused attentions, activations and norms of a graph for ONNX Runtime."""
    facts = model.config
    expected: Counter = Counter()
    fused = facts.num_kv_heads == facts.num_heads and facts.attention_softcap is None
    stack = model.encoder if graph == "encoder" or not model.decoder else model.decoder
    layers = len(stack.layers)
    crossed = layers if graph == "decoder" else 0
    if stack is model.decoder:
        expected["GroupQueryAttention"] = layers if facts.head_dim % 8 == 0 else 0
        expected["MultiHeadAttention"] = crossed if fused else 0
    else:
        expected["MultiHeadAttention"] = layers if fused else 0
    activation = {"gelu": "Gelu", "gelu_tanh": "FastGelu", "silu": "QuickGelu"}
    if facts.gate_limit is not None:  # whatever the activation
        expected["QuickGelu"] = layers
    elif facts.activation in activation:
        transform = 1 if model.task == "fill-mask" else 0
        expected[activation[facts.activation]] = layers + transform
    expected["Loop"] = layers - len(facts.dense_layers) if facts.num_experts else 0
    if facts.norm == "layer":
        expected["SkipLayerNormalization"] = 0  # slower on the CPU than what it is made of
        return expected
    # Every sub-layer's sum is fused with the RMS norm behind it, but the last where none follows it
    # and those of a parallel block, which add up attention and feed-forward first. Where norms
    # stand before the sums there is only the final one.
    sums = 2 * layers + crossed
    if facts.norm_position == "output":
        sums = 1
    if facts.parallel_residual:
        sums = layers
    if facts.norm_position != "post" and not facts.final_norm:
        sums -= 1
    expected["SkipSimplifiedLayerNormalization"] = sums
    return expected


@each_bundle
def test_operators_are_those_of_the_target(name, target, bundle) -> None:
    exported = bundle(name, target)
    for kind, graph in exported.manifest.graphs.items():
        proto = exported.graph(kind)
        domains = {node.domain for node in all_nodes(proto.graph)}
        found = Counter(node.op_type for node in all_nodes(proto.graph))
        assert graph.operators == dict(sorted(found.items()))
        assert {entry.domain for entry in proto.opset_import} == domains | {""}
        assert {e.version for e in proto.opset_import if not e.domain} == {18}
        if target == "portable":
            assert domains == {""}
            continue
        for operator, count in expected_operators(exported.model, kind).items():
            assert found[operator] == count, operator


@pytest.mark.parametrize("target", TARGETS)
def test_a_loop_over_experts_carries_what_changes_alone(target, bundle) -> None:
    """Runtimes copy what a loop carries in every round: a step and the sum, and no weights."""
    proto = bundle("decoder/experts-of-all", target).graph("model")
    loop = next(node for node in proto.graph.node if node.op_type == "Loop")
    body = next(attribute.g for attribute in loop.attribute if attribute.name == "body")
    carried = len(loop.input) - 2  # trip count, condition
    assert (carried, len(loop.output), len(body.input), len(body.output)) == (2, 2, 4, 3)
    read = {name for node in all_nodes(body) for name in node.input}
    kernels = {f"decoder/block_0/feed_forward/{name}_kernel" for name in ("gate", "up", "down")}
    assert kernels <= read
    assert not kernels & set(loop.input)


@each_bundle
def test_every_weight_is_stored_once_under_its_name(name, target, bundle) -> None:
    exported = bundle(name, target)
    variables = {w.path.split("/", 1)[1]: np.asarray(w) for w in exported.model.weights}
    places: dict[str, tuple[int, int]] = {}
    seen = set()
    for kind, spec in exported.manifest.graphs.items():
        proto = onnx.load(exported.folder / spec.file)
        used = {i for node in all_nodes(proto.graph) for i in node.input}
        for tensor in exported.graph(kind).graph.initializer:
            external = tensor.data_location == onnx.TensorProto.EXTERNAL
            if external and tensor.name in variables:
                entry = {e.key: e.value for e in tensor.external_data}
                assert entry["location"] == "model.onnx.data"
                place = int(entry["offset"]), int(entry["length"])
                assert places.setdefault(tensor.name, place) == place
        arrays = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
        assert len(arrays) == len(proto.graph.initializer)
        expected = {path: [path] for path in variables}
        for path in arrays:  # attention takes the biases of queries, keys and values as one
            if path not in variables and "/query_key_value/" in path:
                kinds = ("query", "key", "value")
                expected[path] = [path.replace("query_key_value", kind) for kind in kinds]
        sizes = 0
        for path, parts in expected.items():
            if path in arrays:
                value = np.concatenate([variables[part] for part in parts], axis=-1)
                np.testing.assert_array_equal(arrays[path], value)
                assert path in used
                seen |= set(parts)
                sizes += value.size
        assert spec.parameters == sizes
    ends = sorted({(offset, offset + size) for offset, size in places.values()})
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ends))
    assert seen == set(variables)


# --- values ---------------------------------------------------------------------------------------

SHAPES = [[5], [1], [11, 3, 1, 8]]
"""Rows of texts; no trace has seen these sizes."""


@pytest.mark.parametrize("name", tiny.named("encoder"), scope="module")
@pytest.mark.parametrize(
    ("target", "runtime"),
    [("onnxruntime", "optimised"), *(("portable", runtime) for runtime in RUNTIMES)],
)
def test_encoders_compute_what_keras_computes(name, target, runtime, bundle) -> None:
    exported = bundle(name, target).within(RUNTIMES[runtime])
    for seed, lengths in enumerate(SHAPES):
        feeds = tiny.inputs(exported.model, lengths, seed=seed + 20)
        expected = exported.model(feeds)
        found = exported.run("model", feeds)
        assert set(found) == set(expected)
        for key, value in found.items():
            close(value, expected[key], f"{target}_bundle")


class Steps:
    """Feeds for a decoder's graph by the contract's words alone: nothing of `serve`."""

    def __init__(self, exported: Exported, ids: np.ndarray, mask: np.ndarray) -> None:
        self.exported = exported
        model = exported.model
        self.past_names = [
            t.name
            for t in exported.manifest.graphs[exported.decoder].inputs
            if t.name.startswith("past_key_values")
        ]
        self.constants: dict[str, np.ndarray] = {}
        full = {"input_ids": ids, "attention_mask": mask}
        self.ids, self.lengths = ids, mask.sum(axis=1)
        if model.encoder is not None:
            encoded = exported.run("encoder", full)
            states, memory = model.encode(ids, mask)
            close(encoded["last_hidden_state"], states, f"{exported.target}_bundle")
            for i, pair in enumerate(memory):
                for part, value in zip(("key", "value"), pair, strict=True):
                    key = f"present.{i}.encoder.{part}"
                    close(encoded[key], value, f"{exported.target}_bundle")
                    self.constants[key.replace("present", "past_key_values")] = encoded[key]
            self.constants["encoder_attention_mask"] = mask
            rng = np.random.default_rng(4)
            self.ids = rng.integers(1, 37, (len(ids), 9))
            self.lengths = np.array([9, 4, 6, 9][: len(ids)])
            full["decoder_input_ids"] = self.ids
        self.expected = np.asarray(model(full)["logits"])

    def empty(self, width: int) -> dict[str, np.ndarray]:
        facts = self.exported.model.decoder.config
        shape = (len(self.ids), facts.num_kv_heads, width, facts.head_dim)
        return {
            name: np.zeros(shape, "float32") for name in self.past_names if ".encoder." not in name
        }

    def run(self, ids, mask, past, **given: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        feeds = {"input_ids": ids, "attention_mask": mask, **past, **self.constants, **given}
        found = self.exported.run(self.exported.decoder, feeds)
        logits = found.pop("logits")
        return logits, {k.replace("present", "past_key_values"): v for k, v in found.items()}


def counts(lengths: np.ndarray) -> np.ndarray:
    return (np.arange(lengths.max()) < lengths[:, None]).astype("int64")


@pytest.mark.parametrize("name", tiny.GENERATING, scope="module")
@pytest.mark.parametrize("rows", [[7], [9, 4, 6]], ids=str)
def test_buffer_decoders_compute_what_keras_computes(name, rows, bundle) -> None:
    """Ragged prompts, then tokens one by one; the first call on a buffer and on an empty past."""
    exported = bundle(name, "onnxruntime")
    ids, mask = tiny.ragged(rows, seed=31)
    steps = Steps(exported, ids.astype("int64"), mask.astype("int64"))
    line, tolerance = np.arange(len(rows)), "onnxruntime_bundle"
    start = np.maximum(1, steps.lengths // 2 - line % 2)
    prompt, mask = steps.ids[:, : start.max()], counts(start)
    logits, past = steps.run(prompt, mask, steps.empty(12), logits_to_keep=np.array(0))
    tokens = mask == 1
    close(logits[tokens], steps.expected[:, : start.max()][tokens], tolerance)
    last, _ = steps.run(prompt, mask, steps.empty(12))  # by default each row's last token
    assert last.shape[1] == 1
    close(last[:, 0], steps.expected[line, start - 1], tolerance)
    one, _ = steps.run(prompt, mask, steps.empty(12), logits_to_keep=np.array(1))
    np.testing.assert_array_equal(one, last)
    fresh, present = steps.run(prompt, mask, steps.empty(0))
    close(fresh, last, tolerance)
    assert present[steps.past_names[0]].shape[2] == start.max()
    at = start.copy()
    while (at < steps.lengths).all():
        token = steps.ids[line, at][:, None]
        at = at + 1
        logits, past = steps.run(token, counts(at), past)
        close(logits[:, 0], steps.expected[line, at - 1], tolerance)
        assert past[steps.past_names[0]].shape[2] == 12
    assert (at > start).all() or len(rows) > 1


@pytest.mark.parametrize("name", tiny.GENERATING, scope="module")
def test_buffer_decoders_read_a_chunk_on_a_filled_cache(name, bundle) -> None:
    exported = bundle(name, "onnxruntime")
    ids, mask = tiny.ragged([9], seed=32)
    steps = Steps(exported, ids.astype("int64"), mask.astype("int64"))
    past, filled = steps.empty(12), 0
    for chunk in (3, 4, 2):
        new = steps.ids[:, filled : filled + chunk]
        total = np.ones((1, filled + chunk), "int64")
        logits, past = steps.run(new, total, past, logits_to_keep=np.array(0))
        expected = steps.expected[:, filled : filled + chunk]
        close(logits, expected, "onnxruntime_bundle")
        filled += chunk


@pytest.mark.parametrize("name", tiny.GENERATING, scope="module")
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_growing_decoders_compute_what_keras_computes(name, runtime, bundle) -> None:
    """Left padding in row 0, right padding and so a hole in row 1, both in row 2."""
    exported = bundle(name, "portable").within(RUNTIMES[runtime])
    ids, mask = tiny.ragged([9, 7, 8], seed=33)
    steps = Steps(exported, ids.astype("int64"), mask.astype("int64"))
    mask = np.array([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 1, 1], [0, 1, 0, 1, 1, 0, 1]])
    at = np.maximum(mask.cumsum(axis=1) - 1, 0)
    rows = np.arange(3)[:, None]
    past, filled = steps.empty(0), 0
    for chunk in (5, 1, 1):
        slots = slice(filled, filled + chunk)
        filled += chunk
        new = steps.ids[rows, at[:, slots]]
        logits, present = steps.run(new, mask[:, :filled], past)  # by default all positions
        tokens = mask[:, slots] == 1
        expected = steps.expected[rows, at[:, slots]]
        close(logits[tokens], expected[tokens], "portable_bundle")
        one, _ = steps.run(new, mask[:, :filled], past, logits_to_keep=np.array(1))
        assert one.shape[1] == 1
        newest = np.where(tokens, np.arange(chunk), 0).max(axis=1)
        close(one[:, 0], logits[np.arange(3), newest], "portable_bundle")
        past = present
        assert past[steps.past_names[0]].shape[2] == filled


@pytest.mark.parametrize(
    ("name", "target"), zip(tiny.GENERATING, TARGETS * len(tiny.GENERATING), strict=False)
)
def test_serve_writes_what_keras_writes(name, target, bundle) -> None:
    exported = bundle(name, target)
    ids, mask = tiny.ragged([6, 2, 4], seed=34)
    expected = exported.model.generate(ids, mask, max_new_tokens=5).tolist()
    generator = Generator(exported.manifest)
    prompts = [row[:n].tolist() for row, n in zip(ids, mask.sum(axis=1), strict=True)]
    settings = generator.settings(max_new_tokens=5)
    assert generator.generate_ids(prompts, settings) == expected


@pytest.mark.parametrize("target", TARGETS)
def test_compare_bundle_asks_the_live_model(target, bundle) -> None:
    exported = bundle("decoder/untied", target)
    assert export.compare_bundle(exported.model, exported.folder)["largest"] < 1e-4
    other = tiny.model("decoder/untied", seed=9)
    with pytest.raises(export.VerificationError, match="does not agree"):
        export.compare_bundle(other, exported.folder)


# --- the whole ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "target"),
    [("encoder-decoder/sinusoidal-postnorm", "portable"), ("decoder/untied", "onnxruntime")],
)
def test_the_same_weights_give_the_same_bytes(name, target, bundle, tmp_path) -> None:
    exported = bundle(name, target)
    out = tmp_path / "bundle"
    export.to_onnx(tiny.model(name), out, target=target)
    first, again = (
        {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}
        for folder in (exported.folder, out)
    )
    assert first == again


def test_tables_of_different_lengths_are_kept_apart(tmp_path) -> None:
    """Both sides of an encoder-decoder have a table of sinusoids; here neither is a short one."""
    facts = dataclasses.replace(
        tiny.CONFIGS["encoder-decoder/sinusoidal-postnorm"], max_length=90, max_target_length=70
    )
    model = zoo.TaskModel(facts, "text2text-generation")
    manifest = export.to_onnx(model, tmp_path / "bundle")
    lengths = set()
    for graph in manifest.graphs.values():
        proto = onnx.load(tmp_path / "bundle" / graph.file)
        lengths |= {t.dims[0] for t in proto.graph.initializer if "sinusoids" in t.name}
    assert lengths == {90, 70}


def test_an_opset_may_be_asked_for(tmp_path) -> None:
    manifest = export.to_onnx(tiny.model("encoder/sinusoidal"), tmp_path / "b", opset=17)
    assert manifest.opset == 17
    proto = onnx.load(tmp_path / "b" / "model.onnx")
    assert {e.version for e in proto.opset_import if not e.domain} == {17}


def test_a_half_precision_model_is_exported_in_float32(tmp_path) -> None:
    model = tiny.model("encoder/alibi", "text-classification", dtype="mixed_bfloat16")
    manifest = export.to_onnx(model, tmp_path / "bundle", name="half")
    assert (manifest.name, manifest.precision) == ("half", "float32")
    plain = tiny.model("encoder/alibi", "text-classification")
    feeds = tiny.inputs(plain, [5, 2])
    found = Session(tmp_path / "bundle" / "model.onnx").run(feeds)
    close(found["logits"], plain(feeds)["logits"], "onnxruntime_bundle")


def test_the_bundle_says_what_it_holds(tmp_path) -> None:
    model = tiny.model("encoder/alibi", "text-classification", head={"pooling": "max"})
    said: list[str] = []
    export.to_onnx(model, tmp_path / "b", source={"run": "7"}, progress=said.append)
    manifest = Manifest.load(tmp_path / "b", check="full")
    assert manifest.labels == list(tiny.LABELS)
    assert manifest.pooling == "max"
    assert manifest.source == {"run": "7"}
    assert manifest.task == "text-classification"
    assert {"keras", "onnx", "tensorflow", "keras-text-zoo"} <= set(manifest.created_with)
    assert any("verifying" in line for line in said)
    files = {path.name for path in (tmp_path / "b").iterdir()}
    assert files == {*manifest.files, "manifest.json"}
    assert "config.json" in files
