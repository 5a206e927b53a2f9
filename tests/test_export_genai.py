"""`genai_config.json`: what it names is in the graph, and the graph takes what the runtime feeds.

The runtime itself opens bundles in `make interop`.
"""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny

import export
import zoo
from export.layouts.genai import GENAI_FILE, genai_config
from serve.bundle.manifest import Manifest
from zoo.generation import generate

NEW = 6
CASES = [
    ("decoder/learned-gelu-tanh", "onnxruntime"),
    ("decoder/rotary-grouped-gated", "onnxruntime"),
    ("decoder/sliding-window", "onnxruntime"),
    ("decoder/odd-heads", "portable"),
    ("decoder/alibi", "portable"),
]


def read(folder):
    return json.loads((folder / GENAI_FILE).read_text())


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def bundle(request, tmp_path_factory):
    name, target = request.param
    model = tiny.model(name)
    folder = tmp_path_factory.mktemp("genai") / "bundle"
    export.to_onnx(model, folder, target=target, verify=False)
    return model, folder


def test_it_names_the_graphs_tensors_and_their_sizes(bundle):
    _, folder = bundle
    model = read(folder)["model"]
    decoder = model["decoder"]
    graph = onnx.load(folder / decoder["filename"], load_external_data=False).graph
    optional = {tensor.name for tensor in graph.initializer}
    for values, patterns in ((graph.input, decoder["inputs"]), (graph.output, decoder["outputs"])):
        named = {
            pattern.replace("%d", str(layer))
            for pattern in patterns.values()
            for layer in range(decoder["num_hidden_layers"])
        }
        assert named == {value.name for value in values} - optional
    axes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    for name, sizes in axes.items():
        if "key" in name or "value" in name:
            assert sizes == [0, decoder["num_key_value_heads"], 0, decoder["head_size"]]
    # The runtime reserves memory for the whole prompt's logits unless 1 is declared.
    kept = int(read(folder)["search"]["past_present_share_buffer"])
    assert axes["logits"] == [0, kept, model["vocab_size"]]


def test_it_agrees_with_the_manifest(bundle):
    _, folder = bundle
    facts, manifest = read(folder), Manifest.load(folder)
    assert GENAI_FILE in manifest.files
    assert facts["model"]["context_length"] == manifest.cache.max_length
    assert facts["search"]["max_length"] == manifest.cache.max_length
    shared = facts["search"]["past_present_share_buffer"]
    assert shared == (manifest.cache.layout == "buffer")


def test_the_graph_continues_what_the_runtime_feeds(bundle):
    """As onnxruntime-genai does it: prompts padded on the right, their holes kept in the mask, one
    buffer or a growing one, all logits unless the graph says that it gives the last ones.
    """
    model, folder = bundle
    ids, mask = tiny.ragged([7, 2, 5])
    expected = generate(model, ids, mask, max_new_tokens=NEW)
    facts = read(folder)
    decoder, search = facts["model"]["decoder"], facts["search"]
    session = onnxruntime.InferenceSession(folder / decoder["filename"])
    trimmed = session.get_outputs()[0].shape[1] == 1
    length = search["max_length"] if search["past_present_share_buffer"] else 0
    shape = (len(ids), decoder["num_key_value_heads"], length, decoder["head_size"])
    layers = range(decoder["num_hidden_layers"])
    past = {
        decoder["inputs"][f"past_{part}_names"] % i: np.zeros(shape, "float32")
        for i in layers
        for part in ("key", "value")
    }
    presents = [
        decoder["outputs"][f"present_{part}_names"] % i for i in layers for part in ("key", "value")
    ]
    new, mask, last = ids.astype("int64"), mask.astype("int64"), mask.sum(axis=1) - 1
    tokens = []
    for _ in range(NEW):
        feeds = {"input_ids": new, "attention_mask": mask, **past}
        logits, *present = session.run(["logits", *presents], feeds)
        width = 1 if trimmed else new.shape[1]
        assert logits.shape == (len(ids), width, facts["model"]["vocab_size"])
        token = logits[np.arange(len(ids)), np.minimum(last, width - 1)].argmax(axis=-1)
        tokens.append(token)
        past = dict(zip(past, present, strict=True))
        new, last = token[:, None], np.zeros(len(ids), int)
        mask = np.concatenate([mask, np.ones_like(new)], axis=1)
    assert np.array_equal(np.stack(tokens, axis=1), expected)


def test_a_second_graph_runs_the_prompts(bundle):
    model, folder = bundle
    manifest = Manifest.load(folder)
    graph = manifest.graphs["model"]
    prefill = graph.model_copy(update={"file": "prefill.onnx"})
    facts = genai_config(graph, manifest.cache, manifest.generation, model.config, prefill)
    (stages,) = facts["model"]["decoder"]["pipeline"]
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    for stage in stages.values():
        assert stage["inputs"] == [value.name for value in session.get_inputs()]
        assert stage["outputs"] == [value.name for value in session.get_outputs()]
    files = {
        when: [stage["filename"] for stage in stages.values() if stage.get(when, True)]
        for when in ("run_on_prompt", "run_on_token_gen")
    }
    assert files == {"run_on_prompt": ["prefill.onnx"], "run_on_token_gen": ["model.onnx"]}
    alone = genai_config(graph, manifest.cache, manifest.generation, model.config)
    assert alone == read(folder)


def test_special_tokens_and_defaults(tmp_path):
    config = tiny.CONFIGS["decoder/learned-gelu-tanh"]
    plain = zoo.TaskModel(config, "text-generation")
    export.to_onnx(plain, tmp_path / "plain", verify=False)
    model = read(tmp_path / "plain")["model"]
    assert model["eos_token_id"] == [config.pad_token_id]  # the runtime would take 0 for it
    assert "bos_token_id" not in model
    named = replace(config, pad_token_id=3, bos_token_id=4, eos_token_id=5, stop_token_ids=(6,))
    export.to_onnx(zoo.TaskModel(named, "text-generation"), tmp_path / "named", verify=False)
    model = read(tmp_path / "named")["model"]
    assert model["eos_token_id"] == [5, 6]
    assert (model["pad_token_id"], model["bos_token_id"]) == (3, 4)


def test_padding_is_no_ordinary_token(bundle):
    """Where it is one, prompts that end with it would be cut."""
    model, folder = bundle
    manifest = Manifest.load(folder)
    generation = manifest.generation.model_copy(update={"pad_token_id": 0, "eos_token_id": [7, 8]})
    found = {
        special: genai_config(
            manifest.graphs["model"],
            manifest.cache,
            generation,
            model.config,
            special_ids=special,
        )["model"]["pad_token_id"]
        for special in (None, (0, 7), (7,))
    }
    assert found == {None: 0, (0, 7): 0, (7,): 7}


@pytest.mark.parametrize("name", ["encoder/relative", "encoder-decoder/relative-rms"])
def test_only_decoders_that_generate_have_it(name, tmp_path):
    export.to_onnx(tiny.model(name), tmp_path / "bundle", verify=False)
    assert not (tmp_path / "bundle" / GENAI_FILE).exists()
