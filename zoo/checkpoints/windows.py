"""Local attention in `config.json`: a window, and which layers have it."""

from collections.abc import Callable
from typing import Any

from zoo.checkpoints.facts import Reader, Rule

SLIDING, FULL = "sliding_attention", "full_attention"


def layer_windows(
    default: int | None,
    sees_all: Callable[[Reader, int], bool],
    switched: bool = False,
    first: str | None = None,
) -> Rule:
    """`sliding_window`, with the layers that have it: those that `layer_types` names.

    Args:
        default: The window of a file without the key.
        sees_all: (the file, a layer's number) -> whether it has no window, where the file has no
            `layer_types`.
        switched: There is no window unless `use_sliding_window` says so.
        first: The key that says how many of the first layers have none, if there is one.
    """

    def decode(reader: Reader) -> dict[str, Any]:
        size = reader.get("sliding_window", default)
        if switched and not reader.get("use_sliding_window", False):
            size = None
        count = reader.get("num_hidden_layers")
        layers = [FULL if sees_all(reader, i) else SLIDING for i in range(count)]
        kinds = reader.get("layer_types", None) or layers
        if len(kinds) < count or not set(kinds) <= {SLIDING, FULL}:
            raise reader.refuse(
                "layer_types", f"is not supported, expected {count} of {SLIDING!r} and {FULL!r}"
            )
        everything = tuple(i for i in range(count) if kinds[i] == FULL)
        if size is None or len(everything) == count:
            return {}
        return {"window": size, "global_layers": everything}

    def encode(config: Any) -> dict[str, Any]:
        windows = [config.layer_window(i) for i in range(config.num_layers)]
        written: dict[str, Any] = {
            "layer_types": [FULL if window is None else SLIDING for window in windows],
        }
        if config.window is not None:  # the reference wants a number where no layer has a window
            written["sliding_window"] = config.window
            everything = config.global_layers
            if first is not None and everything == tuple(range(len(everything))):
                written[first] = len(everything)
        if switched:
            written["use_sliding_window"] = config.window is not None
        return written

    return Rule(decode, encode)
