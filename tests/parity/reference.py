"""Makes each case's folder with the reference library, and its values (parity environment).

    .venv-parity/bin/python -m tests.parity.reference --out build/parity

writes `<out>/<model_type>/<case>/` with config.json, model.safetensors, case.json and values.npz.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

from . import stream
from .cases import NEW_TOKENS, Case, all_cases

MARGIN = 1e-3
"""Least distance of the best logit from the second at each greedy step, so that rounding cannot
choose."""
ORDINARY = 5
"""Ids below are the special tokens'."""
GENERATING = re.compile(r"(ForCausalLM|LMHeadModel|ForConditionalGeneration|MTModel)$")


def generates(case: Case) -> bool:
    """Whether the case's class continues or answers a text."""
    return case.kind != "encoder" and GENERATING.search(case.architecture) is not None


def make_folder(case: Case, folder: Path) -> None:
    """Writes the case's config.json and safetensors, every tensor from the stream."""
    cls = getattr(transformers, case.architecture)
    config = cls.config_class(**case.config)
    torch.manual_seed(0)
    cls(config).save_pretrained(folder)
    stored = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "generation_config.json").unlink(missing_ok=True)
    if case.raw_config:
        given = {k: v for k, v in case.config.items() if v is not None}
        written = {"architectures": [case.architecture], "model_type": case.model_type, **given}
        (folder / "config.json").write_text(json.dumps(written, indent=2) + "\n")
    tensors, kinds = {}, {}
    for name, value in stored.items():
        kinds[name] = stream.kind_of(value.numpy())
        tensors[name] = (tuple(value.shape), kinds[name])
    files = {}
    for name, (shape, kind) in tensors.items():
        file_name = name
        if not case.prefixed:
            file_name = file_name.removeprefix(f"{cls.base_model_prefix}.")
        for pattern, replacement in case.stored_as:
            file_name = re.sub(pattern, replacement, file_name)
        value = torch.from_numpy(stream.tensor(name, shape, kind, case.spread))
        files[file_name] = value.to(getattr(torch, case.dtype))
    for name, shape in case.extra.items():
        files[name] = further(name, shape)
        tensors[name] = (shape, "matrix")
    files.update({name: files[source].clone() for name, source in case.copies.items()})
    write_safetensors(files, folder, case.shard_bytes)
    described = {
        **dataclasses.asdict(case),
        "tensors": {name: [list(shape), kind] for name, (shape, kind) in tensors.items()},
    }
    (folder / "case.json").write_text(json.dumps(described, indent=1) + "\n")


def further(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor beside those that the reference writes: position ids, causal masks and their fill
    value as older files hold them, or weights.
    """
    if name.endswith("position_ids"):
        return torch.arange(shape[-1]).reshape(shape)
    if name.endswith("masked_bias"):
        return torch.full(shape, -1e9)
    if len(shape) == 4:
        return torch.tril(torch.ones(shape, dtype=torch.uint8))
    return torch.from_numpy(stream.tensor(name, shape, "matrix"))


def write_safetensors(tensors: dict[str, torch.Tensor], folder: Path, limit: int | None) -> None:
    """One file, or shards of at most `limit` bytes with their index."""
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, value in tensors.items():
        if limit is not None and shards[-1] and size + value.nbytes > limit:
            shards.append({})
            size = 0
        shards[-1][name] = value
        size += value.nbytes
    if limit is None:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return
    places = {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, {"format": "pt"})
        places.update(dict.fromkeys(shard, file))
    total = sum(value.nbytes for value in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def load(architecture: str, folder: Path, attention: str = "eager") -> tuple[Any, list[str]]:
    """The reference's model of a folder in float32, and the names it did not find."""
    model, info = getattr(transformers, architecture).from_pretrained(
        folder, attn_implementation=attention, dtype=torch.float32, output_loading_info=True
    )
    if info["mismatched_keys"]:
        raise RuntimeError(f"{folder}: mis-shaped {info['mismatched_keys']}")
    if getattr(model.config, "_experts_implementation", None) is not None:
        model.set_experts_implementation("eager")  # the fused kernels take no odd sizes
    return model.eval(), sorted(info["missing_keys"])


def make_inputs(case: Case, config: Any, seed: int) -> dict[str, np.ndarray]:
    """Right-padded rows of the case's lengths."""
    rng = np.random.RandomState(seed)
    vocab = case.config["vocab_size"]
    pad = config.pad_token_id or 0

    def rows(lengths: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype("int64")
        ids = rng.randint(ORDINARY, vocab - 1, mask.shape)
        return np.where(mask == 1, ids, pad), mask

    ids, mask = rows(case.lengths)
    if case.ends:
        ids[np.arange(len(ids)), mask.sum(axis=1) - 1] = config.eos_token_id
    inputs = {"input_ids": ids, "attention_mask": mask}
    if case.token_types:
        inputs["token_type_ids"] = rng.randint(0, 2, ids.shape) * mask
    if case.decoder_layers and generates(case):
        decoder_ids, decoder_mask = rows(case.target_lengths[: len(case.lengths)])
        decoder_ids[:, 0] = config.decoder_start_token_id
        inputs["decoder_input_ids"], inputs["decoder_mask"] = decoder_ids, decoder_mask
    return inputs


@contextlib.contextmanager
def watched(model: Any, path: str, into: dict[str, Any], prefix: str) -> Iterator[None]:
    """Notes what first goes into and comes out of the first layer at `path`."""
    name = path if re.search(r"\.0$", path) else f"{path}.0"

    def note(module: Any, args: tuple, kwargs: dict, output: Any) -> None:
        entered = args[0] if args else kwargs["hidden_states"]
        left = output[0] if isinstance(output, tuple | list) else output
        into.setdefault(f"{prefix}embeddings", entered.detach().clone())
        into.setdefault(f"{prefix}first_layer", left.detach().clone())

    handle = model.base_model.get_submodule(name).register_forward_hook(note, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def outputs_of(case: Case, model: Any, feeds: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The model's outputs by the zoo's names."""
    if case.task == "feature-extraction":
        return {"last_hidden_state": model.base_model(**feeds).last_hidden_state}
    out = model(**feeds)
    for names in (("start_logits", "end_logits"), ("logits",), ("prediction_logits",)):
        if all(getattr(out, name, None) is not None for name in names):
            renamed = {"prediction_logits": "logits"}
            return {renamed.get(name, name): getattr(out, name) for name in names}
    return {"last_hidden_state": out.last_hidden_state}


@torch.no_grad()
def values_of(case: Case, model: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The three points of the case, by name."""
    feeds = {k: torch.from_numpy(v) for k, v in inputs.items() if k != "decoder_mask"}
    if generates(case):
        feeds["use_cache"] = False
    seen: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        if case.decoder_layers:
            stack.enter_context(watched(model, case.layers, seen, "encoder_"))
            if "decoder_input_ids" in inputs:
                stack.enter_context(watched(model, case.decoder_layers, seen, ""))
        else:
            stack.enter_context(watched(model, case.layers, seen, ""))
        out = outputs_of(case, model, feeds)
    named = {**seen, **{f"output/{name}": value for name, value in out.items()}}
    return {name: value.float().numpy() for name, value in named.items()}


@torch.no_grad()
def greedy(
    case: Case, model: Any, inputs: dict[str, np.ndarray], tokens: int = NEW_TOKENS
) -> tuple[np.ndarray, float]:
    """Each row's greedy continuation alone (-1 behind its end), and the closest call among them."""
    config = model.config
    settings = transformers.GenerationConfig(
        max_new_tokens=tokens,
        do_sample=False,
        use_cache=False,
        num_beams=1,
        pad_token_id=config.pad_token_id,
        eos_token_id=config.eos_token_id,
        bos_token_id=getattr(config, "bos_token_id", None),
        decoder_start_token_id=getattr(config, "decoder_start_token_id", None),
        output_logits=True,
        return_dict_in_generate=True,
    )
    model.generation_config = settings
    found = np.full((len(case.lengths), tokens), -1)
    margin = np.inf
    for row, length in enumerate(case.lengths):
        ids = torch.from_numpy(inputs["input_ids"][row : row + 1, :length])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        start = 1 if case.decoder_layers else length
        new = out.sequences[0, start:].numpy()
        found[row, : len(new)] = new
        for logits in out.logits:
            best, second = torch.topk(logits[0], 2).values.tolist()
            margin = min(margin, best - second)
    return found, margin


def compute(case: Case, folder: Path) -> dict[str, np.ndarray]:
    """Everything that a case's folder is compared with: inputs, points and greedy tokens."""
    model, missing = load(case.architecture, folder, case.attention)
    absent = [name for name in missing if "seq_relationship" not in name]
    if absent:
        raise RuntimeError(f"the reference did not find {absent} in its own folder")
    for seed in range(50):
        inputs = make_inputs(case, model.config, seed)
        if not (generates(case) and case.greedy):
            return {**inputs, **values_of(case, model, inputs)}
        tokens, margin = greedy(case, model, inputs)
        if margin > MARGIN:
            return {**inputs, **values_of(case, model, inputs), "greedy": tokens}
    raise RuntimeError(f"no input found whose greedy choices are all clear by {MARGIN}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/parity"))
    parser.add_argument("--only", nargs="*", default=[], help="families or family/case")
    args = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order, so that a second run gives equal values
    transformers.utils.logging.disable_progress_bar()
    cases, began, failed = all_cases(tuple(args.only)), time.time(), {}
    for case in cases:
        folder = args.out / case.folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            make_folder(case, folder)
            np.savez(folder / "values.npz", **compute(case, folder))
        except Exception as error:
            failed[case.folder] = f"{type(error).__name__}: {error}"
            print(f"{case.folder}: {failed[case.folder]}", file=sys.stderr, flush=True)
    seconds = round(time.time() - began, 1)
    print(json.dumps({"cases": len(cases), "failed": failed, "seconds": seconds}))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
