"""Chat templates: serve's rendering against transformers' `apply_chat_template`.

    .venv-parity/bin/python -m tests.parity.chat [--goldens] [--tokenizers FOLDER]

Every template of tests/chat_templates.py with every conversation, and those that come with the
tokenizers of FOLDER. What one refuses, the other must refuse too. With --goldens what transformers
writes is kept in tests/goldens/chat.json, which the ordinary tests compare with. Last line of
stdout: one JSON object. Exit code 1 if a text differs.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from serve.errors import ServeError
from serve.text.chat import ChatTemplate
from tests.chat_templates import CONVERSATIONS, TEMPLATES, TOKENS

GOLDENS = Path(__file__).parents[1] / "goldens" / "chat.json"


def theirs(template: str, tokens: dict[str, str], messages: Any, options: Any) -> str | None:
    """What transformers writes; None: it refuses."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), **tokens)
    given = dict(options)
    given |= given.pop("variables", {})
    if not given.get("continue_final_message"):
        given.setdefault("add_generation_prompt", True)
    try:
        return tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, **given
        )
    except Exception:  # templates raise whatever they like
        return None


def ours(template: str, tokens: dict[str, str], messages: Any, options: Any) -> str | None:
    """What serve writes; None: it refuses."""
    try:
        return ChatTemplate({"default": template}, tokens).render(messages, **options)
    except ServeError:
        return None


def kept(folder: Path) -> dict[str, tuple[str, dict[str, str]]]:
    """Templates of real models, with their special tokens."""
    found = {}
    for path in sorted(folder.glob("*/tokenizer_config.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        template = config.get("chat_template")
        if isinstance(template, str):
            names = [n for n in config if n.endswith("_token") and isinstance(config[n], str)]
            found[path.parent.name] = template, {name: config[name] for name in names}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--goldens", action="store_true", help="write what the tests compare with")
    parser.add_argument("--tokenizers", type=Path, default=Path("../shared/data/tokenizers"))
    args = parser.parse_args()
    templates = {name: (source, TOKENS) for name, source in TEMPLATES.items()}
    templates |= kept(args.tokenizers)
    goldens: dict[str, dict[str, str | None]] = {}
    compared = refused = wrong = 0
    for name, (source, tokens) in templates.items():
        for title, messages, options in CONVERSATIONS:
            expected = theirs(source, tokens, messages, options)
            found = ours(source, tokens, messages, options)
            compared += 1
            refused += expected is None
            if found != expected:
                wrong += 1
                print(f"{name}, {title}:\n  transformers {expected!r}\n  serve        {found!r}")
            if name in TEMPLATES:
                goldens.setdefault(name, {})[title] = expected
    if args.goldens:
        text = json.dumps(goldens, ensure_ascii=False, indent=1) + "\n"
        GOLDENS.write_text(text, encoding="utf-8")
    print(json.dumps({"templates": len(templates), "compared": compared, "refused by both": refused,
                      "wrong": wrong}))  # fmt: skip
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
