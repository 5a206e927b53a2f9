"""Regular expressions of the library's kind, as trees; the subset that tokenizers use."""

import re
from dataclasses import dataclass

from export.strings.errors import InexactError


@dataclass(frozen=True)
class Look:
    """A condition on a neighbour: the pattern of one character, or None for the text's end."""

    ahead: bool
    negative: bool
    atom: str | None


@dataclass(frozen=True)
class Atom:
    """One character that matches `pattern`, and whose neighbours meet `looks`."""

    pattern: str
    looks: tuple[Look, ...] = ()


@dataclass(frozen=True)
class Seq:
    """Parts one behind the other; parts may be `Look`s."""

    parts: tuple["Node", ...]


@dataclass(frozen=True)
class Alt:
    """The first of the branches that matches."""

    branches: tuple["Node", ...]


@dataclass(frozen=True)
class Repeat:
    """A part `least` to `most` times (None: without end), as often as possible if `greedy`."""

    part: "Node"
    least: int
    most: int | None
    greedy: bool


Node = Atom | Look | Seq | Alt | Repeat

_ESCAPE = re.compile(
    r"\\(?:[pP]\{\^?\w+\}|x\{[0-9A-Fa-f ]+\}|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}"
    r"|[sSdDwWhH]|[nrtfva0e]|[^\w\s])"
)
_QUANTIFIER = re.compile(r"(?:[*+?]|\{\d*,?\d*\})")
_ANCHORS = {r"\A": Look(False, True, r"[\s\S]"), r"\z": Look(True, True, r"[\s\S]")}


def parse(pattern: str) -> Node:
    """The tree of a pattern, in which every look stands on an atom where it can.

    Raises:
        InexactError: The pattern holds something that is not understood.
    """
    parser = _Parser(pattern)
    node = parser.alternation(False)
    if parser.at < len(pattern):
        raise parser.refuse("an unbalanced parenthesis")
    return settled(node)


def literal(text: str) -> Node:
    """The tree of a text as it is."""
    return Seq(tuple(Atom(re.escape(c) if c.isascii() else c) for c in text))


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.pattern, self.at = pattern, 0

    def refuse(self, what: str) -> InexactError:
        return InexactError(f"the regular expression {self.pattern!r} holds {what}")

    def taken(self, text: str) -> bool:
        if self.pattern.startswith(text, self.at):
            self.at += len(text)
            return True
        return False

    def alternation(self, fold: bool) -> Node:
        branches = [self.sequence(fold)]
        while self.taken("|"):
            branches.append(self.sequence(fold))
        return branches[0] if len(branches) == 1 else Alt(tuple(branches))

    def sequence(self, fold: bool) -> Node:
        parts: list[Node] = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            part = self.item(fold)
            if isinstance(part, Look):
                parts.append(part)
                continue
            parts.append(self.quantified(part))
        return parts[0] if len(parts) == 1 else Seq(tuple(parts))

    def quantified(self, part: Node) -> Node:
        while found := _QUANTIFIER.match(self.pattern, self.at):
            text = found.group()
            self.at = found.end()
            if text in "*+?":
                least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[text]
            else:
                low, comma, high = text[1:-1].partition(",")
                if not (low or high):
                    raise self.refuse(f"the quantifier {text!r}")
                least = int(low or 0)
                most = (int(high) if high else None) if comma else least
            greedy = not self.taken("?")
            if greedy and text in "*+?" and self.pattern.startswith("+", self.at):
                raise self.refuse("a possessive quantifier")
            part = Repeat(part, least, most, greedy)
        return part

    def item(self, fold: bool) -> Node:
        for opening, (ahead, negative) in {
            "(?=": (True, False),
            "(?!": (True, True),
            "(?<=": (False, False),
            "(?<!": (False, True),
        }.items():
            if self.taken(opening):
                inner = self.alternation(fold)
                if not self.taken(")"):
                    raise self.refuse("an unbalanced parenthesis")
                return Look(ahead, negative, self.one(inner))
        for opening in ("(?:", "(?i:", "("):
            if self.taken(opening):
                if opening == "(" and self.pattern.startswith("?", self.at):
                    raise self.refuse("a group that is not known")
                inner = self.alternation(fold or opening == "(?i:")
                if not self.taken(")"):
                    raise self.refuse("an unbalanced parenthesis")
                return inner
        for anchor, look in _ANCHORS.items():
            if self.taken(anchor):
                return look
        return Atom(f"(?i:{text})" if fold else text) if (text := self.atom()) else Seq(())

    def one(self, node: Node) -> str:
        """The pattern of a look's single character."""
        if isinstance(node, Atom) and not node.looks:
            return node.pattern
        if isinstance(node, Alt):
            return "(?:" + "|".join(self.one(branch) for branch in node.branches) + ")"
        raise self.refuse("a condition on more than one character")

    def atom(self) -> str:
        character = self.pattern[self.at]
        if character == "[":
            return self.bracket()
        if character == "\\":
            found = _ESCAPE.match(self.pattern, self.at)
            if found is None:
                raise self.refuse(f"{self.pattern[self.at : self.at + 2]!r}")
            self.at = found.end()
            return found.group()
        if character in "^$":
            raise self.refuse("an anchor of lines")
        self.at += 1
        return character

    def bracket(self) -> str:
        start, depth = self.at, 0
        while self.at < len(self.pattern):
            character = self.pattern[self.at]
            self.at += 2 if character == "\\" else 1
            depth += {"[": 1, "]": -1}.get(character, 0)
            if not depth:
                return self.pattern[start : self.at]
        raise self.refuse("an unbalanced bracket")


def settled(node: Node) -> Node:
    """Moves looks onto the atoms beside them."""
    if isinstance(node, Alt):
        return Alt(tuple(settled(branch) for branch in node.branches))
    if isinstance(node, Repeat):
        return Repeat(settled(node.part), node.least, node.most, node.greedy)
    if not isinstance(node, Seq):
        return node
    parts = [settled(part) for part in node.parts]
    if all(isinstance(part, Look) for part in parts):
        return Seq(tuple(parts))
    done: list[Node] = []
    waiting: list[Look] = []
    for part in parts:
        if isinstance(part, Look):
            if not part.ahead:
                waiting.append(part)
            elif not done:
                raise InexactError("a regular expression begins with a condition on what follows")
            else:
                done[-1] = _last(done[-1], part)
            continue
        for look in waiting:
            if done:
                raise InexactError("a regular expression looks back in its middle")
            part = _first(part, look)
        waiting = []
        done.append(part)
    if waiting:
        raise InexactError("a regular expression ends with a condition on what precedes")
    return Seq(tuple(done))


def _last(node: Node, look: Look) -> Node:
    """`node` whose last character meets `look`; the longest match is still tried first."""
    if isinstance(node, Atom):
        return Atom(node.pattern, (*node.looks, look))
    if isinstance(node, Alt):
        return Alt(tuple(_last(branch, look) for branch in node.branches))
    if isinstance(node, Seq) and node.parts:
        return Seq((*node.parts[:-1], _last(node.parts[-1], look)))
    if isinstance(node, Repeat) and node.least and isinstance(node.part, Atom):
        most = None if node.most is None else node.most - 1
        before = Repeat(node.part, node.least - 1, most, node.greedy)
        return Seq((before, _last(node.part, look)))
    raise InexactError("a regular expression has a condition behind a part that may be empty")


def _first(node: Node, look: Look) -> Node:
    if isinstance(node, Atom):
        return Atom(node.pattern, (*node.looks, look))
    if isinstance(node, Alt):
        return Alt(tuple(_first(branch, look) for branch in node.branches))
    if isinstance(node, Seq) and node.parts:
        return Seq((_first(node.parts[0], look), *node.parts[1:]))
    if isinstance(node, Repeat) and node.least and isinstance(node.part, Atom):
        most = None if node.most is None else node.most - 1
        rest = Repeat(node.part, node.least - 1, most, node.greedy)
        return Seq((_first(node.part, look), rest))
    raise InexactError("a regular expression has a condition before a part that may be empty")


def atoms(node: Node) -> list[Atom]:
    """All atoms of a tree."""
    if isinstance(node, Atom):
        return [node]
    if isinstance(node, Repeat):
        return atoms(node.part)
    parts = node.parts if isinstance(node, Seq) else node.branches if isinstance(node, Alt) else ()
    return [atom for part in parts for atom in atoms(part)]


def may_be_empty(node: Node) -> bool:
    """Whether a tree matches the empty text."""
    if isinstance(node, Atom):
        return False
    if isinstance(node, Repeat):
        return not node.least or may_be_empty(node.part)
    if isinstance(node, Alt):
        return any(may_be_empty(branch) for branch in node.branches)
    return isinstance(node, Look) or all(may_be_empty(part) for part in node.parts)
