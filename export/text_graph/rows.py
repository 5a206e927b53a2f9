"""From tokens of all texts to rows: cut, special tokens around them, filled up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from export.errors import ExportError
from export.text_graph.normalizers import ADVICE
from export.text_graph.wires import Wire, Wires


@dataclass(frozen=True)
class Part:
    """One part of a row.

    Attributes:
        text: 0 or 1 for the tokens of a text; None for special tokens.
        ids: The special tokens.
        type_id: Their token type.
    """

    text: int | None
    ids: tuple[int, ...]
    type_id: int


def template(facts: Mapping[str, Any] | None, pair: bool) -> list[Part]:
    """The parts that a post-processor of tokenizer.json makes.

    Raises:
        ExportError: It is of another kind.
    """
    sequence = [Part(0, (), 0), Part(1, (), 0 if facts else 1)][: 1 + pair]
    if facts is None or facts["type"] == "ByteLevel":
        return [Part(0, (), 0), Part(1, (), 1)][: 1 + pair] if facts is None else sequence
    kind = facts["type"]
    if kind == "Sequence":
        told = [step for step in facts["processors"] if step["type"] != "ByteLevel"]
        if len(told) != 1:
            raise ExportError(
                f"{len(told)} post-processors in a row have no exact twin in the graph. {ADVICE}"
            )
        return template(told[0], pair)
    if kind in ("BertProcessing", "RobertaProcessing"):
        begin, end = ((int(facts[name][1]),) for name in ("cls", "sep"))
        one = int(kind == "BertProcessing")
        parts = [Part(None, begin, 0), Part(0, (), 0), Part(None, end, 0)]
        if pair:
            parts += [] if one else [Part(None, end, 0)]
            parts += [Part(1, (), one), Part(None, end, one)]
        return parts
    if kind != "TemplateProcessing":
        raise ExportError(f"the post-processor {kind} has no exact twin in the graph. {ADVICE}")
    parts = []
    for piece in facts["pair" if pair else "single"]:
        (name, value), *_ = piece.items()
        if name == "Sequence":
            parts.append(Part("AB".index(value["id"]), (), value["type_id"]))
        else:
            ids = facts["special_tokens"][value["id"]]["ids"]
            parts.append(Part(None, tuple(ids), value["type_id"]))
    texts = [part.text for part in parts if part.text is not None]
    if sorted(texts) != list(range(1 + pair)):
        raise ExportError(f"the template {parts} does not hold each text once. {ADVICE}")
    return parts


def cut_lengths(graph: Wires, lengths: Sequence[Wire], room: int) -> list[Wire]:
    """How many tokens [B] of each text stay when a row has `room` for them: the longest is cut
    first.
    """
    if len(lengths) == 1:
        return [graph.op("Min", lengths[0], room)]
    one, two = lengths
    small = graph.op("Min", one, two)
    # As the library does: the larger is cut down to the smaller, then both to halves.
    large = graph.where(small > room, small, graph.op("Max", small, room - small))
    both = small + large > room
    small = graph.where(both, room // 2, small)
    large = graph.where(both, room // 2 + room % 2, large)
    fits, swapped = one + two <= room, one > two
    first = graph.where(swapped, large, small)
    second = graph.where(swapped, small, large)
    return [graph.where(fits, one, first), graph.where(fits, two, second)]


def rows(
    graph: Wires,
    texts: Sequence[tuple[Wire, Wire]],
    count: Wire,
    parts: Sequence[Part],
    max_length: int,
    pad: int,
) -> dict[str, Wire]:
    """input_ids, attention_mask and token_type_ids [B, T].

    Args:
        graph: Where to.
        texts: For each text of a row: ids and rows [K] of its tokens.
        count: B, [1].
        parts: What a row is made of.
        max_length: Most tokens of a row.
        pad: What fills rows up.
    """
    special = sum(len(part.ids) for part in parts)
    if max_length <= special:
        raise ExportError(f"max_length = {max_length}: {special} special tokens leave no room")
    whole = [graph.per_row(row, count) for _, row in texts]
    kept = cut_lengths(graph, whole, max_length - special)
    total = kept[0] + special if len(kept) == 1 else kept[0] + kept[1] + special
    width = graph.op("ReduceMax", graph.join(total, [1]), keepdims=1)
    flat = count * width
    ids, types = graph.full(pad, flat), graph.full(0, flat)
    begin = graph.upto(count) * width
    for part in parts:
        if part.text is None:
            for number in part.ids:
                ids = graph.put(ids, begin, graph.full(number, count))
                if part.type_id:
                    types = graph.put(types, begin, graph.full(part.type_id, count))
                begin = begin + 1
            continue
        tokens, row = texts[part.text]
        starts = graph.sums(whole[part.text], exclusive=True)
        nth = graph.upto(graph.size(row)) - graph.take(starts, row)
        stays = nth < graph.take(kept[part.text], row)
        place = graph.keep(graph.take(begin, row) + nth, stays)
        ids = graph.put(ids, place, graph.keep(tokens, stays))
        if part.type_id:
            typed = graph.full(part.type_id, graph.size(place))
            types = graph.put(types, place, typed)
        begin = begin + kept[part.text]
    shape = graph.join(count, width)
    mask = graph.op("Unsqueeze", graph.upto(width), [0]) < graph.op("Unsqueeze", total, [1])
    return {
        "input_ids": graph.op("Reshape", ids, shape),
        "attention_mask": graph.cast(mask),
        "token_type_ids": graph.op("Reshape", types, shape),
    }
