"""Config codecs: how a Hugging Face `config.json` becomes our facts, and back, key by key.

Each key is read once by an item of the family's list. What nobody reads is an error, unless it is
known to leave the numbers alone (`HARMLESS`).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zoo.backbones.config import TransformerConfig
from zoo.errors import ConfigError

MISSING = object()

GENERATION = frozenset(
    """
    bad_words_ids begin_suppress_tokens diversity_penalty do_sample early_stopping
    encoder_no_repeat_ngram_size exponential_decay_length_penalty forced_bos_token_id
    forced_eos_token_id length_penalty max_length min_length no_repeat_ngram_size
    num_beam_groups num_beams num_return_sequences remove_invalid_values
    renormalize_logits repetition_penalty suppress_tokens temperature top_k top_p typical_p
    """.split()  # noqa: SIM905
)
"""Keys that say how to generate; newer folders have them in `generation_config.json`."""

HARMLESS = GENERATION | frozenset(
    """
    architectures model_type transformers_version torch_dtype dtype _name_or_path
    _commit_hash name use_cache output_attentions output_hidden_states output_past
    return_dict return_dict_in_generate output_scores torchscript use_bfloat16 pruned_heads
    chunk_size_feed_forward gradient_checkpointing id2label label2id num_labels problem_type
    finetuning_task task_specific_params classifier_dropout classifier_dropout_prob
    hidden_dropout seq_classif_dropout qa_dropout initializer_range initializer_factor
    init_std initializer_cutoff_factor pretraining_tp tokenizer_class prefix sep_token_id
    cls_token_id mask_token_id _attn_implementation _attn_implementation_autoset attn_implementation
    _flash_attn_2_enabled auto_map is_encoder_decoder cross_attention_hidden_size
    tie_encoder_decoder tf_legacy_loss summary_type summary_use_proj summary_activation
    summary_proj_to_labels summary_first_dropout summary_last_dropout
    unsloth_version router_aux_loss_coef
    output_router_logits router_jitter_noise cache_implementation
    """.split()  # noqa: SIM905
)
"""Keys that change no number of a forward pass."""


class Reader:
    """A `config.json` that remembers which keys were read.

    Args:
        values: The JSON object.
        where: What it is, for messages.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = dict(values)
        self.where = where
        self.seen: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def get(self, name: str, default: Any = MISSING) -> Any:
        """The value of a key; `default` where it is missing.

        Raises:
            ConfigError: It is missing and there is no default.
        """
        self.seen.add(name)
        value = self.values.get(name, MISSING)
        if value is MISSING:
            if default is MISSING:
                raise ConfigError(f"{self.where} has no {name!r}, which this model type needs")
            return default
        return value

    def refuse(self, name: str, reason: str) -> ConfigError:
        """The error for a value that is not supported."""
        return ConfigError(f"{self.where}: {name} = {self.values.get(name)!r} {reason}")

    def unread(self) -> list[str]:
        """Keys that nobody read and that might change the numbers."""
        return sorted(
            key
            for key, value in self.values.items()
            if key not in self.seen and key not in HARMLESS and value not in (None, False, [], {})
        )


@dataclass(frozen=True)
class Fact:
    """One of our facts is one of their keys.

    Attributes:
        ours: Our field.
        theirs: Their key.
        default: Value where the file has none, as the reference's config class has it.
        read: Their value -> ours.
        write: Our value -> theirs.
        also: Other names under which older files have the key.
    """

    ours: str
    theirs: str
    default: Any = MISSING
    read: Callable[[Any], Any] = lambda value: value
    write: Callable[[Any], Any] = lambda value: value
    also: tuple[str, ...] = ()

    def decode(self, reader: Reader) -> dict[str, Any]:
        """Our fields from their keys."""
        name = next((n for n in (self.theirs, *self.also) if n in reader), self.theirs)
        for other in (self.theirs, *self.also):
            reader.seen.add(other)
        try:
            return {self.ours: self.read(reader.get(name, self.default))}
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, ConfigError):
                raise
            raise reader.refuse(name, f"is not supported ({error})") from None

    def encode(self, config: TransformerConfig) -> dict[str, Any]:
        """Their keys from our fields."""
        return {self.theirs: self.write(getattr(config, self.ours))}


@dataclass(frozen=True)
class Expect:
    """A key that must have one of some values, since no other is supported.

    Attributes:
        theirs: Their key.
        values: The supported values; the first is written.
        reason: Why no other is supported.
        written: The first is written; False: the reference has no such key of its own.
    """

    theirs: str
    values: tuple[Any, ...]
    reason: str = ""
    written: bool = True

    def decode(self, reader: Reader) -> dict[str, Any]:
        """Nothing, once checked."""
        value = reader.get(self.theirs, self.values[0])
        if value is not None and value not in self.values:
            expected = " or ".join(repr(v) for v in self.values)
            raise reader.refuse(
                self.theirs, f"is not supported, expected {expected}. {self.reason}"
            )
        return {}

    def encode(self, config: TransformerConfig) -> dict[str, Any]:
        """The first value."""
        return {self.theirs: self.values[0]} if self.written else {}


@dataclass(frozen=True)
class Rule:
    """Several keys and fields that belong together.

    Attributes:
        decode: Reader -> our fields.
        encode: config -> their keys.
    """

    decode: Callable[[Reader], dict[str, Any]]
    encode: Callable[[Any], dict[str, Any]] = field(default=lambda config: {})


@dataclass(frozen=True)
class Unused:
    """Keys that are read by nobody since they have no effect in this family."""

    names: tuple[str, ...]

    def decode(self, reader: Reader) -> dict[str, Any]:
        """Nothing."""
        reader.seen.update(self.names)
        return {}

    def encode(self, config: TransformerConfig) -> dict[str, Any]:
        """Nothing."""
        return {}


Item = Fact | Expect | Rule | Unused


def inherited(
    items: Sequence[Item], without: Sequence[str] = (), **defaults: Any
) -> tuple[Item, ...]:
    """A parent's items, some left out and some with other defaults, each by the name of its key in
    `config.json`.

    Raises:
        KeyError: No item reads such a key.
    """
    names = {item.theirs for item in items if isinstance(item, Fact)}
    unknown = sorted({*without, *defaults} - names)
    if unknown:
        raise KeyError(f"no item reads {unknown}, only {sorted(names)}")

    def changed(item: Item) -> Item:
        if isinstance(item, Fact) and item.theirs in defaults:
            return dataclasses.replace(item, default=defaults[item.theirs])
        return item

    return tuple(changed(item) for item in items if getattr(item, "theirs", None) not in without)


ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "quick_gelu": "gelu_sigmoid",
    "relu": "relu",
    "relu2": "relu_squared",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
WRITTEN_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "gelu_sigmoid": "quick_gelu",
    "relu": "relu",
    "relu_squared": "relu2",
    "silu": "silu",
    "tanh": "tanh",
}


def activation(
    theirs: str = "hidden_act", default: Any = MISSING, ours: str = "activation"
) -> Fact:
    """An activation by name."""

    def read(name: str) -> str:
        if name not in ACTIVATIONS:
            raise ValueError(f"expected one of {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[name]

    return Fact(ours, theirs, default, read, WRITTEN_ACTIVATIONS.__getitem__)


def special_tokens(pad: int | None = None, bos: int | None = None, eos: Any = None) -> Rule:
    """pad, bos and eos ids with the family's defaults; further eos ids stop generation as well."""

    def decode(reader: Reader) -> dict[str, Any]:
        ends = reader.get("eos_token_id", eos)
        ends = list(ends) if isinstance(ends, Sequence) else [ends]
        pad_id = reader.get("pad_token_id", pad)
        if pad_id is None or pad_id < 0:  # not named: a row is padded with its end
            pad_id = ends[0] or 0
        return {
            "pad_token_id": pad_id,
            "bos_token_id": reader.get("bos_token_id", bos),
            "eos_token_id": ends[0],
            "stop_token_ids": tuple(ends[1:]),
        }

    def encode(config: Any) -> dict[str, Any]:
        ends = [config.eos_token_id, *config.stop_token_ids]
        return {
            "pad_token_id": config.pad_token_id,
            "bos_token_id": config.bos_token_id,
            "eos_token_id": ends if len(ends) > 1 else ends[0],
        }

    return Rule(decode, encode)
