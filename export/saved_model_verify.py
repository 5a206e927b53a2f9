"""Does a SavedModel compute what Keras computes? Asked of the loaded signatures, before the folder
appears.
"""

from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from export.errors import VerificationError
from export.facts import problem_type
from export.reference import TEXTS, full_passes, reference_values
from export.text_signatures import max_length_of
from export.tolerances import TOLERANCES
from serve.bundle.selfcheck import difference
from serve.pipelines.encoder import class_scores
from zoo.generation import generate
from zoo.tasks import TaskModel

NEW_TOKENS = 8
"""How many tokens a verification generates."""


def compare(
    model: TaskModel, reference: TaskModel, folder: Path, tokenizer: Any = None
) -> dict[str, Any]:
    """Runs every reference case through the loaded signatures: full pass, and for generating models
    token by token and through `generate`.

    Args:
        model: What was exported, in the precision it was exported in.
        reference: The same in float32.
        folder: The SavedModel.
        tokenizer: Where signatures take strings: whose ids they must make.

    Returns:
        `cases` (largest absolute difference by name), `largest`, `tolerance`, and for generating
        models `tokens`, how many were compared one by one.

    Raises:
        VerificationError: Something differs by more than the precision's tolerance.
    """
    loaded = tf.saved_model.load(str(folder))
    tolerance = TOLERANCES[model.dtype_policy.name]
    differences: dict[str, float] = {}
    tokens = 0
    for case, feeds, expected in full_passes(reference_values(reference, None)):
        found = loaded.signatures["serving_default"](**_tensors(feeds))
        for name, value in expected.items():
            differences[f"{case} {name}"] = difference(np.asarray(found[name]), value)
        if model.generates:
            gap = _stepped(model, loaded.signatures, feeds, expected["logits"])
            differences[f"{case} steps"] = gap
            count, gap = _generated(model, reference, loaded.signatures["generate"], feeds)
            differences[f"{case} generate"] = gap
            tokens += count
    if tokenizer is not None:
        differences["strings"] = _strings(model, loaded.signatures, tokenizer)
    worst = max(differences.values())
    if not worst <= tolerance:
        name = max(differences, key=lambda key: differences[key])
        raise VerificationError(
            f"the SavedModel differs from Keras by {worst:.2g} in {name!r}, "
            f"tolerance {tolerance:.2g}"
        )
    report: dict[str, Any] = {"cases": differences, "largest": worst, "tolerance": tolerance}
    return report | {"tokens": tokens} if model.generates else report


def _tensors(feeds: dict[str, Any]) -> dict[str, tf.Tensor]:
    kinds = {"f": tf.float32, "i": tf.int64}
    return {name: tf.constant(value, kinds[value.dtype.kind]) for name, value in feeds.items()}


def _stepped(
    model: TaskModel, signatures: Any, feeds: dict[str, Any], expected: np.ndarray
) -> float:
    """Largest difference between the full pass and `step` fed half of each row and then single
    tokens.
    """
    step, decoder = signatures["step"], model.decoder
    assert decoder is not None
    constants: dict[str, tf.Tensor] = {}
    ids, mask = feeds["input_ids"], feeds["attention_mask"]
    if model.encoder is not None:
        encoded = signatures["encode"](**_tensors({"input_ids": ids, "attention_mask": mask}))
        constants["encoder_attention_mask"] = tf.constant(mask, tf.int64)
        for name, value in encoded.items():
            if name.startswith("present."):
                constants[name.replace("present.", "past_key_values.", 1)] = value
        ids = feeds["decoder_input_ids"]
        mask = np.ones_like(ids)
    shape = (len(ids), decoder.config.num_kv_heads, 0, decoder.config.head_dim)
    kind = "decoder." if model.encoder is not None else ""
    past = {
        f"past_key_values.{i}.{kind}{part}": tf.zeros(shape, model.compute_dtype)
        for i in range(len(decoder.layers))
        for part in ("key", "value")
    }
    worst, position = 0.0, 0
    for width in [max(1, ids.shape[1] // 2)] + [1] * (ids.shape[1] - max(1, ids.shape[1] // 2)):
        new = slice(position, position + width)
        position += width
        fed = {"input_ids": ids[:, new], "attention_mask": mask[:, :position]}
        found = step(**_tensors(fed), **past, **constants)
        past = {
            name.replace("present.", "past_key_values.", 1): value
            for name, value in found.items()
            if name != "logits"
        }
        tokens = mask[:, new] == 1
        gap = difference(np.asarray(found["logits"])[tokens], expected[:, new][tokens])
        worst = max(worst, gap)
    return worst


def _generated(
    model: TaskModel, reference: TaskModel, signature: Any, feeds: dict[str, Any]
) -> tuple[int, float]:
    """Compares `generate` with Keras' own loop; (tokens compared, largest difference).

    Where two tokens are as likely as rounding can tell, either may be chosen, and the row goes on
    as another text from there. The difference is then that of their float32 logits.
    """
    ids, mask = feeds["input_ids"], feeds["attention_mask"]
    room: Any = model.config
    longest = room.max_length - ids.shape[1]
    if model.encoder is not None:
        longest = room.max_target_length - 1
    most = min(NEW_TOKENS, longest)
    if most < 1:
        return 0, 0.0
    prompt = _tensors({"input_ids": ids, "attention_mask": mask})
    found = signature(**prompt, max_new_tokens=tf.constant(most, tf.int64))["output_ids"].numpy()
    expected = generate(model, ids, mask, max_new_tokens=most)
    if found.shape == expected.shape and (found == expected).all():
        return found.size, 0.0
    compared, worst = 0, 0.0
    for row in range(len(ids)):
        width = min(found.shape[1], expected.shape[1])
        differ = np.flatnonzero(found[row, :width] != expected[row, :width])
        if not len(differ):
            compared += width
            continue
        at = int(differ[0])
        compared += at
        logits = _logits_behind(reference, ids[row], mask[row], expected[row, :at])
        worst = max(worst, abs(float(logits[found[row, at]] - logits[expected[row, at]])))
    return compared, worst


def _strings(model: TaskModel, signatures: Any, tokenizer: Any) -> float:
    """Compares signatures that take strings with those that take ids, fed with the library's.

    Returns:
        The largest difference of an output.

    Raises:
        VerificationError: Ids or texts are not the same.
    """
    longest = max_length_of(model, tokenizer)
    most = max(1, min(NEW_TOKENS, longest // 2))
    texts = [
        text for text in TEXTS if model.encoder or len(tokenizer.encode(text)) <= longest - most
    ]
    if not texts:
        return 0.0
    strings = tf.constant(texts)
    expected = {
        name: np.asarray(value, "int64")
        for name, value in tokenizer(texts, max_length=longest).items()
    }
    found = signatures["tokenize"](text=strings)
    for name, value in found.items():
        value = value.numpy()
        same = expected.get(name, np.zeros_like(value))
        if value.shape != same.shape or (value != same).any():
            raise VerificationError(f"signature 'tokenize' makes other {name} than the tokenizer")
    feeds = _tensors({name: expected[name] for name in ("input_ids", "attention_mask")})
    if model.generates:
        length = tf.constant(most, tf.int64)
        written = signatures["generate_text"](text=strings, max_new_tokens=length)
        new = signatures["generate"](**feeds, max_new_tokens=length)["output_ids"].numpy()
        config: Any = model.config
        ends = {config.eos_token_id, *config.stop_token_ids}
        rows = [list(takewhile(lambda token: token not in ends, row)) for row in new.tolist()]
        decoded = tokenizer.decode_batch(rows)
        for text, other in zip(written["generated_text"].numpy(), decoded, strict=True):
            if text.decode() != other:
                raise VerificationError(
                    f"signature 'generate_text' writes {text.decode()!r}, the tokens are {other!r}"
                )
        return 0.0
    if "text" not in signatures:
        return 0.0
    if model.config.token_types:
        feeds["token_type_ids"] = found["token_type_ids"]
    outputs = signatures["serving_default"](**feeds)
    answered = signatures["text"](text=strings)
    if "logits" in outputs:
        kept = expected["attention_mask"] == 1 if model.task == "token-classification" else ...
        answer = "labels" if model.task == "token-classification" else "label"
        scores = class_scores(np.asarray(outputs["logits"])[kept], problem_type(model))
        names = np.array(model.labels)[scores.argmax(-1)]
        given = [label.decode() for label in answered[answer].numpy()[kept].ravel()]
        best = "scores" if model.task == "token-classification" else "score"
        gap = difference(answered[best].numpy()[kept], scores.max(-1))
        if given != names.ravel().tolist():
            raise VerificationError("signature 'text' gives other labels than the model's logits")
        return gap
    return max(difference(np.asarray(answered[name]), np.asarray(v)) for name, v in outputs.items())


def _logits_behind(model: TaskModel, ids: Any, mask: Any, new: Any) -> np.ndarray:
    """The full pass' logits [V] of the token that follows a prompt and `new` tokens."""
    prompt = ids[mask == 1]
    if model.encoder is None:
        feeds = {"input_ids": np.concatenate([prompt, new])[None].astype("int32")}
    else:
        config: Any = model.config
        begun = np.concatenate([[config.decoder_start_token_id], new]).astype("int32")
        feeds = {"input_ids": prompt[None].astype("int32"), "decoder_input_ids": begun[None]}
    return np.asarray(model(feeds)["logits"])[0, -1]
