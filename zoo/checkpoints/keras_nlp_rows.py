"""What a keras-nlp backbone's twin is, and rows of weight tables that many of them share.

A twin's config becomes the keys of the family's `config.json`, which the family's own codec reads;
its rows name keras-nlp's variables in the place of a file's tensors.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.checkpoints.facts import Reader
from zoo.checkpoints.table import Row, Transform, row
from zoo.errors import ConfigError

Keys = dict[str, Any]


@dataclass(frozen=True)
class Twin:
    """One of their backbone classes.

    Attributes:
        model_type: Our family.
        keys: Their config's keys -> those of `config.json`.
        rows: Our variables -> their paths; see `zoo.checkpoints.keras_nlp.named_variables`.
        heads: The same of heads, by task; for those that are not here the head is new.
        fixed: Keys of `config.json` for what their class does not let one choose.
        more: Their config -> further keys of `config.json`.
        length: The key of the longest text where their config has none.
    """

    model_type: str
    keys: Mapping[str, str]
    rows: tuple[Row, ...]
    heads: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    more: Callable[[Reader], Keys] = lambda reader: {}
    length: str | None = None

    def translate(self, theirs: Mapping[str, Any], tied: bool, where: str) -> Keys:
        """The keys of `config.json`.

        Raises:
            ConfigError: A key is missing, not supported or not known; all unknown ones are named.
        """
        reader = Reader(theirs, where)
        reader.seen.update(("name", "trainable", "dtype", "tie_word_embeddings"))
        keys: Keys = {"tie_word_embeddings": tied, **self.fixed}
        keys |= {ours: reader.get(name) for name, ours in self.keys.items()}
        keys |= self.more(reader)
        if unread := reader.unread():
            named = ", ".join(f"{key} = {theirs[key]!r}" for key in unread)
            raise ConfigError(f"{where}: {named} not understood; it might change the numbers")
        return keys


# Transforms: theirs are einsum kernels with the heads on an axis of their own.

HEADS_LAST = Transform(
    "[hidden, heads, head_dim]",
    lambda arrays, _: [arrays[0].reshape(len(arrays[0]), -1)],
    lambda arrays, config: [arrays[0].reshape(len(arrays[0]), -1, config.head_dim)],
)
HEADS_FIRST = Transform(
    "[heads, hidden, head_dim]",
    lambda arrays, _: [arrays[0].swapaxes(0, 1).reshape(arrays[0].shape[1], -1)],
    lambda arrays, config: [arrays[0].reshape(len(arrays[0]), -1, config.head_dim).swapaxes(0, 1)],
)
BIAS = Transform(
    "[heads, head_dim]",
    lambda arrays, _: [arrays[0].reshape(-1)],
    lambda arrays, config: [arrays[0].reshape(-1, config.head_dim)],
)
OUTPUT = Transform(
    "[heads, head_dim, hidden]",
    lambda arrays, _: [arrays[0].reshape(-1, arrays[0].shape[-1])],
    lambda arrays, config: [arrays[0].reshape(-1, config.head_dim, arrays[0].shape[-1])],
)


def _load_behind(arrays: list[np.ndarray], config: Any) -> list[np.ndarray]:
    return [np.pad(arrays[0], ((config.position_offset, 0), (0, 0)))]


BEHIND_OFFSET = Transform(
    "without the rows before the first position",
    _load_behind,
    lambda arrays, config: [arrays[0][config.position_offset :]],
)


def zeros(shape: Callable[[Any], tuple[int, ...]]) -> Transform:
    """For variables that they do not have, and whose zeros change nothing."""
    return Transform(
        "zeros", lambda _, config: [np.zeros(shape(config), np.float32)], lambda arrays, _: []
    )


# Rows that many classes share


def dense(ours: str, theirs: str) -> tuple[Row, ...]:
    """Kernel [in, out] and bias."""
    return (row(f"{ours}/kernel", f"{theirs}/kernel"), row(f"{ours}/bias", f"{theirs}/bias"))


def layer_norm(ours: str, theirs: str) -> tuple[Row, ...]:
    """Scale and offset."""
    return (row(f"{ours}/scale", f"{theirs}/gamma"), row(f"{ours}/offset", f"{theirs}/beta"))


def rms_norm(ours: str, theirs: str, name: str = "scale") -> tuple[Row, ...]:
    """Scale alone."""
    return (row(f"{ours}/scale", f"{theirs}/{name}"),)


def attention(ours: str, theirs: str, kernel: Transform = HEADS_LAST) -> tuple[Row, ...]:
    """The four projections."""
    rows: list[Row] = []
    for name in ("query", "key", "value"):
        rows.append(row(f"{ours}/{name}/kernel", f"{theirs}/{name}/kernel", kernel))
        rows.append(row(f"{ours}/{name}/bias", f"{theirs}/{name}/bias", BIAS))
    rows.append(row(f"{ours}/output/kernel", f"{theirs}/attention_output/kernel", OUTPUT))
    return (*rows, row(f"{ours}/output/bias", f"{theirs}/attention_output/bias"))


def block(side: str, layer: str, attentions: Iterable[tuple[str, str]]) -> tuple[Row, ...]:
    """The rows of keras_hub.layers.TransformerEncoder or -Decoder.

    Args:
        side: "encoder" or "decoder".
        layer: Their layer's name.
        attentions: (ours, theirs), their norm being named after what stands before "_layer".
    """
    ours = f"{side}/block_{{i}}"
    rows: list[Row] = []
    for name, theirs in attentions:
        rows += attention(f"{ours}/{name}", f"{layer}/{theirs}")
        rows += layer_norm(
            f"{ours}/{name}_norm", f"{layer}/{theirs.removesuffix('_layer')}_layer_norm"
        )
    return (
        *rows,
        *layer_norm(f"{ours}/feed_forward_norm", f"{layer}/feedforward_layer_norm"),
        *dense(f"{ours}/feed_forward/up", f"{layer}/feedforward_intermediate_dense"),
        *dense(f"{ours}/feed_forward/down", f"{layer}/feedforward_output_dense"),
    )


LAYER = "transformer_layer_{i}"
ENCODER_BLOCKS = block("encoder", LAYER, [("attention", "self_attention_layer")])
DECODER_BLOCKS = block("decoder", LAYER, [("attention", "self_attention")])


def tables(side: str, tokens: str, positions: str | None) -> tuple[Row, ...]:
    """Token embedding and learned positions."""
    rows = [row(f"{side}/embeddings/tokens/table", f"{tokens}/embeddings")]
    if positions is not None:
        ours = f"{side}/embeddings/positions/table"
        rows.append(row(ours, f"{positions}/embeddings", BEHIND_OFFSET))
    return tuple(rows)
