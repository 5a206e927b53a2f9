"""Characters as pieces for their bytes, `<0x41>`."""

from collections.abc import Mapping

import tensorflow as tf

from export.strings.codes import Text
from export.strings.errors import InexactError
from export.strings.pre_tokenizer import to_bytes
from zoo.text.training import BYTE_PIECES, byte_characters


def byte_ids(vocab: Mapping[str, int], wanted: bool) -> list[int] | None:
    """Ids of the 256 byte pieces; None where unknown characters do not fall back on them.

    Raises:
        InexactError: Only some of them are there.
    """
    found = [vocab.get(piece) for piece in BYTE_PIECES]
    if not wanted or all(number is None for number in found):
        return None
    if any(number is None for number in found):
        raise InexactError("a vocabulary that lacks some of the byte pieces")
    return [number for number in found if number is not None]


def bytes_of(text: Text) -> Text:
    """Each code as its bytes, 0 to 255."""
    names = byte_characters()
    back = [0] * (max(map(ord, names)) + 1)
    for value, name in enumerate(names):
        back[ord(name)] = value
    spread = to_bytes(text)
    return spread.with_codes(tf.gather(tf.constant(back), spread.codes))
