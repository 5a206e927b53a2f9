"""SmolLM3 (Hugging Face, 2025): Llama whose every fourth layer has no positions; model card
HuggingFaceTB/SmolLM3-3B.
"""

from typing import Any

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import Reader, Rule, Unused, inherited, special_tokens
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.rotary import rotary
from zoo.checkpoints.windows import layer_windows
from zoo.families import llama


def _turned(reader: Reader, i: int) -> bool:
    interval, flags = reader.get("no_rope_layer_interval", 4), reader.get("no_rope_layers", None)
    return bool(flags[i]) if flags else (i + 1) % interval != 0


def _decode_turned(reader: Reader) -> dict[str, Any]:
    layers = range(reader.get("num_hidden_layers"))
    flags = reader.get("no_rope_layers", None)
    if flags and len(flags) < len(layers):
        raise reader.refuse("no_rope_layers", f"is too short for {len(layers)} layers")
    return {"unturned_layers": tuple(i for i in layers if not _turned(reader, i))}


def _encode_turned(config: Any) -> dict[str, Any]:
    """A 1 for each layer that turns."""
    unturned = config.unturned_layers
    return {"no_rope_layers": [int(i not in unturned) for i in range(config.num_layers)]}


FAMILY = Family(
    model_type="smollm3",
    config=DecoderConfig,
    fixed=llama.FIXED,
    items=(
        *inherited(
            llama.SIZES,
            vocab_size=128256,
            hidden_size=2048,
            intermediate_size=11008,
            num_hidden_layers=36,
            num_attention_heads=16,
            num_key_value_heads=4,
            max_position_embeddings=32768,
            tie_word_embeddings=True,
        ),
        llama.BIASES,
        Rule(_decode_turned, _encode_turned),
        layer_windows(None, _turned, switched=True),
        Unused(("max_window_layers", "no_rope_layer_interval")),  # the layers' lists decide
        rotary(2e6),
        special_tokens(pad=128004, bos=128000, eos=128001),
    ),
    rows=llama.ROWS,
    forms=llama.forms("SmolLM3", question_prefix="transformer"),
    prefix="model",
    presets={
        "smollm3-3b": Preset(
            {"num_hidden_layers": 36, "max_position_embeddings": 65536, "rope_theta": 5e6},
            3_075_098_624,
            "text-generation",
        ),
    },
    source="https://huggingface.co/HuggingFaceTB/SmolLM3-3B",
)
