"""How many operators a layer of each family takes, for ONNX Runtime: a regression shows here."""

import dataclasses
import functools
import importlib
from collections import Counter
from typing import Any

import pytest
from parity import goldens

import zoo
from export.graphs import onnx_graphs
from export.onnx import all_nodes, convert
from zoo.backbones.config import TransformerConfig, architecture_of
from zoo.checkpoints.deferred import without_values
from zoo.checkpoints.family import Family

NODES_PER_LAYER: dict[str, tuple[int, ...]] = {
    "albert": (14,),
    "bart": (23, 27),
    "bert": (15,),
    "blenderbot": (23, 27),
    "bloom": (17,),
    "camembert": (15,),
    "deberta-v2": (46,),
    "distilbert": (15,),
    "electra": (15,),
    "falcon": (11,),
    "gemma": (14,),
    "gemma2": (28,),
    "gemma3_text": (46,),
    "gpt2": (17,),
    "gpt_neo": (14,),
    "gpt_neox": (18,),
    "gpt_oss": (71,),
    "gptj": (12,),
    "llama": (12,),
    "m2m_100": (23, 27),
    "marian": (23, 27),
    "mbart": (23, 27),
    "mistral": (12,),
    "mixtral": (58,),
    "modernbert": (16,),
    "mpnet": (15,),
    "mt5": (18, 18),
    "nomic_bert": (16,),
    "olmo2": (36,),
    "openai-gpt": (17,),
    "opt": (18,),
    "pegasus": (23, 27),
    "phi": (16,),
    "phi3": (12,),
    "qwen2": (15,),
    "qwen3": (28,),
    "qwen3_moe": (74,),
    "roberta": (15,),
    "smollm3": (12,),
    "stablelm": (14,),
    "starcoder2": (17,),
    "t5": (16, 16),
    "xlm-roberta": (15,),
}
"""Operators of one more layer: of the graph `model`, or of `encoder` and `decoder`."""

TASKS = {
    "encoder": "fill-mask",
    "decoder": "text-generation",
    "encoder-decoder": "text2text-generation",
}


def config_of(model_type: str, layers: int) -> TransformerConfig:
    """The family's own facts, with heads of the size that published models have and few layers."""
    golden = next(iter(goldens.read(goldens.FOLDER / f"{model_type}.npz")))
    module = importlib.import_module(f"zoo.families.{model_type.replace('-', '_')}")
    family = next(
        value
        for value in vars(module).values()
        if isinstance(value, Family) and value.model_type == model_type
    )
    given: Any = family.decode(golden.config)
    facts: dict[str, Any] = {"num_layers": layers, "head_dim": 64, "unturned_layers": ()}
    if given.rotary_fraction < 1.0:
        facts["rotary_fraction"] = 0.5
    if given.window is not None:  # the layer that is counted has a window
        facts["global_layers"] = (0,)
    if hasattr(given, "num_decoder_layers"):
        facts |= {"num_decoder_layers": layers, "decoder_head_dim": 64}
    return dataclasses.replace(given, **facts)


@functools.cache
def operators(config: TransformerConfig) -> list[Counter]:
    """Each graph's operators; equal facts are converted once."""
    with without_values():  # graphs are made without them
        model = zoo.TaskModel(config, TASKS[architecture_of(config)])
    protos = [convert(model, g, "onnxruntime", 18).proto for g in onnx_graphs(model, "buffer")]
    return [Counter(node.op_type for node in all_nodes(proto.graph)) for proto in protos]


def test_the_table_has_every_family() -> None:
    assert set(NODES_PER_LAYER) == {path.stem for path in goldens.FOLDER.glob("*.npz")}


@pytest.mark.parametrize("model_type", sorted(NODES_PER_LAYER))
def test_a_layer_takes_as_many_operators_as_the_table_says(model_type) -> None:
    two, three = (operators(config_of(model_type, layers)) for layers in (2, 3))
    more = [after - before for before, after in zip(two, three, strict=True)]
    assert tuple(count.total() for count in more) == NODES_PER_LAYER[model_type], more
    lost = [before - after for before, after in zip(two, three, strict=True)]
    assert not any(count.total() for count in lost)
