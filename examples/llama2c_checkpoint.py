"""Turns a checkpoint of llama2.c (`stories260K.bin`, `tok512.bin`) into a Hugging Face folder.

    python examples/llama2c_checkpoint.py stories260K.bin tok512.bin --out checkpoints/stories260K
    zoo export checkpoints/stories260K --out bundles/stories
    zoo predict bundles/stories "Once upon a time"

The weights' layout is that of llama2.c's `export.py`, version 0: seven int32 (dim, hidden_dim,
n_layers, n_heads, n_kv_heads, vocab_size, seq_len; a positive vocab_size says that the head is
tied), then float32 tensors, kind by kind for all layers. llama2.c turns neighbouring features; the
folder's form turns halves, so the rows of query and key change places. Needs the package
sentencepiece.
"""

import argparse
import json
import struct
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

EPSILON = 1e-5  # llama2.c's, which the file does not state


def read_weights(path: Path) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """(sizes, tensors by their names in the folder)."""
    data = path.read_bytes()
    names = ("dim", "hidden", "layers", "heads", "kv_heads", "vocab", "length")
    sizes = dict(zip(names, struct.unpack("<7i", data[:28]), strict=True))
    tied, sizes["vocab"] = sizes["vocab"] > 0, abs(sizes["vocab"])
    values = np.frombuffer(data, "<f4", offset=28)
    dim, layers = sizes["dim"], sizes["layers"]
    head = dim // sizes["heads"]
    kv = head * sizes["kv_heads"]
    place = 0

    def take(*shape: int) -> np.ndarray:
        nonlocal place
        count = int(np.prod(shape))
        if place + count > len(values):
            raise SystemExit(f"{path} ends early: expected a llama2.c checkpoint of version 0")
        place += count
        return values[place - count : place].reshape(shape)

    tensors = {"model.embed_tokens.weight": take(sizes["vocab"], dim)}
    rows = {
        "input_layernorm": take(layers, dim),
        "self_attn.q_proj": halves(take(layers, dim, dim), head),
        "self_attn.k_proj": halves(take(layers, kv, dim), head),
        "self_attn.v_proj": take(layers, kv, dim),
        "self_attn.o_proj": take(layers, dim, dim),
        "post_attention_layernorm": take(layers, dim),
        "mlp.gate_proj": take(layers, sizes["hidden"], dim),
        "mlp.down_proj": take(layers, dim, sizes["hidden"]),
        "mlp.up_proj": take(layers, sizes["hidden"], dim),
    }
    for name, stacked in rows.items():
        for i, tensor in enumerate(stacked):
            tensors[f"model.layers.{i}.{name}.weight"] = np.ascontiguousarray(tensor)
    tensors["model.norm.weight"] = take(dim)
    take(2, sizes["length"], head // 2)  # rotary tables, computed anew
    if not tied:
        tensors["lm_head.weight"] = take(sizes["vocab"], dim)
    return {**sizes, "tied": tied}, tensors


def halves(kernels: np.ndarray, head: int) -> np.ndarray:
    """[layers, heads * head, in]: rows of neighbouring pairs become rows of two halves."""
    layers, width, inner = kernels.shape
    pairs = kernels.reshape(layers, width // head, head // 2, 2, inner)
    return pairs.transpose(0, 1, 3, 2, 4).reshape(kernels.shape)


def write_tokenizer(path: Path, folder: Path) -> None:
    """`tokenizer.model`, a SentencePiece model of the pieces and scores in `path`."""
    from sentencepiece import sentencepiece_model_pb2 as form

    data = path.read_bytes()
    model = form.ModelProto()
    model.trainer_spec.model_type = form.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = False
    kinds = form.ModelProto.SentencePiece
    place = 4
    while place < len(data):
        score, length = struct.unpack_from("<fi", data, place)
        text = data[place + 8 : place + 8 + length].decode("utf-8")
        place += 8 + length
        number = len(model.pieces)
        kind = kinds.UNKNOWN if number == 0 else kinds.CONTROL if number < 3 else kinds.NORMAL
        kind = kinds.BYTE if 3 <= number < 259 else kind
        text = text.strip() if number < 3 else text.replace(" ", "\u2581")
        model.pieces.add(piece=text, score=score, type=kind)
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
        "legacy": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    sizes, tensors = read_weights(given.weights)
    given.out.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": sizes["vocab"],
        "hidden_size": sizes["dim"],
        "intermediate_size": sizes["hidden"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "num_key_value_heads": sizes["kv_heads"],
        "max_position_embeddings": sizes["length"],
        "rms_norm_eps": EPSILON,
        "hidden_act": "silu",
        "tie_word_embeddings": sizes["tied"],
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (given.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_tokenizer(given.tokenizer, given.out)
    save_file(tensors, given.out / "model.safetensors", {"format": "pt"})
    print(f"{given.out}: {sum(t.size for t in tensors.values()):,} parameters")


if __name__ == "__main__":
    main()
