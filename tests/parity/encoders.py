"""Cases of the encoders."""

from typing import Any

from .cases import LABELS, TWIN_BIAS, Case, Family

CLASSES = {"id2label": LABELS, "label2id": {name: i for i, name in LABELS.items()}}

BERT: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 53,
    "max_position_embeddings": 40,
}
ROBERTA = {**BERT, "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}


def heads(prefix: str, golden: str = "masked-lm", **case: Any) -> dict[str, Case]:
    """A case for each head that encoders have."""
    rows = {
        "masked-lm": Case(f"{prefix}ForMaskedLM", {}, **case),
        "sequence-classification": Case(f"{prefix}ForSequenceClassification", CLASSES, **case),
        "token-classification": Case(f"{prefix}ForTokenClassification", CLASSES, **case),
        "question-answering": Case(f"{prefix}ForQuestionAnswering", {}, **case),
        "base-model": Case(f"{prefix}Model", {}, **case),
    }
    rows[golden] = Case(rows[golden].architecture, rows[golden].config, golden=True, **case)
    return rows


def hub_file(
    architecture: str,
    base: str,
    extra: dict[str, tuple[int, ...]],
    head: tuple[str, str] = ("lm_head.decoder", "lm_head"),
    **case: Any,
) -> Case:
    """A masked-language folder as hubs have it: position ids, a pooler, the tied head once more."""
    decoder, bias = head
    return Case(
        architecture,
        {},
        extra={f"{base}.embeddings.position_ids": (1, 40), **extra},
        copies={
            f"{decoder}.weight": f"{base}.embeddings.word_embeddings.weight",
            f"{decoder}.bias": f"{bias}.bias",
        },
        **case,
    )


def pooler(base: str) -> dict[str, tuple[int, ...]]:
    return {f"{base}.pooler.dense.weight": (36, 36), f"{base}.pooler.dense.bias": (36,)}


def roberta_like(prefix: str) -> Family:
    """RoBERTa and those that are RoBERTa by another name."""
    return Family(
        "encoder.layer",
        ROBERTA,
        {
            **heads(prefix),
            "untied": Case(
                f"{prefix}ForMaskedLM", {"tie_word_embeddings": False}, unused=TWIN_BIAS
            ),
            "two-types": Case(f"{prefix}Model", {"type_vocab_size": 2}, token_types=True),
            "classification-golden": Case(
                f"{prefix}ForSequenceClassification", CLASSES, golden=True, lengths=(2, 6)
            ),
        },
    )


SPECIAL = {
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
DEBERTA_V3 = {
    "relative_attention": True,
    "max_relative_positions": -1,
    "position_buckets": 6,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
    "pooler_dropout": 0,
    "pooler_hidden_act": "gelu",
}

ENCODERS: dict[str, Family] = {
    "bert": Family(
        "encoder.layer",
        BERT,
        {
            **heads("Bert", token_types=True),
            "no-types-fed": Case("BertModel", {}),
            "hub-file": hub_file(
                "BertForMaskedLM",
                "bert",
                {
                    **pooler("bert"),
                    "cls.seq_relationship.weight": (2, 36),
                    "cls.seq_relationship.bias": (2,),
                },
                ("cls.predictions.decoder", "cls.predictions"),
            ),
            "untied": Case("BertForMaskedLM", {"tie_word_embeddings": False}, unused=TWIN_BIAS),
            "relu-big-epsilon": Case("BertModel", {"hidden_act": "relu", "layer_norm_eps": 1e-3}),
            "gelu-tanh": Case("BertModel", {"hidden_act": "gelu_new"}),
            "sharded": Case("BertForMaskedLM", {}, shard_bytes=20_000),
            "bfloat16": Case("BertForMaskedLM", {}, dtype="bfloat16"),
            "float16": Case("BertForSequenceClassification", CLASSES, dtype="float16"),
            "pretraining-file": Case("BertForPreTraining", {}, task="fill-mask", token_types=True),
            "gamma-and-beta-names": Case(
                "BertForMaskedLM",
                {},
                stored_as=(
                    (r"LayerNorm\.weight$", "LayerNorm.gamma"),
                    (r"LayerNorm\.bias$", "LayerNorm.beta"),
                ),
            ),
            "config-as-given": Case("BertModel", {}, raw_config=True),
            "classification-golden": Case(
                "BertForSequenceClassification", CLASSES, golden=True, lengths=(2, 6)
            ),
        },
    ),
    "roberta": roberta_like("Roberta"),
    "xlm-roberta": roberta_like("XLMRoberta"),
    "camembert": roberta_like("Camembert"),
    "distilbert": Family(
        "transformer.layer",
        {
            "vocab_size": 99,
            "dim": 36,
            "n_layers": 2,
            "n_heads": 3,
            "hidden_dim": 53,
            "max_position_embeddings": 40,
        },
        {
            **heads("DistilBert"),
            "hub-file": Case(
                "DistilBertForMaskedLM",
                {},
                copies={"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
            ),
            "sinusoidal": Case("DistilBertModel", {"sinusoidal_pos_embds": True}),
            "untied-relu": Case(
                "DistilBertForMaskedLM", {"tie_word_embeddings": False, "activation": "relu"}
            ),
        },
    ),
    "albert": Family(
        "encoder.albert_layer_groups.0.albert_layers.0",
        {**BERT, "embedding_size": 20, "num_hidden_layers": 3},
        {
            **heads("Albert", token_types=True),
            "hub-file": hub_file(
                "AlbertForMaskedLM",
                "albert",
                {
                    "albert.pooler.weight": (36, 36),
                    "albert.pooler.bias": (36,),
                    "sop_classifier.classifier.weight": (2, 36),
                    "sop_classifier.classifier.bias": (2,),
                },
                ("predictions.decoder", "predictions"),
            ),
            "two-groups": Case("AlbertModel", {"num_hidden_groups": 2, "num_hidden_layers": 4}),
            "two-in-a-group": Case("AlbertModel", {"inner_group_num": 2}),
            "gelu-same-width": Case(
                "AlbertForMaskedLM", {"hidden_act": "gelu", "embedding_size": 36}
            ),
        },
    ),
    "electra": Family(
        "encoder.layer",
        {**BERT, "embedding_size": 20},
        {
            **heads("Electra", token_types=True),
            "hub-file": Case(
                "ElectraForMaskedLM",
                {},
                extra={"electra.embeddings.position_ids": (1, 40)},
                copies={"generator_lm_head.weight": "electra.embeddings.word_embeddings.weight"},
            ),
            "same-width": Case("ElectraForMaskedLM", {"embedding_size": 36}),
            "discriminator": Case("ElectraForPreTraining", {}, task="feature-extraction"),
            "classification-golden": Case(
                "ElectraForSequenceClassification", CLASSES, golden=True, lengths=(2, 6)
            ),
        },
    ),
    "mpnet": Family(
        "encoder.layer",
        {**BERT, "pad_token_id": 1},
        {
            **heads("MPNet"),
            "hub-file": hub_file("MPNetForMaskedLM", "mpnet", pooler("mpnet")),
            "untied": Case("MPNetForMaskedLM", {"tie_word_embeddings": False}, unused=TWIN_BIAS),
            "far-apart": Case("MPNetModel", {"max_position_embeddings": 160}, lengths=(3, 150)),
        },
    ),
    "deberta-v2": Family(
        "encoder.layer",
        {**BERT, **DEBERTA_V3},
        {
            **heads("DebertaV2", golden="base-model", lengths=(1, 9, 23)),
            "golden-classification": Case(
                "DebertaV2ForSequenceClassification", CLASSES, golden=True, lengths=(2, 14)
            ),
            "hub-file": hub_file(
                "DebertaV2ForMaskedLM",
                "deberta",
                {},
                ("cls.predictions.decoder", "cls.predictions"),
            ),
            "base-of-a-prefixed-file": Case(
                "DebertaV2Model",
                {},
                stored_as=((r"^", "deberta."),),
                task="feature-extraction",
                extra={"mask_predictions.classifier.weight": (1, 36)},
            ),
            "new-masked-lm-head": Case("DebertaV2ForMaskedLM", {"legacy": False}),
            "own-position-projections": Case("DebertaV2Model", {"share_att_key": False}),
            "content-to-position": Case(
                "DebertaV2Model", {"pos_att_type": ["c2p"], "norm_rel_ebd": "none"}
            ),
            "no-buckets": Case(
                "DebertaV2Model", {"position_buckets": -1, "max_relative_positions": 8}
            ),
            "types-and-positions": Case(
                "DebertaV2Model",
                {"type_vocab_size": 2, "position_biased_input": True},
                token_types=True,
            ),
            "attention-kinds-as-text": Case(
                "DebertaV2Model", {"pos_att_type": "p2c|c2p"}, raw_config=True
            ),
        },
    ),
    "modernbert": Family(
        "layers",
        {**BERT, "num_hidden_layers": 4, "local_attention": 6, **SPECIAL},
        {
            **heads("ModernBert", lengths=(1, 6, 15)),
            "mean-pooling": Case(
                "ModernBertForSequenceClassification", {**CLASSES, "classifier_pooling": "mean"}
            ),
            "with-biases": Case(
                "ModernBertForMaskedLM",
                {
                    "norm_bias": True,
                    "attention_bias": True,
                    "mlp_bias": True,
                    "classifier_bias": True,
                },
            ),
            "hub-file": Case(
                "ModernBertForMaskedLM",
                {},
                copies={"decoder.weight": "model.embeddings.tok_embeddings.weight"},
            ),
            "no-decoder-bias": Case("ModernBertForMaskedLM", {"decoder_bias": False}),
            "older-config": Case(
                "ModernBertForMaskedLM",
                {
                    "global_attn_every_n_layers": 2,
                    "global_rope_theta": 5000.0,
                    "local_rope_theta": 300.0,
                },
                raw_config=True,
                lengths=(4, 15),
            ),
            "one-theta": Case(
                "ModernBertModel",
                {"layer_types": ["sliding_attention", "full_attention"] * 2},
                lengths=(4, 15),
            ),
        },
    ),
    "nomic_bert": Family(
        "layers",
        BERT,
        {
            "masked-lm": Case("NomicBertForMaskedLM", {}, token_types=True, golden=True),
            "sequence-classification": Case("NomicBertForSequenceClassification", CLASSES),
            "token-classification": Case("NomicBertForTokenClassification", CLASSES),
            "base-model": Case("NomicBertModel", {}, token_types=True),
            "other-theta": Case(
                "NomicBertModel",
                {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}},
            ),
        },
    ),
}
