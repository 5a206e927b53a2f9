"""A bundle of every family, verified through serve; `make parity` exports all tasks and forms."""

import pytest
from parity import goldens
from tolerances import close

import export
import serve
import zoo

STORED = sorted(goldens.FOLDER.glob("*.npz"))
TARGETS = ("onnxruntime", "portable")


@pytest.mark.parametrize("number", range(len(STORED)), ids=[path.stem for path in STORED])
def test_a_family_leaves_as_a_verified_bundle(number, tmp_path) -> None:
    golden = next(iter(goldens.read(STORED[number])))
    golden.write_folder(tmp_path / "checkpoint")
    model = zoo.from_pretrained(tmp_path / "checkpoint", task=golden.case.task)
    target = TARGETS[number % 2]
    manifest = export.to_onnx(model, tmp_path / "bundle", target=target)
    close(manifest.verification["largest"], 0.0, f"{target}_bundle")
    assert serve.replay(tmp_path / "bundle")["has_reference"]
