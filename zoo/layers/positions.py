"""How order enters a Transformer: added to embeddings, turning queries and keys, or added to the
scores.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops as kops

from zoo import ops
from zoo.backbones.config import RotaryScaling, TransformerConfig
from zoo.layers.linear import Embedding
from zoo.layers.norm import Norm
from zoo.layers.span import Span


def sinusoids(length: int, width: int, form: str = "halves") -> np.ndarray:
    """[length, width] sines and cosines of wavelengths from 2 pi to 10000 times that (Vaswani et
    al., 2017), ordered as `TransformerConfig.sinusoid_form` says.
    """
    half = (width + 1) // 2
    if form == "tensor2tensor":  # an odd last feature stays 0
        half = width // 2
        rates = np.exp(-math.log(10000.0) * np.arange(half) / max(half - 1, 1))
    else:
        rates = np.exp(-math.log(10000.0) * 2 * np.arange(half) / width)
    angles = np.outer(np.arange(length), rates)
    table = np.zeros((length, width))
    if form == "interleaved":
        table[:, 0::2], table[:, 1::2] = np.sin(angles), np.cos(angles)[:, : width // 2]
    else:
        table[:, :half] = np.sin(angles)
        table[:, half : 2 * half] = np.cos(angles)[:, : width - half]
    return table.astype("float32")


class Rotary:
    """The rotary angles of a stack, by layer: global layers, those with a window, and those that do
    not turn may differ.

    Args:
        config: The facts.
        length: Longest text.
    """

    def __init__(self, config: TransformerConfig, length: int) -> None:
        self.config = config
        self.length = length

    def tables(self, span: Span) -> Callable[[int], tuple[Any, Any] | None]:
        """A layer's number -> its (cos, sin), [length, rotary_dim / 2] each, None where it does not
        turn.
        """
        config = self.config
        if config.positions != "rotary":
            return lambda index: None
        stretched = self._stretched(span)
        local = stretched
        if config.local_rotary_base is not None:
            rates = rotary_rates(config.rotary_dim, config.local_rotary_base)
            local = _constant_angles("rotary_local", self.length, rates)

        def of(index: int) -> tuple[Any, Any] | None:
            if index in config.unturned_layers:
                return None
            return stretched if config.layer_window(index) is None else local

        return of

    def _stretched(self, span: Span) -> tuple[Any, Any]:
        config, scaling = self.config, self.config.rotary_scaling
        dim, base = config.rotary_dim, config.rotary_base
        if scaling is None:
            return _constant_angles("rotary", self.length, rotary_rates(dim, base))
        factor = attention_factor(scaling)
        if scaling.kind == "longrope":
            rates = rotary_rates(dim, base)
            short, long = (
                _constant_angles(name, self.length, rates / np.array(factors), factor)
                for name, factors in (
                    ("rotary_short", scaling.short_factors),
                    ("rotary_long", scaling.long_factors),
                )
            )
            if self.length <= scaling.original_length:
                return short
            fits = span.longest <= scaling.original_length
            return tuple(kops.where(fits, a, b) for a, b in zip(short, long, strict=True))
        if scaling.kind == "dynamic" and self.length > scaling.original_length:
            return self._dynamic(span, scaling)
        rates = stretched_rates(dim, base, scaling)
        return _constant_angles("rotary", self.length, rates, factor)

    def _dynamic(self, span: Span, scaling: RotaryScaling) -> tuple[Any, Any]:
        """The base grows with the text: base (f n / m - f + 1) ^ (d / (d - 2)), n its length but at
        least m.
        """
        dim, most = self.config.rotary_dim, scaling.original_length
        longest = kops.cast(kops.maximum(span.longest, most), "float32")
        growth = scaling.factor * longest / most - (scaling.factor - 1.0)
        exponents = ops.constant(
            "rotary_exponents", (-np.arange(0, dim, 2) / dim).astype("float32")
        )
        logs = math.log(self.config.rotary_base) + kops.log(growth) * (dim / (dim - 2))
        steps = ops.constant("rotary_steps", np.arange(self.length, dtype="float32"))
        angles = kops.expand_dims(steps, 1) * kops.exp(exponents * logs)
        return kops.cos(angles), kops.sin(angles)


def _constant_angles(
    name: str, length: int, rates: np.ndarray, factor: float = 1.0
) -> tuple[Any, Any]:
    angles = np.outer(np.arange(length), rates)
    cos, sin = (factor * part(angles).astype("float32") for part in (np.cos, np.sin))
    return ops.constant(f"{name}_cos", cos), ops.constant(f"{name}_sin", sin)


def rotary_rates(dim: int, base: float) -> np.ndarray:
    """[dim / 2] radians per position: base ^ (-2i / dim) (Su et al., 2021)."""
    return base ** (-np.arange(0, dim, 2) / dim)


def stretched_rates(dim: int, base: float, scaling: RotaryScaling) -> np.ndarray:
    """`rotary_rates` as `scaling` changes them, for the kinds that do not depend on the text."""
    rates = rotary_rates(dim, base)
    if scaling.kind == "linear":
        return rates / scaling.factor
    if scaling.kind == "llama3":
        turns = rates * scaling.original_length / (2 * math.pi)
        low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
        kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
        return rates * (kept + (1.0 - kept) / scaling.factor)
    if scaling.kind == "yarn":
        first, last = (
            dim * math.log(scaling.original_length / (beta * 2 * math.pi)) / (2 * math.log(base))
            for beta in (scaling.beta_fast, scaling.beta_slow)
        )
        if scaling.round_bounds:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, dim - 1)
        last = last + 0.001 if first == last else last
        divided = np.clip((np.arange(dim // 2) - first) / (last - first), 0.0, 1.0)
        return rates * (1.0 - divided + divided / scaling.factor)
    return rates


def attention_factor(scaling: RotaryScaling) -> float:
    """The factor on cosines and sines: as given, or as the papers of yarn and longrope say."""
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.factor <= 1.0:
        return 1.0
    if scaling.kind == "yarn":
        return 0.1 * math.log(scaling.factor) + 1.0
    if scaling.kind == "longrope":
        return math.sqrt(1.0 + math.log(scaling.factor) / math.log(scaling.original_length))
    return 1.0


def alibi_slopes(num_heads: int) -> np.ndarray:
    """[num_heads] slopes of ALiBi (Press et al., 2022): powers of 2^(-8/n), interleaved where n is
    no power of two.
    """

    def powers(n: int) -> list[float]:
        start = 2.0 ** (-(2.0 ** -(math.log2(n) - 3)))
        return [start ** (i + 1) for i in range(n)]

    if math.log2(num_heads).is_integer():
        return np.array(powers(num_heads), "float32")
    closest = 2 ** math.floor(math.log2(num_heads))
    extra = powers(2 * closest)[0::2][: num_heads - closest]
    return np.array(powers(closest) + extra, "float32")


class AlibiBias(keras.layers.Layer):
    """-slope * |distance| for every head: [B or 1, num_heads, S, T]. No weights."""

    def __init__(self, num_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.slopes = alibi_slopes(num_heads)

    def call(self, span: Span) -> Any:
        slopes = ops.constant("alibi_slopes", self.slopes.reshape(1, -1, 1, 1))
        distance = kops.cast(kops.abs(span.distance), "float32")
        return -slopes * kops.expand_dims(distance, 1)


class RoundedAlibiBias(keras.layers.Layer):
    """ALiBi from the key's position instead of the distance, in bfloat16 and scaled as the scores
    are: [B or 1, num_heads, S, T]. What the rounding loses grows with the position. No weights.

    Args:
        num_heads: Heads.
        length: Longest text.
        scale: Factor on the scores.
    """

    def __init__(self, num_heads: int, length: int, scale: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        slopes, steps = rounded(alibi_slopes(num_heads)), rounded(np.arange(length))
        self.table = rounded(np.outer(steps, slopes)) * np.float32(scale)  # (L, H)

    def call(self, span: Span) -> Any:
        bias = ops.embed(span.key_positions, ops.constant("alibi", self.table))
        bias = kops.expand_dims(kops.transpose(bias, (0, 2, 1)), 2)  # (B or 1, H, 1, T)
        return bias + kops.expand_dims(kops.zeros_like(kops.cast(span.distance, "float32")), 1)


def rounded(x: np.ndarray) -> np.ndarray:
    """float32 with the values that bfloat16 keeps."""
    bits = np.ascontiguousarray(x, "float32").view("uint32")
    bits = bits + 0x7FFF + ((bits >> 16) & 1)  # to the nearest, ties to even
    return (bits & np.uint32(0xFFFF0000)).view("float32")


class RelativeBias(keras.layers.Layer):
    """T5's learned bias per bucket of distance and head: [B or 1, num_heads, S, T] (Raffel et al.,
    2020).
    """

    def __init__(
        self, num_heads: int, buckets: int, max_distance: int, bidirectional: bool, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.buckets = buckets
        self.max_distance = max_distance
        self.bidirectional = bidirectional
        self.embedding = Embedding(buckets, num_heads, name="buckets")

    def build(self, input_shape: Any = None) -> None:
        self.embedding.build()

    def bucket(self, distance: Any) -> Any:
        """Bucket of each distance (query position less key position): exact when near, logarithmic
        when far.
        """
        buckets, first = self.buckets, 0
        if self.bidirectional:
            buckets //= 2
            first = kops.cast(distance < 0, "int32") * buckets
            distance = kops.abs(distance)
        else:
            distance = kops.maximum(distance, 0)
        exact = buckets // 2
        ratio = kops.cast(kops.maximum(distance, 1), "float32") / exact
        scale = (buckets - exact) / math.log(self.max_distance / exact)
        far = exact + kops.cast(kops.log(ratio) * scale, "int32")
        far = kops.minimum(far, buckets - 1)
        return first + kops.where(distance < exact, distance, far)

    def call(self, span: Span) -> Any:
        bias = self.embedding(self.bucket(span.distance))  # (B or 1, S, T, H)
        return kops.transpose(bias, (0, 3, 1, 2))


class RelativeStates(keras.layers.Layer):
    """States of relative positions for disentangled attention (He et al., 2021): a table of 2 n
    rows, n buckets to each side, and its norm.

    Args:
        config: The facts.
        length: Longest text.

    Returns two [1, 2 S - 1, D]: the states of the distances S - 1 (a key far before its query) to
    1 - S, and the same backwards.
    """

    def __init__(self, config: TransformerConfig, length: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.farthest = length - 1
        buckets = config.relative_buckets
        self.table = Embedding(
            2 * buckets, config.hidden_dim, config.initializer_range, name="table"
        )
        self.norm = Norm.of(config, "norm") if config.distance_norm else None
        distances = np.arange(-self.farthest, length)
        buckets_of = signed_buckets(distances, buckets, config.relative_max_distance)
        self.rows = np.clip(buckets_of + buckets, 0, 2 * buckets - 1).astype("int32")

    def build(self, input_shape: Any = None) -> None:
        self.table.build()
        if self.norm is not None:
            self.norm.build((None, None, self.config.hidden_dim))

    def call(self, span: Span) -> tuple[Any, Any]:
        distance = span.length - 1 - kops.arange(2 * span.length - 1, dtype="int32")
        return self._states(distance), self._states(-distance)

    def _states(self, distance: Any) -> Any:
        places = kops.clip(distance + self.farthest, 0, 2 * self.farthest)
        states = self.table(ops.embed(places, ops.constant("distance_rows", self.rows)))
        if self.norm is not None:
            states = self.norm(states)[0]
        return kops.expand_dims(states, 0)


def signed_buckets(distances: np.ndarray, buckets: int, most: int | None) -> np.ndarray:
    """Bucket of each distance: itself up to half of `buckets`, logarithmic beyond, so that the
    last begins before `most`; itself alone where that is None.

    In single precision and in this order, since at a bucket's edge the last bit decides.
    """
    if most is None:
        return distances
    middle = buckets // 2
    size = np.maximum(np.abs(distances), middle).astype("float32")
    share = np.log(size / np.float32(middle)) / np.log(np.float32((most - 1) / middle))
    far = np.ceil(share * np.float32(middle - 1)).astype("int64") + middle
    return np.where(np.abs(distances) <= middle, distances, np.sign(distances) * far)


def disentangled_bias(
    query: Any,
    key: Any,
    place_query: Any,
    place_key: Any,
    num_heads: int,
    scale: float,
    length: Any,
) -> Any:
    """[B, H, S, S] scores of content against distance and of distance against content, or one of
    them.

    Args:
        query: [B, S, H * head_dim] of the text.
        key: The same.
        place_query: [1, 2 S - 1, H * head_dim] of the distances 1 - S to S - 1, as they are seen
            from the key; None: without the scores of distance against content.
        place_key: The same of the distances S - 1 to 1 - S; None: without those of content against
            distance.
        num_heads: H.
        scale: Factor on the scores.
        length: S.
    """
    terms = []
    if place_key is not None:
        terms.append(_against(query * scale, place_key, num_heads, length))
    if place_query is not None:
        scores = _against(key * scale, place_query, num_heads, length)
        terms.append(kops.transpose(scores, (0, 1, 3, 2)))
    return sum(terms[1:], terms[0])


def _against(content: Any, places: Any, num_heads: int, length: Any) -> Any:
    """[B, H, S, S] scores of each position's content against the place that each other one has."""
    head_dim = places.shape[-1] // num_heads
    places = kops.transpose(ops.reshape(places, (0, 0, num_heads, head_dim)), (0, 2, 3, 1))
    return ops.shifted(kops.matmul(ops.split_heads(content, num_heads), places), length)
