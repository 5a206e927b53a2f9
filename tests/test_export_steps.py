"""What a decoder's step takes and gives beyond the plain: memory with fewer rows than the step, and
the states that the head reads.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from click.testing import CliRunner
from tolerances import close

import export
import zoo
from export.commands.export import export as command
from serve.bundle.manifest import Manifest
from serve.runtime.session import Session

TARGETS = ("onnxruntime", "portable")
MEMORY, SHARE = 2, 3  # rows of memory, and rows of the decoder that read each of them


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """Opens the graphs of a row's bundle, which is made once for each target."""
    made: dict[tuple[str, str], dict[str, Session]] = {}

    def get(name: str, target: str) -> dict[str, Session]:
        if (name, target) not in made:
            out = tmp_path_factory.mktemp("bundles") / "bundle"
            manifest = export.to_onnx(
                tiny.model(name), out, target=target, hidden_states=True, verify=False
            )
            made[name, target] = {
                kind: Session(manifest.path(graph.file)) for kind, graph in manifest.graphs.items()
            }
        return made[name, target]

    return get


def encoded(graphs: dict[str, Session], ids: Any, mask: Any) -> dict[str, np.ndarray]:
    """What the decoder is fed of the encoder."""
    found = graphs["encoder"].run({"input_ids": ids, "attention_mask": mask})
    memory = {k.replace("present", "past_key_values"): v for k, v in found.items() if "." in k}
    return {**memory, "encoder_attention_mask": np.asarray(mask, "int64")}


def written(
    session: Session, ids: np.ndarray, memory: dict[str, np.ndarray], target: str
) -> list[dict[str, np.ndarray]]:
    """A prompt of two tokens and two steps of one: all outputs of each."""
    room = ids.shape[1] if target == "onnxruntime" else 0
    past = {
        name: np.zeros((len(ids), tensor.shape[1], room, tensor.shape[3]), "float32")
        for name, tensor in session.inputs.items()
        if name.startswith("past_key_values") and ".encoder." not in name
    }
    results = []
    for start, end in ((0, 2), (2, 3), (3, 4)):
        feeds = {
            "input_ids": ids[:, start:end],
            "attention_mask": np.ones((len(ids), end), "int64"),
        }
        found = session.run({**feeds, **past, **memory, "logits_to_keep": np.array(0)})
        past = {k.replace("present", "past_key_values"): v for k, v in found.items() if "." in k}
        results.append(found)
    return results


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", tiny.named("encoder-decoder"), scope="module")
def test_rows_may_share_their_memory(name, target, sessions) -> None:
    """Row i reads row i // 3 of the memory, as if each had a copy of its own."""
    graphs = sessions(name, target)
    memory = encoded(graphs, *tiny.ragged([7, 4], seed=51))
    ids = np.random.default_rng(52).integers(1, 37, (MEMORY * SHARE, 4))
    copies = {key: np.repeat(value, SHARE, axis=0) for key, value in memory.items()}
    alone = written(graphs["decoder"], ids, copies, target)
    shared = written(graphs["decoder"], ids, memory, target)
    for expected, found in zip(alone, shared, strict=True):
        for key, value in found.items():
            close(value, expected[key], f"{target}_bundle")
    wrong = {key: value[::-1] for key, value in memory.items()}
    mixed = written(graphs["decoder"], ids, wrong, target)
    assert np.abs(mixed[0]["logits"] - alone[0]["logits"]).max() > 1e-3


def test_the_axis_of_the_memory_says_that_it_may_be_shared(sessions) -> None:
    for target in TARGETS:
        session = sessions("encoder-decoder/relative-rms", target)["decoder"]
        for name, tensor in session.inputs.items():
            if name != "logits_to_keep":
                shared = ".encoder." in name or name == "encoder_attention_mask"
                assert tensor.shape[0] == ("encoder_batch_size" if shared else "batch_size"), name


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["decoder/untied", *tiny.named("encoder-decoder")], scope="module")
def test_steps_return_the_states_that_the_head_reads(name, target, sessions) -> None:
    """Of all positions, whichever logits are kept."""
    graphs, model = sessions(name, target), tiny.model(name)
    ids = np.random.default_rng(53).integers(1, 37, (2, 4))
    memory: dict[str, np.ndarray] = {}
    facts: dict[str, Any] = {}
    if model.encoder is not None:
        source, mask = tiny.ragged([7, 4], seed=54)
        memory = encoded(graphs, source, mask)
        facts = {"memory": model.encode(source, mask)[1], "memory_attention_mask": mask}
    states, _, _ = model.decoder(ids, **facts)
    session = graphs["decoder" if memory else "model"]
    found = [step["last_hidden_state"] for step in written(session, ids, memory, target)]
    assert [step.shape[1] for step in found] == [2, 1, 1]
    close(np.concatenate(found, axis=1), states, f"{target}_bundle")


def test_only_bundles_that_were_asked_return_states(tmp_path) -> None:
    model = tiny.model("decoder/untied")
    plain = export.to_onnx(model, tmp_path / "plain", verify=False)
    assert "last_hidden_state" not in {t.name for t in plain.graphs["model"].outputs}
    with pytest.raises(export.ExportError, match="writes nothing"):
        export.to_onnx(tiny.model("encoder/alibi", "fill-mask"), tmp_path / "a", hidden_states=True)
    with pytest.raises(export.ExportError, match="layout 'bundle'"):
        export.to_onnx(
            model, tmp_path / "b", target="portable", layout="optimum", hidden_states=True
        )


@pytest.mark.parametrize("precision", ["int8-int4", "float16"])
def test_states_of_quantised_and_half_graphs(precision, tmp_path) -> None:
    """The states are float32 whatever the graph computes in, and verified bundles may have them."""
    config = zoo.DecoderConfig(vocab_size=64, hidden_dim=32, num_layers=2, num_heads=4)
    model = zoo.TaskModel(config, "text-generation")
    tiny.stir(model, 5)
    target = "onnxruntime" if precision == "int8-int4" else "portable"
    out = tmp_path / "bundle"
    manifest = export.to_onnx(model, out, target=target, precision=precision, hidden_states=True)
    assert manifest.verification["has_reference"]
    for graph in manifest.graphs.values():
        proto = onnx.load(manifest.path(graph.file), load_external_data=False)
        (states,) = (v for v in proto.graph.output if v.name == "last_hidden_state")
        assert states.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_the_command_asks_for_states(tmp_path: Path) -> None:
    config = zoo.DecoderConfig(
        vocab_size=37,
        hidden_dim=24,
        num_layers=1,
        num_heads=3,
        norm="rms",
        positions="rotary",
        activation="silu",
        gated=True,
        attention_bias=False,
        projection_bias=False,
    )
    model = zoo.TaskModel(config, "text-generation")
    model.save_pretrained(tmp_path / "checkpoint", model_type="llama")
    words = [str(tmp_path / "checkpoint"), "--out", str(tmp_path / "out"), "--hidden-states"]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    outputs = Manifest.load(tmp_path / "out").graphs["model"].outputs
    assert outputs[-1].name == "last_hidden_state"
    assert outputs[-1].shape == ["batch_size", "sequence_length", 24]
