"""Tasks: a stack with a head as a `keras.Model` that knows its loss and its metrics."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops as kops

from zoo.backbones.config import (
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    TransformerConfig,
    architecture_of,
    config_from_mapping,
    config_to_mapping,
)
from zoo.backbones.transformer import Stack, cross_decoder, decoder, encoder
from zoo.config import nearest
from zoo.errors import ConfigError
from zoo.heads import ClassifierHead, EmbeddingHead, LanguageHead
from zoo.layers.attention import KeyValue
from zoo.layers.span import CacheLayout

IGNORED = -100
"""The label of a position that neither loss nor metric counts."""

Labels = Sequence[str] | None


@dataclass(frozen=True)
class Task:
    """What a task needs: its architecture, head and outputs.

    Attributes:
        architectures: The config classes it may stand on.
        outputs: Names of the model's outputs.
        head: (config, token embedding, labels, head facts) -> layer.
        defaults: Facts of the head that may be set, with their values.
        needs_labels: Whether a list of labels must be given.
        trains: Whether it has a loss of its own.
        crosses: An encoder-decoder runs both its stacks; else its encoder alone.
    """

    architectures: tuple[type[TransformerConfig], ...]
    outputs: tuple[str, ...]
    head: Callable[..., keras.layers.Layer | None]
    defaults: dict[str, Any]
    needs_labels: bool = False
    trains: bool = True
    crosses: bool = False


def _classifier(config: Any, tokens: Any, labels: Any, **facts: Any) -> ClassifierHead:
    return ClassifierHead(config, len(labels), name="head", **facts)


def _span(config: Any, tokens: Any, labels: Any, **facts: Any) -> ClassifierHead:
    return ClassifierHead(config, 2, dropout=0.0, name="head", **facts)


def _masked(config: Any, tokens: Any, labels: Any) -> LanguageHead:
    return LanguageHead(config, tokens, transform=True, name="head")


def _language(config: Any, tokens: Any, labels: Any) -> LanguageHead:
    return LanguageHead(config, tokens, name="head")


def _embedding(config: Any, tokens: Any, labels: Any, **facts: Any) -> EmbeddingHead:
    return EmbeddingHead(name="head", **facts)


def _nothing(config: Any, tokens: Any, labels: Any) -> None:
    return None


_CLASSIFIER = {
    "hidden_activation": None,
    "hidden_bias": True,
    "hidden_norm": False,
    "logits_bias": True,
    "dropout": None,
}
_SPAN = {"hidden_activation": None, "hidden_bias": True, "hidden_norm": False}
_ANY = (EncoderConfig, DecoderConfig)
_ENCODER = (EncoderConfig,)

TASKS: dict[str, Task] = {
    "text-classification": Task(
        (*_ANY, EncoderDecoderConfig),
        ("logits",),
        _classifier,
        {"pooling": "mean", **_CLASSIFIER},
        needs_labels=True,
        crosses=True,
    ),
    "token-classification": Task(
        _ANY,
        ("logits",),
        _classifier,
        _CLASSIFIER,
        needs_labels=True,
    ),
    "question-answering": Task(_ANY, ("start_logits", "end_logits"), _span, _SPAN),
    "fill-mask": Task(_ENCODER, ("logits",), _masked, {}),
    "feature-extraction": Task(
        (*_ANY, EncoderDecoderConfig), ("last_hidden_state",), _nothing, {}, trains=False
    ),
    "sentence-similarity": Task(
        (*_ANY, EncoderDecoderConfig),
        ("sentence_embedding",),
        _embedding,
        {"pooling": "mean", "normalize": True},
        trains=False,
    ),
    "text-generation": Task((DecoderConfig,), ("logits",), _language, {}),
    "text2text-generation": Task((EncoderDecoderConfig,), ("logits",), _language, {}, crosses=True),
}


@keras.saving.register_keras_serializable("zoo")
class TokenAccuracy(keras.metrics.Mean):
    """Share of the labels that the logits [..., C] get right, ignored positions left out."""

    def __init__(self, name: str = "accuracy", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true = kops.cast(y_true, "int32")
        right = kops.cast(
            kops.equal(kops.cast(kops.argmax(y_pred, axis=-1), "int32"), y_true), "float32"
        )
        counted = kops.cast(kops.not_equal(y_true, IGNORED), "float32")
        if sample_weight is not None:
            counted = counted * kops.cast(sample_weight, "float32")
        super().update_state(right, sample_weight=counted)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype}


@contextlib.contextmanager
def _dtype_policy(policy: Any) -> Iterator[None]:
    """All layers made within take `policy`."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@keras.saving.register_keras_serializable("zoo")
class TaskModel(keras.Model):
    """A Transformer with the head of a task; its weights exist as soon as it is made.

    Inputs are a dict of integer tensors, outputs a dict of float32 tensors:

    - encoder tasks: `input_ids`, `attention_mask`, `token_type_ids` [B, T] (the latter two
      optional);
    - text-generation: `input_ids`, `attention_mask` [B, T];
    - text2text-generation: `input_ids`, `attention_mask` [B, T], `decoder_input_ids` [B, U].

    An encoder-decoder that classifies reads the text with both its stacks (Lewis et al., 2020).

    `compile()` without arguments takes the task's loss and metrics and AdamW; labels of -100 are
    not counted.

    Args:
        config: An `EncoderConfig`, `DecoderConfig` or `EncoderDecoderConfig`.
        task: A name in `TASKS`.
        labels: The names of the classes, for tasks that have them.
        head: Facts of the head, such as {"pooling": "cls"}.
    """

    def __init__(
        self,
        config: TransformerConfig,
        task: str,
        labels: Labels = None,
        head: dict[str, Any] | None = None,
        name: str = "model",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        if task not in TASKS:
            raise ConfigError(f"task = {task!r} is not known: {nearest(task, TASKS)}")
        self.spec = TASKS[task]
        if type(config) not in self.spec.architectures:
            expected = " or ".join(cls.__name__ for cls in self.spec.architectures)
            raise ConfigError(f"task {task!r} stands on {expected}, not on {type(config).__name__}")
        if self.spec.needs_labels and not labels:
            raise ConfigError(f"task {task!r} needs labels, the names of its classes")
        if labels is not None and len(set(labels)) != len(labels):
            raise ConfigError(f"labels name a class twice: {list(labels)!r}")
        unknown = sorted(set(head or {}) - set(self.spec.defaults))
        if unknown:
            raise ConfigError(
                f"head facts {unknown} are not known to {task!r}: "
                f"{nearest(unknown[0], self.spec.defaults)}"
            )
        self.config = config
        self.task = task
        self.labels = None if labels is None else [str(label) for label in labels]
        self.head_facts = dict(head or {})
        self.tokenizer: Any = None
        self.pretrained: dict[str, Any] | None = None
        self.encoder: Stack | None = None
        self.decoder: Stack | None = None
        with _dtype_policy(self.dtype_policy):
            if isinstance(config, DecoderConfig):
                self.decoder = decoder(config)
            else:
                self.encoder = encoder(config)
            if isinstance(config, EncoderDecoderConfig) and self.spec.crosses:
                shared = self.encoder.embeddings.tokens if config.share_embeddings else None
                self.decoder = cross_decoder(config, shared)
            tokens = (self.decoder or self.encoder).embeddings.tokens
            self.head = self.spec.head(
                config, tokens, labels, **{**self.spec.defaults, **self.head_facts}
            )
            self.build()

    @property
    def architecture(self) -> str:
        """encoder, decoder or encoder-decoder; where a task needs only its encoder, encoder."""
        return "encoder" if self.decoder is None else architecture_of(self.config)

    @property
    def generates(self) -> bool:
        """Whether the task is to write text, token by token."""
        return self.task in ("text-generation", "text2text-generation")

    def save_pretrained(self, folder: Any, **settings: Any) -> None:
        """Writes a Hugging Face folder; see `zoo.checkpoints.save_pretrained`."""
        from zoo.checkpoints import save_pretrained

        save_pretrained(self, folder, **settings)

    def build(self, input_shape: Any = None) -> None:
        for part in (self.encoder, self.decoder, self.head):
            if part is not None:
                part.build((None, None, self.config.hidden_dim))
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        missing = [name for name in self.required_inputs if name not in inputs]
        if missing:
            raise ValueError(f"task {self.task!r} needs inputs {missing}; got {sorted(inputs)}")
        ids, mask = inputs["input_ids"], inputs.get("attention_mask")
        stack = self.encoder or self.decoder
        states, _, _ = stack(
            ids,
            attention_mask=mask,
            token_type_ids=inputs.get("token_type_ids"),
            training=training,
        )
        if self.architecture == "encoder-decoder":
            memory = self.decoder.project_memory(states)
            targets = inputs["decoder_input_ids"] if self.generates else self._begun(ids)
            states, _, _ = self.decoder(
                targets, memory=memory, memory_attention_mask=mask, training=training
            )
        if self.generates or self.task == "fill-mask":
            return {"logits": self.head(states)}
        if self.task == "feature-extraction":
            return {"last_hidden_state": kops.cast(states, "float32")}
        if self.task == "sentence-similarity":
            return {"sentence_embedding": self.head(states, attention_mask=mask)}
        logits = self.head(states, attention_mask=mask, training=training)
        if self.task == "question-answering":
            return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}
        return {"logits": logits}

    def _begun(self, ids: Any) -> Any:
        """The text itself for the decoder, [B, T]: a start token before it, its last left out."""
        start = kops.full_like(ids[:, :1], self.config.decoder_start_token_id)
        return kops.concatenate([start, ids[:, :-1]], axis=1)

    @property
    def required_inputs(self) -> tuple[str, ...]:
        """Inputs that must be given."""
        if self.task == "text2text-generation":
            return ("input_ids", "decoder_input_ids")
        return ("input_ids",)

    def encode(self, input_ids: Any, attention_mask: Any) -> tuple[Any, list[KeyValue]]:
        """An encoder-decoder's encoder: (states [B, T, D], each decoder layer's cross-attention
        keys and values).
        """
        states, _, _ = self.encoder(input_ids, attention_mask=attention_mask)
        return states, self.decoder.project_memory(states)

    def step(
        self,
        input_ids: Any,
        attention_mask: Any,
        past: Sequence[KeyValue] | None,
        cache: CacheLayout,
        memory: Sequence[KeyValue] | None = None,
        memory_mask: Any = None,
        keep: Callable[[Any, Any], Any] | None = None,
    ) -> tuple[Any, list[KeyValue]]:
        """One cached call of the decoder, for a prompt or for the next token.

        Args:
            input_ids: [B, S] new tokens.
            attention_mask: [B, past + S]; see `zoo.layers.span.Span`.
            past: Each layer's cache; None begins one.
            cache: "buffer" or "grow".
            memory: An encoder-decoder's cross-attention keys and values, from `encode`.
            memory_mask: The encoder's attention mask.
            keep: (states, span) -> the states whose logits are wanted; None: each row's last token,
                [B, 1, V].

        Returns:
            (float32 logits, each layer's present).
        """
        states, presents, span = self.decoder(
            input_ids,
            attention_mask=attention_mask,
            past=past,
            memory=memory,
            memory_attention_mask=memory_mask,
            cache=cache,
        )
        states = (keep or last_states)(states, span)
        return self.head(states), presents

    def generate(self, input_ids: Any, attention_mask: Any = None, **settings: Any) -> Any:
        """New token ids [B, N]; see `zoo.generation.generate`."""
        from zoo.generation import generate

        return generate(self, input_ids, attention_mask, **settings)

    def compile(
        self,
        optimizer: Any = "auto",
        loss: Any = "auto",
        metrics: Any = "auto",
        jit_compile: Any = "auto",
        **kwargs: Any,
    ) -> None:
        """Keras' `compile`; what is left at "auto" is the task's.

        `jit_compile="auto"` means XLA on accelerators only: on a CPU it brings little and compiles
        for each shape.
        """
        if loss == "auto":
            if not self.spec.trains:
                raise ConfigError(
                    f"task {self.task!r} has no loss of its own: give compile(loss=...)"
                )
            loss = {name: masked_crossentropy() for name in self.spec.outputs}
        if metrics == "auto":
            metrics = {name: [TokenAccuracy()] for name in self.spec.outputs}
        if optimizer == "auto":
            optimizer = keras.optimizers.AdamW(5e-4, weight_decay=0.01, clipnorm=1.0)
        if jit_compile == "auto":
            jit_compile = bool(keras.distribution.list_devices("gpu"))
        super().compile(
            optimizer=optimizer, loss=loss, metrics=metrics, jit_compile=jit_compile, **kwargs
        )
        self.optimizer.build(self.trainable_variables)  # else the first step is traced twice

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Restores what `compile` was given when the model was saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    def _named(self, y: Any) -> Any:
        """Labels by output name, as the losses are."""
        if y is None or isinstance(y, dict):
            return y
        return {self.spec.outputs[0]: y}

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        return super().compute_loss(x, self._named(y), y_pred, self._named(sample_weight), training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict:
        return super().compute_metrics(x, self._named(y), y_pred, self._named(sample_weight))

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "config": config_to_mapping(self.config),
            "task": self.task,
            "labels": self.labels,
            "head": self.head_facts,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "TaskModel":
        values = dict(config)
        values["config"] = config_from_mapping(values["config"])
        if isinstance(values.get("dtype"), dict):
            values["dtype"] = keras.dtype_policies.deserialize(values["dtype"])
        return cls(**values)


def masked_crossentropy() -> keras.losses.Loss:
    """Mean cross-entropy over the labels that are not ignored."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=IGNORED)


def last_states(states: Any, span: Any) -> Any:
    """[B, S, D] -> [B, 1, D]: the states of each row's last token."""
    index = kops.expand_dims(kops.expand_dims(span.last, 1), 2)
    return kops.take_along_axis(states, index, axis=1)
