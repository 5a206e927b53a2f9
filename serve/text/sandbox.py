"""Runs chat templates, which come with models and are not trusted, in jinja2's sandbox.

The sandbox keeps a template from attributes of Python's internals, from changing what it is given
and from `range` beyond 100,000. Here its loops, its output and the repetition of texts are bounded
as well. What is not bounded: the memory of texts that a template joins to themselves, and the time
of one call of a filter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from serve.errors import BundleError, InputError

MOST_STEPS = 200_000  # turns of loops and calls of macros; a message takes one or a few
MOST_CHARACTERS = 16_000_000  # of output
_MOST_REPEATED = 1_000_000  # items or characters that a multiplication may make
_MOST_POWER = 64

_left: ContextVar[int] = ContextVar("steps left")
_now: ContextVar[datetime | None] = ContextVar("now", default=None)


class _RefusalError(TemplateError):
    """The template called raise_exception."""


class _GenerationBlock(Extension):
    """`{% generation %}`, with which templates mark what training learns from: no meaning here."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own type

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """A namespace without names that begin with an underscore, where Python keeps its internals."""

    def __init__(*args: Any, **values: Any) -> None:
        self, *rest = args  # so that a template may call a value `self`
        given = dict(*rest, **values)
        for name in given:
            _check_name(name)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        Namespace.__setitem__(self, name, value)


class _Dict:
    """What templates use of `dict`, without the class."""

    def __call__(self, *args: Any, **values: Any) -> dict[Any, Any]:
        return dict(*args, **values)

    def fromkeys(self, keys: Any, value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


class _Environment(ImmutableSandboxedEnvironment):
    """With what chat templates use, and bounds."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
        )
        self.globals.pop("lipsum")  # writes as much as it is told to
        self.filters["tojson"] = _to_json
        self.globals.update(
            raise_exception=_raise_exception,
            strftime_now=_strftime_now,
            namespace=_Namespace,
            dict=_Dict(),
        )

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Every turn of a loop and every call of a macro counts."""
        tree = super()._parse(source, name, filename)
        found: Any = tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock))
        for node in found:
            count = nodes.Call(nodes.EnvironmentAttribute("count"), [], [], None, None)
            node.body.insert(0, nodes.ExprStmt(count).set_lineno(node.lineno))
        return tree

    @staticmethod
    def count() -> None:
        """Take a step from what the rendering has left."""
        left = _left.get() - 1
        if left < 0:
            raise SecurityError(f"it takes more than {MOST_STEPS} steps")
        _left.set(left)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse to make numbers and texts of any size."""
        if operator == "**" and (not isinstance(right, int) or abs(right) > _MOST_POWER):
            raise SecurityError(f"a power of {right!r:.40}: expected at most {_MOST_POWER}")
        for many, times in ((left, right), (right, left)):
            sized = isinstance(many, str | bytes | list | tuple) and isinstance(times, int)
            if sized and len(many) * times > _MOST_REPEATED:
                raise SecurityError(f"it repeats a text or list {times} times")
        return super().call_binop(context, operator, left, right)


class SandboxedTemplate:
    """A compiled template.

    Args:
        source: Its text, as `tokenizer.apply_chat_template` of transformers takes it.
        name: What to call it in errors.

    Raises:
        BundleError: It is no template.
    """

    def __init__(self, source: str, name: str) -> None:
        self._name = name
        try:
            self._template: Template = _Environment().from_string(source)
        except TemplateSyntaxError as error:
            raise BundleError(
                f"{name} is no Jinja template: line {error.lineno}: {error}"
            ) from error
        except (TemplateError, RecursionError) as error:
            raise BundleError(f"{name} is no Jinja template: {error}") from error

    def render(self, variables: Mapping[str, Any], now: datetime | None = None) -> str:
        """The template's text for some variables, which hold plain JSON values.

        Args:
            variables: What the template may use.
            now: The time that `strftime_now` tells; by default the time it is.

        Raises:
            BundleError: The template tries what it must not.
            InputError: It refuses the variables, or fails on them.
        """
        left, time = _left.set(MOST_STEPS), _now.set(now)
        try:
            return self._joined(variables)
        except SecurityError as error:
            raise BundleError(f"{self._name} does what a template must not: {error}") from error
        except _RefusalError as error:
            raise InputError(f"{self._name} refuses the conversation: {error}") from error
        except Exception as error:  # whatever a template's own expressions run into
            raise InputError(
                f"{self._name} fails on the conversation: {type(error).__name__}: {error}"
            ) from error
        finally:
            _left.reset(left)
            _now.reset(time)

    def _joined(self, variables: Mapping[str, Any]) -> str:
        pieces, size = [], 0
        for piece in self._template.generate(variables):
            pieces.append(piece)
            size += len(piece)
            if size > MOST_CHARACTERS:
                raise SecurityError(f"it writes more than {MOST_CHARACTERS} characters")
        return "".join(pieces)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace with the attribute {name!r}")


def _raise_exception(message: Any) -> None:
    raise _RefusalError(str(message))


def _strftime_now(form: str) -> str:
    return (_now.get() or datetime.now()).strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is; jinja2's own filter escapes what HTML would."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
