"""Output that follows a regular expression, a JSON schema, a list of choices or a grammar.

The automaton is llguidance's (https://github.com/guidance-ai/llguidance): it works on bytes, so a
token may end within a character. What it is told of the tokenizer is made here, from what the
tokenizer's decoder writes for each token; kinds of tokenizers that it does not know work as well.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from serve.decoding.json_schema import schema_text
from serve.decoding.settings import GenerationSettings
from serve.errors import InputError
from serve.text.token_bytes import TokenBytes
from serve.text.tokenizer import TextTokenizer
from serve.text.unicode import check_unicode

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_KEPT = 64  # compiled grammars per tokenizer
# All tokens that spell what is to come may follow, not only those that a tokenizer would choose.
_OPTIONS = '\n%llguidance {"no_forcing": true}\n'
_DEAD_END = "NoExtension"  # how llguidance's error begins where no token may follow
_MEANINGFUL = re.compile(r"[\\.+*?()|\[\]{}^$#&~/-]")  # in regular expressions
_GRAMMAR = "grammar"
_FILE_NAME = re.compile(r"[^\s:]+\.\w{1,8}")  # a grammar has a colon behind `start`
# How llguidance's errors begin and go on, around what is wrong: a line of its own grammar.
_PLACE = re.compile(r"^(?:at )?(\d+)\((\d+)\): (?:failed to compile JSON schema: )?")
_QUOTED = re.compile(r"^\s*\d+ \| ")
_REGEX = re.compile(r'invalid regex (".*?") \(in regex\): .*?^error: ', re.DOTALL | re.MULTILINE)
_CONTROL = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


class Grammar:
    """A constraint, ready for the tokens of a model; safe to use from several threads."""

    def __init__(self, source: str, vocabulary: Vocabulary, what: str) -> None:
        """Takes the grammar in llguidance's form, and what to call it in errors; see `compile`."""
        from llguidance import LLMatcher

        self.vocabulary = vocabulary
        wrong = LLMatcher.validate_grammar(source, vocabulary.tokenizer)
        if wrong and not wrong.startswith("WARNING"):
            raise InputError(f"{what}: {_reason(wrong, what)}")
        self._begin = LLMatcher(vocabulary.tokenizer, source, log_level=0)
        first = self.start()
        if first.stuck:
            raise InputError(f"{what}: the tokenizer has no token with which an answer could begin")

    @classmethod
    def compile(
        cls,
        settings: GenerationSettings,
        tokenizer: TextTokenizer,
        eos_token_ids: Sequence[int],
        vocabulary: int,
    ) -> Grammar:
        """The grammar of a request; the same request again costs a look-up.

        Args:
            settings: One of `regex`, `json_schema`, `choices` or `grammar` is set.
            tokenizer: The model's.
            eos_token_ids: Tokens that end an answer.
            vocabulary: Width of the model's scores, which may be padded beyond the tokenizer's.

        Raises:
            InputError: The expression, schema or grammar is wrong or not supported, or the
                tokenizer cannot be followed byte by byte.
        """
        ends = tuple(sorted(set(eos_token_ids)))
        what, source = _source(settings)
        key = (source, ends, vocabulary)
        with _lock:
            kept = _grammars.setdefault(tokenizer, OrderedDict())
            if key not in kept:
                made = _vocabulary(tokenizer, ends, vocabulary)
                _refuse_unwritable(settings.allowed_choices, made.table)
                kept[key] = cls(source, made, what)
                if len(kept) > _KEPT:
                    kept.popitem(last=False)
            kept.move_to_end(key)
            return kept[key]

    def start(self) -> Matcher:
        """The state of a text of which nothing is written yet."""
        return Matcher(self.vocabulary, self._begin.deep_copy(), True)


class Matcher:
    """How far one text has come in its grammar."""

    def __init__(self, vocabulary: Vocabulary, state: LLMatcher, empty: bool) -> None:
        """Made by `Grammar.start` and `fork`."""
        self._vocabulary = vocabulary
        self._state = state
        self._empty = empty  # the first token may stand for other bytes than later ones
        self._follow: np.ndarray | None = None

    def mask(self, scores: np.ndarray) -> None:
        """Set the scores of tokens that may not follow to minus infinity.

        An end token may follow exactly when the text may end. Where nothing may (see `stuck`),
        no score is left.

        Args:
            scores: float32 [vocabulary], changed in place.
        """
        ends = self._vocabulary.ends
        kept = scores[ends]
        np.copyto(scores, -np.inf, where=~self._allowed())
        scores[ends] = kept if self._state.is_accepting() else -np.inf

    def advance(self, token: int) -> None:
        """Go on by a chosen token, which is not an end token; special tokens add nothing.

        Raises:
            InputError: The token may not follow.
        """
        if not self._vocabulary.writes(token):
            return
        blank = self._empty and token in self._vocabulary.blank
        if not blank and not self._state.consume_token(token + self._offset):
            raise InputError(
                f"token {token} may not follow: {_first_lines(self._state.get_error())}"
            )
        self._empty, self._follow = False, None

    def fork(self) -> Matcher:
        """A state that goes its own way from here."""
        copy = Matcher(self._vocabulary, self._state.deep_copy(), self._empty)
        copy._follow = self._follow
        return copy

    @property
    def complete(self) -> bool:
        """Nothing but the end may follow."""
        return self._state.is_accepting() and not self._allowed().any()

    @property
    def stuck(self) -> bool:
        """Nothing may follow, nor may the text end: the tokenizer lacks a character it needs."""
        return not self._state.is_accepting() and not self._allowed().any()

    @property
    def _offset(self) -> int:
        return self._vocabulary.size if self._empty and self._vocabulary.differs else 0

    def _allowed(self) -> np.ndarray:
        """Which tokens may follow, bool [vocabulary]."""
        if self._follow is None:
            bits = np.frombuffer(self._state.compute_bitmask(), np.uint8)
            size, offset = self._vocabulary.size, self._offset
            flags = np.unpackbits(bits, bitorder="little").view(np.bool_)
            self._follow = flags[offset : offset + size]
            if self._empty and flags[:size].any():
                self._follow[self._vocabulary.blank] = True
            if self._state.is_error():
                message = self._state.get_error()
                if not message.startswith(_DEAD_END):
                    raise InputError(f"the grammar cannot be followed: {_first_lines(message)}")
                self._follow = np.zeros(size, np.bool_)
        return self._follow


class Vocabulary:
    """The tokens of a model as llguidance takes them.

    Rows of the table: the bytes of each token behind others, then, where these differ, the bytes
    of each as the first of a text, and last the one end token that llguidance is told of. The
    model's own end tokens are none of its business.

    Attributes:
        size: Width of the model's scores.
        table: The bytes of each token.
        ends: End tokens, int64 [any].
        differs: Whether a first token may stand for other bytes.
        blank: Tokens that add nothing as the first, int64 [any].
        tokenizer: llguidance's view of the table.
    """

    def __init__(self, table: TokenBytes, ends: Sequence[int], size: int) -> None:
        wrapper, make = _llguidance()
        self.size = size
        self.table = table
        self.ends = np.array([token for token in ends if token < size], np.int64)
        self.differs = table.first != table.rest
        self.blank = np.array([token for token in table.blank if token < size], np.int64)
        self._rest = self._fit(table.rest)
        rows = self._rest + (self._fit(table.first) if self.differs else [])
        # No text in UTF-8 holds the byte 255, which marks special tokens there.
        usable = [b"" if token.startswith(b"\xff") else token for token in rows]
        self.tokenizer: LLTokenizer = make(wrapper(_Tokens(usable)))

    def writes(self, token: int) -> bool:
        """Whether a token adds anything to a text."""
        return 0 <= token < self.size and self._rest[token] != b""

    def _fit(self, tokens: Sequence[bytes]) -> list[bytes]:
        """As many as the model has scores; end tokens are no text."""
        fitted = [*tokens[: self.size], *[b""] * (self.size - len(tokens))]
        for token in self.ends:
            fitted[token] = b""
        return fitted


class _Tokens:
    """What `llguidance.TokenizerWrapper` asks for."""

    bos_token_id = None

    def __init__(self, rows: list[bytes]) -> None:
        self.tokens = [*rows, b"<end>"]
        self.eos_token_id = len(rows)
        self.special_token_ids = [len(rows)]

    def __call__(self, text: bytes) -> list[int]:
        """Never asked, as nothing is forced."""
        return []


_lock = Lock()
_grammars: WeakKeyDictionary[TextTokenizer, OrderedDict[Any, Grammar]] = WeakKeyDictionary()
_vocabularies: WeakKeyDictionary[TextTokenizer, dict[Any, Vocabulary]] = WeakKeyDictionary()


def _vocabulary(tokenizer: TextTokenizer, ends: tuple[int, ...], size: int) -> Vocabulary:
    made = _vocabularies.setdefault(tokenizer, {})
    if (ends, size) not in made:
        made[ends, size] = Vocabulary(TokenBytes.of(tokenizer), ends, size)
    return made[ends, size]


def _llguidance() -> tuple[Any, Any]:
    try:
        from llguidance import LLTokenizer, TokenizerWrapper
    except ModuleNotFoundError:
        raise InputError(
            "regex, json_schema, choices and grammar need llguidance: "
            "pip install 'keras-text-zoo[constrained]'"
        ) from None
    return TokenizerWrapper, LLTokenizer


def _source(settings: GenerationSettings) -> tuple[str, str]:
    """What the constraint is called in errors, and the grammar in llguidance's form of Lark."""
    _llguidance()
    if settings.regex is not None:
        what = f"regex={settings.regex!r:.200}"
        source = f"start: {_terminal(_text(what, settings.regex))}"
    elif settings.json_schema is not None:
        what, source = "json_schema", f"start: %json {schema_text(settings.json_schema)}"
    elif settings.choices:
        what = f"choices={settings.choices!r:.200}"
        texts = (_literal(_text(what, choice)) for choice in settings.allowed_choices)
        source = f"start: {_terminal('|'.join(texts))}"
    elif settings.grammar is not None:
        what, source = _GRAMMAR, _text(_GRAMMAR, settings.grammar)
        _refuse_file_name(settings.grammar)
    else:
        raise InputError("no constraint is set: expected regex, json_schema, choices or grammar")
    return what, source + _OPTIONS


def _terminal(expression: str) -> str:
    """The expression between slashes; its digits are 0 to 9, of which Unicode has many more."""
    from llguidance import regex_to_lark

    return f"/{regex_to_lark(expression, 'd')}/"


def _text(what: str, text: Any) -> str:
    """The text itself, if it is one that bytes can hold."""
    if not isinstance(text, str) or not text:
        raise InputError(f"{what}: expected a text of at least one character")
    check_unicode(what, text)
    return text


def _literal(text: str) -> str:
    """A regular expression for the text itself."""
    escaped = _MEANINGFUL.sub(lambda found: "\\" + found[0], text)
    return "".join(_CONTROL.get(character, character) for character in escaped)


def _refuse_unwritable(choices: Sequence[str], table: TokenBytes) -> None:
    for choice in choices:
        if not table.spells(choice):
            raise InputError(
                f"choices holds {choice!r}, which the model's tokenizer cannot write: "
                "it has no tokens for all of its characters"
            )


def _refuse_file_name(grammar: str) -> None:
    if _FILE_NAME.fullmatch(grammar.strip()):
        raise InputError(
            f"grammar={grammar!r:.200} is no grammar, which has a rule named start; if it is the "
            "name of a file: there is none here"
        )


def _reason(message: str, what: str) -> str:
    """What llguidance finds wrong, without its own grammar around it.

    Only a grammar is as its author wrote it, so only there the place is told.
    """
    found = _PLACE.match(message)
    place = f"line {found[1]}, column {found[2]}: " if found and what == _GRAMMAR else ""
    lines = []
    for line in _REGEX.sub(r"regex \1: ", _PLACE.sub("", message, 1)).splitlines():
        if _QUOTED.match(line):
            break
        lines.append(line)
    return place + _first_lines("\n".join(lines))


def _first_lines(message: str) -> str:
    """Without the tokenizer and parser states that long messages go on with."""
    return " ".join(line.strip() for line in message.strip().splitlines()[:6])[:400]
