"""Cleaning of raw text, with a count of everything that was dropped."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any, Literal

from zoo.errors import ConfigError

# Line ends and tabs stay; zero-width joiners stay, as emoji and several scripts need them.
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufffe\uffff\ud800-\udfff]"
)
_LINE_END = re.compile("\r\n?|\u2028|\u2029|\x85")
_BLOCKS = frozenset(
    """
    address article aside blockquote br dd div dl dt figcaption footer form h1 h2 h3 h4 h5 h6 header
    hr li main nav ol option p pre section table td th tr ul
    """.split()  # noqa: SIM905
)
_HIDDEN = frozenset(("script", "style", "template", "noscript", "head"))


class _Text(HTMLParser):
    """Collects what a reader of the page would see."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag in _HIDDEN:
            self.hidden += 1
        elif tag in _BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in _HIDDEN:
            self.hidden = max(0, self.hidden - 1)
        elif tag in _BLOCKS:
            self.parts.append("\n")

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        if tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(data)


def strip_html(text: str) -> str:
    """The visible text of an HTML fragment; block elements end a line, entities are resolved."""
    if "<" not in text and "&" not in text:
        return text
    parser = _Text()
    parser.feed(text)
    parser.close()
    return re.sub(r"[ \t]*\n\s*", "\n", "".join(parser.parts)).strip()


@dataclass
class Cleaner:
    """Cleans examples and drops those that are empty, too short, too long, or seen before.

    ```python
    cleaner = Cleaner(html=True, min_length=3)
    examples = list(cleaner(examples))
    print(cleaner.counts)  # Counter({'kept': 981, 'duplicate': 14, 'too short': 5})
    ```

    Args:
        html: resolve entities and remove tags.
        control: remove control characters, byte-order and direction marks and lone surrogates;
            unify line ends.
        whitespace: `"collapse"` (each run of white space becomes a space), `"lines"` (the same,
            but line ends stay) or `"keep"`.
        unicode: `"nfc"`, `"nfkc"`, `"nfd"`, `"nfkd"` or None.
        deduplicate: drop examples whose cleaned fields were all seen before.
        min_length: least characters of each cleaned field.
        max_length: most characters of each cleaned field.
        fields: which fields to clean; others pass as they are, as character offsets may point into
            them.
    """

    html: bool = False
    control: bool = True
    whitespace: Literal["collapse", "lines", "keep"] = "collapse"
    unicode: str | None = "nfc"
    deduplicate: bool = True
    min_length: int = 1
    max_length: int | None = None
    fields: Sequence[str] = ("text", "pair", "source", "target")
    counts: Counter[str] = field(default_factory=Counter, init=False)
    _seen: set[bytes] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.whitespace not in ("collapse", "lines", "keep"):
            raise ConfigError(f"whitespace={self.whitespace!r}; expected collapse, lines or keep")
        if self.unicode is not None and self.unicode.lower() not in ("nfc", "nfkc", "nfd", "nfkd"):
            raise ConfigError(f"unicode={self.unicode!r}; expected nfc, nfkc, nfd, nfkd or None")

    def text(self, text: str) -> str:
        """Clean one text."""
        if self.html:
            text = strip_html(text)
        if self.control:
            text = _CONTROL.sub("", _LINE_END.sub("\n", text))
        if self.unicode is not None:
            text = unicodedata.normalize(self.unicode.upper(), text)
        if self.whitespace == "collapse":
            text = " ".join(text.split())
        elif self.whitespace == "lines":
            text = "\n".join(" ".join(line.split()) for line in text.split("\n")).strip("\n")
        return text

    def __call__(self, examples: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the cleaned examples that stay; `counts` grows as they are read."""
        for example in examples:
            names = [n for n in self.fields if isinstance(example.get(n), str)]
            cleaned = {name: self.text(example[name]) for name in names}
            reason = self._reason(cleaned)
            self.counts[reason or "kept"] += 1
            if reason is None:
                yield {**example, **cleaned}

    def _reason(self, cleaned: Mapping[str, str]) -> str | None:
        """Why to drop the example, or None."""
        lengths = [len(text) for text in cleaned.values()]
        if cleaned and min(lengths) == 0 and self.min_length > 0:
            return "empty"
        if cleaned and min(lengths) < self.min_length:
            return "too short"
        if self.max_length is not None and max(lengths, default=0) > self.max_length:
            return "too long"
        if self.deduplicate and cleaned:
            key = repr(sorted(cleaned.items())).encode("utf-8", "surrogatepass")
            digest = hashlib.blake2b(key, digest_size=16).digest()
            if digest in self._seen:
                return "duplicate"
            self._seen.add(digest)
        return None
