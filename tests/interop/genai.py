"""onnxruntime-genai, beside transformers with the same weights and beside `serve`; beside `serve`
alone in the precisions that transformers does not have.
"""

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .document import blocks, inside
from .registry import Case, Found

NEW_TOKENS = 12
LENGTHS = (9, 2, 6)
"""Tokens of the prompts, which are continued one by one and together."""
END, ORDINARY = 2, 5
"""The sources' end token; ids below the other are special tokens'."""
PAGE = "chat"
"""Its name in docs/layouts.md."""
SERVED = "served.json"
"""The prompts, and how `serve` continues them; beside the export."""
TEXTS = (
    "Hello, world!",
    "  two  spaces\tand a tab\nand a line\n\n",
    "don't we'll I'M 1234567 and 3.14159",
    "Größe, naïve café, Ωmega",
    "Привет, мир! Как дела?",
    "你好，世界！今天天气很好。",
    "こんにちは世界、テストです",
    "안녕하세요 세계",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "😀👍🏽 emoji 👩‍👩‍👧‍👦",
    "def f(x):\n    return x**2  # comment",
    " a space before and one behind ",
    "…—“quotes” ﬁ ①",
)
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 16,
}


def cases() -> list[Case]:
    heads = {"head_dim": 16}  # sizes that GroupQueryAttention takes, its own rotary included
    words = {**heads, "vocab_size": 600}
    rows: list[tuple[str, str, str, dict[str, Any], dict[str, Any]]] = [
        ("page", "llama/grouped", "onnxruntime", {"vocab_size": 600}, {"page": True}),
        ("llama", "llama/grouped", "onnxruntime", words, {"tokenizer": "bpe"}),
        ("llama-int8-int4", "llama/biases", "onnxruntime", heads, {"precision": "int8-int4"}),
        ("llama-float16", "llama/biases", "onnxruntime", heads, {"precision": "float16"}),
        ("llama-portable", "llama/older-config-llama3", "portable", {}, {}),
        ("mistral", "mistral/window", "onnxruntime", words, {"tokenizer": "sentencepiece"}),
        (
            "gpt2",
            "gpt2/plain",
            "onnxruntime",
            {"n_embd": 48, "n_head": 3, "vocab_size": 600},
            {"tokenizer": "byte"},
        ),
        ("bloom", "bloom/plain", "onnxruntime", {"hidden_size": 48, "n_head": 3}, {}),
        (
            "gpt_neox",
            "gpt_neox/plain",
            "onnxruntime",
            # What newer configs call partial_rotary_factor, as transformers 4 reads it.
            {"rope_parameters": None, "rotary_pct": 0.34},
            {},
        ),
        ("gemma2", "gemma2/longer-than-window", "onnxruntime", heads, {}),
        (
            "gpt_oss",
            "gpt_oss/longer-than-window",
            "onnxruntime",
            {**heads, "rope_parameters": None, "rope_scaling": YARN},
            {},
        ),
    ]
    return [
        Case(name, source, "text-generation", config, {"target": target, **settings})
        for name, source, target, config, settings in rows
    ]


def export(case: Case, checkpoint: Path, out: Path) -> None:
    if "page" in case.settings:
        _export_page(checkpoint, out)
        return
    import zoo
    from export import to_onnx
    from serve.decoding.generator import Generator

    model = zoo.from_pretrained(checkpoint, task=case.task)
    kind = case.settings.get("tokenizer")
    tokenizer = _tokenizer(kind) if kind else None
    precision = case.settings.get("precision", "float32")
    to_onnx(model, out, target=case.settings["target"], tokenizer=tokenizer, precision=precision)
    rng = np.random.default_rng(11)
    prompts = [rng.integers(ORDINARY, model.config.vocab_size, n).tolist() for n in LENGTHS]
    generator = Generator(out)
    settings = generator.settings(max_new_tokens=NEW_TOKENS)
    together = generator.generate_ids(prompts, settings)
    alone = [generator.generate_ids([prompt], settings)[0] for prompt in prompts]
    text = json.dumps({"prompts": prompts, "together": together, "alone": alone})
    (out.parent / SERVED).write_text(text + "\n")


def _export_page(checkpoint: Path, out: Path) -> None:
    """By the lines of docs/layouts.md; and how `serve` then continues the text in them."""
    import zoo
    from serve.decoding.generator import Generator

    shutil.copytree(checkpoint, out / "checkpoints" / PAGE)
    _tokenizer("bpe").save(out / "checkpoints" / PAGE)
    code, client = blocks(PAGE)
    with inside(out):
        exec(compile(code, "docs/layouts.md", "exec"), {})
        (text,) = re.findall(r'encode\("(.*)"\)', client)
        (length,) = re.findall(r"max_length=(\d+)", client)
        prompt = zoo.Tokenizer.load(f"bundles/{PAGE}").encode(text).ids
        generator = Generator(f"bundles/{PAGE}")
    settings = generator.settings(max_new_tokens=int(length) - len(prompt))
    (answer,) = generator.generate_ids([prompt], settings)
    (out.parent / SERVED).write_text(json.dumps({"text": text, "ids": prompt + answer}) + "\n")


def _check_page(out: Path) -> Found:
    _, client = blocks(PAGE)
    names: dict[str, Any] = {}
    with inside(out):
        exec(compile(client, "docs/layouts.md", "exec"), names)
    served = json.loads((out.parent / SERVED).read_text())
    found = Found(tokens=(0, 0))
    _compare(found, "serve", [names["generator"].get_sequence(0).tolist()], [served["ids"]])
    if not names["text"].startswith(served["text"]):
        found.problems.append(f"{names['text']!r} does not begin with {served['text']!r}")
    return found


def _tokenizer(kind: str) -> Any:
    """One made of `TEXTS`; "sentencepiece" is as the folders of the first Llamas have it.

    No piece of that joins a letter to its mark or to a digit: the client would not find it.
    """
    import sentencepiece

    import zoo

    if kind != "sentencepiece":
        return zoo.Tokenizer.train(kind, TEXTS, vocab_size=500, template="decoder")
    with tempfile.TemporaryDirectory() as folder:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS[:8] * 3),
            split_digits=True,
            model_prefix=f"{folder}/tokenizer",
            model_type="bpe",
            vocab_size=450,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            minloglevel=2,
        )
        named = {"tokenizer_class": "LlamaTokenizer"}
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(named))
        return zoo.Tokenizer.load(folder)


def check(case: Case, checkpoint: Path, out: Path) -> Found:
    if "page" in case.settings:
        return _check_page(out)
    import onnxruntime_genai
    import torch
    import transformers

    model = onnxruntime_genai.Model(str(out))
    padding = json.loads((out / "genai_config.json").read_text())["model"]["pad_token_id"]
    served = json.loads((out.parent / SERVED).read_text())
    prompts = served["prompts"]
    found = Found(tokens=(0, 0))
    rows = [row + [padding] * (max(LENGTHS) - len(row)) for row in prompts]
    together = _continued(model, rows)
    alone = [_continued(model, [prompt])[0] for prompt in prompts]
    if case.settings.get("precision") != "int8-int4":
        # Of two graphs that for prompts runs all steps of several rows: other numbers.
        _compare(found, "serve, together", together, served["together"])
    _compare(found, "serve, one by one", alone, served["alone"])
    if "tokenizer" in case.settings:
        found.problems += _text_problems(out, onnxruntime_genai.Tokenizer(model))
    if "precision" in case.settings:
        return found
    torch.set_num_threads(1)
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint, attn_implementation="eager", dtype=torch.float32
    ).eval()
    expected = [_expected(reference, prompt) for prompt in prompts]
    _compare(found, "together", together, expected)
    _compare(found, "one by one", alone, expected)
    longest = prompts[0]
    parts = ([longest[:4]], [longest[4:5]], [longest[5:]])
    _compare(found, "in parts", _continued(model, *parts), expected[:1])
    chunks = _continued(model, [longest], chunk_size=4)
    _compare(found, "in chunks", chunks, expected[:1])
    # Without penalty: the client's counts the prompt's length too.
    beams = {"num_beams": 2, "early_stopping": True, "length_penalty": 0.0}
    best = _continued(model, [longest], **beams)
    _compare(found, "two beams", best, [_expected(reference, longest, **beams)])
    return found


def _expected(reference: Any, prompt: list[int], **settings: Any) -> list[int]:
    """What transformers writes, up to an end token."""
    import torch

    ids = torch.tensor([prompt])
    settings |= {"max_new_tokens": NEW_TOKENS, "do_sample": False}
    with torch.no_grad():
        found = reference.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    return _before(found[0, len(prompt) :].tolist(), END)


def _before(tokens: list[int], end: int) -> list[int]:
    """The tokens before the first that ends a text."""
    return tokens[: tokens.index(end)] if end in tokens else tokens


def _continued(model: Any, *parts: list[list[int]], **options: Any) -> list[list[int]]:
    """What onnxruntime-genai writes, up to an end token, after rows of tokens in several parts."""
    import onnxruntime_genai

    width = sum(len(rows[0]) for rows in parts)
    params = onnxruntime_genai.GeneratorParams(model)
    params.set_search_options(
        max_length=width + NEW_TOKENS, batch_size=len(parts[0]), do_sample=False, **options
    )
    generator = onnxruntime_genai.Generator(model, params)
    for rows in parts:
        generator.append_tokens(np.array(rows, "int32"))
    while not generator.is_done():
        generator.generate_next_token()
    answers = [generator.get_sequence(i)[width:].tolist() for i in range(len(parts[0]))]
    return [_before(answer, END) for answer in answers]


def _compare(found: Found, name: str, answers: Any, expected: list[list[int]]) -> None:
    """Counts equal tokens, and says which answers differ."""
    assert found.tokens is not None
    total, equal = found.tokens
    for number, (answer, row) in enumerate(zip(answers, expected, strict=True)):
        same = sum(a == b for a, b in zip(answer, row, strict=False))
        total, equal = total + max(len(answer), len(row)), equal + same
        if answer != row:
            found.problems.append(f"{name}, prompt {number}: {answer} != {row}")
    found.tokens = total, equal


def _text_problems(out: Path, tokenizer: Any) -> list[str]:
    """Where its tokenizer does not give the ids that the bundle's tokenizer.json gives."""
    import tokenizers

    ours = tokenizers.Tokenizer.from_file(str(out / "tokenizer.json"))
    tokenizer.update_options(add_special_tokens="true")
    problems = []
    for text in TEXTS:
        ids, theirs = ours.encode(text).ids, tokenizer.encode(text).tolist()
        if ids != theirs:
            problems.append(f"{text!r} is {theirs}, expected {ids}")
        plain = ours.decode(ids)
        if tokenizer.decode(np.array(ids, "int32")) != plain:
            problems.append(f"{ids} is not decoded as {plain!r}")
    return problems
