"""Which tokenizer a checkpoint folder means, as facts: special tokens, templates, options.

The facts are those of the reference classes of the same names; a text's ids are the models' own,
which for SentencePiece models are the ids that the SentencePiece library itself gives.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

_GPT2_WORDS = ""  # the pattern that is built into the library
_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Kind:
    """What one class of tokenizers does beside its vocabulary.

    Attributes:
        build: the builder: "wordpiece", "byte_level", "gpt1" or "sentencepiece".
        tokens: role to token, where the folder's configuration does not say otherwise.
        single: template for one text; `{role}` stands for a token, `:1` for a token type.
        pair: template for two texts.
        type_ids: the model reads token types.
        options: what a `tokenizer_config.json` may set, with the values of folders that do not.
            `add_bos_token` and `add_eos_token` take the place of the templates.
        mask_takes_space: the space before a mask token in a text belongs to the token.
        nfc: compose characters first (byte-level).
        words: regular expression that cuts a text into words (byte-level).
        layout: how ids follow from the pieces of a SentencePiece model (see
            `zoo.text.sentencepiece.LAYOUTS`).
        accents: the text is prepared as for ALBERT and XLNet: white space, quotes, accents.
        padding_side: where the reference pads.
        reloads: `transformers` gives the same ids when it rebuilds the class from what is saved.
    """

    build: str
    tokens: Mapping[str, str]
    single: str = "$A"
    pair: str = "$A $B:1"
    type_ids: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    mask_takes_space: bool = False
    nfc: bool = False
    words: str = _GPT2_WORDS
    layout: str = "plain"
    accents: bool = False
    padding_side: str = "right"
    reloads: bool = False


def _bracketed(**more: str) -> dict[str, str]:
    names = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    return names | more


_ANGLED = {
    "bos": "<s>",
    "eos": "</s>",
    "unk": "<unk>",
    "sep": "</s>",
    "pad": "<pad>",
    "cls": "<s>",
    "mask": "<mask>",
}
_BERT_SHAPES = {"single": "{cls} $A {sep}", "pair": "{cls} $A {sep} $B:1 {sep}:1"}
_ROBERTA_SHAPES = {"single": "{cls} $A {sep}", "pair": "{cls} $A {sep} {sep} $B {sep}"}

_BERT = Kind(
    "wordpiece",
    _bracketed(),
    **_BERT_SHAPES,
    type_ids=True,
    # do_lower_case None: as the vocabulary itself suggests.
    options={"do_lower_case": None, "tokenize_chinese_chars": True, "strip_accents": None},
    reloads=True,
)
_ROBERTA = Kind(
    "byte_level",
    _ANGLED,
    **_ROBERTA_SHAPES,
    options={"add_prefix_space": False, "trim_offsets": True},
    mask_takes_space=True,
    reloads=True,
)
_END = "<|endoftext|>"
_GPT2 = Kind(
    "byte_level",
    {"bos": _END, "eos": _END, "unk": _END},
    options={"add_prefix_space": False, "add_bos_token": False, "add_eos_token": False},
    reloads=True,
)
_LLAMA = Kind(
    "sentencepiece",
    {"bos": "<s>", "eos": "</s>", "unk": "<unk>"},
    options={
        "add_bos_token": True,
        "add_eos_token": False,
        "legacy": True,
        "add_prefix_space": True,
    },
    padding_side="left",
)
_ALBERT = Kind(
    "sentencepiece",
    _bracketed(bos="[CLS]", eos="[SEP]", unk="<unk>", pad="<pad>"),
    **_BERT_SHAPES,
    type_ids=True,
    options={"do_lower_case": True, "remove_space": True, "keep_accents": False},
    mask_takes_space=True,
    accents=True,
)
_XLM_ROBERTA = Kind(
    "sentencepiece", _ANGLED, **_ROBERTA_SHAPES, mask_takes_space=True, layout="fairseq"
)
_MBART = replace(
    _XLM_ROBERTA,
    single="$A {eos} {lang}",
    pair="$A $B {eos} {lang}",
    options={"src_lang": "en_XX"},
    layout="mbart",
)

CLASSES: dict[str, Kind] = {
    "BertTokenizer": _BERT,
    "ElectraTokenizer": _BERT,
    "MobileBertTokenizer": _BERT,
    "ConvBertTokenizer": _BERT,
    "DistilBertTokenizer": replace(_BERT, type_ids=False),
    "MPNetTokenizer": replace(
        _BERT,
        tokens=_ANGLED | {"unk": "[UNK]"},
        **_ROBERTA_SHAPES,
        type_ids=False,
        mask_takes_space=True,
    ),
    "RobertaTokenizer": _ROBERTA,
    "BartTokenizer": _ROBERTA,
    "LongformerTokenizer": _ROBERTA,
    "LEDTokenizer": _ROBERTA,
    "BlenderbotTokenizer": replace(
        _ROBERTA, single="$A {eos}", pair="$A $B:1", options={"add_prefix_space": True}
    ),
    "DebertaTokenizer": replace(
        _ROBERTA,
        tokens=_bracketed(bos="[CLS]", eos="[SEP]"),
        **_BERT_SHAPES,
        type_ids=True,
        options={"add_prefix_space": False},
        reloads=False,  # transformers 5 doubles the separator of a pair
    ),
    "GPT2Tokenizer": _GPT2,
    "CodeGenTokenizer": _GPT2,
    "GPTNeoXTokenizer": replace(_GPT2, nfc=True),
    "Qwen2Tokenizer": replace(
        _GPT2,
        tokens={"eos": _END, "pad": _END, "unk": _END},
        options={"add_prefix_space": False},
        nfc=True,
        words=_QWEN2_WORDS,
    ),
    "OpenAIGPTTokenizer": Kind("gpt1", {"unk": "<unk>"}, reloads=True),
    "T5Tokenizer": Kind(
        "sentencepiece",
        {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
        single="$A {eos}",
        pair="$A {eos} $B {eos}",
        options={"extra_ids": 100, "legacy": True, "add_prefix_space": True},
        layout="t5",
    ),
    "LlamaTokenizer": _LLAMA,
    "CodeLlamaTokenizer": _LLAMA,
    "GemmaTokenizer": replace(
        _LLAMA,
        tokens={"bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "pad": "<pad>"},
        options={"add_bos_token": True, "add_eos_token": False},
    ),
    "AlbertTokenizer": _ALBERT,
    "XLNetTokenizer": replace(
        _ALBERT,
        tokens=_ANGLED | {"sep": "<sep>", "cls": "<cls>"},
        single="$A {sep} {cls}:2",
        pair="$A {sep} $B:1 {sep}:1 {cls}:2",
        options={
            "do_lower_case": False,
            "remove_space": True,
            "keep_accents": False,
            "additional_special_tokens": ("<eop>", "<eod>"),
        },
        padding_side="left",
    ),
    "DebertaV2Tokenizer": Kind(
        "sentencepiece",
        _bracketed(bos="[CLS]", eos="[SEP]"),
        **_BERT_SHAPES,
        type_ids=True,
        options={"do_lower_case": False, "split_by_punct": False},
    ),
    "XLMRobertaTokenizer": _XLM_ROBERTA,
    "CamembertTokenizer": replace(_XLM_ROBERTA, layout="camembert"),
    "MBartTokenizer": _MBART,
    "MBart50Tokenizer": replace(
        _MBART,
        tokens={role: token for role, token in _ANGLED.items() if role != "bos"},
        single="{lang} $A {eos}",
        pair="{lang} $A $B {eos}",
        layout="mbart50",
    ),
    "NllbTokenizer": replace(
        _MBART,
        single="{lang} $A {eos}",
        pair="{lang} $A $B {eos}",
        options={"src_lang": "eng_Latn", "legacy_behaviour": False},
        layout="nllb",
    ),
    "M2M100Tokenizer": Kind(
        "sentencepiece",
        {"bos": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>"},
        single="{lang} $A {eos}",
        pair="{lang} $A $B {eos}",
        options={"src_lang": "en", "language_codes": "m2m100"},
        layout="m2m100",
    ),
    "PegasusTokenizer": Kind(
        "sentencepiece",
        {"eos": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask_2>"},
        single="$A {eos}",
        pair="$A $B {eos}",
        options={"offset": 103, "mask_token_sent": "<mask_1>"},
        layout="pegasus",
    ),
    "MarianTokenizer": Kind(
        "sentencepiece",
        {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
        single="$A {eos}",
        pair="$A $B {eos}",
        options={"model_max_length": 512, "separate_vocabs": False},
        layout="marian",
    ),
}
CLASSES["MT5Tokenizer"] = CLASSES["T5Tokenizer"]

_OPT = {"bos": "</s>", "eos": "</s>", "unk": "</s>", "pad": "<pad>"}
# Families whose folders say less than their class leaves open.
VARIANTS: dict[str, Kind] = {
    "opt": replace(_GPT2, tokens=_OPT, options=dict(_GPT2.options) | {"add_bos_token": True}),
}

MODEL_TYPES: dict[str, str] = {
    "albert": "AlbertTokenizer",
    "bart": "BartTokenizer",
    "bert": "BertTokenizer",
    "blenderbot": "BlenderbotTokenizer",
    "camembert": "CamembertTokenizer",
    "code_llama": "CodeLlamaTokenizer",
    "codegen": "CodeGenTokenizer",
    "convbert": "ConvBertTokenizer",
    "deberta": "DebertaTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
    "gemma": "GemmaTokenizer",
    "gemma2": "GemmaTokenizer",
    "gemma3_text": "GemmaTokenizer",
    "gpt2": "GPT2Tokenizer",
    "gpt_neo": "GPT2Tokenizer",
    "gpt_neox": "GPTNeoXTokenizer",
    "gptj": "GPT2Tokenizer",
    "led": "LEDTokenizer",
    "llama": "LlamaTokenizer",
    "longformer": "LongformerTokenizer",
    "m2m_100": "M2M100Tokenizer",
    "marian": "MarianTokenizer",
    "mbart": "MBartTokenizer",
    "mistral": "LlamaTokenizer",
    "mixtral": "LlamaTokenizer",
    "mobilebert": "MobileBertTokenizer",
    "mpnet": "MPNetTokenizer",
    "mt5": "T5Tokenizer",
    "nllb-moe": "NllbTokenizer",
    "nomic_bert": "BertTokenizer",
    "openai-gpt": "OpenAIGPTTokenizer",
    "opt": "GPT2Tokenizer",
    "pegasus": "PegasusTokenizer",
    "phi": "CodeGenTokenizer",
    "phi3": "LlamaTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen2_moe": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "qwen3_moe": "Qwen2Tokenizer",
    "roberta": "RobertaTokenizer",
    "starcoder2": "GPT2Tokenizer",
    "t5": "T5Tokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "xlnet": "XLNetTokenizer",
}
# Names that say nothing about what a tokenizer does.
GENERIC = ("PreTrainedTokenizer", "TokenizersBackend", "PythonBackend", "")


def class_name(config: Mapping[str, Any], model: Mapping[str, Any]) -> str | None:
    """The class that a folder names, else the one of its family, without "Fast"; None for none.

    Args:
        config: `tokenizer_config.json`.
        model: `config.json`.
    """
    for source in (config, model):
        name = str(source.get("tokenizer_class") or "").removesuffix("Fast")
        if name not in GENERIC:
            return name
    return MODEL_TYPES.get(str(model.get("model_type")))


def find(name: str | None, model_type: str | None = None) -> Kind | None:
    """The facts of a class, of a family's own variant where there is one; None when unknown."""
    if model_type in VARIANTS and name == MODEL_TYPES[model_type]:
        return VARIANTS[model_type]
    return CLASSES.get(name or "")
