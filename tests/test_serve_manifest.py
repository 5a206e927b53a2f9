"""Every way in which a bundle can be wrong is named."""

import json
import shutil

import numpy as np
import onnx
import pytest
import serve_bundles as bundles
from onnx import numpy_helper

from serve.bundle.integrity import FileSpec, external_locations
from serve.bundle.manifest import Manifest
from serve.errors import BundleError


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return bundles.decoder_bundle(tmp_path_factory.mktemp("m") / "bundle")


@pytest.fixture
def bundle(original, tmp_path):
    return shutil.copytree(original, tmp_path / "bundle")


def edit(bundle, change):
    path = bundle / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def fails(bundle, *words, check=True):
    with pytest.raises(BundleError) as caught:
        Manifest.load(bundle, check)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_good_bundle_loads_and_round_trips(bundle):
    for check in (True, "full", "size", False):
        manifest = Manifest.load(bundle, check)
    assert manifest.path("model.onnx").is_file()
    assert Manifest.parse(manifest.to_json()).to_json() == manifest.to_json()
    manifest.save(bundle)
    assert Manifest.load(bundle, "full").files == manifest.files


def test_folder_or_manifest_missing(tmp_path):
    fails(tmp_path / "nothing", "no such folder")
    fails(tmp_path, "no manifest.json")
    (tmp_path / "file").write_text("x")
    fails(tmp_path / "file", "is a file")


@pytest.mark.parametrize(
    ("text", "word"),
    [("{", "not JSON"), ("[]", "JSON object"), ('{"schema_version": 2}', "schema_version 2")],
)
def test_not_a_manifest(bundle, text, word):
    (bundle / "manifest.json").write_text(text)
    fails(bundle, word)


def test_unknown_version_says_what_to_do(bundle):
    edit(bundle, lambda data: data.update(schema_version=7))
    fails(bundle, "7", "[1]", "upgrade")
    edit(bundle, lambda data: data.pop("schema_version"))
    fails(bundle, "None", "[1]")


def test_unknown_key_and_bad_value(bundle):
    edit(bundle, lambda data: data.update(colour="red"))
    fails(bundle, "colour")
    edit(bundle, lambda data: (data.pop("colour"), data.update(task="dance")))
    fails(bundle, "task")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda data: data["files"].pop("model.onnx"), "not listed"),
        (lambda data: data["files"].pop("tokenizer.json"), "tokenizer.json"),
        (lambda data: data["files"].pop("model.onnx.data"), "model.onnx.data"),
        (lambda data: data.update(cache=None), "cache"),
        (lambda data: data.update(architecture="encoder-decoder"), "graphs"),
        (lambda data: data["files"].update({"/etc/passwd": fake()}), "/etc/passwd"),
        (lambda data: data["files"].update({"../x": fake()}), "../x"),
        (lambda data: data["files"].update({"a/../../x": fake()}), "a/../../x"),
        (lambda data: data["files"].update({"C:\\x": fake()}), "inside the bundle"),
        (lambda data: data["files"].update({"extra.json": fake()}), "extra.json"),
    ],
)
def test_what_does_not_fit(bundle, change, word):
    edit(bundle, change)
    fails(bundle, word)


def fake():
    return {"sha256": "0" * 64, "bytes": 1}


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json"])
def test_missing_truncated_and_changed_files(bundle, name):
    path = bundle / name
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    fails(bundle, name, "truncated")
    fails(bundle, name, "truncated", check="size")
    path.write_bytes(content[:-5] + b"xxxxx")
    fails(bundle, name, "changed")
    Manifest.load(bundle, "size") if name != "model.onnx" else None
    path.write_bytes(content + b"x")
    fails(bundle, name, "too long")
    path.unlink()
    fails(bundle, name, "not there", check=False)


def test_large_files_are_hashed_on_full_only(bundle, monkeypatch):
    monkeypatch.setattr("serve.bundle.integrity.HASHED_BY_DEFAULT", 1000)
    path = bundle / "model.onnx.data"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    Manifest.load(bundle)
    fails(bundle, "model.onnx.data", "changed", check="full")


def test_links_may_not_lead_out(bundle, tmp_path):
    outside = tmp_path / "outside.json"
    shutil.move(bundle / "tokenizer.json", outside)
    (bundle / "tokenizer.json").symlink_to(outside)
    fails(bundle, "tokenizer.json", "leads out")
    (bundle / "tokenizer.json").unlink()
    shutil.move(outside, bundle / "real.json")
    (bundle / "tokenizer.json").symlink_to("real.json")
    Manifest.load(bundle)  # a link inside the bundle is fine


@pytest.mark.parametrize("location", ["../weights.bin", "/weights.bin", "unlisted.bin"])
def test_external_data_stays_inside(bundle, location):
    model = onnx.load(bundle / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    onnx.save(model, bundle / "model.onnx")
    spec = FileSpec.of(bundle / "model.onnx").model_dump()
    edit(bundle, lambda data: data["files"].update({"model.onnx": spec}))
    fails(bundle, location)


def test_external_locations_in_subgraphs(tmp_path):
    tensor = numpy_helper.from_array(np.ones(3, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="deep.bin")
    tensor.external_data.add(key="offset", value="0")
    inner = onnx.helper.make_graph([], "inner", [], [], [tensor])
    node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    graph = onnx.helper.make_graph([node], "outer", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "a.onnx")
    assert external_locations(tmp_path / "a.onnx") == {"deep.bin"}
    (tmp_path / "b.onnx").write_bytes(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
    with pytest.raises(BundleError, match="not an ONNX file"):
        external_locations(tmp_path / "b.onnx")
    (tmp_path / "c.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="not an ONNX file"):
        external_locations(tmp_path / "c.onnx")


def test_unknown_check_is_refused(bundle):
    fails(bundle, "maybe", check="maybe")
