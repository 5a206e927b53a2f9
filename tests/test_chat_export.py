"""Chat templates on their way: checkpoint, zoo, bundle, conversation."""

import json
from dataclasses import replace

import pytest
import tiny

import export
import serve
import zoo
from zoo.text import Tokenizer

TEMPLATE = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}"
TALK = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "b"}]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny decoder, saved with its tokenizer."""
    config = replace(tiny.CONFIGS["decoder/rotary-grouped-gated"], initializer_range=0.02)
    model = zoo.TaskModel(config, "text-generation")
    tokenizer = Tokenizer.train("char", ["ab:u\n"], template="decoder")
    assert tokenizer.vocab_size <= model.config.vocab_size
    model.tokenizer = tokenizer
    folder = tmp_path_factory.mktemp("chat") / "checkpoint"
    model.save_pretrained(folder, model_type="llama")
    return folder


@pytest.mark.parametrize("kept_as", ["file", "config", "list", "files"])
def test_templates_reach_the_bundle(checkpoint, kept_as, tmp_path):
    config_file = checkpoint / "tokenizer_config.json"
    config = json.loads(config_file.read_text())
    config.pop("chat_template", None)
    file, named = checkpoint / "chat_template.jinja", checkpoint / "additional_chat_templates"
    for path in (file, named / "short.jinja"):
        path.unlink(missing_ok=True)
    if kept_as in ("file", "files"):
        file.write_text(TEMPLATE)
    if kept_as == "files":
        named.mkdir(exist_ok=True)
        (named / "short.jinja").write_text("{{ messages[0].content }}")
    if kept_as == "config":
        config["chat_template"] = TEMPLATE
    if kept_as == "list":
        both = {"default": TEMPLATE, "short": "{{ messages[0].content }}"}
        config["chat_template"] = [{"name": n, "template": t} for n, t in both.items()]
    config_file.write_text(json.dumps(config))

    again = tmp_path / "again"
    zoo.from_pretrained(checkpoint).save_pretrained(again)
    model = zoo.from_pretrained(again)
    bundle = tmp_path / "bundle"
    manifest = export.to_onnx(model, bundle, verify=False)
    assert "tokenizer_config.json" in manifest.files
    chat = serve.load(bundle, task="chat")
    assert chat.text(TALK) == "u:ab\na:b\n"
    assert chat(TALK, max_new_tokens=3).prompt_tokens == 9
    if kept_as in ("list", "files"):
        assert serve.load(bundle, task="chat", template="short").text(TALK) == "ab"
    else:
        assert "chat_template.jinja" in manifest.files
