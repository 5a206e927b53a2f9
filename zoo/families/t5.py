"""T5 1.0, 1.1 and Flan-T5 (Raffel et al., 2020; Chung et al., 2022): relative positions, RMS norm,
no biases; model cards google-t5/t5-small and google/flan-t5-base.

Version 1.0 has a tied head behind states scaled by d_model ** -0.5; version 1.1 gates the
feed-forward layers, and its head is its own. A config may say otherwise: the file decides.
"""

from typing import Any

from zoo.backbones.config import EncoderDecoderConfig
from zoo.checkpoints.facts import (
    ACTIVATIONS,
    WRITTEN_ACTIVATIONS,
    Expect,
    Fact,
    Reader,
    Rule,
    Unused,
    special_tokens,
)
from zoo.checkpoints.family import Family, Form, Preset
from zoo.checkpoints.table import TRANSPOSED, Row, linear, norm, outside, row

SIZES = (
    Fact("vocab_size", "vocab_size", 32128),
    Fact("hidden_dim", "d_model", 512),
    Fact("head_dim", "d_kv", 64),
    Fact("intermediate_dim", "d_ff", 2048),
    Fact("num_layers", "num_layers", 6),
    Fact("num_decoder_layers", "num_decoder_layers", None),
    Fact("num_heads", "num_heads", 8),
    Fact("relative_buckets", "relative_attention_num_buckets", 32),
    Fact("relative_max_distance", "relative_attention_max_distance", 128),
    Fact("norm_epsilon", "layer_norm_epsilon", 1e-6),
    Fact("tie_embeddings", "tie_word_embeddings", True),
    Expect("is_decoder", (False,), "Its decoder alone is not a model of this zoo."),
    Unused(("n_positions_encoder", "num_hidden_layers", "hidden_size", "num_attention_heads")),
)
LENGTH = 512
"""What the models were trained on; relative positions set no limit of their own."""


def _decode_rest(reader: Reader) -> dict[str, Any]:
    rate = reader.get("dropout_rate", 0.1)
    pad, start = reader.get("pad_token_id", 0), reader.get("decoder_start_token_id", None)
    return {
        "dropout": rate,
        "attention_dropout": rate,
        "max_length": reader.get("n_positions", LENGTH),
        "decoder_start_token_id": pad if start is None else start,
    }


def _encode_rest(config: Any) -> dict[str, Any]:
    length = {} if config.max_length == LENGTH else {"n_positions": config.max_length}
    start = config.decoder_start_token_id
    return {"dropout_rate": config.dropout, "decoder_start_token_id": start, **length}


def feed_forward(default: str) -> Rule:
    """Activation and gate, from a name such as "gated-gelu", whose gelu is the tanh form."""

    def decode(reader: Reader) -> dict[str, Any]:
        name = reader.get("feed_forward_proj", default)
        gate, _, function = name.rpartition("-")
        function = "gelu_new" if name == "gated-gelu" else function
        function = reader.get("dense_act_fn", None) or function
        if gate not in ("", "gated") or function not in ACTIVATIONS:
            expected = f"expected one of {', '.join(ACTIVATIONS)}, with gated- before it or without"
            raise reader.refuse("feed_forward_proj", f"is not supported, {expected}")
        gated = reader.get("is_gated_act", gate == "gated")
        return {"activation": ACTIVATIONS[function], "gated": gated}

    def encode(config: Any) -> dict[str, Any]:
        written = {**WRITTEN_ACTIVATIONS, "gelu_tanh": "gelu_new"}[config.activation]
        name = "gelu" if config.gated and written == "gelu_new" else written
        return {
            "feed_forward_proj": f"gated-{name}" if config.gated else name,
            "dense_act_fn": written,
            "is_gated_act": config.gated,
        }

    return Rule(decode, encode)


def _decode_scale(reader: Reader) -> dict[str, Any]:
    scaled = reader.get("scale_decoder_outputs", reader.get("tie_word_embeddings", True))
    return {"logit_scale": reader.get("d_model", 512) ** -0.5 if scaled else None}


SCALE = Rule(
    _decode_scale, lambda config: {"scale_decoder_outputs": config.logit_scale is not None}
)
REST = (Rule(_decode_rest, _encode_rest), special_tokens(pad=0, eos=1))

PARTS = {"query": "q", "key": "k", "value": "v", "output": "o"}


def stack(side: str, sublayers: dict[str, str]) -> tuple[Row, ...]:
    """The rows of one stack; `sublayers` are those of a block, ours -> theirs, in their order."""
    block, layer = f"{side}/block_{{i}}", f"{side}.block.{{i}}.layer"
    first = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    rows = [row(f"{side}/relative_bias/buckets/table", first)]
    for i, (ours, theirs) in enumerate(sublayers.items()):
        rows += norm(f"{block}/{ours}_norm", f"{layer}.{i}.layer_norm")
        inner = f"{layer}.{i}.{theirs}"
        if ours == "feed_forward":
            rows += linear(f"{block}/{ours}/gate", f"{inner}.wi_0")
            for name, gated in (("wi", False), ("wi_1", True)):
                kernel = row(
                    f"{block}/{ours}/up/kernel",
                    f"{inner}.{name}.weight",
                    TRANSPOSED,
                    when=lambda config, gated=gated: config.gated == gated,
                )
                rows.append(kernel)
            rows += linear(f"{block}/{ours}/down", f"{inner}.wo")
        else:
            for part, letter in PARTS.items():
                rows += linear(f"{block}/{ours}/{part}", f"{inner}.{letter}")
    return (*rows, *norm(f"{side}/final_norm", f"{side}.final_layer_norm"))


ENDS = {"attention": "SelfAttention", "feed_forward": "DenseReluDense"}
CROSSED = {"cross_attention": "EncDecAttention"}
WORDS = row(
    "encoder/embeddings/tokens/table",
    "shared.weight",
    aliases=["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"],
)
DECODER = stack("decoder", {"attention": ENDS["attention"], **CROSSED, **ENDS})
CLASSIFIER = outside(
    *linear("head/dense", "classification_head.dense"),
    *linear("head/logits", "classification_head.out_proj"),
)
LAST = {"pooling": "last", "hidden_activation": "tanh"}
HEAD = row("head/output/kernel", "lm_head.weight", TRANSPOSED)


def forms(name: str) -> dict[str, Form]:
    """Answers and classes, which need both stacks, and the states of the encoder alone."""
    classes = f"{name}ForSequenceClassification"
    return {
        "text2text-generation": Form(
            (f"{name}ForConditionalGeneration", f"{name}WithLMHeadModel", f"{name}Model"),
            (*DECODER, HEAD),
        ),
        "text-classification": Form(
            (classes,), (*DECODER, *CLASSIFIER), LAST, prefix="transformer"
        ),
        "feature-extraction": Form((f"{name}EncoderModel",)),
    }


def size(width: int, layers: int, heads: int, inner: int, **more: Any) -> dict[str, Any]:
    """Keys of a published shape."""
    return {"d_model": width, "num_layers": layers, "num_heads": heads, "d_ff": inner, **more}


VERSION_1_1 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
TASK = "text2text-generation"

FAMILY = Family(
    model_type="t5",
    config=EncoderDecoderConfig,
    fixed={
        "norm": "rms",
        "positions": "none",
        "position_bias": "relative",
        "attention_scale": 1.0,
        "attention_bias": False,
        "projection_bias": False,
    },
    items=(*SIZES, feed_forward("relu"), SCALE, *REST),
    rows=(WORDS, *stack("encoder", ENDS)),
    forms=forms("T5"),
    ignored=(r"EncDecAttention\.relative_attention_bias\.weight$",),
    head_by_file=("lm_head.weight", "shared.weight"),
    presets={
        "t5-small": Preset({}, 60_506_624, TASK),
        "t5-base": Preset(size(768, 12, 12, 3072), 222_903_552, TASK),
        "t5-large": Preset(size(1024, 24, 16, 4096), 737_668_096, TASK),
        "t5-3b": Preset(size(1024, 24, 32, 16384, d_kv=128), 2_851_598_336, TASK),
        "t5-11b": Preset(size(1024, 24, 128, 65536, d_kv=128), 11_307_321_344, TASK),
        "flan-t5-small": Preset(size(512, 8, 6, 1024, **VERSION_1_1), 76_961_152, TASK),
        "flan-t5-base": Preset(size(768, 12, 12, 2048, **VERSION_1_1), 247_577_856, TASK),
        "flan-t5-large": Preset(size(1024, 24, 16, 2816, **VERSION_1_1), 783_150_080, TASK),
        "flan-t5-xl": Preset(size(2048, 24, 32, 5120, **VERSION_1_1), 2_849_757_184, TASK),
        "flan-t5-xxl": Preset(size(4096, 24, 64, 10240, **VERSION_1_1), 11_135_332_352, TASK),
    },
    source="https://arxiv.org/abs/1910.10683",
)
