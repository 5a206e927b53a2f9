"""A whole tokenizer.json as nodes: strings in, rows of ids out."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from export.text_graph import added, characters, models, normalizers, words
from export.text_graph import rows as table
from export.text_graph.wires import Wire, Wires


def encode(
    graph: Wires,
    inputs: Sequence[Wire],
    tokenizer: Any,
    *,
    max_length: int,
    pad: int,
) -> dict[str, Wire]:
    """Writes a tokenizer into a graph.

    Args:
        graph: Where to.
        inputs: Texts [B], or texts and their pairs.
        tokenizer: A `zoo.text.Tokenizer`.
        max_length: Most tokens of a row; longer ones are cut.
        pad: The id that fills rows up.

    Returns:
        input_ids, attention_mask and token_type_ids, [B, T] int64.

    Raises:
        ExportError: Some part of the tokenizer has no exact twin.
    """
    facts = json.loads(tokenizer.backend.to_str())
    parts = table.template(facts["post_processor"], pair=len(inputs) == 2)
    texts = [_tokens(graph, wire, tokenizer, facts) for wire in inputs]
    return table.rows(graph, texts, graph.size(inputs[0]), parts, max_length, pad)


def _tokens(graph: Wires, texts: Wire, tokenizer: Any, facts: Mapping[str, Any]) -> Any:
    """Ids and rows [K] of one input's tokens."""
    elements = characters.read(graph, texts)
    raw = [token for token in facts["added_tokens"] if not token["normalized"]]
    elements = added.extract(graph, elements, raw, [token["content"] for token in raw])
    for stage in normalizers.stages(facts["normalizer"]):
        elements = stage(graph, elements)
    normal = [token for token in facts["added_tokens"] if token["normalized"]]
    change = tokenizer.backend.normalizer
    written = [change.normalize_str(t["content"]) if change else t["content"] for t in normal]
    elements = added.extract(graph, elements, normal, written)
    pre = facts["pre_tokenizer"]
    return models.tokens(graph, words.cut(graph, elements, pre), facts["model"])
