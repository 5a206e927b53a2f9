"""Mistral (Jiang et al., 2023): Llama with grouped heads and a sliding window; model card
mistralai/Mistral-7B-v0.1.
"""

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import Fact, inherited, special_tokens
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.rotary import rotary
from zoo.families import llama

FIXED = {**llama.FIXED, "attention_bias": False, "projection_bias": False}
SIZES = inherited(
    llama.SIZES,
    intermediate_size=14336,
    num_key_value_heads=8,
    max_position_embeddings=131072,
)

FAMILY = Family(
    model_type="mistral",
    config=DecoderConfig,
    fixed=FIXED,
    items=(
        *SIZES,
        Fact("window", "sliding_window", 4096),
        rotary(),
        special_tokens(bos=1, eos=2),
    ),
    rows=llama.ROWS,
    forms=llama.forms("Mistral"),
    prefix="model",
    ignored=(r"\.rotary_emb\.inv_freq$",),
    presets={
        "mistral-7b-v0.1": Preset(
            {"max_position_embeddings": 32768, "rms_norm_eps": 1e-5},
            7_241_732_096,
            "text-generation",
        ),
        "mistral-7b-v0.3": Preset(
            {
                "vocab_size": 32768,
                "max_position_embeddings": 32768,
                "rms_norm_eps": 1e-5,
                "rope_theta": 1e6,
                "sliding_window": None,
            },
            7_248_023_552,
            "text-generation",
        ),
        "mistral-nemo-12b": Preset(
            {
                "vocab_size": 131072,
                "hidden_size": 5120,
                "num_hidden_layers": 40,
                "head_dim": 128,
                "rms_norm_eps": 1e-5,
                "rope_theta": 1e6,
                "sliding_window": None,
            },
            12_247_782_400,
            "text-generation",
        ),
        "mistral-small-24b": Preset(
            {
                "vocab_size": 131072,
                "hidden_size": 5120,
                "intermediate_size": 32768,
                "num_hidden_layers": 40,
                "head_dim": 128,
                "max_position_embeddings": 32768,
                "rms_norm_eps": 1e-5,
                "rope_theta": 1e8,
                "sliding_window": None,
            },
            23_572_403_200,
            "text-generation",
        ),
    },
    source="https://arxiv.org/abs/2310.06825",
)
