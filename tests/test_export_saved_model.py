"""SavedModels: signatures, values, and answers in a process that knows TensorFlow alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tiny
from tensorflow.core.protobuf import saved_model_pb2
from tolerances import close

import export
from export.saved_model import EXTRA

NAMES = [
    "encoder/segments-postnorm",
    "decoder/sandwich-softcaps",
    "encoder-decoder/relative-rms",
]
SIGNATURES = {
    "encoder": {"serving_default"},
    "decoder": {"serving_default", "step", "generate", "sample"},
    "encoder-decoder": {"serving_default", "step", "encode", "generate", "sample"},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(model, folder, report) of a row; made once."""
    made = {}

    def get(name: str):
        if name not in made:
            model = tiny.model(name)
            folder = tmp_path_factory.mktemp("saved") / "model"
            made[name] = model, folder, export.to_saved_model(model, folder)
        return made[name]

    return get


def as_int64(feeds: dict) -> dict:
    return {name: tf.constant(value, "int64") for name, value in feeds.items()}


@pytest.mark.parametrize("name", NAMES)
def test_signatures_bear_the_names_of_the_contract(name, saved) -> None:
    model, folder, report = saved(name)
    close(report["largest"], 0.0, "saved_model")
    signatures = tf.saved_model.load(str(folder)).signatures
    assert set(signatures) == SIGNATURES[model.architecture]
    found = {
        kind: set(signature.structured_input_signature[1]) | set(signature.structured_outputs)
        for kind, signature in signatures.items()
    }
    feeds = set(tiny.inputs(model, [3]))
    assert found["serving_default"] == feeds | set(model.spec.outputs)
    if model.decoder is None:
        return
    prefix = "decoder." if model.encoder else ""
    layers = [
        f"{i}.{{}}{part}" for i in range(len(model.decoder.blocks)) for part in ("key", "value")
    ]
    step = {"input_ids", "attention_mask", "logits"}
    step |= {f"past_key_values.{layer.format(prefix)}" for layer in layers}
    step |= {f"present.{layer.format(prefix)}" for layer in layers}
    if model.encoder:
        memory = {f"present.{layer.format('encoder.')}" for layer in layers}
        encode = {"input_ids", "attention_mask", "last_hidden_state"}
        assert found["encode"] == encode | memory
        step |= {name.replace("present", "past_key_values") for name in memory}
        step.add("encoder_attention_mask")
    # In Python TensorFlow takes both spellings, and tells the one with underscores.
    inputs = {name for name in step if name.startswith("past_key_values")}
    assert found["step"] == step - inputs | {name.replace(".", "_") for name in inputs}
    written = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    signature = written.meta_graphs[0].signature_def["step"]
    assert set(signature.inputs) | set(signature.outputs) == step
    for signature in signatures.values():
        for spec in signature.structured_input_signature[1].values():
            assert spec.dtype in (tf.int64, tf.float32)


@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_of_keras(name, saved) -> None:
    model, folder, _ = saved(name)
    call = tf.saved_model.load(str(folder)).signatures["serving_default"]
    for lengths in ([1], [9, 2, 5]):
        feeds = tiny.inputs(model, lengths, seed=50)
        expected = model(feeds)
        for key, value in call(**as_int64(feeds)).items():
            close(value, expected[key], "saved_model")


@pytest.mark.parametrize("name", NAMES[1:])
def test_steps_are_those_of_a_full_pass(name, saved) -> None:
    """Prompts are padded left; all positions' logits come back."""
    model, folder, _ = saved(name)
    signatures = tf.saved_model.load(str(folder)).signatures
    ids, mask = tiny.ragged([8, 8], seed=51)
    feeds = {"input_ids": ids, "attention_mask": mask}
    constants = {}
    if model.encoder:
        encoded = signatures["encode"](**as_int64(feeds))
        states, _ = model.encode(ids, mask)
        close(encoded.pop("last_hidden_state"), states, "saved_model")
        constants = {k.replace("present", "past_key_values"): v for k, v in encoded.items()}
        constants["encoder_attention_mask"] = tf.constant(mask, "int64")
        feeds["decoder_input_ids"] = ids
    expected = np.asarray(model(feeds)["logits"])
    shape = (2, model.decoder.config.num_kv_heads, 0, model.decoder.config.head_dim)
    kind = "decoder." if model.encoder else ""
    layers = range(len(model.decoder.blocks))
    names = [f"past_key_values.{i}.{kind}{part}" for i in layers for part in ("key", "value")]
    past = {name: tf.zeros(shape) for name in names}
    slots = np.array([[0, 0, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1]])
    at = np.maximum(slots.cumsum(axis=1) - 1, 0)
    rows, filled = np.arange(2)[:, None], 0
    for width in (5, 1, 1):
        new = slice(filled, filled + width)
        filled += width
        fed = as_int64({"input_ids": ids[rows, at[:, new]], "attention_mask": slots[:, :filled]})
        found = signatures["step"](**fed, **past, **constants)
        tokens = slots[:, new] == 1
        logits = np.asarray(found["logits"])
        close(logits[tokens], expected[rows, at[:, new]][tokens], "saved_model")
        past = {name: found[name.replace("past_key_values", "present")] for name in names}


CLEAN = """
import sys
import numpy as np
import tensorflow as tf

ids, mask, expected = (np.load(f"{sys.argv[2]}/{name}.npy") for name in ("ids", "mask", "logits"))
loaded = tf.saved_model.load(sys.argv[1])
call = loaded.signatures["serving_default"]
feeds = {"input_ids": tf.constant(ids, "int64"), "attention_mask": tf.constant(mask, "int64")}
found = call(**feeds)["logits"]
ours = [name for name in ("zoo", "export", "serve") if name in sys.modules]
print(float(np.abs(found - expected).max()), ours)
"""


def test_tensorflow_alone_answers(saved, tmp_path: Path) -> None:
    model, folder, _ = saved("decoder/sandwich-softcaps")
    ids, mask = tiny.ragged([6, 3], seed=52)
    logits = np.asarray(model({"input_ids": ids, "attention_mask": mask})["logits"])
    for name, array in {"ids": ids, "mask": mask, "logits": logits}.items():
        np.save(tmp_path / f"{name}.npy", array)
    done = subprocess.run(
        [sys.executable, "-c", CLEAN, str(folder), str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    gap, ours = done.stdout.splitlines()[-1].split(" ", 1)
    close(float(gap), 0.0, "saved_model")
    assert ours == "[]"


def test_extra_files_say_what_it_is(saved) -> None:
    model, folder, report = saved("encoder/segments-postnorm")
    facts = json.loads((folder / EXTRA / "config.json").read_text())
    assert facts["task"] == model.task
    assert facts["architecture"] == "encoder"
    assert facts["hidden_dim"] == model.config.hidden_dim
    assert json.loads((folder / EXTRA / "verification.json").read_text()) == report


def test_a_task_with_labels_and_a_half_precision_model(tmp_path: Path) -> None:
    model = tiny.model("encoder/alibi", "text-classification", dtype="mixed_bfloat16")
    export.to_saved_model(model, tmp_path / "model", verify=False)
    facts = json.loads((tmp_path / "model" / EXTRA / "config.json").read_text())
    assert facts["labels"] == list(tiny.LABELS)
    plain = tiny.model("encoder/alibi", "text-classification")
    feeds = tiny.inputs(plain, [4, 2])
    call = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    close(call(**as_int64(feeds))["logits"], plain(feeds)["logits"], "saved_model")
