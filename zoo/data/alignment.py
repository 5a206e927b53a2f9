"""Annotations on text carried over to tokens: word tags and answer spans."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.errors import DataError
from zoo.text.tokenizer import Tokenizer

IGNORED = -100
Span = tuple[int, int]


def align_tags(
    offsets: Iterable[Span], spans: Sequence[Span], tags: Sequence[int], ignored: int = IGNORED
) -> list[int]:
    """One label per token: a word's tag on its first piece, `ignored` on all else.

    Args:
        offsets: where each token lies in the text; empty for special tokens.
        spans: where each word lies (see `zoo.text.join_words`), in order.
        tags: the tag id of each word.
        ignored: the label of further pieces and special tokens.
    """
    labels, word, done = [], 0, -1
    for start, end in offsets:
        label = ignored
        if end > start:
            while word < len(spans) and spans[word][1] <= start:
                word += 1
            if word < len(spans) and spans[word][0] < end and word != done:
                label, done = tags[word], word
        labels.append(label)
    return labels


def answer_of(example: Mapping[str, Any]) -> Span | None:
    """The first answer's `(start, end)` in the context, None for a question without an answer.

    Takes SQuAD's list of `{"text", "answer_start"}`, the `datasets` form `{"text": [...],
    "answer_start": [...]}` and a single answer. Where `answer_start` is off, the nearest occurrence
    of the text is taken.

    Raises:
        DataError: when the context does not hold the answer.
    """
    answers = example.get("answers") or []
    if isinstance(answers, Mapping):
        texts, starts = answers.get("text", []), answers.get("answer_start", [])
        if isinstance(texts, str):
            texts, starts = [texts], [starts]
        answers = [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)]
    if not answers or not answers[0]["text"]:
        return None
    text, start, context = answers[0]["text"], answers[0].get("answer_start"), example["context"]
    if isinstance(start, int) and start >= 0 and context.startswith(text, start):
        return start, start + len(text)
    found, at = [], context.find(text)
    while at >= 0:
        found.append(at)
        at = context.find(text, at + 1)
    if not found:
        name = example.get("id", example.get("question"))
        raise DataError(
            f"question {name!r}: the answer {text[:60]!r} is not in its context; "
            "correct or drop the example"
        )
    start = min(found, key=lambda at: abs(at - (start if isinstance(start, int) else 0)))
    return start, start + len(text)


@dataclass(frozen=True)
class Window:
    """One window of a question and a part of its context.

    Attributes:
        example: position of the example the window comes from.
        ids: token ids.
        type_ids: 0 for the question, 1 for the context (where the template says so).
        offsets: `(start, end)` of each context token in the context, None for all other tokens.
        start: position of the answer's first token; 0 when the answer is not whole in this window.
        end: position of its last token; 0 likewise.
    """

    example: int
    ids: list[int]
    type_ids: list[int]
    offsets: list[Span | None]
    start: int = 0
    end: int = 0


def question_windows(
    examples: Sequence[Mapping[str, Any]],
    tokenizer: Tokenizer,
    max_length: int,
    stride: int | None = None,
    chunk: int = 1000,
) -> list[Window]:
    """Cut question and context pairs into windows, in order of the examples.

    A question longer than half a window is cut. Only the context is split; neighbours share
    `stride` tokens (None: a quarter of `max_length`, less when the question leaves no room for it).
    """
    windows: list[Window] = []
    for first in range(0, len(examples), chunk):
        part = examples[first : first + chunk]
        for number, example in enumerate(part, first):
            for name in ("question", "context"):
                if not isinstance(example.get(name), str):
                    raise DataError(f"example {number}: no {name!r}; it has {', '.join(example)}")
        questions = _cut(tokenizer, [e["question"].strip() for e in part], max_length // 2)
        contexts = [e["context"] for e in part]
        overlap = max(0, max_length // 4 - 4) if stride is None else stride
        encoded = tokenizer.encode_raw(
            questions, contexts, max_length, "only_second", overlap, offsets=True
        )
        for number, encoding in enumerate(encoded):
            span = answer_of(part[number])
            parts = (encoding, *encoding.overflowing)
            windows.extend(_window(first + number, window, span) for window in parts)
    return windows


def _cut(tokenizer: Tokenizer, texts: list[str], most: int) -> list[str]:
    encoded = tokenizer.encode_raw(texts, add_special_tokens=False, offsets=True)
    return [
        text if len(encoding) <= most else text[: encoding.offsets[most - 1][1]]
        for text, encoding in zip(texts, encoded, strict=True)
    ]


def _window(example: int, encoding: Any, span: Span | None) -> Window:
    offsets = [
        offset if sequence == 1 else None
        for offset, sequence in zip(encoding.offsets, encoding.sequence_ids, strict=True)
    ]
    start = end = 0
    inside = [i for i, offset in enumerate(offsets) if offset is not None and offset[1] > offset[0]]
    if span and inside and offsets[inside[0]][0] <= span[0] and span[1] <= offsets[inside[-1]][1]:
        touching = [i for i in inside if offsets[i][1] > span[0] and offsets[i][0] < span[1]]
        if touching:
            start, end = touching[0], touching[-1]
    return Window(example, encoding.ids, encoding.type_ids, offsets, start, end)
