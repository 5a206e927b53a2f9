"""Every family against the reference's stored values: loaded, computed, saved, bit for bit.

The goldens are made by `make goldens`; `make parity` runs all cases against the live reference.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from parity import goldens
from parity.cases import all_cases
from parity.goldens import Golden
from parity.measure import TOLERANCE, measure
from safetensors.numpy import load_file

import zoo

FAMILIES = Path(zoo.__file__).parent / "families"
STORED = sorted(goldens.FOLDER.glob("*.npz"))


def module_of(model_type: str) -> Path:
    return FAMILIES / f"{model_type.replace('-', '_')}.py"


def all_goldens() -> list[Golden]:
    return [golden for path in STORED for golden in goldens.read(path)]


@pytest.fixture
def untraced(monkeypatch) -> None:
    """Generation step by step: tracing would take most of a test's time (`make parity` traces)."""
    monkeypatch.setattr("zoo.generation.as_graph", lambda function, signature=None: function)


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("golden", all_goldens(), ids=lambda golden: golden.case.folder)
def test_a_family_computes_and_saves_what_the_reference_does(golden: Golden, tmp_path) -> None:
    if not module_of(golden.case.model_type).is_file():
        pytest.skip("the zoo does not have this family yet")
    tensors = golden.write_folder(tmp_path / "given")
    model = zoo.from_pretrained(tmp_path / "given", task=golden.case.task, dtype="float32")
    found = measure(model, golden.case, golden.values, steps=2, tokens=3)
    assert found.pop("greedy", True)
    assert len(found) == (3 if model.decoder is None else 5)
    far = {point: gap for point, gap in found.items() if not gap <= TOLERANCE}
    assert not far

    model.save_pretrained(tmp_path / "ours")
    saved = load_file(tmp_path / "ours" / "model.safetensors")
    unused = golden.case.unused
    kept = {k: v for k, v in tensors.items() if not (unused and re.search(unused, k))}
    assert kept.keys() <= saved.keys() <= tensors.keys()
    assert not [name for name, value in kept.items() if saved[name].tobytes() != value.tobytes()]
    written = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert written["model_type"] == golden.case.model_type
    assert written["architectures"] == [golden.case.architecture]


def test_every_family_has_goldens() -> None:
    families = {path.stem for path in FAMILIES.glob("[!_]*.py")}
    assert families
    assert families <= {module_of(path.stem).stem for path in STORED}


def test_goldens_are_those_of_the_case_tables() -> None:
    wanted = {case.folder for case in all_cases() if case.golden}
    assert {golden.case.folder for golden in all_goldens()} == wanted, "run `make goldens`"


def test_a_wrong_tensor_would_be_noticed(tmp_path) -> None:
    golden = next(iter(goldens.read(goldens.FOLDER / "bert.npz")))
    tensors = golden.write_folder(tmp_path)
    from safetensors.numpy import save_file

    changed = dict(tensors)
    names = [
        n for n in tensors if n.endswith(("1.attention.self.key.weight", "word_embeddings.weight"))
    ]
    assert len(names) == 2
    changed[names[0]] = np.ascontiguousarray(tensors[names[0]] * 1.01)
    save_file(changed, tmp_path / "model.safetensors")
    model = zoo.from_pretrained(tmp_path, dtype="float32")
    assert max(measure(model, golden.case, golden.values).values()) > TOLERANCE
