"""Characters written in UTF-8."""

import numpy as np

from export.text_graph.tables import TOKEN
from export.text_graph.wires import Wire, Wires


def spelt(graph: Wires, codes: Wire) -> tuple[Wire, Wire]:
    """Bytes (and tokens) [M] and the place in `codes` [N] that each comes from."""
    more = [graph.cast(codes >= least) for least in (0x80, 0x800, 0x10000)]
    token = graph.cast(codes >= TOKEN)
    follow = (more[0] + more[1] + more[2]) * (1 - token)
    source, nth = graph.repeats(follow + 1)
    code, left = graph.take(codes, source), graph.take(follow, source) - nth
    rest = code // graph.take(np.array([1, 64, 4096, 262144], np.int64), left)
    begin = graph.take(np.array([0, 0xC0, 0xE0, 0xF0], np.int64), left)
    first = graph.where(code >= TOKEN, code, rest + begin)
    return graph.where(nth > 0, rest % 64 + 0x80, first), source
