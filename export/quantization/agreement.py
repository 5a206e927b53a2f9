"""How often, and how closely, two models say the same: top-1 agreement and KL divergence."""

import numpy as np


class Agreement:
    """Gathers logits of two models at the same positions; other outputs are passed over."""

    def __init__(self) -> None:
        self._positions, self._same = 0, 0
        self._divergence = 0.0

    def __call__(self, name: str, found: np.ndarray, expected: np.ndarray) -> None:
        """Takes outputs [..., C] of the model in question and of the one it should be like."""
        if not name.endswith("logits") or found.shape != expected.shape or not found.size:
            return
        p, q = (_log_softmax(v.reshape(-1, v.shape[-1])) for v in (expected, found))
        self._positions += len(p)
        self._same += int((p.argmax(-1) == q.argmax(-1)).sum())
        self._divergence += float((np.exp(p) * (p - q)).sum())

    def figures(self) -> dict[str, float]:
        """`top1`: share of positions with the same likeliest class; `kl`: mean divergence in nats;
        `positions`: how many were compared. Empty where there were no logits.
        """
        if not self._positions:
            return {}
        count = self._positions
        return {"top1": self._same / count, "kl": self._divergence / count, "positions": count}


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    values = logits.astype(np.float64)
    values -= values.max(axis=-1, keepdims=True)
    return values - np.log(np.exp(values).sum(axis=-1, keepdims=True))
