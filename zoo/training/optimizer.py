"""AdamW and its learning rate, right under accumulation and on several replicas."""

import math
from typing import Any

import keras
from keras import ops

from zoo.training.recipe import OptimizerRecipe, ScheduleRecipe, TrainingRecipe

__all__ = ["AdamW", "WarmupSchedule", "build_optimizer"]


@keras.saving.register_keras_serializable(package="zoo")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of update s (the first is 0) out of `total`, with w = `warmup` updates.

    In the warm-up, s < w: peak (s + 1) / w. After it, with p = (s - w) / (total - w) and
    f = `final_ratio`:

        linear        peak (f + (1 - f) (1 - p))
        cosine        peak (f + (1 - f) (1 + cos(pi p)) / 2)
        inverse_sqrt  peak sqrt(max(w, 1) / (s + 1))
        constant      peak
    """

    def __init__(
        self, peak: float, kind: str, total: int, warmup: int = 0, final_ratio: float = 0.0
    ) -> None:
        super().__init__()
        self.peak = peak
        self.kind = kind
        self.total = total
        self.warmup = warmup
        self.final_ratio = final_ratio

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        warmup = float(self.warmup)
        passed = ops.clip((step - warmup) / max(self.total - warmup, 1.0), 0.0, 1.0)
        if self.kind == "linear":
            factor = self.final_ratio + (1 - self.final_ratio) * (1 - passed)
        elif self.kind == "cosine":
            factor = self.final_ratio + (1 - self.final_ratio) * (1 + ops.cos(math.pi * passed)) / 2
        elif self.kind == "inverse_sqrt":
            factor = ops.sqrt(max(warmup, 1.0) / (step + 1))
        else:
            factor = ops.ones_like(step)
        return self.peak * ops.where(step < warmup, (step + 1) / max(warmup, 1.0), factor)

    def get_config(self) -> dict[str, Any]:
        return {
            "peak": self.peak,
            "kind": self.kind,
            "total": self.total,
            "warmup": self.warmup,
            "final_ratio": self.final_ratio,
        }


@keras.saving.register_keras_serializable(package="zoo")
class AdamW(keras.optimizers.AdamW):
    """Keras' AdamW with four differences.

    - Biases, norm scales and other vectors are not decayed, nor are embeddings unless asked.
    - A schedule counts updates; Keras' own counts the parts of an accumulated batch.
    - Gradients are summed over replicas before their norm is clipped; Keras clips each replica's.
    - Sparse gradients of embeddings are made dense first, so that the norm is that of the gradient.

    Args:
        decay_embeddings: Decay embedding tables as well.
        **kwargs: As `keras.optimizers.AdamW`.
    """

    def __init__(self, *args: Any, decay_embeddings: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.decay_embeddings = decay_embeddings

    @property
    def schedule(self) -> Any:
        """The schedule itself; `learning_rate` is its present value."""
        return self._learning_rate

    def build(self, variables: list[Any]) -> None:
        if not self.built:
            exempt = [variable for variable in variables if not self.is_decayed(variable)]
            self.exclude_from_weight_decay(var_list=exempt)
        super().build(variables)

    def is_decayed(self, variable: Any) -> bool:
        """Whether weight decay applies to a model's variable."""
        if len(variable.shape) < 2:
            return False
        return self.decay_embeddings or "embedding" not in variable.path.lower()

    def _get_current_learning_rate(self) -> Any:
        if isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return self._learning_rate(self.iterations)
        return super()._get_current_learning_rate()

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        if keras.backend.backend() == "tensorflow":
            grads = _dense_sums(grads)
        return super()._clip_gradients(grads)

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> list[Any]:
        return list(grads_and_vars)  # `_clip_gradients` has summed them

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "decay_embeddings": self.decay_embeddings}


def _dense_sums(grads: list[Any]) -> list[Any]:
    """Returns gradients as dense tensors, summed over replicas."""
    import tensorflow as tf

    grads = [tf.convert_to_tensor(grad) for grad in grads]
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return grads
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, grads))


def build_schedule(recipe: ScheduleRecipe, peak: float, total: int) -> WarmupSchedule:
    """Builds the schedule of a run of `total` updates."""
    warmup = recipe.warmup_steps
    if warmup is None:
        warmup = round((recipe.warmup_ratio or 0.0) * total)
    return WarmupSchedule(peak, recipe.kind, total, min(warmup, total), recipe.final_ratio)


def build_optimizer(training: TrainingRecipe, total: int) -> AdamW:
    """Builds the optimizer of a run of `total` updates."""
    recipe: OptimizerRecipe = training.optimizer
    steps = training.gradient_accumulation_steps
    return AdamW(
        learning_rate=build_schedule(training.schedule, recipe.learning_rate, total),
        weight_decay=recipe.weight_decay,
        beta_1=recipe.beta_1,
        beta_2=recipe.beta_2,
        epsilon=recipe.epsilon,
        global_clipnorm=recipe.clip_norm,
        decay_embeddings=recipe.decay_embeddings,
        gradient_accumulation_steps=steps if steps > 1 else None,
    )
