"""BERT (Devlin et al., 2019): post-norm encoder with segments; model card bert-base-uncased."""

from zoo.backbones.config import EncoderConfig
from zoo.checkpoints.facts import Expect, Fact, activation, special_tokens
from zoo.checkpoints.family import Family, Form, Preset
from zoo.checkpoints.table import TRANSPOSED, linear, norm, outside, row, tied, untied

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
FIXED = {"norm_position": "post", "embedding_norm": True, "final_norm": False}

EMBEDDINGS = (
    row("encoder/embeddings/tokens/table", "embeddings.word_embeddings.weight"),
    row("encoder/embeddings/positions/table", "embeddings.position_embeddings.weight"),
    row("encoder/embeddings/types/table", "embeddings.token_type_embeddings.weight"),
    *norm("encoder/embeddings/norm", "embeddings.LayerNorm"),
)
BLOCK, LAYER = "encoder/block_{i}", "encoder.layer.{i}"
BLOCKS = (
    *linear(f"{BLOCK}/attention/query", f"{LAYER}.attention.self.query"),
    *linear(f"{BLOCK}/attention/key", f"{LAYER}.attention.self.key"),
    *linear(f"{BLOCK}/attention/value", f"{LAYER}.attention.self.value"),
    *linear(f"{BLOCK}/attention/output", f"{LAYER}.attention.output.dense"),
    *norm(f"{BLOCK}/attention_norm", f"{LAYER}.attention.output.LayerNorm"),
    *linear(f"{BLOCK}/feed_forward/up", f"{LAYER}.intermediate.dense"),
    *linear(f"{BLOCK}/feed_forward/down", f"{LAYER}.output.dense"),
    *norm(f"{BLOCK}/feed_forward_norm", f"{LAYER}.output.LayerNorm"),
)
WORDS = "embeddings.word_embeddings.weight"


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


POOLER = linear("head/dense", "pooler.dense")

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
    rows=(*EMBEDDINGS, *BLOCKS),
    forms={
        "fill-mask": Form(
            ("BertForMaskedLM", "BertForPreTraining"),
            outside(
                *linear("head/dense", "cls.predictions.transform.dense"),
                *norm("head/norm", "cls.predictions.transform.LayerNorm"),
                row(
                    "head/bias",
                    "cls.predictions.bias",
                    aliases=["cls.predictions.decoder.bias"],
                    when=tied,
                ),
                row(
                    "head/bias",
                    "cls.predictions.decoder.bias",
                    unused=["cls.predictions.bias"],
                    when=untied,
                ),
                row("head/output/kernel", "cls.predictions.decoder.weight", TRANSPOSED),
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
    renamed=((r"\.gamma$", ".weight"), (r"\.beta$", ".bias")),
    presets={
        "bert-base-uncased": Preset({}, 109_482_240 - 590_592, "feature-extraction"),
        "bert-large-uncased": Preset(
            {
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "intermediate_size": 4096,
            },
            335_141_888 - 1_049_600,
            "feature-extraction",
        ),
    },
    source="https://arxiv.org/abs/1810.04805",
)
