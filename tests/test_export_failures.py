"""Exports that must fail, say why, and leave nothing behind."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
import tiny

import export
import zoo
from export import bundle, saved_model, saved_model_verify, staging
from export.staging import staged
from zoo import Tokenizer

NAME = "encoder/sinusoidal"
EXPORTS: dict[str, Callable[..., Any]] = {
    "onnx": export.to_onnx,
    "saved_model": export.to_saved_model,
}
each_export = pytest.mark.parametrize("kind", EXPORTS)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "place" / "bundle"


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def fails(call: Callable[[], Any], out: Path, message: str, error: type = export.ExportError):
    before = entries(out.parent)
    with pytest.raises(error, match=message) as caught:
        call()
    assert entries(out.parent) == before
    return caught.value


# --- the model ------------------------------------------------------------------------------------


class Odd(zoo.TaskModel):
    """A model whose outputs go through an operator of choice."""

    def __init__(self, *args: Any, odd: Callable[[Any], Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.odd = odd

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        outputs = super().call(inputs, training)
        return {name: self.odd(value) for name, value in outputs.items()}


def odd_model(odd: Callable[[Any], Any]) -> Odd:
    return Odd(tiny.CONFIGS["encoder/alibi"], "fill-mask", odd=odd)


@pytest.mark.parametrize(
    ("odd", "named"),
    [
        (lambda x: x + tf.linalg.svd(x, compute_uv=False)[..., :1, None], "Svd"),
        (lambda x: tf.math.erfc(x), "Erfc"),
        (lambda x: tf.math.lgamma(tf.abs(x) + 1.0), "Lgamma"),
    ],
    ids=["svd", "erfc", "lgamma"],
)
@pytest.mark.parametrize("target", ["onnxruntime", "portable"])
def test_an_operator_without_counterpart_is_named(odd, named, target, out) -> None:
    fails(lambda: export.to_onnx(odd_model(odd), out, target=target), out, f"(?i){named}")


def test_a_tensor_that_is_no_weight_is_refused(out) -> None:
    hidden = tf.Variable(np.ones(37, "float32"), name="hidden_table")
    model = odd_model(lambda x: x * hidden)
    fails(lambda: export.to_onnx(model, out), out, "no weights of it.*hidden_table.*add_weight")


def test_weights_of_one_name_are_refused(out) -> None:
    model = tiny.model(NAME)
    first, second = model.weights[:2]
    second._path = first.path
    fails(lambda: export.to_onnx(model, out), out, "1 weights share a name with another.*distinct")


@each_export
def test_only_task_models_are_exported(kind, out) -> None:
    call = EXPORTS[kind]
    fails(lambda: call(keras.Sequential(), out), out, "expected a zoo.TaskModel, got Sequential")
    fails(lambda: call("runs/dates", out), out, "expected a zoo.TaskModel, got str")


@each_export
def test_a_tokenizer_of_another_model_is_refused(kind, out) -> None:
    tokenizer = Tokenizer.train("byte", ["hello"], template="encoder")
    assert tokenizer.vocab_size > 37
    model = tiny.model(NAME)
    message = rf"the tokenizer has {tokenizer.vocab_size} tokens, the model only 37"
    fails(lambda: EXPORTS[kind](model, out, tokenizer=tokenizer), out, message)


def test_unknown_settings_are_refused(out) -> None:
    model = tiny.model(NAME)
    fails(lambda: export.to_onnx(model, out, target="cuda"), out, r"target = 'cuda'.*onnxruntime")
    fails(lambda: export.to_onnx(model, out, opset=12), out, "opset = 12: expected 17 to 18")
    decoder = tiny.model("decoder/untied")
    fails(
        lambda: export.to_onnx(decoder, out, max_new_tokens=0),
        out,
        "max_new_tokens = 0: expected at least 1",
    )


# --- the folder -----------------------------------------------------------------------------------


@each_export
def test_a_parent_that_is_a_file_is_refused(kind, tmp_path) -> None:
    (tmp_path / "file").write_text("kept")
    call = EXPORTS[kind]
    model, out = tiny.model(NAME), tmp_path / "file" / "bundle"
    with pytest.raises(export.ExportError, match=r"cannot write beside .*choose another"):
        call(model, out)
    with pytest.raises(export.ExportError, match="is a file; choose another folder"):
        call(model, tmp_path / "file", overwrite=True)
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_refused(tmp_path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(export.ExportError, match="cannot write beside"):
        export.to_onnx(tiny.model(NAME), tmp_path / "bundle")
    tmp_path.chmod(0o755)


@each_export
def test_an_existing_folder_is_kept(kind, out) -> None:
    out.mkdir(parents=True)
    (out / "mine").write_text("kept")
    fails(lambda: EXPORTS[kind](tiny.model(NAME), out), out, "exists already; choose another")
    assert entries(out) == ["mine"]


@each_export
def test_overwriting_replaces_the_folder(kind, out) -> None:
    out.mkdir(parents=True)
    (out / "mine").write_text("old")
    EXPORTS[kind](tiny.model(NAME), out, overwrite=True, verify=False)
    assert "mine" not in entries(out)
    assert len(entries(out)) > 2
    assert entries(out.parent) == ["bundle"]


def test_an_empty_folder_is_filled(out) -> None:
    out.mkdir(parents=True)
    export.to_onnx(tiny.model(NAME), out, verify=False)
    assert "manifest.json" in entries(out)
    assert entries(out.parent) == ["bundle"]
    assert out.stat().st_mode & 0o777 == 0o755


# --- in the middle --------------------------------------------------------------------------------


def interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("module", "name", "kind"),
    [
        (bundle, "write_graph", "onnx"),
        (bundle, "reference_values", "onnx"),
        (bundle, "replay_bundle", "onnx"),
        (saved_model, "compare", "saved_model"),
        (saved_model, "_write_extra", "saved_model"),
    ],
)
def test_an_interruption_leaves_nothing(module, name, kind, overwrite, out, monkeypatch) -> None:
    if overwrite:
        out.mkdir(parents=True)
        (out / "mine").write_text("kept")
    monkeypatch.setattr(module, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        EXPORTS[kind](tiny.model(NAME), out, overwrite=overwrite)
    assert entries(out.parent) == (["bundle"] if overwrite else [])
    assert entries(out) == (["mine"] if overwrite else [])


def test_a_full_disk_leaves_nothing(out, monkeypatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "write_graph", full)
    fails(lambda: export.to_onnx(tiny.model(NAME), out), out, "cannot write.*No space left")


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_replacement_that_fails_keeps_the_old_folder(error, out, monkeypatch) -> None:
    """The old folder is out of the way already when the new one cannot take its place."""
    out.mkdir(parents=True)
    (out / "mine").write_text("kept")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    expected = export.ExportError if error is OSError else error
    with pytest.raises(expected), staged(out, overwrite=True) as folder:
        (folder / "new").write_text("new")
    assert entries(out.parent) == ["bundle"]
    assert entries(out) == ["mine"]


def test_without_locks_who_finishes_first_wins(out, monkeypatch) -> None:
    """The other is told, and does not touch what the first has made."""
    monkeypatch.setattr(staging, "fcntl", None)
    with (
        pytest.raises(export.ExportError, match=r"exists already|by another export"),
        staged(out) as late,
    ):
        (late / "late").write_text("late")
        with staged(out) as early:
            (early / "early").write_text("early")
    assert entries(out.parent) == ["bundle"]
    assert entries(out) == ["early"]


# --- verification ---------------------------------------------------------------------------------


def spoiled(model: zoo.TaskModel, value: float) -> None:
    weight = next(w for w in model.weights if w.path.endswith("attention/value/kernel"))
    weight.assign(keras.ops.convert_to_numpy(weight) + value)


@pytest.mark.parametrize("value", [0.1, float("nan")])
@pytest.mark.parametrize("name", [NAME, "decoder/untied", "encoder-decoder/sinusoidal-postnorm"])
def test_a_bundle_that_differs_from_keras_is_not_written(name, value, out, monkeypatch) -> None:
    """The weights change between the graphs and the reference values."""
    model, honest = tiny.model(name), bundle.reference_values

    def reference(*args: Any, **kwargs: Any) -> Any:
        spoiled(model, value)
        return honest(*args, **kwargs)

    monkeypatch.setattr(bundle, "reference_values", reference)
    error = fails(
        lambda: export.to_onnx(model, out), out, "does not reproduce", export.VerificationError
    )
    assert "case " in str(error)


@pytest.mark.parametrize("value", [0.1, float("nan")])
@pytest.mark.parametrize("name", [NAME, "decoder/untied"])
def test_a_saved_model_that_differs_is_not_written(name, value, out, monkeypatch) -> None:
    model, honest = tiny.model(name), saved_model_verify.reference_values

    def reference(*args: Any, **kwargs: Any) -> Any:
        spoiled(model, value)
        return honest(*args, **kwargs)

    monkeypatch.setattr(saved_model_verify, "reference_values", reference)
    fails(
        lambda: export.to_saved_model(model, out),
        out,
        "differs from Keras",
        export.VerificationError,
    )


def test_a_graph_that_the_checker_refuses_is_not_written(out, monkeypatch) -> None:
    def refuse(*_: Any) -> None:
        raise onnx.checker.ValidationError("Field 'op_type' is wrong\nContext: ...")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    message = "onnx.checker refuses model.onnx: Field 'op_type' is wrong"
    fails(lambda: export.to_onnx(tiny.model(NAME), out), out, message)


def test_a_model_still_works_after_a_failed_export(out) -> None:
    """A lowering or a level of logging that outlived its export would show here."""
    model = tiny.model(NAME)
    feeds = tiny.inputs(model, [4, 2])
    before = {key: np.asarray(value) for key, value in model(feeds).items()}
    with pytest.raises(export.ExportError):
        export.to_onnx(odd_model(tf.math.erfc), out)
    for key, value in model(feeds).items():
        np.testing.assert_array_equal(value, before[key])
    export.to_onnx(model, out)
