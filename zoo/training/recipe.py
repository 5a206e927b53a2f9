"""A recipe: all facts of one training run, one-to-one with its YAML file."""

from dataclasses import field
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_serializer, model_validator

from zoo.config import frozen

__all__ = [
    "TASKS",
    "TOKENIZERS",
    "BestRecipe",
    "CheckpointRecipe",
    "DataRecipe",
    "EarlyStoppingRecipe",
    "EvaluationRecipe",
    "ModelRecipe",
    "OptimizerRecipe",
    "Recipe",
    "ScheduleRecipe",
    "TokenizerRecipe",
    "TrainingRecipe",
]

TASKS = {
    "text-classification": "encoder",
    "token-classification": "encoder",
    "fill-mask": "encoder",
    "question-answering": "encoder",
    "text-generation": "decoder",
    "text2text-generation": "encoder-decoder",
}
"""The tasks that a recipe can train, and the architecture of each."""

TOKENIZERS = ("wordpiece", "bpe", "unigram", "char", "byte")
"""The kinds of tokenizer that can be trained."""

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Split = Literal["train", "validation", "test"]
Mode = Literal["auto", "min", "max"]


@frozen
class DataRecipe:
    """Where examples come from: a built-in `source`, or files.

    Args:
        source: A name of `zoo.data.sources.SOURCES`.
        options: Keyword arguments of the source's `build`.
        train: Path of a file or folder of training examples (instead of `source`).
        validation: The same for validation; without it, `validation_fraction` of `train` is held
            out by a hash of each example, so an example stays where it is when others are added.
        test: The same for the final measurement.
        format: One of `zoo.data.readers.FORMATS`; by default the path's ending tells.
        columns: Names of an example's fields, each with the column or key that holds it.
        reader: Further arguments of `zoo.data.read`: header, delimiter, unit, ...
        cleaning: Arguments of `zoo.data.clean.Cleaner`.
        limit: At most so many examples of each split, or {train: 1000, test: 100}.
    """

    source: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    format: str | None = None
    columns: dict[str, str | int] = field(default_factory=dict)
    reader: dict[str, Any] = field(default_factory=dict)
    cleaning: dict[str, Any] | None = None
    validation_fraction: Fraction = 0.1
    limit: Count | dict[Split, Count] | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.source is None) == (self.train is None):
            raise ValueError("needs either 'source' or 'train', and not both")
        files = ("validation", "test", "format", "columns", "reader", "cleaning")
        given = [name for name in files if getattr(self, name)]
        if self.source is not None and given:
            raise ValueError(f"{given[0]!r} goes with 'train' files, not with 'source'")
        if self.train is not None and self.options:
            raise ValueError("'options' goes with 'source', not with 'train' files")
        return self


@frozen
class TokenizerRecipe:
    """A tokenizer to train on the training texts, or the `path` of one that exists.

    The fields are arguments of `zoo.text.Tokenizer.train`; `template` follows from the architecture
    where it is not given.
    """

    kind: Literal[TOKENIZERS] | None = None  # type: ignore[valid-type]
    vocab_size: Count | None = None
    template: Literal["encoder", "seq2seq", "decoder"] | None = None
    normalization: str | list[str] | None = None
    lowercase: bool = False
    min_frequency: Count | None = None
    byte_fallback: bool = True
    path: str | None = None

    @model_validator(mode="after")
    def _trained_or_loaded(self) -> Self:
        if (self.kind is None) == (self.path is None):
            raise ValueError("needs either 'kind' (to train) or 'path', and not both")
        return self


@frozen
class ModelRecipe:
    """The architecture and, beside it in YAML, the facts of its config class.

    Facts are checked by `zoo.EncoderConfig`, `zoo.DecoderConfig` or `zoo.EncoderDecoderConfig`
    themselves (`zoo.training.build.model_config`). `vocab_size` and the special ids come from the
    tokenizer and `max_length` from training, where the recipe does not state them. `head` holds the
    facts of the task's head, such as {pooling: cls}.
    """

    architecture: Literal["encoder", "decoder", "encoder-decoder"]
    head: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather_facts(cls, value: Any) -> Any:
        given = getattr(value, "kwargs", value)
        if not isinstance(given, dict) or "facts" in given:
            return value
        own = ("architecture", "head")
        facts = {key: item for key, item in given.items() if key not in own}
        return {key: item for key, item in given.items() if key in own} | {"facts": facts}

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        return {"architecture": self.architecture, "head": self.head, **self.facts}


@frozen
class OptimizerRecipe:
    """AdamW (Loshchilov and Hutter, 2019). Biases and norm scales are never decayed."""

    learning_rate: Positive = 3e-4
    weight_decay: NotNegative = 0.01
    decay_embeddings: bool = False
    beta_1: Fraction = 0.9
    beta_2: Fraction = 0.999
    epsilon: Positive = 1e-8
    clip_norm: Positive | None = 1.0


@frozen
class ScheduleRecipe:
    """The learning rate over updates: a linear warm-up, then the curve that `kind` names.

    Args:
        kind: "linear" or "cosine" fall to `final_ratio` of the peak at the last update;
            "inverse_sqrt" falls as 1/sqrt(update); "constant" stays.
        warmup_steps: Updates of the warm-up.
        warmup_ratio: The same as a share of all updates.
        final_ratio: The last learning rate as a share of the peak.
    """

    kind: Literal["linear", "cosine", "inverse_sqrt", "constant"] = "linear"
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    warmup_ratio: Fraction | None = None
    final_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError("takes 'warmup_steps' or 'warmup_ratio', not both")
        return self


@frozen
class EarlyStoppingRecipe:
    """Stops after `patience` validations without a better `metric`."""

    metric: str = "val_loss"
    patience: Count = 3
    mode: Mode = "auto"
    min_delta: NotNegative = 0.0


@frozen
class BestRecipe:
    """Which validation metric decides the best checkpoint."""

    metric: str = "val_loss"
    mode: Mode = "auto"


@frozen
class CheckpointRecipe:
    """How often the state for an exact resume is written, beside the end of every round."""

    every_steps: Count | None = None
    every_rounds: Count = 1


@frozen
class TrainingRecipe:
    """How the model is fitted.

    Args:
        epochs: Passes over the training examples; or
        steps: Updates in all.
        batch_size: Examples per update, over all replicas and accumulation steps.
        max_length: Longest input in tokens.
        max_target_length: Longest target of text2text-generation.
        buckets: Length buckets of a batch: "auto", a list of lengths, or null for none.
        strategy: "auto" mirrors over the GPUs where there are several.
        precision: Keras' dtype policy.
        jit_compile: Compile the step with XLA.
        gradient_accumulation_steps: Parts in which a batch is computed.
        label_smoothing: Share of the target that is spread over all classes.
        seed: Of weights, dropout and shuffling.
        validate_every: Updates between validations; by default one pass (with `epochs`) or a tenth
            of all updates (with `steps`). The stretch between two validations is a round.
    """

    epochs: Count | None = None
    steps: Count | None = None
    batch_size: Count = 32
    max_length: Count = 128
    max_target_length: Count | None = None
    buckets: Literal["auto"] | list[Count] | None = "auto"
    strategy: Literal["auto", "cpu", "mirrored", "multi_worker"] = "auto"
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    jit_compile: bool = False
    gradient_accumulation_steps: Count = 1
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    label_smoothing: Fraction = 0.0
    early_stopping: EarlyStoppingRecipe | None = None
    best: BestRecipe = field(default_factory=BestRecipe)
    checkpoint: CheckpointRecipe = field(default_factory=CheckpointRecipe)
    validate_every: Count | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("needs either 'epochs' or 'steps', and not both")
        if self.batch_size % self.gradient_accumulation_steps:
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by "
                f"gradient_accumulation_steps {self.gradient_accumulation_steps}"
            )
        return self


@frozen
class GenerationRecipe:
    """How the generating tasks are measured: arguments of `model.generate`."""

    max_new_tokens: Count = 64
    do_sample: bool = False
    temperature: Positive = 1.0
    top_k: Count | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int = 0


@frozen
class EvaluationRecipe:
    """What is measured after training, on the test split (validation where there is none).

    Args:
        metrics: Which of the task's metrics to keep; all of them by default.
        group: A key of the examples; metrics are also given for each of its values.
        limit: At most so many examples.
        batch_size: Examples predicted at once.
        generation: Settings of the generating tasks.
    """

    metrics: list[str] | None = None
    group: str | None = None
    limit: Count | None = None
    batch_size: Count = 64
    generation: GenerationRecipe = field(default_factory=GenerationRecipe)


@frozen
class Recipe:
    """One training run: what is learnt, from which data, by which model, and how."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    description: str = ""
    task: Literal[tuple(TASKS)]  # type: ignore[valid-type]
    data: DataRecipe
    tokenizer: TokenizerRecipe
    model: ModelRecipe
    training: TrainingRecipe
    evaluation: EvaluationRecipe = field(default_factory=EvaluationRecipe)

    @model_validator(mode="after")
    def _architecture_of_task(self) -> Self:
        expected = TASKS[self.task]
        if self.model.architecture != expected:
            raise ValueError(
                f"model.architecture: got {self.model.architecture!r}, but task {self.task!r} "
                f"needs {expected!r}"
            )
        return self
