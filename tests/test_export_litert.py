"""LiteRT: files whose signatures compute what Keras computes, at sizes that no trace has seen, and
that answer with the interpreter and a tokenizer alone.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

import export
import zoo
from export.errors import ExportError, VerificationError
from export.graphs import Graph, Tensor
from export.litert import conversion
from export.litert.graphs import litert_graphs
from export.litert.verification import verified
from export.tolerances import LITERT_TOLERANCES

interpreters = pytest.importorskip("ai_edge_litert.interpreter")

ENCODERS = [
    "encoder/local-and-global",
    "encoder/disentangled",
    "encoder/ngrams",
    "encoder/alibi",
    "encoder/sinusoidal",
]
WRITERS = [
    "decoder/sandwich-softcaps",
    "decoder/experts",
    "encoder-decoder/relative-rms",
    "encoder-decoder/different-stacks",
]
LENGTH = 23
PAGE = (Path(__file__).parent.parent / "docs" / "litert.md").read_text(encoding="utf-8")
CODE = [
    block
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    if "FOLDER" in block
]


def runners(folder: Path) -> dict:
    interpreter = interpreters.Interpreter(model_path=str(folder / "model.tflite"))
    return {
        name: interpreter.get_signature_runner(name) for name in interpreter.get_signature_list()
    }


def as_int64(feeds: dict) -> dict:
    return {name: np.asarray(value, "int64") for name, value in feeds.items()}


def fed_back(outputs: dict) -> dict:
    return {
        name.replace("present.", "past_key_values."): value
        for name, value in outputs.items()
        if name.startswith("present.")
    }


def wide(name: str, **facts) -> zoo.TaskModel:
    """A tiny model whose tensors are large enough to be quantised."""
    kind, row = name.split("/")
    rows = {"encoder": tiny.ENCODERS, "decoder": tiny.DECODERS}[kind]
    sizes = {"hidden_dim": 96, "head_dim": 32, "intermediate_dim": 160, "vocab_size": 311}
    config = type(tiny.CONFIGS[name])(
        **{**tiny.SMALL, **rows[row], **sizes, "initializer_range": 0.08, **facts}
    )
    keras.utils.set_random_seed(7)
    return zoo.TaskModel(config, tiny.task_of(name))


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_is_one_signature_with_dynamic_axes(name, tmp_path: Path) -> None:
    model = tiny.model(name)
    facts = export.to_litert(model, tmp_path / "model")
    assert facts["verification"]["found"] <= 2e-5
    assert list(facts["signatures"]) == ["serving_default"]
    run = runners(tmp_path / "model")["serving_default"]
    for lengths in ([4], [2, 11, 7], [40]):
        feeds = tiny.inputs(model, lengths, seed=5)
        found, expected = run(**as_int64(feeds)), model(feeds)
        assert set(found) == set(expected)
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], np.asarray(value), atol=2e-5)


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_gives_the_tokens_of_keras(name, tmp_path: Path) -> None:
    """Greedily, for a batch whose rows have different lengths, up to the cache's last position."""
    model = tiny.model(name)
    facts = export.to_litert(model, tmp_path / "model", max_length=LENGTH, verify=False)
    assert facts["cache"]["max_length"] == facts["max_length"] == LENGTH
    run = runners(tmp_path / "model")
    ids, mask = tiny.ragged([9, 5, 1], seed=3)
    prompt, memory = {"input_ids": ids, "attention_mask": mask}, {}
    if model.encoder is not None:
        memory = fed_back(run["encode"](**as_int64(prompt)))
        memory["encoder_attention_mask"] = mask.astype("int64")
        start = np.full((3, 1), model.config.decoder_start_token_id)
        prompt = {"input_ids": start, "attention_mask": np.ones_like(start)}
    filled = prompt["attention_mask"].sum(axis=1)
    most = LENGTH + 1 - prompt["input_ids"].shape[1]
    out, tokens = run["prefill"](**as_int64(prompt), **memory), []
    while True:
        tokens.append(out["logits"][:, 0].argmax(axis=-1))
        if len(tokens) == most:
            break
        filled = filled + 1
        step = {
            "input_ids": tokens[-1][:, None],
            "attention_mask": np.arange(LENGTH) < filled[:, None],
        }
        out = run["decode"](**as_int64(step), **fed_back(out), **memory)
    expected = model.generate(ids, mask, max_new_tokens=most)
    ends = {model.config.eos_token_id, *model.config.stop_token_ids}
    for row, wanted in zip(np.stack(tokens, axis=1), expected, strict=True):
        stop = next((i for i, token in enumerate(wanted) if token in ends), len(wanted) - 1)
        assert row[: stop + 1].tolist() == wanted[: stop + 1].tolist()


def test_the_folder_says_what_it_is(tmp_path: Path) -> None:
    model = tiny.model("encoder/segments-postnorm", "token-classification", dtype="mixed_bfloat16")
    said: list[str] = []
    facts = export.to_litert(model, tmp_path / "model", verify=False, progress=said.append)
    assert json.loads((tmp_path / "model" / "litert.json").read_text()) == facts
    assert said == ["converting"]
    assert (facts["task"], facts["labels"]) == ("token-classification", list(tiny.LABELS))
    assert "verification" not in facts
    assert facts["operators"]["GELU"] == 2
    assert facts["parameters"] == model.count_params()
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json",
        "litert.json",
        "model.tflite",
    ]
    for name, spec in facts["files"].items():
        content = (tmp_path / "model" / name).read_bytes()
        assert spec == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    stated = {tensor["name"]: tensor for tensor in facts["signatures"]["serving_default"]["inputs"]}
    assert set(stated) == {"input_ids", "attention_mask", "token_type_ids"}
    assert stated["input_ids"]["shape"] == ["batch_size", "sequence_length"]
    again = export.to_litert(model, tmp_path / "again", verify=False)
    assert again["files"]["model.tflite"] == facts["files"]["model.tflite"]  # byte for byte


def test_precisions_shrink_the_file_and_stay_near(tmp_path: Path) -> None:
    model = wide("decoder/learned-gelu-tanh", vocab_size=2003, num_layers=1)
    table = model.config.vocab_size * model.config.hidden_dim
    count, sizes = model.count_params(), {}
    for precision in ("float32", "float16", "int8"):
        facts = export.to_litert(model, tmp_path / precision, precision=precision)
        report = facts["verification"]
        sizes[precision] = facts["files"]["model.tflite"]["bytes"]
        assert report["measure"] == LITERT_TOLERANCES[precision][0]
        # Measured 3e-7, 4e-4 and 1.3e-2; a file that ignored its precision would be nearer.
        low, high = {"float32": (0, 1e-6), "float16": (1e-5, 2e-3), "int8": (1e-3, 5e-2)}[precision]
        assert low <= report["outputs"]["logits"]["relative"] <= high
        assert report["outputs"]["logits"]["agreement"] >= 0.9
    # Two signatures and a tied table, yet each weight once; an int8 table is kept for each use.
    graph = sizes["float32"] - 4 * count
    assert 0 < graph < 0.5 * 4 * table
    assert abs(sizes["float16"] - (2 * count + graph)) < 0.25 * 2 * table
    assert sizes["int8"] < min(count + table + 1.6 * graph, 0.5 * sizes["float32"])


def test_a_damaged_file_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    model = tiny.model("encoder-decoder/learned-unshared")

    def damaged(given, graphs, precision, folder):
        other = tiny.model("encoder-decoder/learned-unshared")
        for weight in other.weights[-2:]:
            weight.assign(weight + 0.01)
        return conversion.convert(other, litert_graphs(other, LENGTH), precision, folder)

    monkeypatch.setattr("export.litert.folder.convert", damaged)
    with pytest.raises(VerificationError, match=r"largest difference of 'logits' is .* tolerance"):
        export.to_litert(model, tmp_path / "model", max_length=LENGTH)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    model = tiny.model("decoder/alibi")
    facts = export.to_litert(model, tmp_path / "model", max_length=LENGTH)
    assert facts["verification"]["found"] <= 2e-5
    with pytest.raises(VerificationError, match="signatures"):
        graphs = [
            *litert_graphs(model, LENGTH),
            litert_graphs(tiny.model("encoder/alibi"), None)[0],
        ]
        verified(model, tmp_path / "model" / "model.tflite", graphs, LENGTH, "float32")
    # What the page says of long prompts.
    prefill = runners(tmp_path / "model")["prefill"]
    long = np.ones((1, LENGTH + 1), "int64")
    with pytest.raises(RuntimeError, match="PAD"):
        prefill(input_ids=long, attention_mask=long)


def test_operators_that_litert_lacks_are_named(tmp_path: Path) -> None:
    model = tiny.model("encoder/sinusoidal")
    value = Tensor("x", "float32", ("n",))
    graph = Graph(
        "odd",
        (value,),
        (Tensor("y", "float32", ("n",)),),
        lambda f: {"y": tf.math.bessel_i0e(f["x"])},
    )
    with pytest.raises(ExportError, match="no LiteRT operator for BesselI0e"):
        conversion.convert(model, [graph], "float32", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_made_is_said_at_once(tmp_path: Path, monkeypatch) -> None:
    encoder, decoder = tiny.model("encoder/sinusoidal"), tiny.model("decoder/alibi")
    out = tmp_path / "model"
    with pytest.raises(ExportError, match=r"precision = 'int4': expected one of"):
        export.to_litert(encoder, out, precision="int4")
    with pytest.raises(ExportError, match="max_length = 8: task 'sentence-similarity' keeps no"):
        export.to_litert(encoder, out, max_length=8)
    with pytest.raises(ExportError, match="max_length = 41: expected 2 to 40"):
        export.to_litert(decoder, out, max_length=41)
    with monkeypatch.context() as patch:
        patch.setattr(conversion, "LARGEST", 2 * encoder.count_params())
        with pytest.raises(ExportError, match=r"float32 weights do not fit .* precision 'float16'"):
            export.to_litert(encoder, out)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
        with pytest.raises(ExportError, match="pip install ai-edge-litert"):
            export.to_litert(encoder, out)
    assert list(tmp_path.iterdir()) == []


def run_alone(code: str, folder: Path) -> list[str]:
    """The lines that a page's code prints in a process of its own, and which of ours it loaded."""
    code += (
        "\nimport sys\nprint([n for n in ('tensorflow', 'keras', 'zoo', 'export', 'serve')"
        " if n in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


TEXTS = ["a fine film", "a dull plot", "fine fine acting", "the plot is dull and the film is dull"]


def test_the_page_classifies(tmp_path: Path) -> None:
    tokenizer = zoo.Tokenizer.train("wordpiece", TEXTS, vocab_size=60)
    config = zoo.EncoderConfig(
        **{**tiny.SMALL, "vocab_size": tokenizer.vocab_size, "token_types": 2}
    )
    keras.utils.set_random_seed(7)
    model = zoo.TaskModel(config, "text-classification", labels=tiny.LABELS)
    tiny.stir(model, 4)
    export.to_litert(model, tmp_path / "phone" / "reviews", tokenizer=tokenizer, verify=False)
    lines = run_alone(CODE[0].replace('["a fine film", "a dull plot"]', repr(TEXTS)), tmp_path)
    expected = []
    for text in TEXTS:
        ids = np.array([tokenizer.encode(text).ids])
        expected.append(tiny.LABELS[int(np.argmax(model({"input_ids": ids})["logits"]))])
    assert lines == [repr(expected), "[]"]
    assert len(set(expected)) > 1


def test_the_page_writes(tmp_path: Path) -> None:
    tokenizer = zoo.Tokenizer.train("bpe", TEXTS, vocab_size=280)
    config = zoo.DecoderConfig(
        **{**tiny.SMALL, "vocab_size": tokenizer.vocab_size, "positions": "rotary"}
    )
    keras.utils.set_random_seed(7)
    model = zoo.TaskModel(config, "text-generation")
    tiny.stir(model, 4)
    export.to_litert(model, tmp_path / "phone" / "stories", tokenizer=tokenizer, verify=False)
    lines = run_alone(
        CODE[1].replace("print(write(", "print(repr(write(", 1).rstrip() + ")", tmp_path
    )
    ids = np.array([tokenizer.encode("a fine").ids])
    new = model.generate(ids, max_new_tokens=8)[0].tolist()
    assert lines == [repr(tokenizer.backend.decode(new)), "[]"]
