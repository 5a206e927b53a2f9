"""Encoded examples as `tf.data` batches of few shapes, shuffled anew in each epoch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data.alignment import IGNORED
from zoo.data.columns import Columns, Ragged, Settings, encode_examples, pack
from zoo.data.plan import Plan, make_plan
from zoo.errors import ConfigError, DataError
from zoo.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["batches", "pack"]


def batches(
    examples: Iterable[Mapping[str, Any]],
    tokenizer: Tokenizer,
    task: str,
    *,
    batch_size: int,
    labels: Sequence[str] | None = None,
    max_length: int | None = None,
    max_target_length: int | None = None,
    shuffle_seed: int | None = None,
    buckets: str | Sequence[int] | None = "auto",
    drop_remainder: bool = False,
    repeat: bool = False,
    decoder_start_token_id: int | None = None,
    start_epoch: int = 0,
    stride: int | None = None,
    pack: bool = True,
    mask_probability: float = 0.15,
    token_type_ids: bool | None = None,
) -> "tf.data.Dataset":
    """Batches `(x, y)` for `model.fit`, or `x` alone when the examples have no labels.

    The examples are encoded at once and held as flat arrays. Rows are padded to the boundary of
    their bucket, so only as many shapes occur as there are buckets (and one more for a last,
    smaller batch). Without a seed the order of the examples is kept. With one, epoch `n` depends
    on the seed and `n` alone: `n` counts the iterators made, or, with `repeat=True`, the passes of
    one iterator, from `start_epoch` on; to resume training, repeat and give `fit`
    `steps_per_epoch`.

    Args:
        examples: dicts of the task: `text[, pair], label` · `tokens, tags` · `question, context,
            answers` · `text` · `source, target`.
        tokenizer: the tokenizer.
        task: the task's name; "text-classification", ...
        batch_size: examples per global batch, over all replicas.
        labels: the names of classes or tags, in the order of their numbers.
        max_length: most tokens of a row (None: the tokenizer's `model_max_length`).
        max_target_length: most tokens of a target (None: as `max_length`).
        shuffle_seed: seed of the order (and of the masked positions); None keeps the order.
        buckets: `"auto"`, boundaries in tokens, or None to pad every row to `max_length`.
        drop_remainder: leave out the last batch when it is not full.
        repeat: go on for ever.
        decoder_start_token_id: first decoder input (None: the pad token).
        start_epoch: number of the first epoch.
        stride: tokens shared by neighbouring windows of a context (question answering).
        pack: text generation: lay texts end to end; False gives each text a row.
        mask_probability: fill-mask: share of tokens to hide.
        token_type_ids: whether `x` has them; None: for pairs, when the tokenizer tells them apart.

    Returns:
        A dataset of known cardinality, with the attributes `steps_per_epoch`, `num_rows` (windows,
        packed rows or examples), `widths` (the padded lengths that occur) and `for_epoch(n)`,
        which gives the batches of one epoch without encoding anything again.

    Raises:
        DataError: for examples that do not fit the task.
        ConfigError: for settings that do not.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}; expected 1 or more")
    if max_length is None:
        max_length = tokenizer.model_max_length
    if not (buckets is None or isinstance(buckets, str)):
        buckets = sorted(set(buckets))
        if not buckets or buckets[0] < 1:
            raise ConfigError(f"buckets={buckets}; expected lengths of 1 or more")
        max_length = max_length or buckets[-1]
    elif buckets not in ("auto", None):
        raise ConfigError(f"buckets={buckets!r}; expected 'auto', a list of lengths or None")
    settings = Settings(
        tokenizer, labels, max_length, max_target_length or max_length, decoder_start_token_id,
        stride, pack, token_type_ids,
    )  # fmt: skip
    columns = encode_examples(list(examples), task, settings)
    plan = make_plan(
        columns, settings, batch_size, buckets, shuffle_seed is not None, drop_remainder
    )
    if not len(plan.sizes):
        raise DataError(
            f"{len(columns.lengths)} examples do not fill one batch of {batch_size}; "
            "use a smaller batch_size or drop_remainder=False"
        )
    return _dataset(columns, plan, tokenizer, shuffle_seed, repeat, start_epoch, mask_probability)


def _dataset(
    columns: Columns,
    plan: Plan,
    tokenizer: Tokenizer,
    seed: int | None,
    repeat: bool,
    start_epoch: int,
    mask_probability: float,
) -> "tf.data.Dataset":
    import tensorflow as tf

    steps = len(plan.sizes)
    starts = np.cumsum(plan.sizes) - plan.sizes
    schedule = np.stack([starts, plan.sizes, plan.widths, plan.target_widths], 1).astype(np.int32)
    assemble = _assembler(columns, plan, tokenizer, seed or 0, mask_probability)

    @tf.autograph.experimental.do_not_convert
    def epoch_steps(epoch: Any) -> Any:
        order, table = _epoch(tf, plan, schedule, seed, epoch)
        numbered = tf.data.Dataset.from_tensor_slices((table, tf.range(steps)))

        @tf.autograph.experimental.do_not_convert
        def members(row: Any, step: Any) -> Any:
            chosen = order[row[0] : row[0] + row[1]]
            return chosen, row[2], row[3], tf.stack([tf.cast(epoch, tf.int32), step])

        return numbered.map(members)

    def over(epochs: Any, cardinality: int) -> Any:
        dataset = epochs.flat_map(epoch_steps)
        dataset = dataset.map(assemble, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(cardinality))
        options = tf.data.Options()
        policy = tf.data.experimental.AutoShardPolicy.DATA
        options.experimental_distribute.auto_shard_policy = policy
        return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)

    def for_epoch(epoch: int) -> Any:
        return over(tf.data.Dataset.from_tensors(tf.constant(epoch, tf.int64)), steps)

    if repeat:
        epochs = tf.data.Dataset.counter(start_epoch, 1, tf.int64)
        dataset = over(epochs, tf.data.INFINITE_CARDINALITY)
    elif seed is None:
        dataset = for_epoch(start_epoch)
    else:
        numbers = count(start_epoch)

        def one() -> Iterator[int]:
            yield next(numbers)

        signature = tf.TensorSpec([], tf.int64)
        epochs = tf.data.Dataset.from_generator(one, output_signature=signature)
        dataset = over(epochs, steps)
    dataset.steps_per_epoch = steps
    dataset.num_rows = int(plan.sizes.sum())
    dataset.widths = sorted(set(plan.widths.tolist()))
    dataset.for_epoch = for_epoch
    return dataset


def _epoch(tf: Any, plan: Plan, schedule: np.ndarray, seed: int | None, epoch: Any) -> Any:
    """The order of the examples, int32 `[num_rows]`, and the schedule `[steps, 4]` of one epoch."""
    if seed is None:
        return tf.constant(plan.pools[0], tf.int32), tf.constant(schedule)
    shuffle = tf.random.experimental.stateless_shuffle
    epoch = tf.cast(epoch, tf.int64)
    parts, carried, left = [], tf.zeros([0], tf.int32), 0
    for number, pool in enumerate(plan.pools):
        drawn = shuffle(tf.constant(pool, tf.int32), seed=tf.stack([seed, epoch * 64 + number]))
        mixed = tf.concat([carried, drawn], 0)
        full = (left + len(pool)) // plan.batch_size * plan.batch_size
        left += len(pool) - full
        parts.append(shuffle(mixed[:full], seed=tf.stack([seed + 1, epoch * 64 + number])))
        carried = mixed[full:]
    table = tf.constant(schedule)
    whole = int((plan.sizes == plan.batch_size).sum())
    first = shuffle(table[:whole], seed=tf.stack([seed + 2, epoch]))
    return tf.concat([*parts, carried], 0), tf.concat([first, table[whole:]], 0)


def _assembler(
    columns: Columns, plan: Plan, tokenizer: Tokenizer, seed: int, mask_probability: float
) -> Any:
    """The function that gathers the rows of a batch and pads them."""
    import tensorflow as tf

    def dense(column: Ragged | np.ndarray) -> Any:
        if isinstance(column, np.ndarray):
            values = tf.constant(column)
            return lambda rows, widths: tf.gather(values, rows)
        starts = np.cumsum(column.lengths, dtype=np.int64) - column.lengths
        # One value more, so that a row that ends the column can be read past its end.
        flat = tf.constant(np.append(column.flat, np.int32(column.fill)))
        starts, lengths = tf.constant(starts), tf.constant(column.lengths)
        fill, last = column.fill, len(column.flat)

        def gather(rows: Any, widths: Mapping[str, Any]) -> Any:
            time = tf.range(widths[column.side])
            real = time < tf.gather(lengths, rows)[:, None]
            at = tf.gather(starts, rows)[:, None] + tf.cast(time, tf.int64)
            return tf.where(real, tf.gather(flat, tf.minimum(at, last)), fill)

        return gather

    x_makers = {name: dense(column) for name, column in columns.x.items()}
    y_makers = {name: dense(column) for name, column in columns.y.items()}
    row_lengths = tf.constant(columns.lengths)
    one_width = len(set(plan.widths.tolist())) == 1 and int(plan.widths[0])
    one_target = len(set(plan.target_widths.tolist())) == 1 and int(plan.target_widths[0])
    one_size = len(set(plan.sizes.tolist())) == 1 and int(plan.sizes[0])
    hide = _hider(tf, tokenizer, seed, mask_probability) if columns.masked else None

    @tf.autograph.experimental.do_not_convert
    def assemble(rows: Any, width: Any, target_width: Any, place: Any) -> Any:
        if one_size:
            rows = tf.ensure_shape(rows, [one_size])
        widths = {"input": one_width or width, "target": one_target or target_width}
        x = {name: make(rows, widths) for name, make in x_makers.items()}
        mask = tf.sequence_mask(tf.gather(row_lengths, rows), widths["input"], tf.int32)
        x = {"input_ids": x.pop("input_ids"), "attention_mask": mask, **x}
        if hide is not None:
            x["input_ids"], labels = hide(x["input_ids"], mask, place)
            return x, labels
        y = {name: make(rows, widths) for name, make in y_makers.items()}
        if not y:
            return x
        return x, y.get("labels", y)

    return assemble


def _hider(tf: Any, tokenizer: Tokenizer, seed: int, probability: float) -> Any:
    """BERT's masking: of the chosen tokens 80 % become the mask, 10 % another token, 10 % stay.

    At least one token of each row is chosen, unless all are special.
    """
    size = tokenizer.vocab_size
    special = np.zeros(size, bool)
    special[tokenizer.special_ids] = True
    plain, is_special = tf.constant(np.flatnonzero(~special), tf.int32), tf.constant(special)

    def hide(ids: Any, mask: Any, place: Any) -> Any:
        seeds = tf.random.experimental.stateless_split(
            tf.random.experimental.stateless_fold_in(tf.stack([seed, place[0]]), place[1]), 3
        )
        shape = tf.shape(ids)
        open_ = (mask == 1) & ~tf.gather(is_special, ids)
        draw = tf.where(open_, tf.random.stateless_uniform(shape, seeds[0]), 2.0)
        least = tf.reduce_min(draw, axis=1, keepdims=True)
        chosen = open_ & ((draw < probability) | (draw == least))
        fate = tf.random.stateless_uniform(shape, seeds[1])
        other = tf.random.stateless_uniform(shape, seeds[2], 0, tf.size(plain), tf.int32)
        changed = tf.where(fate < 0.9, tf.gather(plain, other), ids)
        changed = tf.where(fate < 0.8, tokenizer.mask_token_id, changed)
        return tf.where(chosen, changed, ids), tf.where(chosen, ids, IGNORED)

    return hide
