"""Bundles in half precision, against float32 Keras: float16 is computed in, bfloat16 is stored."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import tiny
from tolerances import close

import export
import serve
import zoo
from export.models import prepared
from export.tolerances import HALF_TOLERANCES, MIXTURE_TOLERANCES
from serve.bundle.manifest import Manifest
from serve.decoding.generator import Generator
from serve.runtime.session import Session, SessionOptions

MODELS = (
    "encoder/segments-postnorm",
    "decoder/experts-of-all",
    "encoder/local-and-global",
    "encoder-decoder/relative-rms",
    "decoder/rotary-grouped-gated",
)
"""Every architecture; windows, grouped heads, experts, a bias on the scores."""

CASES = [
    (name, precision, ("onnxruntime", "portable")[(i + j) % 2])
    for i, name in enumerate(MODELS)
    for j, precision in enumerate(("float16", "bfloat16"))
]
each_case = pytest.mark.parametrize(("name", "precision", "target"), CASES)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    made: dict[tuple[str, str, str], tuple[zoo.TaskModel, Manifest]] = {}

    def get(*case: str) -> tuple[zoo.TaskModel, Manifest]:
        if case not in made:
            name, precision, target = case
            model = tiny.model(name)
            out = tmp_path_factory.mktemp("half") / "bundle"
            made[case] = model, export.to_onnx(model, out, precision=precision, target=target)
        return made[case]

    return get


def stored(folder: Path, file: str) -> dict[str, onnx.TensorProto]:
    proto = onnx.load(folder / file, load_external_data=False)
    return {tensor.name: tensor for tensor in proto.graph.initializer}


@each_case
def test_weights_and_caches_are_of_the_type(name, precision, target, bundle) -> None:
    model, manifest = bundle(name, precision, target)
    halves = {"float16": onnx.TensorProto.FLOAT16, "bfloat16": onnx.TensorProto.BFLOAT16}
    paths = {w.path.split("/", 1)[1]: w for w in model.weights}
    seen = set()
    for graph in manifest.graphs.values():
        for path, tensor in stored(manifest.folder, graph.file).items():
            if path not in paths:
                continue
            seen.add(path)
            whole = precision == "bfloat16" and len(paths[path].shape) == 1
            wanted = onnx.TensorProto.FLOAT if whole else halves[precision]
            assert tensor.data_type == wanted, path
        cache = "float16" if precision == "float16" else "float32"
        for tensor in (*graph.inputs, *graph.outputs):
            if tensor.name.startswith(("past_key_values", "present")):
                assert tensor.dtype == cache
            elif tensor.name.endswith(("logits", "hidden_state", "embedding")):
                assert tensor.dtype == "float32"
    assert {path for path, weight in paths.items() if len(weight.shape) > 1} <= seen
    assert manifest.precision == precision
    assert manifest.cache is None or manifest.cache.dtype == cache


@each_case
def test_values_are_those_of_float32(name, precision, target, bundle) -> None:
    """By relative root mean square, steps included; on other inputs than the export's own too."""
    model, manifest = bundle(name, precision, target)
    report = manifest.verification
    table = MIXTURE_TOLERANCES if model.config.num_experts else HALF_TOLERANCES
    assert report["tolerance"] == table[precision]
    assert 0 < report["largest"] <= report["tolerance"]
    assert export.compare_bundle(model, manifest.folder, seed=5)["largest"] <= report["tolerance"]
    unoptimised = serve.replay(manifest.folder, SessionOptions(optimization="none"))
    assert unoptimised["largest"] <= report["tolerance"]


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_another_model_is_told_apart(precision, bundle) -> None:
    case = next(case for case in CASES if case[:2] == ("encoder/local-and-global", precision))
    _, manifest = bundle(*case)
    other = tiny.model("encoder/local-and-global", seed=8)
    with pytest.raises(export.VerificationError, match="does not agree"):
        export.compare_bundle(other, manifest.folder)


@pytest.mark.parametrize("name", [MODELS[0], MODELS[2]])
def test_bfloat16_differs_by_the_rounding_of_its_matrices_alone(name, tmp_path) -> None:
    rounded = tiny.model(name)
    folder = tmp_path / "bundle"
    export.to_onnx(rounded, folder, precision="bfloat16")
    for weight in rounded.weights:
        if len(weight.shape) > 1:
            weight.assign(np.asarray(weight).astype(ml_dtypes.bfloat16).astype("float32"))
    feeds = tiny.inputs(rounded, [5, 1, 9], seed=3)
    found = Session(folder / "model.onnx").run(feeds)
    for output, value in rounded(feeds).items():
        close(found[output], value, "onnxruntime_bundle")


@pytest.mark.parametrize(
    ("name", "precision", "target"),
    [case for case in CASES if case[0] in tiny.GENERATING],
)
def test_serve_generates_from_it(name, precision, target, bundle) -> None:
    """Cached steps over several rows of their own lengths, rows dropped, caches grown."""
    _, manifest = bundle(name, precision, target)
    generator = Generator(manifest)
    settings = generator.settings(max_new_tokens=6)
    prompts = [[5, 9, 3, 7], [11], [2, 30, 4]]
    together = generator.generate_ids(prompts, settings)
    assert [len(row) for row in together] == [6, 6, 6]
    assert together == [generator.generate_ids([prompt], settings)[0] for prompt in prompts]


def test_a_weight_beyond_float16_is_refused(tmp_path) -> None:
    model = tiny.model("encoder/alibi", "text-classification")
    weight = next(w for w in model.weights if w.path.endswith("up/kernel"))
    weight.assign(np.asarray(weight) + 7e4)
    with pytest.raises(export.ExportError, match=r"up/kernel' holds 7.*beyond float16.*bfloat16"):
        export.to_onnx(model, tmp_path / "bundle", precision="float16")
    assert not (tmp_path / "bundle").exists()
    export.to_onnx(model, tmp_path / "bundle", precision="bfloat16", verify=False)


def test_activations_beyond_float16_fail_the_verification(tmp_path) -> None:
    """Weights fit, what is computed with them does not: no bundle appears."""
    model = tiny.model("encoder/no-positions", "feature-extraction")
    for weight in model.weights:
        if weight.path.endswith(("up/kernel", "down/kernel")):
            weight.assign(np.asarray(weight) * 3e4)
    with pytest.raises(export.VerificationError, match="model last_hidden_state: inf"):
        export.to_onnx(model, tmp_path / "bundle", precision="float16")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_prepared_copy_is_of_the_type_and_the_model_stays(dtype) -> None:
    model = tiny.model("encoder/segments-postnorm")
    before = [np.asarray(weight) for weight in model.weights]
    copy = prepared(model, dtype)
    assert {weight.dtype for weight in copy.weights} == {dtype}
    assert prepared(model) is model
    assert prepared(copy, dtype) is copy
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    feeds: dict[str, Any] = tiny.inputs(model, [4, 2])
    assert {value.dtype.name for value in copy(feeds).values()} == {"float32"}
