"""Quantised bundles: each operator against NumPy, each form against Keras, budgets, two graphs."""

import json
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest

import export
import serve
import zoo
from export.bundle import to_onnx
from export.graphs import onnx_graphs
from export.models import prepared
from export.onnx import convert
from export.quantization.budget import Budget
from export.quantization.finding import Finder
from export.quantization.rewriting import quantized
from export.quantization.settings import Quantization
from export.quantization.weights import by_block, by_channel
from export.weights import Computed, joined
from serve.bundle.manifest import Manifest
from serve.decoding.generator import Generator

LABELS = ["bad", "good", "so-so"]
VOCABULARY = 512


def build(kind: str, **facts) -> zoo.TaskModel:
    keras.utils.set_random_seed(0)
    common = {"vocab_size": VOCABULARY, "hidden_dim": 64, "num_layers": 2, "num_heads": 4}
    common |= {"initializer_range": 0.1, "max_length": 64, **facts}
    if kind == "encoder":
        config = zoo.EncoderConfig(token_types=2, norm_position="post", **common)
        return zoo.TaskModel(config, "text-classification", labels=LABELS)
    if kind == "decoder":
        common |= {"num_kv_heads": 2, "norm": "rms", "positions": "rotary", "gated": True}
        common |= {"activation": "silu"}
        return zoo.TaskModel(zoo.DecoderConfig(**{**common, **facts}), "text-generation")
    config = zoo.EncoderDecoderConfig(
        num_decoder_layers=2, max_target_length=48, decoder_start_token_id=0, **common
    )
    return zoo.TaskModel(config, "text2text-generation")


@pytest.fixture(scope="module")
def models() -> dict[str, zoo.TaskModel]:
    return {kind: build(kind) for kind in ("encoder", "decoder", "encoder-decoder")}


@pytest.fixture(scope="module")
def bundle(models, tmp_path_factory):
    """(kind, precision, target) -> manifest, each exported once."""
    made: dict[tuple, Manifest] = {}

    def get(kind: str, precision: str, target: str = "onnxruntime") -> Manifest:
        if (kind, precision, target) not in made:
            out = tmp_path_factory.mktemp("bundle") / "it"
            made[kind, precision, target] = to_onnx(
                models[kind], out, precision=precision, target=target
            )
        return made[kind, precision, target]

    return get


def operators(manifest: Manifest, graph: str) -> dict[str, int]:
    return manifest.graphs[graph].operators


# --- weights ---


def test_channels_are_rounded_to_the_nearest_of_255_levels() -> None:
    weight = np.random.default_rng(0).normal(size=(40, 24)).astype("float32")
    weight[:, 3] = 0
    parts = by_channel("w", weight, -2)
    whole, scale = np.asarray(parts["w"]), np.asarray(parts["w/scale"])
    assert whole.dtype == np.int8 and whole.shape == (40, 24) and scale.shape == (24,)
    assert np.abs(whole * scale - weight).max() <= scale.max() / 2 + 1e-6
    assert np.abs(whole).max() == 127
    rows = by_channel("t", weight, 1)
    assert np.asarray(rows["t/scale"]).shape == (40, 1)
    np.testing.assert_allclose(
        np.asarray(rows["t"]) * np.asarray(rows["t/scale"]), weight, atol=0.02
    )


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("width", [64, 80])
def test_blocks_come_back_nearly_as_they_were(bits, symmetric, width) -> None:
    """Unpacked by hand: [N, blocks, bytes], the low half of a byte first."""
    weight = np.random.default_rng(1).normal(size=(width, 24)).astype("float32")
    parts = by_block("w", weight, bits, 32, symmetric)
    packed, scales = np.asarray(parts["w"]), np.asarray(parts["w/scale"])
    blocks = -(-width // 32)
    assert packed.shape == (24, blocks, 32 * bits // 8) and scales.shape == (24, blocks)
    assert ("w/zero_point" in parts) != symmetric
    levels = packed.astype("int32")
    if bits == 4:
        levels = np.stack([levels & 15, levels >> 4], axis=-1).reshape(24, blocks, 32)
    zeros = np.full((24, blocks), 1 << (bits - 1))
    if not symmetric:
        zeros = np.asarray(parts["w/zero_point"]).astype("int32")
        if bits == 4:
            zeros = np.stack([zeros & 15, zeros >> 4], axis=-1).reshape(24, -1)[:, :blocks]
    values = ((levels - zeros[..., None]) * scales[..., None]).reshape(24, -1)[:, :width].T
    assert np.abs(values - weight).max() <= np.abs(scales).max() * (1.01 if symmetric else 0.51)
    turned = by_block("w", np.ascontiguousarray(weight.T), bits, 32, symmetric, rows=True)
    np.testing.assert_array_equal(np.asarray(turned["w"]), packed)


def test_what_is_not_finite_is_refused() -> None:
    weight = np.ones((32, 16), "float32")
    weight[3, 4] = np.nan
    with pytest.raises(export.ExportError, match="not-a-number"):
        np.asarray(by_channel("w", weight, -2)["w"])


def test_weights_are_computed_one_at_a_time_and_once() -> None:
    calls = []

    class Counted:
        shape, dtype = (32, 16), np.dtype("float32")

        def __array__(self, dtype=None, copy=None):
            calls.append(1)
            return np.ones((32, 16), "float32")

    parts = by_block("w", Counted(), 4, 32, True)
    for name in sorted(parts):
        np.asarray(parts[name])
    assert len(calls) == 1
    both = joined([Counted(), Counted()])
    assert isinstance(both, Computed) and both.shape == (32, 32)


# --- graphs ---

FORMS = [
    ("encoder", "int8", "onnxruntime"),
    ("encoder", "int8", "portable"),
    ("encoder", "int8-weights", "onnxruntime"),
    ("encoder", "int8-weights", "portable"),
    ("encoder", "int4", "onnxruntime"),
    ("decoder", "int8", "onnxruntime"),
    ("decoder", "int8", "portable"),
    ("decoder", "int8-weights", "onnxruntime"),
    ("decoder", "int4", "onnxruntime"),
    ("decoder", "int8-int4", "onnxruntime"),
    ("encoder-decoder", "int8", "portable"),
    ("encoder-decoder", "int4", "onnxruntime"),
    ("encoder-decoder", "int8-int4", "onnxruntime"),
]


@pytest.mark.parametrize(("kind", "precision", "target"), FORMS)
def test_a_quantised_bundle_answers_nearly_as_keras_does(
    kind, precision, target, bundle, models
) -> None:
    """Replayed through serve at the export; here once more, on inputs that it does not carry."""
    manifest = bundle(kind, precision, target)
    assert manifest.precision == precision
    assert manifest.quantization["precision"] == precision
    assert manifest.verification["measure"] == "relative"
    assert 0 < manifest.verification["largest"] < manifest.verification["tolerance"]
    report = export.compare_bundle(models[kind], manifest.folder, seed=5)
    assert 0 < report["largest"] < report["tolerance"]
    agreement = manifest.verification["agreement"]
    least, most = (0.3, 0.5) if "int4" in precision else (0.8, 0.02)  # of logits near to flat
    assert least <= agreement["top1"] <= 1 and 0 <= agreement["kl"] < most
    print(kind, precision, target, manifest.verification["largest"], report["largest"], agreement)
    float32 = bundle(kind, "float32", target)
    assert sum(f.bytes for f in manifest.files.values() if f) < sum(
        f.bytes for f in float32.files.values()
    )
    for name, graph in float32.graphs.items():
        assert manifest.graphs[name].parameters == graph.parameters


def test_operators_of_quantised_graphs(bundle) -> None:
    encoder = operators(bundle("encoder", "int8"), "model")
    # queries, keys and values in one; output, up, down
    assert encoder["DynamicQuantizeMatMul"] == 2 * 4
    assert encoder["MultiHeadAttention"] == encoder["Split"] == 2
    decoder = operators(bundle("decoder", "int4"), "model")
    # projections in one, output, gate and up in one, down; the head
    assert decoder["MatMulNBits"] == 2 * 4 + 1
    assert decoder["GatherBlockQuantized"] == 1
    assert not {"MatMul", "FusedMatMul"} & set(decoder)
    both = bundle("decoder", "int8-int4")
    assert operators(both, "prefill")["DynamicQuantizeMatMul"] == 8
    assert operators(both, "model")["MatMulNBits"] == 9
    # one position of one row, or of the rows of beams: the head is another
    assert operators(bundle("decoder", "int8"), "model")["MatMulNBits"] == 1
    crossed = operators(bundle("encoder-decoder", "int8"), "decoder")
    # projections in one, output; query and output across; up, down; and the head
    assert crossed["DynamicQuantizeMatMul"] == 2 * 6 + 1
    assert "MatMulNBits" not in crossed
    for precision in ("int8", "int8-weights"):
        manifest = bundle("encoder", precision, "portable")
        proto = onnx.load(manifest.path("model.onnx"), load_external_data=False)
        assert {node.domain for node in proto.graph.node} == {""}
        assert {entry.domain for entry in proto.opset_import} == {""}


def test_head_and_embedding_share_their_bytes(bundle) -> None:
    manifest = bundle("decoder", "int4")
    proto = onnx.load(manifest.path("model.onnx"), load_external_data=False)
    places = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in proto.graph.initializer
    }
    head = next(n for n in proto.graph.node if n.op_type == "MatMulNBits" and "table" in n.input[1])
    rows = next(n for n in proto.graph.node if n.op_type == "GatherBlockQuantized")
    assert places[head.input[1]]["offset"] == places[rows.input[0]]["offset"]
    assert places[head.input[1]]["length"] == places[rows.input[0]]["length"]


def test_the_same_weights_give_the_same_bytes(models, bundle, tmp_path) -> None:
    first = bundle("decoder", "int8-int4")
    second = to_onnx(models["decoder"], tmp_path / "it", precision="int8-int4")
    assert {name: spec.sha256 for name, spec in first.files.items()} == {
        name: spec.sha256 for name, spec in second.files.items()
    }


def test_settings_are_kept_to(models, tmp_path) -> None:
    settings = Quantization(
        "int4", block_size=16, symmetric=False, head="float32", embedding="float32"
    )
    manifest = to_onnx(models["decoder"], tmp_path / "it", precision=settings)
    found = operators(manifest, "model")
    assert found["FusedMatMul"] == 1 and found["Gather"] >= 1
    assert "GatherBlockQuantized" not in found
    proto = onnx.load(manifest.path("model.onnx"), load_external_data=False)
    node = next(n for n in proto.graph.node if n.op_type == "MatMulNBits")
    facts = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert facts["block_size"] == 16 and facts["bits"] == 4
    assert node.input[3].endswith("zero_point")
    assert manifest.quantization["symmetric"] is False


def test_experts_are_kept_in_8_bits(tmp_path) -> None:
    model = build("decoder", num_experts=4, experts_per_token=4)
    manifest = to_onnx(model, tmp_path / "experts", precision="int8")
    names = [t for t in manifest.graphs["model"].operators if t == "Loop"]
    assert names
    proto = onnx.load(manifest.path("model.onnx"), load_external_data=False)
    stored = {t.name for t in proto.graph.initializer}
    assert any("kernel/rows/int8" in name for name in stored)


def test_a_converted_graph_is_left_as_it_was(models) -> None:
    model = prepared(models["encoder"])
    (graph,) = onnx_graphs(model, "buffer")
    converted = convert(model, graph, "onnxruntime", 18)
    before = converted.proto.SerializeToString(deterministic=True)
    list(Finder(converted).linears())
    small = quantized(converted, Quantization("int8"), "onnxruntime")
    assert converted.proto.SerializeToString(deterministic=True) == before
    assert set(small.weights) != set(converted.weights)


# --- two graphs over one cache ---


def test_prompts_are_read_by_their_own_graph(bundle) -> None:
    generator = Generator(bundle("decoder", "int8-int4"))
    assert generator.reader is not generator.decoder
    rng = np.random.default_rng(3)
    prompts = [rng.integers(0, VOCABULARY, size).tolist() for size in (9, 4, 17)]
    written = [
        generator.generate_ids([prompt], generator.settings(max_new_tokens=12))[0]
        for prompt in prompts
    ]
    assert all(len(row) == 12 for row in written)
    for prompt, row in zip(prompts, written, strict=True):  # the cache is that of one text
        decoding, logits = generator.start([prompt], [prompt], 13)
        for token in row:
            assert logits.argmax() == token
            logits = decoding.step(np.array([token]))
    single = Generator(bundle("decoder", "int4"))
    _, logits = generator.start(prompts, prompts, 2)
    _, other = single.start(prompts, prompts, 2)
    assert 0 < np.abs(logits - other).max() < 1  # int8 read them, not int4


def test_a_prefill_graph_needs_the_right_kind_of_bundle(bundle) -> None:
    facts = json.loads((bundle("decoder", "int8-int4").folder / "manifest.json").read_text())
    facts["cache"]["layout"] = "grow"
    with pytest.raises(serve.BundleError, match="prefill"):
        Manifest.parse(json.dumps(facts))


# --- static ---


def examples(count: int = 24) -> list[dict]:
    words = [
        "a",
        "fine",
        "film",
        "with",
        "good",
        "actors",
        "and",
        "a",
        "dull",
        "plot",
        "that",
        "nobody",
        "likes",
    ]
    rng = np.random.default_rng(7)
    return [
        {
            "text": " ".join(rng.choice(words, rng.integers(3, 12))),
            "label": LABELS[int(rng.integers(3))],
        }
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def tokenizer():
    texts = [example["text"] for example in examples(200)]
    return zoo.Tokenizer.train("wordpiece", texts, vocab_size=120)


@pytest.mark.parametrize("target", ["onnxruntime", "portable"])
def test_static_ranges_come_from_data(models, tokenizer, tmp_path, target) -> None:
    manifest = to_onnx(
        models["encoder"],
        tmp_path / "it",
        precision="int8-static",
        data=examples(),
        tokenizer=tokenizer,
        target=target,
    )
    found = operators(manifest, "model")
    assert found["QuantizeLinear"] >= 4 and "DynamicQuantizeLinear" not in found
    with pytest.raises(export.ExportError, match="calibrated"):
        to_onnx(models["encoder"], tmp_path / "other", precision="int8-static")


# --- budgets ---


def test_a_budget_that_holds_is_written_down(models, tokenizer, tmp_path) -> None:
    manifest = to_onnx(
        models["encoder"],
        tmp_path / "it",
        precision="int8",
        data=examples(),
        budget=Budget(0.5, "accuracy"),
        tokenizer=tokenizer,
    )
    quality = manifest.quantization["quality"]
    assert quality["metric"] == "accuracy" and quality["examples"] == 24
    assert quality["drop"] <= 0.5 and quality["kept_in_float32"] == []
    assert quality["bytes"]["quantized"] < quality["bytes"]["float32"]
    assert set(quality["milliseconds"]) == {"float32", "quantized"}
    assert not list(tmp_path.glob(".*"))


def test_layers_that_hurt_stay_in_float32(tmp_path) -> None:
    """One layer is made to hurt: its weights have outliers, which four bits cannot keep."""
    model = build("decoder")
    kernel = next(w for w in model.weights if w.path.endswith("block_1/feed_forward/down/kernel"))
    values = kernel.numpy()
    values[::32] *= 60
    kernel.assign(values)
    broken = {"precision": "int4", "verify": False}  # which verification would not let pass
    free = to_onnx(model, tmp_path / "free", budget=Budget(1.0), **broken)
    drop = free.quantization["quality"]["drop"]
    assert free.quantization["quality"]["metric"] == "agreement" and drop > 0.02
    kept = to_onnx(model, tmp_path / "kept", budget=Budget(drop / 2), **broken)
    quality = kept.quantization["quality"]
    assert quality["drop"] <= drop / 2
    harm = quality["sensitivity"]
    assert quality["kept_in_float32"] == list(harm)[: len(quality["kept_in_float32"])]
    assert list(harm.values()) == sorted(harm.values(), reverse=True)
    assert "decoder/block_1/feed_forward" in list(harm)[:3]
    left = kept.quantization["left_in_float32"]
    assert {name.rsplit("/", 2)[0] for name in left} == set(quality["kept_in_float32"])
    proto = onnx.load(kept.path("model.onnx"), load_external_data=False)
    assert left[0] in {tensor.name for tensor in proto.graph.initializer}


def test_a_budget_that_cannot_hold_makes_nothing(models, tmp_path) -> None:
    with pytest.raises(export.ExportError, match="Raise max_drop"):
        to_onnx(models["decoder"], tmp_path / "it", precision="int4", budget=Budget(0.0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"precision": "int3"}, "int3"),
        ({"precision": "int4", "target": "portable"}, "onnxruntime"),
        ({"precision": "int8-int4"}, "write text"),
        ({"budget": Budget(0.1)}, "only quantised"),
    ],
)
def test_what_cannot_be_is_refused_at_once(models, tmp_path, settings, said) -> None:
    with pytest.raises(export.ExportError, match=said):
        to_onnx(models["encoder"], tmp_path / "it", **settings)
    assert list(tmp_path.iterdir()) == []


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"block_size": 33}, {"head": "int3"}, {"embedding": "int4"}):
        with pytest.raises(export.ExportError, match=str(next(iter(wrong.values())))):
            Quantization("int4", **wrong)
    with pytest.raises(export.ExportError, match="max_drop"):
        Budget(-1)


def test_an_unknown_metric_is_named(models, tokenizer, tmp_path) -> None:
    with pytest.raises(export.ExportError, match="charm"):
        to_onnx(
            models["encoder"],
            tmp_path / "it",
            precision="int8",
            data=examples(),
            budget=Budget(0.1, "charm"),
            tokenizer=tokenizer,
        )
    assert Path(tmp_path).exists() and list(tmp_path.iterdir()) == []
