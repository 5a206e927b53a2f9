"""`genai_config.json`, by which onnxruntime-genai opens a decoder's bundle as it stands."""

from collections.abc import Collection
from typing import Any

from serve.bundle.manifest import CacheSpec, GenerationSpec, GraphSpec
from zoo.backbones.config import TransformerConfig

GENAI_FILE = "genai_config.json"
ONE_GRAPH, TWO_GRAPHS = "decoder", "decoder-pipeline"
"""Its classes for any decoder that takes ids, a mask and one cache per layer. The types that it
names after families run the code of the first, but for "gpt2", which expects keys and values in one
tensor.
"""


def genai_config(
    graph: GraphSpec,
    cache: CacheSpec,
    generation: GenerationSpec,
    config: TransformerConfig,
    prefill: GraphSpec | None = None,
    special_ids: Collection[int] | None = None,
) -> dict[str, Any]:
    """The content of the file, of version 0.18.

    Its prompts are padded on the right and its mask keeps them so: a row's sum is its length, which
    is what both cache layouts read positions from.

    Args:
        graph: The cached step, as the manifest states it.
        cache: Its cache. One buffer for past and present where the layout is "buffer", else the
            runtime makes a longer present each time.
        generation: Special tokens and defaults.
        config: The model's facts.
        prefill: Another graph of the same step over the same cache, which runs the prompts.
        special_ids: The tokenizer's special tokens, where it is known. Padding that is not among
            them, as in models that have no token for it, gives way to the end token: what pads
            would be cut off the end of a batch's prompts.
    """
    parts = ("key", "value")
    past = {f"past_{part}_names": f"past_key_values.%d.{part}" for part in parts}
    present = {f"present_{part}_names": f"present.%d.{part}" for part in parts}
    pad = generation.pad_token_id
    ends = generation.eos_token_id or [pad]  # without any, the runtime takes token 0 for it
    if special_ids is not None and pad not in special_ids:
        pad = ends[0]
    model: dict[str, Any] = {
        "type": ONE_GRAPH,
        "vocab_size": config.vocab_size,
        "context_length": cache.max_length,
        "pad_token_id": pad,
        "eos_token_id": ends,
        "decoder": {
            "filename": graph.file,
            "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
            "hidden_size": config.hidden_dim,
            "num_attention_heads": config.num_heads,
            "num_key_value_heads": cache.num_kv_heads,
            "head_size": cache.head_dim,
            "num_hidden_layers": cache.num_layers,
            "inputs": {"input_ids": "input_ids", "attention_mask": "attention_mask", **past},
            "outputs": {"logits": "logits", **present},
        },
    }
    if prefill is not None:
        model["type"] = TWO_GRAPHS
        stages = {
            "prefill": {**_stage(prefill), "run_on_token_gen": False},
            "decode": {**_stage(graph), "run_on_prompt": False},
        }
        model["decoder"]["pipeline"] = [stages]
    if generation.bos_token_id is not None:
        model["bos_token_id"] = generation.bos_token_id
    search: dict[str, Any] = {
        "max_length": cache.max_length,
        "past_present_share_buffer": cache.layout == "buffer",
        "do_sample": generation.do_sample,
        "temperature": generation.temperature,
        "num_beams": 1,
    }
    for name in ("top_k", "top_p"):
        if getattr(generation, name) is not None:
            search[name] = getattr(generation, name)
    return {"model": model, "search": search}


def _stage(graph: GraphSpec) -> dict[str, Any]:
    """A graph of several, with all tensors that it is fed and read."""
    optional = set(graph.optional_inputs)
    return {
        "filename": graph.file,
        "inputs": [tensor.name for tensor in graph.inputs if tensor.name not in optional],
        "outputs": [tensor.name for tensor in graph.outputs],
    }
