"""GPT-2 (Radford et al., 2019): pre-norm decoder with learned positions; model card gpt2."""

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import Expect, Fact, Reader, Rule, Unused, activation, special_tokens
from zoo.checkpoints.family import Family, Form, Preset
from zoo.checkpoints.table import (
    TRANSPOSED,
    attention_sizes,
    fused,
    linear,
    norm,
    outside,
    qkv,
    row,
)

BLOCK, LAYER = "decoder/block_{i}", "h.{i}"
EMBEDDINGS = (
    row("decoder/embeddings/tokens/table", "wte.weight", aliases=["lm_head.weight"]),
    row("decoder/embeddings/positions/table", "wpe.weight"),
)
BLOCKS = (
    *norm(f"{BLOCK}/attention_norm", f"{LAYER}.ln_1"),
    *fused(qkv(BLOCK), f"{LAYER}.attn.c_attn", attention_sizes, transposed=False),
    *linear(f"{BLOCK}/attention/output", f"{LAYER}.attn.c_proj", transposed=False),
    *norm(f"{BLOCK}/feed_forward_norm", f"{LAYER}.ln_2"),
    *linear(f"{BLOCK}/feed_forward/up", f"{LAYER}.mlp.c_fc", transposed=False),
    *linear(f"{BLOCK}/feed_forward/down", f"{LAYER}.mlp.c_proj", transposed=False),
    *norm("decoder/final_norm", "ln_f"),
)


def forms(
    name: str,
    causal: str = "ForCausalLM",
    head: str = "lm_head",
    without: tuple[str, ...] = (),
) -> dict[str, Form]:
    """The tasks of a decoder named in the manner of GPT-2.

    Args:
        name: What its classes' names begin with.
        causal: What that of the language model ends with.
        head: The language model's head.
        without: Tasks that the reference has no class for.
    """
    known = {
        "text-generation": Form(
            (f"{name}{causal}",),
            outside(
                row("head/output/kernel", f"{head}.weight", TRANSPOSED),
                row("head/bias", f"{head}.bias"),
            ),
        ),
        "text-classification": Form(
            (f"{name}ForSequenceClassification",),
            outside(*linear("head/logits", "score")),
            {"pooling": "last", "logits_bias": False},
        ),
        "token-classification": Form(
            (f"{name}ForTokenClassification",), outside(*linear("head/logits", "classifier"))
        ),
        "question-answering": Form(
            (f"{name}ForQuestionAnswering",), outside(*linear("head/logits", "qa_outputs"))
        ),
        "feature-extraction": Form((f"{name}Model",), prefixed=False),
    }
    return {task: form for task, form in known.items() if task not in without}


def _decode_scale(reader: Reader) -> dict[str, float]:
    if not reader.get("scale_attn_weights", True):
        return {"attention_scale": 1.0}
    return {}


SCALE = Rule(_decode_scale, lambda config: {"scale_attn_weights": config.attention_scale != 1.0})
SIZES = (
    Fact("vocab_size", "vocab_size", 50257),
    Fact("hidden_dim", "n_embd", 768, also=("hidden_size",)),
    Fact("num_layers", "n_layer", 12, also=("num_hidden_layers",)),
    Fact("num_heads", "n_head", 12, also=("num_attention_heads",)),
    Fact("max_length", "n_positions", 1024, also=("max_position_embeddings",)),
    Fact("norm_epsilon", "layer_norm_epsilon", 1e-5),
    Fact("dropout", "resid_pdrop", 0.1),
    Fact("attention_dropout", "attn_pdrop", 0.1),
    Unused(("n_ctx", "embd_pdrop")),
)

FAMILY = Family(
    model_type="gpt2",
    config=DecoderConfig,
    fixed={},
    items=(
        *SIZES,
        Fact("intermediate_dim", "n_inner", None),
        activation("activation_function", "gelu_new"),
        Fact("tie_embeddings", "tie_word_embeddings", True),
        SCALE,
        Expect("add_cross_attention", (False,)),
        Expect("scale_attn_by_inverse_layer_idx", (False,), "No fact says so yet."),
        Unused(("reorder_and_upcast_attn",)),
        special_tokens(bos=50256, eos=50256),
    ),
    rows=(*EMBEDDINGS, *BLOCKS),
    forms=forms("GPT2", causal="LMHeadModel"),
    prefix="transformer",
    ignored=(r"\.attn\.bias$", r"\.attn\.masked_bias$"),
    presets={
        "gpt2": Preset({}, 124_439_808, "text-generation"),
        "gpt2-medium": Preset(
            {"n_embd": 1024, "n_layer": 24, "n_head": 16}, 354_823_168, "text-generation"
        ),
        "gpt2-large": Preset(
            {"n_embd": 1280, "n_layer": 36, "n_head": 20}, 774_030_080, "text-generation"
        ),
        "gpt2-xl": Preset(
            {"n_embd": 1600, "n_layer": 48, "n_head": 25}, 1_557_611_200, "text-generation"
        ),
    },
    source="https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf",
)
