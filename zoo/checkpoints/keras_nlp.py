"""`from_keras_nlp`: a model of keras-nlp, now called keras-hub, becomes one of this zoo."""

import dataclasses
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.checkpoints.deferred import initialize, without_values
from zoo.checkpoints.keras_nlp_rows import Twin
from zoo.checkpoints.keras_nlp_twins import TWINS
from zoo.checkpoints.load import labels_of, policy_of
from zoo.checkpoints.weights import load_weights
from zoo.config import nearest
from zoo.errors import ConfigError, DataError

log = logging.getLogger(__name__)

TASKS = {
    "TextClassifier": "text-classification",
    "MaskedLM": "fill-mask",
    "CausalLM": "text-generation",
    "Seq2SeqLM": "text2text-generation",
}
"""Their task classes, and what a head of theirs is here."""
HEADLESS = ("text-generation", "text2text-generation", "feature-extraction")
"""What a bare backbone can do: the first that its twin knows is the default."""


def from_keras_nlp(
    model_or_preset: Any,
    task: str | None = None,
    dtype: str | None = None,
    labels: Sequence[str] | None = None,
    max_length: int | None = None,
) -> Any:
    """Takes over config and weights of a keras-nlp backbone, or of a task model around one.

    Its tokenizer is not taken over. A classifier of theirs may end in a softmax; ours gives logits.

    Args:
        model_or_preset: A keras-nlp model, or a preset's name or folder, whose backbone is loaded.
        task: A name in `zoo.TASKS`; by default that of a task model, or for a backbone to write
            text where it can, else feature-extraction. Where theirs has no head for it, the head
            is new and has to be trained.
        dtype: Keras' dtype policy, as for `zoo.from_pretrained`.
        labels: Names of the classes; by default LABEL_0, LABEL_1, ...
        max_length: Longest text, where their config does not say it; by default the family's.

    Returns:
        A `zoo.TaskModel`, which `save_pretrained` writes as a Hugging Face folder.

    Raises:
        ConfigError: There is no twin of the class, or it does not support a value of the config.
        DataError: The preset cannot be loaded, or a variable of ours or theirs is left over.
    """
    from zoo.families import family
    from zoo.tasks import TaskModel

    policy = policy_of(dtype)
    theirs = model_or_preset
    if isinstance(theirs, str):
        theirs = _preset(theirs)
    backbone = getattr(theirs, "backbone", theirs)
    variables = Variables(theirs)
    twin = twin_of(backbone)
    where = f"{type(backbone).__name__}'s config"
    tied = not any(name.endswith("/reverse_embeddings") for name in variables.places)
    values = twin.translate(backbone.get_config(), tied, where)
    if max_length is not None:
        if twin.length is None:
            raise ConfigError(f"max_length = {max_length!r}: {where} has its own longest text")
        values[twin.length] = max_length
    found = family(twin.model_type)
    config = found.decode(values, where)
    stored = _stored_task(theirs)
    default = next(name for name in HEADLESS if name in found.forms)
    task = task or stored or ("feature-extraction" if default not in twin.heads else default)
    form = found.form(task)
    head_rows = twin.heads.get(task, form.rows)
    complete = not form.rows or task == stored or (task in HEADLESS and task in twin.heads)
    if complete and form.rows and task not in twin.heads:
        raise ConfigError(f"the head of a {type(theirs).__name__} has no twin: give its backbone")
    wanted = None
    if task in ("text-classification", "token-classification"):
        wanted = list(labels or labels_of({"num_labels": getattr(theirs, "num_classes", None)}))
    with without_values() as waiting:
        model = TaskModel(
            config,
            task,
            labels=wanted,
            head=found.head_facts(form, values),
            dtype=policy,
        )
    named = {**values, "architectures": list(form.architectures)}
    model.pretrained = {"model_type": found.model_type, "config": named}
    forms = {
        name: dataclasses.replace(form, rows=rows, prefix=None)
        for name, rows in {**twin.heads, task: head_rows}.items()
    }
    if "feature-extraction" in found.forms:
        forms.setdefault("feature-extraction", dataclasses.replace(form, rows=()))
    table = dataclasses.replace(
        found, rows=twin.rows, forms=forms, variants={}, prefix="", ignored=(), renamed=()
    )
    left = load_weights(table, model, variables, new_head=not complete)
    initialize(waiting)
    if left:
        log.info("left out variables of other tasks: %s", ", ".join(left))
    if not complete:
        log.warning("%s has no head for %s: the head is new, train it.", variables.folder, task)
    return model


def twin_of(backbone: Any) -> Twin:
    """The twin of a backbone.

    Raises:
        ConfigError: Its class has none; the message names the nearest.
    """
    name = type(backbone).__name__
    if name not in TWINS:
        raise ConfigError(f"{name} has no twin in this zoo: {nearest(name, sorted(TWINS))}")
    twin = TWINS[name]
    return twin if isinstance(twin, Twin) else twin(backbone.get_config())


def _stored_task(theirs: Any) -> str | None:
    names = [cls.__name__ for cls in type(theirs).__mro__]
    return next((task for name, task in TASKS.items() if name in names), None)


def named_variables(model: Any) -> dict[str, Any]:
    """Their variables by path. What Keras numbers is not: "t5_layer_norm_7" is "t5_layer_norm", and
    where a path comes again, "#1", "#2", ... say which time.
    """
    named: dict[str, Any] = {}
    times: dict[str, int] = {}
    for variable in model.weights:
        if "seed_generator" in variable.path:
            continue
        path = re.sub(r"(t5_layer_norm)_\d+", r"\1", variable.path)
        count = times.get(path, 0)
        times[path] = count + 1
        named[f"{path}#{count}" if count else path] = variable
    return named


class Variables:
    """Their variables in the place of a folder's tensors; see `TensorFolder`."""

    def __init__(self, model: Any) -> None:
        self.folder = type(model).__name__
        self.places: Mapping[str, Any] = named_variables(model)

    def shape(self, name: str) -> tuple[int, ...]:
        """A variable's shape."""
        return tuple(self.places[name].shape)

    def read(self, name: str) -> np.ndarray:
        """A variable as float32."""
        import keras

        return keras.ops.convert_to_numpy(self.places[name]).astype(np.float32)


def _preset(name: str) -> Any:
    try:
        import keras_hub
    except ImportError as error:
        raise DataError(
            f"preset {name!r}: keras-hub cannot be imported ({error}); pip install keras-hub, or "
            "give a model"
        ) from error
    try:
        return keras_hub.models.Backbone.from_preset(name)
    except Exception as error:  # the library and its hubs raise whatever they meet
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"preset {name!r} cannot be loaded ({reason}). Expected a folder that save_to_preset "
            "wrote, or a preset's name where its hub can be reached"
        ) from error
