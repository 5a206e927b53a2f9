"""Signatures of a SavedModel that take strings and give labels, vectors or strings."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from export.facts import problem_type
from export.generation import SETTINGS, Steps, chooser, generated
from export.graphs import BATCH, SEQUENCE, Graph, Tensor, forward_graph
from export.strings.check import compared
from export.strings.codes import by_length, made_tables
from export.strings.decoder import TensorDecoder
from export.strings.tokenizer import TensorTokenizer
from zoo.tasks import TaskModel

TEXT = Tensor("text", "string", (BATCH,))
PAIR = Tensor("pair", "string", (BATCH,))
MOST = Tensor("max_new_tokens", "int64", ())
_IDS = ("input_ids", "attention_mask", "token_type_ids")
PAIRED = ("text-classification",)
"""Tasks that may be asked about two texts."""
NO_ANSWER = {
    "question-answering": "an answer is a part of the text, and the graph does not keep track of "
    "which characters a token stands for",
    "fill-mask": "its answers are as many as a text has masks",
}
"""Tasks whose strings are only made into ids, and why."""


@dataclass
class TextSignatures:
    """What a SavedModel gets for strings.

    Attributes:
        graphs: By signature.
        parts: What holds their tables.
        facts: What is said of them in `assets.extra/text.json`.
    """

    graphs: dict[str, Graph] = field(default_factory=dict)
    parts: list[tf.Module] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def max_length_of(model: TaskModel, tokenizer: Any) -> int:
    """At how many tokens a text is cut, special ones included."""
    longest: int = model.config.max_length
    return min(longest, tokenizer.model_max_length or longest)


def text_signatures(model: TaskModel, tokenizer: Any, steps: Steps | None = None) -> TextSignatures:
    """The signatures of a model and its tokenizer; `steps` are a generating model's.

    Raises:
        InexactError: The tokenizer cannot be repeated exactly inside a graph: not by what it is
            made of, or because its ids of some text were others.
    """
    tables = tf.Module()  # steps are functions, which TensorFlow does not look into
    token = made_tables.set([])
    try:
        encoder = TensorTokenizer(tokenizer)
        decoder = TensorDecoder(tokenizer) if model.generates else None
        tables.all = made_tables.get()
    finally:
        made_tables.reset(token)
    longest = max_length_of(model, tokenizer)
    count = compared(tokenizer, encoder, decoder, longest)
    made = TextSignatures(parts=[encoder, tables])
    made.facts = {"texts_compared": count}
    # A prompt that was cut would be another question; a text to be read is cut.
    limit = None if model.architecture == "decoder" and model.generates else longest

    def tokenize(text: tf.Tensor, pair: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        return encoder.encode(text, pair, limit)

    spec = tf.TensorSpec([None], tf.string)
    tokenized = tf.function(tokenize, input_signature=[spec], autograph=False)
    names = _IDS if model.config.token_types else _IDS[:2]
    ids = tuple(Tensor(name, "int64", (BATCH, SEQUENCE)) for name in names)

    def tokens(feeds: dict[str, Any]) -> dict[str, Any]:
        found = tokenized(feeds["text"])
        return {name: found[name] for name in names}

    made.graphs["tokenize"] = Graph("tokenize", (TEXT,), ids, tokens)
    if decoder is not None:
        made.parts.append(decoder)
        made.graphs |= _written(steps or Steps(model), tokenized, decoder)
    elif model.task in NO_ANSWER:
        made.facts["no_text"] = NO_ANSWER[model.task]
    else:
        forward = forward_graph(model)

        def run(found: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return forward.call({tensor.name: found[tensor.name] for tensor in forward.inputs})

        answer = _answer_of(model, encoder)

        def text(feeds: dict[str, Any]) -> dict[str, Any]:
            found = tokenized(feeds["text"])
            return answer(found, run(found))

        def text_pair(feeds: dict[str, Any]) -> dict[str, Any]:
            found = tokenize(feeds["text"], feeds["pair"])
            return answer(found, run(found))

        made.graphs["text"] = Graph("text", (TEXT,), (), text)
        if model.task in PAIRED:
            made.graphs["text_pair"] = Graph("text_pair", (TEXT, PAIR), (), text_pair)
    made.facts = {"signatures": sorted(made.graphs), **made.facts}
    return made


Answer = Callable[[dict[str, tf.Tensor], dict[str, tf.Tensor]], dict[str, tf.Tensor]]


def _answer_of(model: TaskModel, encoder: TensorTokenizer) -> Answer:
    """(ids, outputs of the model) -> the outputs of `text`."""
    labels, kind = model.labels, problem_type(model)

    def classified(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        wide = tf.cast(logits, tf.float64)
        if kind == "regression":
            scores = wide
        elif len(labels or ()) == 1 or kind == "multi_label_classification":
            scores = tf.sigmoid(wide)
        else:
            scores = tf.nn.softmax(wide)
        best = tf.argmax(scores, axis=-1)
        label = tf.gather(tf.constant(labels), best)
        narrow = tf.cast(scores, tf.float32)
        return label, tf.reduce_max(narrow, axis=-1), narrow

    def text_class(found: dict[str, tf.Tensor], outputs: dict[str, tf.Tensor]) -> Any:
        label, score, scores = classified(outputs["logits"])
        return {"label": label, "score": score, "scores": scores}

    def token_classes(found: dict[str, tf.Tensor], outputs: dict[str, tf.Tensor]) -> Any:
        label, score, _ = classified(outputs["logits"])
        tokens = encoder.tokens(found["input_ids"])
        mask = found["attention_mask"]
        return {"tokens": tokens, "labels": label, "scores": score, "attention_mask": mask}

    def states(found: dict[str, tf.Tensor], outputs: dict[str, tf.Tensor]) -> Any:
        return outputs | {"attention_mask": found["attention_mask"]}

    if model.task == "text-classification":
        return text_class
    if model.task == "token-classification":
        return token_classes
    return states if model.task == "feature-extraction" else lambda found, outputs: outputs


def _written(steps: Steps, tokenized: Any, decoder: TensorDecoder) -> dict[str, Graph]:
    """Signatures that write: `generate_text`, `sample_text` and `detokenize`."""
    model = steps.model
    config: Any = model.config
    ends = [end for end in (config.eos_token_id, *config.stop_token_ids) if end is not None]
    text = Tensor("generated_text", "string", (BATCH,))
    ids = Tensor("ids", "int64", (BATCH, SEQUENCE))

    def shown(new: tf.Tensor) -> tf.Tensor:
        """Strings of new tokens [B, N], each row up to its end token."""
        ended = tf.zeros_like(new, tf.bool)
        for end in ends:
            ended |= new == end
        kept = tf.cumsum(tf.cast(ended, tf.int32), axis=1) == 0
        sizes = tf.reduce_sum(tf.cast(kept, tf.int64), axis=1)
        return decoder(by_length(tf.boolean_mask(tf.cast(new, tf.int32), kept), sizes))

    def call(feeds: dict[str, Any]) -> dict[str, Any]:
        found = tokenized(feeds["text"])
        prompt = {name: found[name] for name in _IDS[:2]}
        if model.encoder is None:
            prompt = _begun(prompt, config.bos_token_id)
        new = generated(steps, {**feeds, **prompt}, chooser(feeds))
        return {text.name: shown(new)}

    def detokenize(feeds: dict[str, Any]) -> dict[str, Any]:
        flat = tf.cast(feeds["ids"], tf.int32)
        return {"text": decoder(tf.RaggedTensor.from_tensor(flat))}

    return {
        "generate_text": Graph("generate_text", (TEXT, MOST), (text,), call),
        "sample_text": Graph("sample_text", (TEXT, MOST, *SETTINGS), (text,), call),
        "detokenize": Graph("detokenize", (ids,), (TEXT,), detokenize),
    }


def _begun(prompt: dict[str, tf.Tensor], bos: int | None) -> dict[str, tf.Tensor]:
    """Texts of no token begin with the model's first token, where it has one."""
    ids, mask = (prompt[name] for name in _IDS[:2])
    empty = tf.reduce_sum(mask, axis=1) == 0
    if bos is None:
        check = tf.debugging.Assert(
            ~tf.reduce_any(empty), ["a text has no tokens: expected something to go on"]
        )
        with tf.control_dependencies([check]):
            return {_IDS[0]: tf.identity(ids), _IDS[1]: mask}
    wide = tf.cast(tf.shape(ids)[1] == 0, tf.int32)
    ids, mask = (tf.pad(x, [[0, 0], [0, wide]]) for x in (ids, mask))
    first = tf.cast(tf.range(tf.shape(ids)[1]) == 0, tf.int64)[None, :]
    new = tf.cast(empty, tf.int64)[:, None] * first
    return {_IDS[0]: tf.where(new == 1, tf.constant(bos, tf.int64), ids), _IDS[1]: mask + new}
