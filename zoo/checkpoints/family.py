"""What a family is: codec of its config, weight table, heads, presets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zoo.backbones.config import TransformerConfig
from zoo.checkpoints.facts import Item, Reader
from zoo.checkpoints.table import Row
from zoo.errors import ConfigError


@dataclass(frozen=True)
class Form:
    """One task of a family: the reference's classes for it, its head's facts and tensors.

    Attributes:
        architectures: The reference's classes that hold it; the first is written.
        rows: The head's rows.
        head: Facts of our head; a function takes the file's config.
        prefixed: The file's names carry the base model's prefix.
        prefix: That prefix, where this form's is not the family's.
        labels: Names of the classes, where the head has a number of its own.
        when: config.json -> whether a file is of this form; for `Family.variants`.
    """

    architectures: tuple[str, ...]
    rows: tuple[Row, ...] = ()
    head: Mapping[str, Any] | Callable[[Reader], Mapping[str, Any]] = field(default_factory=dict)
    prefixed: bool = True
    prefix: str | None = None
    labels: tuple[str, ...] = ()
    when: Callable[[Mapping[str, Any]], bool] | None = None


@dataclass(frozen=True)
class Preset:
    """A published model's shape.

    Attributes:
        config: Keys of its `config.json` that differ from the family's defaults.
        parameters: Parameters of `task`, as published or counted in the published checkpoint.
        task: What is counted.
    """

    config: Mapping[str, Any]
    parameters: int
    task: str


@dataclass(frozen=True)
class Family:
    """Everything that a `model_type` needs.

    Attributes:
        model_type: As `config.json` calls it.
        config: Our config class.
        fixed: Facts that all its models share.
        items: How the keys of `config.json` become facts; see `zoo.checkpoints.facts`.
        rows: The base model's tensors.
        forms: Tasks.
        variants: Tasks that some files hold in a second form; its `when` decides.
        prefix: The base model's prefix in the tensors' names, without the dot.
        ignored: Patterns (regular expressions) of tensors that carry no parameter.
        renamed: (pattern, replacement) pairs that give older names their present form.
        head_by_file: Names of a language model's head and of its token embedding, where the file
            says whether they are tied, not its config: they are unless the file has a head that
            differs.
        presets: Published shapes by name.
        source: Paper and model card.
    """

    model_type: str
    config: type[TransformerConfig]
    fixed: Mapping[str, Any]
    items: Sequence[Item]
    rows: tuple[Row, ...]
    forms: Mapping[str, Form]
    variants: Mapping[str, Form] = field(default_factory=dict)
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    head_by_file: tuple[str, str] | None = None
    presets: Mapping[str, Preset] = field(default_factory=dict)
    source: str = ""

    def decode(self, values: Mapping[str, Any], where: str = "config.json") -> TransformerConfig:
        """Our config of a `config.json`.

        Raises:
            ConfigError: A key is missing, not supported or not understood; all keys that are not
                understood are named.
        """
        reader = Reader(values, where)
        if "quantization_config" in reader:
            raise reader.refuse(
                "quantization_config",
                "is not read: dequantize the model with the library that made it, save it and "
                "read that folder",
            )
        facts = dict(self.fixed)
        for item in self.items:
            facts |= item.decode(reader)
        for _, form in self.all_forms():
            if callable(form.head):
                form.head(reader)  # what only a head reads is read
        unread = reader.unread()
        if unread:
            named = ", ".join(f"{key} = {values[key]!r}" for key in unread)
            raise ConfigError(
                f"{where} ({self.model_type}): {named} not understood; it might change the model's "
                "numbers, so the checkpoint is not read. Remove the key if it does not."
            )
        return self.config(**facts)

    def encode(self, config: TransformerConfig) -> dict[str, Any]:
        """The `config.json` of our config; `decode` gives the config back."""
        written: dict[str, Any] = {"model_type": self.model_type}
        for item in self.items:
            written |= item.encode(config)
        return written

    def all_forms(self) -> list[tuple[str, Form]]:
        """(task, form) of all, variants first."""
        return [*self.variants.items(), *self.forms.items()]

    def form_of(self, model: Any) -> Form:
        """The form of a model's task: that of the file it was read from, or the usual one."""
        pretrained = model.pretrained or {}
        own = pretrained.get("model_type") == self.model_type
        return self.form(model.task, pretrained["config"] if own else None)

    def form(self, task: str, values: Mapping[str, Any] | None = None) -> Form:
        """The form of a task, in the file whose config.json is given.

        Raises:
            ConfigError: The family has none.
        """
        if task == "sentence-similarity" and task not in self.forms:
            task = "feature-extraction"
        if task not in self.forms:
            raise ConfigError(
                f"{self.model_type} models have no form for the task {task!r}, "
                f"expected one of {', '.join(self.forms)}"
            )
        variant = self.variants.get(task)
        if variant is not None and values is not None and variant.when(values):
            return variant
        return self.forms[task]

    def prefix_of(self, form: Form) -> str:
        """What stands before the base model's names in a file of this form, with its dot, or ""."""
        prefix = self.prefix if form.prefix is None else form.prefix
        return f"{prefix}." if prefix and form.prefixed else ""

    def head_facts(self, form: Form, values: Mapping[str, Any]) -> dict[str, Any]:
        """Facts of our head in a file of this form."""
        head = form.head
        return dict(head(Reader(values, "config.json")) if callable(head) else head)

    def task_of(self, architectures: Sequence[str]) -> str:
        """The task of a file's `architectures`; the base model's where there are none.

        Raises:
            ConfigError: The class is not known.
        """
        for name in architectures:
            for task, form in self.all_forms():
                if name in form.architectures:
                    return task
        if not architectures and "feature-extraction" in self.forms:
            return "feature-extraction"
        known = sorted({name for _, form in self.all_forms() for name in form.architectures})
        raise ConfigError(
            f"architectures = {list(architectures)!r} says no task that is known here: "
            f"give task=..., or expected one of {', '.join(known)}"
        )
