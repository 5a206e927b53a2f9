"""What Hugging Face's `generate` answers, and what its rules and warpers leave.

.venv-parity/bin/python -m tests.parity.generation_reference --out build/parity
"""

import argparse
import json
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from .cases import Case
from .generation import (
    ANSWERS,
    COUNT,
    DEFAULT_COUNT,
    DEFAULTS,
    FIRST,
    KINDS,
    RULES,
    WARPERS,
    Draw,
    case_of,
    folder_of,
    request_of,
    settings_of,
)
from .reference import load, make_folder


def config_of(model: Any, settings: dict[str, Any]) -> Any:
    """The reference's settings: no default of the model's own comes between."""
    given = dict(settings)
    bias = given.pop("logit_bias", None)
    if bias:
        given["sequence_bias"] = {(int(token),): float(value) for token, value in bias.items()}
    config = model.config
    return transformers.GenerationConfig(
        do_sample=False,
        pad_token_id=config.pad_token_id if config.pad_token_id is not None else 0,
        bos_token_id=getattr(config, "bos_token_id", None),
        decoder_start_token_id=getattr(config, "decoder_start_token_id", None),
        **given,
    )


@torch.no_grad()
def answer(case: Case, model: Any, request: dict[str, Any]) -> list[dict[str, Any]]:
    """The sequences of one request, best first: tokens (the end token included), score and
    log-probabilities. Without settings, as the model's generation_config.json says.
    """
    ids = torch.tensor([request["input_ids"]])
    # Its cache is too small where the stacks differ.
    feeds: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "use_cache": False}
    if request["settings"] is not None:
        model.generation_config = config_of(model, request["settings"])
    ends = model.generation_config.eos_token_id
    begun = len(request["input_ids"])
    if case.kind == "encoder-decoder":
        begun = 1
        if request["prefix"]:
            start = [model.config.decoder_start_token_id, *request["prefix"]]
            feeds["decoder_input_ids"] = torch.tensor([start])
            begun = len(start)
    told = ("output_scores", "output_logits", "return_dict_in_generate")
    out = model.generate(ids, **dict.fromkeys(told, True), **feeds)
    indices = getattr(out, "beam_indices", None)
    logprobs = model.compute_transition_scores(
        out.sequences, out.logits, indices, normalize_logits=True
    ).numpy()
    scores = getattr(out, "sequences_scores", None)
    found = []
    for row, sequence in enumerate(out.sequences[:, begun:].tolist()):
        length = next(
            (at + 1 for at, token in enumerate(sequence) if token in ends),
            len(sequence),
        )
        found.append(
            {
                "tokens": sequence[:length],
                "score": None if scores is None else float(scores[row]),
                "logprobs": [float(value) for value in logprobs[row, :length]],
            }
        )
    return found


def answers(kind: str, out: Path, count: int) -> None:
    """Writes a kind's model and its answers to `count` requests."""
    case, folder = case_of(kind), folder_of(out, kind)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make_folder(case, folder)
    model, missing = load(case.architecture, folder)
    if missing:
        raise RuntimeError(f"the reference did not find {missing} in its own folder")
    rows = []
    for at in range(count):
        request = settings_of(kind, at, case)
        rows.append({**request, "answers": answer(case, model, request)})
    if kind in DEFAULTS:
        special = {
            name: getattr(model.config, name)
            for name in ("bos_token_id", "pad_token_id", "decoder_start_token_id")
            if getattr(model.config, name, None) is not None
        }
        file = folder / "generation_config.json"
        file.write_text(json.dumps({**special, **DEFAULTS[kind]}) + "\n")
        model, _ = load(case.architecture, folder)
        for at in range(DEFAULT_COUNT):
            request = request_of(kind, at, case)
            rows.append({**request, "answers": answer(case, model, request)})
    (folder / ANSWERS).write_text(json.dumps(rows) + "\n")


def processed(model: Any, draw: Draw) -> dict[str, Any]:
    """A random row of scores after the reference's rules, put in order by the reference itself."""
    size = 40
    case = Case("", {"vocab_size": size, "eos_token_id": 2})
    request = settings_of("bart" if draw.chance(0.5) else "llama", draw.whole(0, 10**6), case)
    settings = request["settings"]
    most = settings.pop("max_length", None) or settings["max_new_tokens"]
    settings["max_new_tokens"] = most
    if "min_new_tokens" in settings:  # which `generate` lets stand alone
        settings.pop("min_length", None)
    crosses = draw.chance(0.5)
    prompt = draw.ids(1, 1, size) if draw.chance(0.5) else draw.ids(2, 6, size)
    new = draw.ids(most - 1, most - 1, size) if draw.chance(0.2) else draw.ids(0, most - 1, size)
    config = config_of(model, settings)
    config.max_length = len(prompt) + most
    config._eos_token_tensor = torch.tensor(settings["eos_token_id"])
    encoder_ids = draw.ids(1, 9, size) if crosses else prompt
    rules = model._get_logits_processor(
        config,
        input_ids_seq_length=len(prompt),
        encoder_input_ids=torch.tensor([encoder_ids]),
        device="cpu",
        model_kwargs={},
    )
    scores = np.round(draw.random.normal(size=size) * 4, draw.whole(0, 3)).astype(np.float32)
    scores[draw.random.random(size) < 0.1] = -np.inf
    tokens = torch.tensor([[*prompt, *new]])
    after = rules(tokens, torch.from_numpy(scores[None].copy()))[0].numpy()
    return {
        "settings": settings,
        "prompt": prompt,
        "new": new,
        "encoder_ids": encoder_ids if crosses else None,
        "scores": scores.tolist(),
        "after": after.tolist(),
    }


def warped(model: Any, draw: Draw) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Settings of sampling, a random row and what the reference's warpers make of it."""
    size = draw.whole(1, 3) if draw.chance(0.1) else draw.whole(4, 400)
    settings: dict[str, Any] = {"eos_token_id": list(range(draw.whole(1, 3)))}
    for name, value in (
        ("temperature", lambda: draw.real(0.2, 3)),
        ("top_k", lambda: draw.whole(1, 60)),
        ("top_p", lambda: draw.real(0.02, 0.99)),
        ("min_p", lambda: draw.real(0.01, 0.9)),
        ("typical_p", lambda: draw.real(0.02, 0.99)),
    ):
        if draw.chance(0.5):
            settings[name] = value()
    if draw.chance(0.3):
        settings["num_beams"] = 2
    config = transformers.GenerationConfig(do_sample=True, **settings)
    config.top_k = settings.get("top_k")  # whose default is 50
    config._eos_token_tensor = torch.tensor(settings["eos_token_id"])
    rules = model._get_logits_processor(config, 1, None, device="cpu", model_kwargs={})
    scores = np.round(draw.random.normal(size=size) * 4, draw.whole(0, 4)).astype(np.float32)
    if draw.chance(0.3):
        scores[draw.random.random(size) < 0.4] = -np.inf
        scores[-1] = 1.0
    ids = torch.tensor([[FIRST]])
    after = rules(ids, torch.from_numpy(scores[None].copy()))[0].numpy()
    return settings, scores, after


def rules_and_warpers(out: Path, count: int = 2000) -> None:
    """Writes rules.json and warpers.npz."""
    model, _ = load(case_of("llama").architecture, folder_of(out, "llama"))
    rows = [processed(model, Draw(100, at)) for at in range(count)]
    (out / "generation" / RULES).write_text(json.dumps(rows) + "\n")
    arrays: dict[str, np.ndarray] = {}
    settings = []
    for at in range(count):
        given, scores, after = warped(model, Draw(200, at))
        settings.append(given)
        arrays |= {f"scores/{at}": scores, f"after/{at}": after}
    np.savez(out / "generation" / WARPERS, settings=np.array(json.dumps(settings)), **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/parity"))
    parser.add_argument("--count", type=int, default=COUNT, help="settings for each kind")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", message="Unfeasible length constraints")
    began = time.time()
    for kind in KINDS:
        answers(kind, args.out, args.count)
        print(f"{kind}: {time.time() - began:.1f} s", file=sys.stderr, flush=True)
    rules_and_warpers(args.out)
    print(json.dumps({"kinds": len(KINDS), "seconds": round(time.time() - began, 1)}))


if __name__ == "__main__":
    main()
