"""Tiny real bundles for the tests of `serve`: graphs built by hand, with twins in numpy."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from serve.bundle.integrity import FileSpec
from serve.bundle.manifest import Manifest

HEADS, KV_HEADS, HEAD_DIM, LAYERS, MAX_LENGTH = 4, 2, 8, 2, 64
WIDTH = HEADS * HEAD_DIM
SCALES = {"tokens": 1.0, "positions": 0.8, "source": 0.5}
TEXTS = [
    "the cat sat on the mat and looked at the old house by the sea",
    "a red boat sails over the sea, the wind is cold and the sun is low",
    "bread, milk and honey are on the table of the old house",
    "日本語のテキスト と 中文文本 äöü ñ ç 😀 🎉",
]


class Graph:
    """Collects nodes and initializers; every method returns the name of a tensor."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.weights = weights

    def __call__(self, op: str, *inputs, outputs: int = 1, names=None, domain="", **attributes):
        names = names or [f"{op}_{len(self.nodes)}_{i}" for i in range(outputs)]
        inputs = [self.constant(x) if not isinstance(x, str) else x for x in inputs]
        self.nodes.append(helper.make_node(op, inputs, names, domain=domain, **attributes))
        return names[0] if len(names) == 1 else names

    def constant(self, value) -> str:
        array = np.asarray(value)
        array = array.astype(np.int64) if array.dtype.kind in "iu" else array
        name = f"c{len(self.initializers)}"
        self.initializers[name] = numpy_helper.from_array(array, name)
        return name

    def weight(self, name: str) -> str:
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(self.weights[name], name)
        return name

    def linear(self, x: str, name: str) -> str:
        return self("MatMul", x, self.weight(name))

    def split_heads(self, x: str, heads: int, dim: int) -> str:
        """[B, T, heads * dim] -> [B, heads, T, dim]"""
        return self("Transpose", self("Reshape", x, [0, 0, heads, dim]), perm=[0, 2, 1, 3])

    def attend(self, query: str, key: str, value: str, allowed: str, kv_heads: int) -> str:
        """Plain attention: query [B, T, heads * dim], key [B, kv, U, dim], allowed [B, T, U]"""
        group = HEADS // kv_heads
        query = self("Reshape", query, [0, 0, kv_heads, group, HEAD_DIM])
        query = self("Transpose", query, perm=[0, 2, 3, 1, 4])  # [B, kv, group, T, dim]
        key, value = (self("Unsqueeze", x, [2]) for x in (key, value))
        scores = self("MatMul", query, self("Transpose", key, perm=[0, 1, 2, 4, 3]))
        scores = self("Mul", scores, np.float32(HEAD_DIM**-0.5))
        scores = self("Where", self("Unsqueeze", allowed, [1, 2]), scores, np.float32(-1e9))
        mixed = self("MatMul", self("Softmax", scores, axis=-1), value)
        return self("Reshape", self("Transpose", mixed, perm=[0, 3, 1, 2, 4]), [0, 0, WIDTH])

    def save(self, path: Path, inputs, outputs, external: bool = False) -> dict:
        """Write the file; returns the manifest's entry for it."""
        infos = [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs]
        results = [helper.make_tensor_value_info(n, t, s) for n, t, s in outputs]
        if "logits_to_keep" in self.initializers:  # an input with a default: overridable
            infos.append(helper.make_tensor_value_info("logits_to_keep", INT, []))
        graph = helper.make_graph(self.nodes, "g", infos, results, list(self.initializers.values()))
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)],
            ir_version=10,
        )
        onnx.save(
            model,
            path,
            save_as_external_data=external,
            location="model.onnx.data",
            size_threshold=256,
        )
        kinds = {TensorProto.INT64: "int64", TensorProto.FLOAT: "float32"}
        return {
            "file": path.name,
            "inputs": [{"name": n, "dtype": kinds[t], "shape": s} for n, t, s in inputs],
            "outputs": [{"name": n, "dtype": kinds[t], "shape": s} for n, t, s in outputs],
            "operators": dict(Counter(node.op_type for node in self.nodes)),
            "parameters": sum(int(np.prod(x.dims)) for x in self.initializers.values()),
        }


INT, FLOAT = TensorProto.INT64, TensorProto.FLOAT


def make_weights(vocabulary: int, layers: int = LAYERS, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    wide = KV_HEADS * HEAD_DIM
    shapes = {"tokens": (vocabulary, WIDTH), "positions": (MAX_LENGTH, WIDTH)}
    for i in range(layers):
        shapes |= {f"{i}.q": (WIDTH, WIDTH), f"{i}.k": (WIDTH, wide), f"{i}.v": (WIDTH, wide)}
        shapes |= {f"{i}.o": (WIDTH, WIDTH), f"{i}.up": (WIDTH, 2 * WIDTH)}
        shapes |= {f"{i}.down": (2 * WIDTH, WIDTH), f"{i}.cq": (WIDTH, WIDTH)}
        shapes |= {f"{i}.ck": (WIDTH, WIDTH), f"{i}.cv": (WIDTH, WIDTH)}
    shapes |= {"source": (vocabulary, WIDTH), "head": (WIDTH, vocabulary)}
    return {
        name: (rng.normal(size=shape) * SCALES.get(name, 0.25)).astype(np.float32)
        for name, shape in shapes.items()
    }


def build_decoder(
    path: Path,
    weights,
    layout: str,
    layers: int = LAYERS,
    cross: bool = False,
    external=False,
    hidden: bool = False,
) -> dict:
    """A pre-norm-free decoder: same weights and same answers for both cache layouts."""
    g = Graph(weights)
    vocabulary = weights["tokens"].shape[0]
    shape = g("Shape", "input_ids")
    length = g("Gather", shape, 1)
    total = g("Gather", g("Shape", "attention_mask"), 1)
    valid = g("ReduceSum", "attention_mask", [1], keepdims=1)  # [B, 1]
    if layout == "buffer":
        past = g("Max", g("Sub", valid, length), 0)
        positions = g("Add", g("Unsqueeze", g("Range", 0, length, 1), [0]), past)
        last = g("Min", g("Sub", valid, 1), g("Sub", length, 1))  # of each row, within this call
        seqlens = g("Cast", g("Sub", g("Squeeze", valid, [1]), 1), to=TensorProto.INT32)
        total32 = g("Cast", total, to=TensorProto.INT32)
    else:
        running = g("Sub", g("CumSum", "attention_mask", 1), 1)
        since = g("Sub", total, length)
        index = g("Range", since, total, 1)
        positions = g("Max", g("Gather", running, index, axis=1), 0)
        past0 = g(
            "Gather",
            g("Shape", "past_key_values.0.decoder.key" if cross else "past_key_values.0.key"),
            2,
        )
        first = g("Equal", past0, 0)
        last = g("Where", first, g("Sub", valid, 1), g("Sub", length, 1))
        causal = g(
            "LessOrEqual", g("Unsqueeze", g("Range", 0, total, 1), [0]), g("Unsqueeze", index, [1])
        )
        allowed = g(
            "And",
            g("Unsqueeze", causal, [0]),
            g("Unsqueeze", g("Cast", "attention_mask", to=TensorProto.BOOL), [1]),
        )
    x = g(
        "Add",
        g("Gather", g.weight("tokens"), "input_ids"),
        g("Gather", g.weight("positions"), positions),
    )
    part = ".decoder" if cross else ""
    ones = None
    if cross:
        mask = g("Unsqueeze", g("Cast", "encoder_attention_mask", to=TensorProto.BOOL), [1])
        ones = g("And", mask, g("Greater", g("Unsqueeze", g("Add", positions, 1), [2]), 0))
    for i in range(layers):
        query, key, value = (g.linear(x, f"{i}.{n}") for n in "qkv")
        past_names = [f"past_key_values.{i}{part}.{n}" for n in ("key", "value")]
        present_names = [f"present.{i}{part}.{n}" for n in ("key", "value")]
        if layout == "buffer":
            mixed = g(
                "GroupQueryAttention",
                query,
                key,
                value,
                *past_names,
                seqlens,
                total32,
                names=[f"mixed.{i}", *present_names],
                domain="com.microsoft",
                num_heads=HEADS,
                kv_num_heads=KV_HEADS,
            )[0]
        else:
            for side, past_name, name in zip((key, value), past_names, present_names, strict=True):
                fresh = g.split_heads(side, KV_HEADS, HEAD_DIM)
                g("Concat", past_name, fresh, axis=2, names=[name])
            mixed = g.attend(query, *present_names, allowed, KV_HEADS)
        x = g("Add", x, g.linear(mixed, f"{i}.o"))
        if cross:
            names = [f"past_key_values.{i}.encoder.{n}" for n in ("key", "value")]
            x = g("Add", x, g.attend(g.linear(x, f"{i}.cq"), *names, ones, HEADS))
        x = g("Add", x, g.linear(g("Tanh", g.linear(x, f"{i}.up")), f"{i}.down"))
    if hidden:
        g("Identity", x, names=["last_hidden_state"])
    g.initializers["logits_to_keep"] = numpy_helper.from_array(
        np.array(1, np.int64), "logits_to_keep"
    )
    count = g("Where", g("Equal", "logits_to_keep", 0), length, 1)
    start = g("Mul", last, "logits_to_keep")  # [B, 1]
    chosen = g("Add", start, g("Unsqueeze", g("Range", 0, count, 1), [0]))  # [B, K]
    x = g("GatherND", x, g("Unsqueeze", chosen, [2]), batch_dims=1)
    g("MatMul", x, g.weight("head"), names=["logits"])
    inputs = [
        ("input_ids", INT, ["batch_size", "sequence_length"]),
        ("attention_mask", INT, ["batch_size", "total_sequence_length"]),
    ]
    outputs = [("logits", FLOAT, ["batch_size", "kept", vocabulary])]
    if hidden:
        outputs.append(("last_hidden_state", FLOAT, ["batch_size", "sequence_length", WIDTH]))
    for i in range(layers):
        for n in ("key", "value"):
            axes = ["batch_size", KV_HEADS, "past_sequence_length", HEAD_DIM]
            inputs.append((f"past_key_values.{i}{part}.{n}", FLOAT, axes))
            outputs.append(
                (f"present.{i}{part}.{n}", FLOAT, [*axes[:2], "present_length", HEAD_DIM])
            )
    if cross:
        inputs.insert(2, ("encoder_attention_mask", INT, ["batch_size", "encoder_length"]))
        for i in range(layers):
            for n in ("key", "value"):
                axes = ["batch_size", HEADS, "encoder_length", HEAD_DIM]
                inputs.append((f"past_key_values.{i}.encoder.{n}", FLOAT, axes))
    entry = g.save(path, inputs, outputs, external)
    return entry | {"optional_inputs": ["logits_to_keep"]}


def build_encoder(
    path: Path, weights, outputs: list[str], head=None, types=False, cross=False
) -> dict:
    """One attention layer over `source`; outputs as asked for."""
    g = Graph(weights)
    x = g("Gather", g.weight("source"), "input_ids")
    if types:
        shift = g("Cast", g("Unsqueeze", "token_type_ids", [2]), to=FLOAT)
        x = g("Add", x, g("Mul", shift, np.float32(0.125)))
    keys = [g.split_heads(g.linear(x, f"0.{n}"), HEADS, HEAD_DIM) for n in ("ck", "cv")]
    allowed = g("Unsqueeze", g("Cast", "attention_mask", to=TensorProto.BOOL), [1])
    mixed = g.attend(g.linear(x, "0.cq"), *keys, allowed, HEADS)
    g("Add", x, mixed, names=["last_hidden_state"])
    inputs = [
        (n, INT, ["batch_size", "sequence_length"])
        for n in ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    ]
    specs = []
    for name in outputs:
        if name == "last_hidden_state":
            axes = ["batch_size", "sequence_length", WIDTH]
        elif name == "sentence_embedding":
            first = g("Gather", "last_hidden_state", 0, axis=1)
            norm = g("ReduceL2", first, [1], keepdims=1)
            g("Div", first, norm, names=[name])
            axes = ["batch_size", WIDTH]
        elif name in ("start_logits", "end_logits"):
            g("Squeeze", g.linear("last_hidden_state", f"{name}.w"), [2], names=[name])
            axes = ["batch_size", "sequence_length"]
        elif head == "sequence":
            g(
                "MatMul",
                g("Gather", "last_hidden_state", 0, axis=1),
                g.weight(f"{name}.w"),
                names=[name],
            )
            axes = ["batch_size", weights[f"{name}.w"].shape[1]]
        else:
            g("MatMul", "last_hidden_state", g.weight(f"{name}.w"), names=[name])
            axes = ["batch_size", "sequence_length", weights[f"{name}.w"].shape[1]]
        specs.append((name, FLOAT, axes))
    if cross:
        for i in range(LAYERS):
            for n, weight in (("key", "ck"), ("value", "cv")):
                made = g.split_heads(
                    g.linear("last_hidden_state", f"{i}.{weight}"), HEADS, HEAD_DIM
                )
                g("Identity", made, names=[f"present.{i}.encoder.{n}"])
                axes = ["batch_size", HEADS, "sequence_length", HEAD_DIM]
                specs.append((f"present.{i}.encoder.{n}", FLOAT, axes))
    return g.save(path, inputs, specs)


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def attend(query, key, value, allowed, kv_heads):
    """query [T, WIDTH], key and value [U, kv * dim], allowed [T, U]"""
    query = query.reshape(len(query), kv_heads, -1, HEAD_DIM)
    key, value = (x.reshape(len(x), kv_heads, HEAD_DIM) for x in (key, value))
    scores = np.einsum("tkgd,ukd->kgtu", query, key) * HEAD_DIM**-0.5
    weights = softmax(np.where(allowed, scores, -1e9))
    return np.einsum("kgtu,ukd->tkgd", weights, value).reshape(len(query), WIDTH)


def encode(weights, ids) -> np.ndarray:
    """The encoder in numpy, one row without padding: [T] -> [T, WIDTH]"""
    x = weights["source"][ids]
    q, k, v = (x @ weights[f"0.{n}"] for n in ("cq", "ck", "cv"))
    return x + attend(q, k, v, np.ones((len(ids), len(ids)), bool), HEADS)


def full_pass(weights, ids, layers: int = LAYERS, source=None) -> np.ndarray:
    """The decoder in numpy, one row, no cache: [T] -> logits [T, V]"""
    return hidden_states(weights, ids, layers, source) @ weights["head"]


def hidden_states(weights, ids, layers: int = LAYERS, source=None) -> np.ndarray:
    """What the head reads: [T] -> [T, WIDTH]"""
    ids = np.asarray(ids)
    x = weights["tokens"][ids] + weights["positions"][: len(ids)]
    causal = np.tril(np.ones((len(ids), len(ids)), bool))
    hidden = encode(weights, source) if source is not None else None
    for i in range(layers):
        q, k, v = (x @ weights[f"{i}.{n}"] for n in "qkv")
        x = x + attend(q, k, v, causal, KV_HEADS) @ weights[f"{i}.o"]
        if hidden is not None:
            q = x @ weights[f"{i}.cq"]
            k, v = hidden @ weights[f"{i}.ck"], hidden @ weights[f"{i}.cv"]
            x = x + attend(q, k, v, np.ones((len(ids), len(hidden)), bool), HEADS)
        x = x + np.tanh(x @ weights[f"{i}.up"]) @ weights[f"{i}.down"]
    return x


def greedy(weights, prompt, count, eos=(), source=None) -> list[int]:
    """Reference generation without any cache."""
    ids, new = list(prompt), []
    for _ in range(count):
        token = int(full_pass(weights, ids, source=source)[-1].argmax())
        if token in eos:
            break
        ids.append(token)
        new.append(token)
    return new


def bpe_tokenizer(folder: Path):
    """Byte-level BPE that cuts characters of several bytes into pieces."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS[:3], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def wordpiece_tokenizer(folder: Path):
    from tokenizers import (
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def seal(folder: Path, **facts) -> Path:
    """Write the manifest of whatever lies in the folder."""
    files = {
        path.name: FileSpec.of(path).model_dump()
        for path in sorted(folder.iterdir())
        if path.name != "manifest.json"
    }
    data = {"schema_version": 1, "name": "tiny", "opset": 18, "files": files} | facts
    Manifest.parse(json.dumps(data)).save(folder)
    return folder


def decoder_bundle(
    folder: Path,
    layout: str = "buffer",
    external: bool = True,
    hidden: bool = False,
    seed: int = 0,
) -> Path:
    """A text generator of two layers with a byte-level BPE tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = bpe_tokenizer(folder)
    weights = make_weights(tokenizer.get_vocab_size(), seed=seed)
    path = folder / "model.onnx"
    graph = build_decoder(path, weights, layout, external=external, hidden=hidden)
    return seal(
        folder,
        task="text-generation",
        architecture="decoder",
        graphs={"model": graph},
        tokenizer={"max_length": MAX_LENGTH, "adds_special_tokens": False},
        cache=cache_facts(layout),
        generation={"eos_token_id": [1], "max_new_tokens": 12},
    )


def cache_facts(layout: str, layers: int = LAYERS) -> dict:
    return {
        "layout": layout,
        "num_layers": layers,
        "num_kv_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "max_length": MAX_LENGTH,
    }


def seq2seq_bundle(folder: Path, layout: str = "buffer") -> Path:
    """An encoder-decoder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = bpe_tokenizer(folder)
    weights = make_weights(tokenizer.get_vocab_size(), seed=3)
    graphs = {
        "encoder": build_encoder(
            folder / "encoder.onnx", weights, ["last_hidden_state"], cross=True
        ),
        "decoder": build_decoder(folder / "decoder.onnx", weights, layout, cross=True),
    }
    return seal(
        folder,
        task="text2text-generation",
        architecture="encoder-decoder",
        graphs=graphs,
        tokenizer={"max_length": MAX_LENGTH},
        cache=cache_facts(layout),
        generation={"eos_token_id": [1], "decoder_start_token_id": 0, "max_new_tokens": 10},
    )


def encoder_bundle(folder: Path, task: str, labels: list[str] | None = None, **facts) -> Path:
    """An encoder for any of the encoder tasks, with a WordPiece tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = wordpiece_tokenizer(folder).get_vocab_size()
    weights = encoder_weights(vocabulary, task, labels)
    outputs, head = {
        "text-classification": (["logits"], "sequence"),
        "token-classification": (["logits"], "token"),
        "fill-mask": (["logits"], "token"),
        "question-answering": (["start_logits", "end_logits"], None),
        "feature-extraction": (["last_hidden_state"], None),
        "sentence-similarity": (["sentence_embedding"], None),
    }[task]
    graph = build_encoder(folder / "model.onnx", weights, outputs, head, types=True)
    return seal(
        folder,
        task=task,
        architecture="encoder",
        graphs={"model": graph},
        tokenizer={"max_length": 32},
        labels=labels,
        **facts,
    )


def encoder_weights(vocabulary: int, task: str, labels: list[str] | None = None):
    weights = make_weights(vocabulary, seed=1)
    rng = np.random.default_rng(2)
    width = len(labels) if labels else vocabulary
    for name, size in (("logits", width), ("start_logits", 1), ("end_logits", 1)):
        weights[f"{name}.w"] = rng.normal(size=(WIDTH, size)).astype(np.float32)
    return weights
