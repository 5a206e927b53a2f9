"""Between a model's variables and a file's tensors: a loop for each direction, strict both ways."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from zoo.checkpoints.deferred import set_value
from zoo.checkpoints.family import Family
from zoo.checkpoints.table import Entry, expand
from zoo.checkpoints.tensors import TensorFolder
from zoo.errors import DataError


def variables_by_path(model: Any) -> dict[str, Any]:
    """The model's weights by their path below the model, dropout's seeds left out."""
    return {
        variable.path.split("/", 1)[-1]: variable
        for variable in model.weights
        if "seed_generator" not in variable.path
    }


def entries(family: Family, model: Any) -> list[Entry]:
    """The weight table of one model.

    Raises:
        DataError: A variable stands in no row.
    """
    paths = variables_by_path(model)
    form = family.form_of(model)
    prefix = family.prefix_of(form)
    found = list(expand((*family.rows, *form.rows), paths, model.config, prefix))
    named = [name for entry in found for name in entry.ours]
    left = sorted(set(paths) - set(named))
    if left:
        raise DataError(f"{family.model_type} has no row for {', '.join(left)}")
    return found


def with_stored_head(family: Family, config: Any, folder: TensorFolder) -> Any:
    """The config with `tie_embeddings` as the tensors have it; see `Family.head_by_file`."""
    head, table = family.head_by_file or ("", "")
    if not {table} <= set(folder.places):
        return config
    own = head in folder.places and not np.array_equal(folder.read(head), folder.read(table))
    return dataclasses.replace(config, tie_embeddings=not own)


def load_weights(
    family: Family, model: Any, folder: TensorFolder, new_head: bool = False
) -> list[str]:
    """Sets every variable of `model` from the tensors of a folder.

    Args:
        family: The tables.
        model: The model.
        folder: The tensors.
        new_head: The head's tensors may be missing; it then keeps its first values.

    Returns:
        Names of tensors that belong to other tasks and were left.

    Raises:
        DataError: Missing, unused and mis-shaped tensors, all in one message.
    """
    table = entries(family, model)
    names = _canonical_names(family, model, folder, table)
    paths = variables_by_path(model)
    main = {name for entry in table for name in entry.theirs}
    others = _names_of_other_tasks(family, model)
    problems: list[str] = []
    used: set[str] = set()
    for entry in table:
        missing = [name for name in entry.theirs if name not in names]
        if missing and entry.default is not None:
            for path, value in zip(entry.ours, entry.default(model.config), strict=True):
                set_value(paths[path], value)
            continue
        if missing and new_head and all(path.startswith("head/") for path in entry.ours):
            continue
        if missing:
            problems.append(f"missing {', '.join(missing)} (for {', '.join(entry.ours)})")
            continue
        used.update(entry.theirs)
        arrays = [folder.read(names[name]) for name in entry.theirs]
        tied = [
            alias
            for alias in entry.aliases
            if alias in names
            and alias not in main
            and (model.config.tie_embeddings or not others(alias))  # else another task's own head
        ]
        used.update((*tied, *(name for name in entry.unused if name in names)))
        problems += [
            f"{alias} differs from {entry.theirs[0]}, to which it is tied"
            for alias in tied
            if not np.array_equal(folder.read(names[alias]), arrays[0])
        ]
        problems += _assign(entry, arrays, paths, model.config)
    left = sorted(set(names) - used)
    unused = [name for name in left if not others(name)]
    problems += [f"unused {name} {list(folder.shape(names[name]))}" for name in unused]
    if problems:
        shown = "\n".join(f"  {line}" for line in problems[:40])
        more = f"\n  and {len(problems) - 40} more" if len(problems) > 40 else ""
        raise DataError(
            f"{folder.folder}: {len(problems)} problems with the weights of a {family.model_type} "
            f"model for {model.task}:\n{shown}{more}"
        )
    return [name for name in left if others(name)]


def _assign(entry: Entry, arrays: list[np.ndarray], paths: Any, config: Any) -> list[str]:
    """Sets the variables of one entry; returns what is wrong."""
    try:
        values = entry.how.load(arrays, config)
    except ValueError as error:
        shapes = ", ".join(
            f"{n} {list(a.shape)}" for n, a in zip(entry.theirs, arrays, strict=True)
        )
        return [f"mis-shaped {shapes}, which is {entry.how.name}: {error}"]
    problems = []
    for path, value in zip(entry.ours, values, strict=True):
        variable = paths[path]
        if tuple(variable.shape) != value.shape:
            problems.append(
                f"mis-shaped {', '.join(entry.theirs)}: {list(value.shape)} for {path}, "
                f"expected {list(variable.shape)}"
            )
        else:
            set_value(variable, value)
    return problems


def _canonical_names(
    family: Family, model: Any, folder: TensorFolder, table: list[Entry]
) -> dict[str, str]:
    """Our table's names -> the file's: older names renamed, the prefix added or taken away."""
    known = {name for entry in table for name in (*entry.theirs, *entry.aliases, *entry.unused)}
    prefixes = {f"{form.prefix}." for _, form in family.all_forms() if form.prefix}
    prefixes |= {f"{family.prefix}."} if family.prefix else set()
    names: dict[str, str] = {}
    for original in folder.places:
        name = original
        for pattern, replacement in family.renamed if original not in known else ():
            name = re.sub(pattern, replacement, name)
        if name not in known:
            bare = next((name.removeprefix(p) for p in prefixes if name.startswith(p)), name)
            others = (bare, *(prefix + bare for prefix in prefixes))
            name = next((other for other in others if other in known), name)
        if not any(re.search(pattern, name) for pattern in family.ignored):
            names[name] = original
    return names


def _names_of_other_tasks(family: Family, model: Any) -> Any:
    """Whether a name belongs to the head of another task of the family."""
    own = set(map(id, family.form_of(model).rows))
    patterns = [
        re.escape(name).replace(r"\{i\}", r"\d+").replace(r"\{e\}", r"\d+")
        for _, form in family.all_forms()
        for row in form.rows
        if id(row) not in own
        for name in (*row.theirs, *row.aliases, *row.unused)
    ]
    prefix = f"(?:{re.escape(family.prefix)}\\.)?" if family.prefix else ""
    matcher = re.compile(f"^{prefix}(?:{'|'.join(patterns)})$") if patterns else None
    return lambda name: matcher is not None and matcher.match(name) is not None


def stored_weights(family: Family, model: Any) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) of every tensor, as the reference names and shapes them."""
    import keras  # here, so that families can be listed without a framework

    paths: Mapping[str, Any] = variables_by_path(model)
    for entry in entries(family, model):
        arrays = [keras.ops.convert_to_numpy(paths[path]) for path in entry.ours]
        yield from zip(entry.theirs, entry.how.store(arrays, model.config), strict=True)
