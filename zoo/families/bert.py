"""BERT (Devlin et al., 2019): post-norm encoder with segments; model card bert-base-uncased."""

from typing import Any

from zoo.backbones.config import EncoderConfig
from zoo.checkpoints.facts import Expect, Fact, activation, special_tokens
from zoo.checkpoints.family import Family, Form, Preset
from zoo.checkpoints.table import TRANSPOSED, Row, linear, norm, outside, row, tied, untied

SIZES = (
    Fact("vocab_size", "vocab_size", 30522),
    Fact("hidden_dim", "hidden_size", 768),
    Fact("num_layers", "num_hidden_layers", 12),
    Fact("num_heads", "num_attention_heads", 12),
    Fact("intermediate_dim", "intermediate_size", 3072),
    Fact("max_length", "max_position_embeddings", 512),
    Fact("norm_epsilon", "layer_norm_eps", 1e-12),
    activation("hidden_act", "gelu"),
    Fact("dropout", "hidden_dropout_prob", 0.1),
    Fact("attention_dropout", "attention_probs_dropout_prob", 0.1),
)
ENCODER_ONLY = (
    Expect("is_decoder", (False,), "Its decoder form is not a model of this zoo."),
    Expect("add_cross_attention", (False,)),
    Expect("position_embedding_type", ("absolute",)),
)
OLD_NORMS = ((r"\.gamma$", ".weight"), (r"\.beta$", ".bias"))
FIXED = {"norm_position": "post", "embedding_norm": True, "final_norm": False}


def embeddings(decoder: str, unused: tuple[str, ...] = ()) -> tuple[Row, ...]:
    """Tokens, positions, segments and their norm; `decoder` is the head's tied kernel."""
    names = {"positions": "position_embeddings", "types": "token_type_embeddings"}
    return (
        row(
            "encoder/embeddings/tokens/table",
            "embeddings.word_embeddings.weight",
            aliases=[f"{decoder}.weight"],
            unused=unused,
        ),
        *(row(f"encoder/embeddings/{k}/table", f"embeddings.{v}.weight") for k, v in names.items()),
        *norm("encoder/embeddings/norm", "embeddings.LayerNorm"),
    )


def masked_head(dense: str, norm_name: str, bias: str, decoder: str) -> tuple[Row, ...]:
    """A masked-language head: the bias has a name of its own where the kernel is tied, and is the
    decoder's where it is not.
    """
    return outside(
        *linear("head/dense", dense),
        *norm("head/norm", norm_name),
        row("head/bias", bias, aliases=[f"{decoder}.bias"], when=tied),
        row("head/bias", f"{decoder}.bias", unused=[bias], when=untied),
        row("head/output/kernel", f"{decoder}.weight", TRANSPOSED),
    )


PREDICTIONS = "cls.predictions"
DECODER = f"{PREDICTIONS}.decoder"
BLOCK, LAYER = "encoder/block_{i}", "encoder.layer.{i}"
AFTER_ATTENTION = (
    *linear(f"{BLOCK}/attention/output", f"{LAYER}.attention.output.dense"),
    *norm(f"{BLOCK}/attention_norm", f"{LAYER}.attention.output.LayerNorm"),
    *linear(f"{BLOCK}/feed_forward/up", f"{LAYER}.intermediate.dense"),
    *linear(f"{BLOCK}/feed_forward/down", f"{LAYER}.output.dense"),
    *norm(f"{BLOCK}/feed_forward_norm", f"{LAYER}.output.LayerNorm"),
)
BLOCKS = (
    *linear(f"{BLOCK}/attention/query", f"{LAYER}.attention.self.query"),
    *linear(f"{BLOCK}/attention/key", f"{LAYER}.attention.self.key"),
    *linear(f"{BLOCK}/attention/value", f"{LAYER}.attention.self.value"),
    *AFTER_ATTENTION,
)
POOLER = linear("head/dense", "pooler.dense")


def span_and_tag_forms(prefix: str) -> dict[str, Form]:
    """Tagging and question answering, which most encoders do alike."""
    return {
        "token-classification": Form(
            (f"{prefix}ForTokenClassification",), outside(*linear("head/logits", "classifier"))
        ),
        "question-answering": Form(
            (f"{prefix}ForQuestionAnswering",), outside(*linear("head/logits", "qa_outputs"))
        ),
    }


def sizes(hidden: int, heads: int, layers: int = 12) -> dict[str, Any]:
    """The keys of a published size; its feed-forward layers are four times as wide."""
    return {
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "intermediate_size": 4 * hidden,
    }


FAMILY = Family(
    model_type="bert",
    config=EncoderConfig,
    fixed=FIXED,
    items=(
        *SIZES,
        *ENCODER_ONLY,
        Fact("token_types", "type_vocab_size", 2),
        Fact("tie_embeddings", "tie_word_embeddings", True),
        special_tokens(pad=0),
    ),
    rows=(*embeddings(DECODER), *BLOCKS),
    forms={
        "fill-mask": Form(
            ("BertForMaskedLM", "BertForPreTraining"),
            masked_head(
                f"{PREDICTIONS}.transform.dense",
                f"{PREDICTIONS}.transform.LayerNorm",
                f"{PREDICTIONS}.bias",
                DECODER,
            ),
        ),
        "text-classification": Form(
            ("BertForSequenceClassification",),
            (*POOLER, *outside(*linear("head/logits", "classifier"))),
            {"pooling": "cls", "hidden_activation": "tanh"},
        ),
        **span_and_tag_forms("Bert"),
        "feature-extraction": Form(("BertModel",), prefixed=False),
    },
    prefix="bert",
    ignored=(r"\.position_ids$", r"^cls\.seq_relationship\."),
    renamed=OLD_NORMS,
    presets={
        "bert-base-uncased": Preset({}, 109_482_240 - 590_592, "feature-extraction"),
        "bert-base-cased": Preset(
            {"vocab_size": 28996}, 108_310_272 - 590_592, "feature-extraction"
        ),
        "bert-base-multilingual-cased": Preset(
            {"vocab_size": 119547}, 177_853_440 - 590_592, "feature-extraction"
        ),
        "bert-large-uncased": Preset(
            sizes(1024, 16, 24), 335_141_888 - 1_049_600, "feature-extraction"
        ),
        "bert-tiny": Preset(sizes(128, 2, 2), 4_385_920 - 16_512, "feature-extraction"),
        "bert-mini": Preset(sizes(256, 4, 4), 11_170_560 - 65_792, "feature-extraction"),
        "bert-small": Preset(sizes(512, 8, 4), 28_763_648 - 262_656, "feature-extraction"),
        "bert-medium": Preset(sizes(512, 8, 8), 41_373_184 - 262_656, "feature-extraction"),
    },
    source="https://arxiv.org/abs/1810.04805",
)
