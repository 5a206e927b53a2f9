"""What all pipelines share: one input, a list or an iterator; settings that are checked at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import islice
from typing import Any, TypeVar

from serve.bundle.manifest import Manifest
from serve.errors import InputError

_Item = TypeVar("_Item")
_Settings = TypeVar("_Settings")
_BATCHES_AHEAD = 4


class Pipeline(ABC):
    """Answers inputs of one task.

    Attributes:
        manifest: The bundle.
        batch_size: Most inputs of one run of the model.
        read_ahead: Most inputs of an iterator that are held at once, which bounds memory and lets
            inputs of like lengths share a run. None: four batches.
    """

    manifest: Manifest
    batch_size: int
    settings_type: type[Any]  # a dataclass, where the settings are one
    read_ahead: int | None = None

    @classmethod
    def setting_names(cls) -> list[str]:
        """What `settings` takes."""
        return [field.name for field in fields(cls.settings_type)]

    @classmethod
    def input_keys(cls) -> tuple[tuple[str, ...], ...]:
        """The keys of each kind of dict that an input may be."""
        return ()

    @property
    def task(self) -> str:
        """What the pipeline does; by default the bundle's task."""
        return self.manifest.task

    def __call__(self, inputs: Any, **settings: Any) -> Any:
        """Answer one input, each of a list, or each of an iterator.

        Args:
            inputs: A text, a pair (a tuple of two texts) or a dict, as the task takes them; a list
                of these; or an iterator of these, such as a generator or an open file.
            **settings: Of the task.

        Returns:
            One result; a list in the order of the inputs; or an iterator, which reads at most
            `read_ahead` inputs before it gives their results, in order.

        Raises:
            InputError: A setting or an input is unfit; `error.row` says which input.
        """
        chosen = self.settings(**settings)
        check_size("batch_size", self.batch_size)
        check_count("read_ahead", self.read_ahead)
        if isinstance(inputs, list):
            return self._answer(inputs, chosen) if inputs else []
        if isinstance(inputs, Iterator):
            return self._answer_iterator(inputs, chosen)
        try:
            return self._answer([inputs], chosen)[0]
        except InputError as error:
            error.row = None  # there is only one
            raise

    @abstractmethod
    def settings(self, **given: Any) -> Any:
        """The settings of a call: those given, and the defaults of task and model.

        Raises:
            InputError: One is unknown or out of range.
        """

    @abstractmethod
    def _answer(self, items: Sequence[Any], settings: Any) -> list[Any]:
        """One result per item; at least one item."""

    def _answer_iterator(self, inputs: Iterator[Any], settings: Any) -> Iterator[Any]:
        """Results in order, a few batches at a time; what stands before an error is answered."""
        most = self.read_ahead or _BATCHES_AHEAD * self.batch_size
        done = 0
        failure: Exception | None = None
        while failure is None:
            items, failure = _read_some(inputs, most)
            answers, unfit = self._answer_before(items, settings)
            if unfit is not None:
                unfit.row = None if unfit.row is None else unfit.row + done
                failure = unfit
            yield from answers
            if len(items) < most:
                break
            done += len(items)
        if failure is not None:
            raise failure

    def _answer_before(
        self, items: Sequence[Any], settings: Any
    ) -> tuple[list[Any], InputError | None]:
        """Results of the items before the first unfit one, and the error about that."""
        error: InputError | None = None
        while items:
            try:
                return self._answer(items, settings), error
            except InputError as found:
                error = found
                items = items[: found.row or 0]  # an earlier one may be unfit in another way
        return [], error


def _read_some(inputs: Iterator[Any], most: int) -> tuple[list[Any], Exception | None]:
    """Up to `most` items, and what ended the reading before its time."""
    items: list[Any] = []
    try:
        for item in islice(inputs, most):
            items.append(item)  # noqa: PERF402 -- what was read is kept when it fails
    except Exception as error:  # of the caller's iterator, raised when these are answered
        return items, error
    return items, None


def read_settings(kind: type[_Settings], given: Mapping[str, Any], task: str) -> _Settings:
    """Settings of a dataclass from keyword arguments.

    Raises:
        InputError: There is no such setting; the message lists those that the task knows.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            raise InputError(f"{task} has no setting {name!r}: it knows {', '.join(known)}")
    return kind(**given)


def for_each(items: Iterable[_Item], read: Callable[[_Item], Any]) -> list[Any]:
    """`read` of every item; an InputError of it says which item it is about."""
    found = []
    for row, item in enumerate(items):
        try:
            found.append(read(item))
        except InputError as error:
            error.row = row
            raise
    return found


def check_count(name: str, value: Any) -> None:
    """Refuse what is no whole number from 1; None is left to mean "no limit"."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InputError(f"{name}={value!r}: expected a whole number from 1")


def check_size(name: str, value: Any) -> None:
    """Refuse what is no whole number from 1, None included."""
    if value is None:
        raise InputError(f"{name}=None: expected a whole number from 1")
    check_count(name, value)


def text_list(name: str, texts: Any) -> list[Any]:
    """A list of what should be several texts: a list, a tuple, a generator, ...

    Raises:
        InputError: It is one text, which would be read letter by letter, or nothing of the kind.
    """
    if isinstance(texts, str | bytes | Mapping) or not isinstance(texts, Iterable):
        hint = f"; one text is [{texts!r:.40}]" if isinstance(texts, str) else ""
        raise InputError(
            f"{name}: expected a list of texts, got {type(texts).__name__} {texts!r:.40}{hint}"
        )
    return list(texts)


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Refuse what is none of the choices."""
    if value not in choices:
        raise InputError(f"{name}={value!r}: expected one of {', '.join(map(repr, choices))}")
