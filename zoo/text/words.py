"""Words of an annotated corpus put back into running text."""

import re
from collections.abc import Sequence

# Han, kana, Thai, Lao, Myanmar, Khmer, full-width forms: written without spaces between words.
_SPACELESS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)


def join_words(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Join words as the script would write them and say where each one lies.

    A space goes between two words unless both sides of the seam belong to a script without spaces.

    Returns:
        The text and, for each word, its `(start, end)` in it.
    """
    text, spans, length, last = [], [], 0, ""
    for word in words:
        if last and word and not (_SPACELESS.match(last) and _SPACELESS.match(word[0])):
            text.append(" ")
            length += 1
        text.append(word)
        spans.append((length, length + len(word)))
        length += len(word)
        last = word[-1:] or last
    return "".join(text), spans
