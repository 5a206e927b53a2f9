"""Folders as others look for them: Optimum's and sentence-transformers' files, versions of
TensorFlow Serving, entries of a Triton repository.

The clients themselves open them in `make interop`.
"""

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tiny
from tolerances import close

import export
import serve
import zoo
from export.layouts import optimum
from export.layouts.tf_serving import to_tf_serving
from export.layouts.triton import config_text, to_triton
from export.reference import reference_values
from serve.bundle.manifest import Manifest
from zoo.families import family

TEXTS = ["a fine film", "a dull plot", "the film of a dull plot was fine"]
BERT = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
}
LLAMA = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
T5 = {
    "d_model": 24,
    "d_kv": 10,
    "d_ff": 40,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 3,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
}


def model_of(model_type: str, values: dict[str, Any], task: str, **given: Any) -> zoo.TaskModel:
    """A model trained from scratch, so to say: with a family's facts, but from no checkpoint."""
    config = family(model_type).decode({"model_type": model_type, "vocab_size": 90, **values})
    model = zoo.TaskModel(config, task, **given)
    tiny.stir(model, 5)
    return model


def with_tokenizer(model: zoo.TaskModel, template: str = "encoder") -> zoo.TaskModel:
    model.tokenizer = zoo.Tokenizer.train("wordpiece", TEXTS, vocab_size=80, template=template)
    return model


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options)


# --- Optimum --------------------------------------------------------------------------------------


def test_encoders_lie_where_optimum_looks(tmp_path):
    model = model_of("bert", BERT, "text-classification", labels=["bad", "good"])
    manifest = export.to_onnx(model, tmp_path / "out", layout="optimum")
    assert {"model.onnx", "model.onnx_data", "config.json"} <= files(tmp_path / "out")
    config = read(tmp_path / "out" / "config.json")
    assert config["model_type"] == "bert"
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "bad", "1": "good"}
    assert family("bert").decode(config) == model.config
    assert manifest.verification["largest"] < 3e-5


def test_decoders_take_any_empty_past(tmp_path):
    """Optimum guesses its sizes, for some families wrongly."""
    model = model_of("llama", LLAMA, "text-generation")
    folder = tmp_path / "out"
    manifest = export.to_onnx(model, folder, target="portable", layout="optimum")
    assert manifest.graphs["model"].file == "model.onnx"
    generation = read(folder / "generation_config.json")
    assert generation["max_new_tokens"] == 32  # no more than the model has positions
    ids = np.array([[0, 5, 6, 7], [8, 9, 10, 11]])
    mask = np.array([[0, 1, 1, 1], [1, 1, 1, 1]])  # padded on the left
    graph = session(folder / "model.onnx")
    feeds: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    for tensor in graph.get_inputs():
        if tensor.name.startswith("past"):
            assert [type(axis) for axis in tensor.shape] == [str] * 4
            feeds[tensor.name] = np.zeros((2, 6, 0, 4), "float32")
    found = graph.run(["logits"], feeds)[0]
    alone = model({"input_ids": ids[:1, 1:]})["logits"]
    close(found[0, 1:], alone[0], "portable_bundle")
    close(found[1], model({"input_ids": ids[1:]})["logits"][0], "portable_bundle")


def test_encoder_decoders_have_a_first_step_and_later_ones(tmp_path):
    model = model_of("t5", T5, "text2text-generation")
    folder = tmp_path / "out"
    manifest = export.to_onnx(model, folder, target="portable", layout="optimum")
    graphs = {name: graph.file for name, graph in manifest.graphs.items()}
    assert graphs == {
        "encoder": "encoder_model.onnx",
        "decoder": "decoder_with_past_model.onnx",
    }
    assert {"decoder_model.onnx", "encoder_model.onnx_data"} <= set(manifest.files)
    first, later = session(folder / "decoder_model.onnx"), session(folder / graphs["decoder"])
    assert not [t.name for t in first.get_inputs() if "past" in t.name]
    past = [t.name for t in later.get_inputs() if "past" in t.name]
    layer = [f"{side}.{part}" for side in ("decoder", "encoder") for part in ("key", "value")]
    assert past == [f"past_key_values.{i}.{name}" for i in range(3) for name in layer]

    feeds = tiny.inputs(model, [7, 4], seed=3)
    feeds = {name: np.asarray(value, "int64") for name, value in feeds.items()}
    targets = feeds.pop("decoder_input_ids")
    expected = np.asarray(model({**feeds, "decoder_input_ids": targets})["logits"])
    states = session(folder / "encoder_model.onnx").run(["last_hidden_state"], feeds)[0]
    memory_mask = {"encoder_attention_mask": feeds["attention_mask"]}
    fed = {"input_ids": targets[:, :2], "attention_mask": np.ones((2, 2), "int64")}
    names = [t.name for t in first.get_outputs()]
    values = first.run(names, {**fed, **memory_mask, "encoder_hidden_states": states})
    found = dict(zip(names, values, strict=True))
    close(found["logits"], expected[:, :2], "portable_bundle")
    fed = {"input_ids": targets[:, 2:], "attention_mask": np.ones(targets.shape, "int64")}
    for name in past:
        fed[name] = found[name.replace("past_key_values", "present")]
    close(later.run(["logits"], {**fed, **memory_mask})[0], expected[:, 2:], "portable_bundle")


def test_the_first_step_is_verified(tmp_path):
    model = model_of("t5", T5, "text2text-generation")
    export.to_onnx(model, tmp_path / "out", target="portable", layout="optimum", verify=False)
    other = model_of("t5", T5, "text2text-generation")
    reference = reference_values(other, None)
    with pytest.raises(export.VerificationError, match=r"decoder_model\.onnx: .* differs"):
        optimum.verify(tmp_path / "out", other, reference)


def test_sentences_are_pooled_by_the_client_and_by_serve(tmp_path):
    model = model_of(
        "distilbert",
        {"dim": 24, "n_heads": 3, "n_layers": 2, "hidden_dim": 40, "max_position_embeddings": 32},
        "sentence-similarity",
        head={"pooling": "cls", "normalize": False},
    )
    with_tokenizer(model)
    folder = tmp_path / "out"
    export.to_onnx(model, folder, layout="optimum")
    kinds = [m["type"].rpartition(".")[2] for m in read(folder / "modules.json")]
    assert kinds == ["Transformer", "Pooling"]
    pooling = read(folder / "1_Pooling" / "config.json")
    assert [key for key, on in pooling.items() if on is True] == ["pooling_mode_cls_token"]
    assert pooling["word_embedding_dimension"] == 24
    inputs = read(folder / "tokenizer_config.json")["model_input_names"]
    assert inputs == ["input_ids", "attention_mask"]  # the model knows no segments
    fed = model.tokenizer(TEXTS)
    fed = {name: np.asarray(fed[name], "int64") for name in inputs}
    graph = session(folder / "model.onnx")
    states, vectors = graph.run(["last_hidden_state", "sentence_embedding"], fed)
    close(vectors, states[:, 0], "portable_bundle")
    served = [answer.values for answer in serve.load(folder)(TEXTS)]
    close(served, vectors, "portable_bundle")


def test_checkpoints_promise_no_input_that_the_model_lacks(tmp_path):
    expected = {"bert": ["input_ids", "token_type_ids", "attention_mask"]}
    for name in ("bert", "roberta"):
        values = {**BERT, "type_vocab_size": 2 if name == "bert" else 1, "pad_token_id": 0}
        model = with_tokenizer(model_of(name, values, "feature-extraction"))
        model.save_pretrained(tmp_path / name, model_type=name)
        names = read(tmp_path / name / "tokenizer_config.json")["model_input_names"]
        assert names == expected.get(name, ["input_ids", "attention_mask"])


def test_what_optimum_cannot_run_or_name_is_refused(tmp_path):
    decoder = model_of("llama", LLAMA, "text-generation")
    with pytest.raises(export.ExportError, match="'portable'"):
        export.to_onnx(decoder, tmp_path / "out", layout="optimum")
    with pytest.raises(export.ExportError, match=r"layout = 'optimus'"):
        export.to_onnx(decoder, tmp_path / "out", layout="optimus")
    odd = tiny.model("encoder/rotary-gated-rms", "feature-extraction")
    with pytest.raises(export.ExportError, match=r"no family .* the nearest, \w+.*, cannot say"):
        export.to_onnx(odd, tmp_path / "out", layout="optimum", verify=False)
    assert not list(tmp_path.iterdir())


# --- TensorFlow Serving ---------------------------------------------------------------------------


def test_versions_of_tensorflow_serving(tmp_path, monkeypatch):
    made = []

    def written(model: Any, out: Path, **settings: Any) -> dict[str, Any]:
        made.append((out, settings))
        out.mkdir(parents=True)
        return {"largest": 0.0}

    monkeypatch.setattr("export.layouts.tf_serving.to_saved_model", written)
    out = tmp_path / "reviews"
    assert to_tf_serving(None, out, verify=False) == {"largest": 0.0, "version": 1}
    assert to_tf_serving(None, out, version="12")["version"] == 12
    (out / "99.txt").write_text("no version")
    assert to_tf_serving(None, out)["version"] == 13
    assert made[0] == (out / "1", {"verify": False})
    for version in (0, -1, "01", 1.5, "next", True, 2**63):
        with pytest.raises(export.ExportError, match="expected a whole number from 1"):
            to_tf_serving(None, out, version=version)


def test_a_version_of_tensorflow_serving_is_a_saved_model(tmp_path):
    import tensorflow as tf

    model = tiny.model("encoder/sinusoidal", "feature-extraction")
    to_tf_serving(model, tmp_path / "features", version=3)
    assert [path.name for path in (tmp_path / "features").iterdir()] == ["3"]
    loaded = tf.saved_model.load(str(tmp_path / "features" / "3"))
    feeds = {k: tf.constant(v, "int64") for k, v in tiny.inputs(model, [3, 5]).items()}
    found = loaded.signatures["serving_default"](**feeds)["last_hidden_state"]
    close(found, model(feeds)["last_hidden_state"], "saved_model")
    with pytest.raises(export.ExportError, match="exists already"):
        to_tf_serving(model, tmp_path / "features", version=3)


# --- Triton ---------------------------------------------------------------------------------------


def test_protobuf_text():
    fields = {"name": 'a "b" \\', "dims": [-1, 3], "optional": True, "input": [{"x": 1}, {"x": 2}]}
    assert config_text(fields) == (
        'name: "a \\"b\\" \\\\"\ndims: [-1, 3]\noptional: true\n'
        "input {\n  x: 1\n}\ninput {\n  x: 2\n}\n"
    )


def test_a_triton_entry_takes_versions_of_the_same_shape(tmp_path):
    model = model_of("bert", BERT, "text-classification", labels=["bad", "good"])
    entry = tmp_path / "models" / "reviews"
    manifest = to_triton(model, entry, max_batch_size=8, verify=False)
    assert manifest.name == "reviews"
    assert manifest.folder == entry / "1"
    text = (entry / "config.pbtxt").read_text()
    for line in ('name: "reviews"', "max_batch_size: 8", '  name: "logits"', "  dims: [2]"):
        assert line in text.splitlines()
    assert (entry / "labels.txt").read_text() == "bad\ngood\n"
    to_triton(model, entry, version=2, max_batch_size=8, verify=False)
    assert (entry / "2" / "model.onnx").is_file()
    with pytest.raises(export.ExportError, match="exists already"):
        to_triton(model, entry, version=2, max_batch_size=8, verify=False)
    with pytest.raises(export.ExportError, match=r"config\.pbtxt is of another model"):
        to_triton(model, entry, version=3, max_batch_size=9, verify=False)
    assert sorted(path.name for path in entry.iterdir()) == ["1", "2", "config.pbtxt", "labels.txt"]
    assert (entry / "config.pbtxt").read_text() == text


def test_triton_entries_that_fail_leave_nothing(tmp_path):
    model = model_of("bert", BERT, "feature-extraction")
    for wrong in ({"max_batch_size": 0}, {"queue_delay": -1}, {"version": "v1"}, {"opset": 3}):
        with pytest.raises(export.ExportError):
            to_triton(model, tmp_path / "models" / "bert", verify=False, **wrong)
        assert not files(tmp_path)
        assert not (tmp_path / "models" / "bert").exists()


@pytest.fixture
def backend(monkeypatch) -> types.ModuleType:
    """What Triton's Python backend puts in `triton_python_backend_utils`, as far as it is used."""

    class Tensor:
        def __init__(self, name: str, values: np.ndarray) -> None:
            self.name, self.values = name, values

        def as_numpy(self) -> np.ndarray:
            return self.values

    class Response:
        def __init__(self, tensors: Any = (), error: Any = None) -> None:
            self.tensors, self.error = {t.name: t.values for t in tensors}, error

    module = types.ModuleType("triton_python_backend_utils")
    module.Tensor, module.InferenceResponse, module.TritonError = Tensor, Response, RuntimeError
    module.get_input_tensor_by_name = lambda request, name: request.get(name)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_generators_answer_in_tritons_python_backend(tmp_path, backend):
    model = with_tokenizer(model_of("llama", LLAMA, "text-generation"), "decoder")
    entry = tmp_path / "models" / "writer"
    to_triton(model, entry, max_batch_size=4, verify=False)
    text = (entry / "config.pbtxt").read_text()
    assert 'backend: "python"' in text
    names: dict[str, Any] = {"__file__": str(entry / "1" / "model.py"), "__name__": "model"}
    exec(compile((entry / "1" / "model.py").read_text(), "model.py", "exec"), names)
    running = names["TritonPythonModel"]()
    running.initialize(
        {
            "model_instance_kind": "CPU",
            "model_instance_device_id": "0",
            "model_config": json.dumps({"max_batch_size": 4}),
        }
    )

    def request(texts: list[bytes], most: int | None = None) -> dict[str, Any]:
        rows = np.array(texts, dtype=object).reshape(-1, 1)
        given = {"text": backend.Tensor("text", rows)}
        if most is not None:
            given["max_new_tokens"] = backend.Tensor("max_new_tokens", np.full(rows.shape, most))
        return given

    responses = running.execute(
        [
            request([b"a fine film"], 4),
            request([b"film " * 40], 4),  # longer than the model can hold
            request([b"the", b"a dull plot"], 4),
            request([b"\xff"]),
            request([b"plot"]),
        ]
    )
    pipeline = serve.load(entry / "1")
    expected = [
        answer.text for answer in pipeline(["a fine film", "the", "a dull plot"], max_new_tokens=4)
    ]
    found = [r.tensors.get("generated_text") for r in responses]
    assert found[0].tolist() == [[expected[0].encode()]]
    assert found[2].tolist() == [[text.encode()] for text in expected[1:]]
    assert found[4].tolist() == [[pipeline("plot").text.encode()]]
    assert "max_length of 32" in str(responses[1].error)
    assert "utf-8" in str(responses[3].error)
    assert [response.error is None for response in responses] == [True, False, True, False, True]


def test_the_manifest_of_a_version_is_a_bundle(tmp_path):
    model = with_tokenizer(model_of("bert", BERT, "fill-mask"))
    to_triton(model, tmp_path / "models" / "masks", verify=False)
    assert Manifest.load(tmp_path / "models" / "masks" / "1", check="full").task == "fill-mask"


@pytest.mark.parametrize("server", ["TensorFlow Serving", "Triton"])
def test_the_page_exports_for_servers(server, tmp_path, monkeypatch):
    """Of docs/layouts.md; its clients' lines run in `make interop`."""
    page = (Path(__file__).parent.parent / "docs" / "layouts.md").read_text(encoding="utf-8")
    section = page.split(f"\n## {server}\n")[1]
    code = section.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    given = model_of("bert", BERT, "fill-mask")
    given.save_pretrained("checkpoints/reviews", model_type="bert")
    exec(compile(code, "docs/layouts.md", "exec"), {})
    made = {"TensorFlow Serving": "serving/reviews/1/saved_model.pb"}
    assert Path(made.get(server, "models/reviews/1/model.onnx")).is_file()
