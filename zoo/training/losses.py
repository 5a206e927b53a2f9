"""The training loss: cross-entropy whose mean over labels is exact on any number of replicas."""

from typing import Any

import keras
from keras import ops

__all__ = ["IGNORED", "TokenCrossentropy", "sum_over_replicas"]

IGNORED = -100
"""The label of a position that does not count."""


@keras.saving.register_keras_serializable(package="zoo")
class TokenCrossentropy(keras.losses.Loss):
    r"""Mean cross-entropy over the labels that are not ignored.

    With N valid labels in the whole batch, over all replicas:

        loss = 1/N sum_i w_i ((1 - e) (-log p_i[y_i]) + e/C sum_c (-log p_i[c]))

    Keras' own losses take the mean on each replica and divide by the number of replicas, which
    weighs a token more where its replica holds fewer of them. Here N is summed over the replicas,
    so gradients (which are summed over them too) equal those of one device on the same batch.

    Args:
        label_smoothing: e, the share of the target that is spread over all classes.
        ignored: The label of positions that do not count.

    Call shapes:
        y_true [...] integers, y_pred [..., C] logits, sample_weight broadcast from the left.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        ignored: int = IGNORED,
        name: str = "token_crossentropy",
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(name=name, reduction="sum", **kwargs)
        self.label_smoothing = label_smoothing
        self.ignored = ignored

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        y_true = ops.cast(y_true, "int32")
        valid = ops.not_equal(y_true, self.ignored)
        losses = self.call(ops.where(valid, y_true, 0), y_pred)
        weights = ops.cast(valid, "float32")
        count = sum_over_replicas(ops.sum(weights))
        if sample_weight is not None:
            sample_weight = ops.cast(sample_weight, "float32")
            while len(sample_weight.shape) < len(weights.shape):
                sample_weight = ops.expand_dims(sample_weight, -1)
            weights = weights * sample_weight
        return ops.sum(losses * weights) / ops.maximum(count, 1.0)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        logits = ops.cast(y_pred, "float32")
        losses = ops.sparse_categorical_crossentropy(y_true, logits, from_logits=True)
        if self.label_smoothing:
            spread = ops.logsumexp(logits, axis=-1) - ops.mean(logits, axis=-1)
            losses = (1 - self.label_smoothing) * losses + self.label_smoothing * spread
        return losses

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "label_smoothing": self.label_smoothing,
            "ignored": self.ignored,
        }


def sum_over_replicas(value: Any) -> Any:
    """Returns the sum of a scalar over the replicas of the `tf.distribute` strategy in force."""
    if keras.backend.backend() != "tensorflow":
        return value
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
