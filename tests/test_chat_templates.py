"""Chat templates: what they write, what their sandbox forbids, where they are found."""

import json
from datetime import datetime
from pathlib import Path

import pytest
import serve_bundles as bundles
from chat_templates import CONVERSATIONS, TEMPLATES, TOKENS
from tokenizers import AddedToken, Tokenizer

from serve.bundle.manifest import TokenizerSpec
from serve.errors import BundleError, InputError, ServeError
from serve.text import sandbox
from serve.text.chat import ChatTemplate
from serve.text.tokenizer import TextTokenizer

GOLDENS = json.loads((Path(__file__).parent / "goldens" / "chat.json").read_text("utf-8"))
SHORT = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}"
SHORT += "{% if add_generation_prompt %}a:{% endif %}"
TALK = [
    {"role": "system", "content": "be old"},
    {"role": "user", "content": "the cat"},
    {"role": "assistant", "content": "sat on"},
    {"role": "user", "content": "the sea"},
]


def template_of(source: str) -> ChatTemplate:
    return ChatTemplate({"default": source}, TOKENS)


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_write_what_transformers_writes(name):
    template = template_of(TEMPLATES[name])
    assert len(GOLDENS[name]) == len(CONVERSATIONS)
    for title, messages, options in CONVERSATIONS:
        expected = GOLDENS[name][title]
        if expected is None:
            with pytest.raises(ServeError):
                template.render(messages, **options)
        else:
            assert template.render(messages, **options) == expected, title


def test_the_formats_are_those_of_the_models():
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    talk.append({"role": "user", "content": "Why"})
    begun = [{"role": "system", "content": "Be kind"}, *talk]

    def written(name, messages=talk):
        return template_of(TEMPLATES[name]).render(messages)

    assert written("chatml") == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes?<|im_end|>\n"
        "<|im_start|>user\nWhy<|im_end|>\n<|im_start|>assistant\n"
    )
    assert written("llama-2", begun) == (
        "<s>[INST] <<SYS>>\nBe kind\n<</SYS>>\n\nHi [/INST] Yes? </s><s>[INST] Why [/INST]"
    )
    assert written("llama-3", begun[:2]) == (
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe kind<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert written("mistral") == "<s>[INST] Hi [/INST]Yes?</s>[INST] Why [/INST]"
    assert written("gemma") == (
        "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nYes?<end_of_turn>\n"
        "<start_of_turn>user\nWhy<end_of_turn>\n<start_of_turn>model\n"
    )
    assert written("zephyr") == "<|user|>\nHi</s>\n<|assistant|>\nYes?</s>\n<|user|>\nWhy</s>\n" + (
        "<|assistant|>\n"
    )
    assert written("phi-3", begun[:2]) == (
        "<|system|>\nBe kind<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n"
    )


def test_a_template_is_told_the_time_tools_and_variables():
    template = template_of(
        "{{ strftime_now('%d %b %Y') }} {{ tools | tojson }} {{ documents[0].title }} {{ mood }}"
    )
    text = template.render(
        TALK,
        now=datetime(2024, 3, 1),
        tools=[{"name": "größe <b>"}],
        documents=[{"title": "t"}],
        variables={"mood": "calm"},
    )
    assert text == '01 Mar 2024 [{"name": "größe <b>"}] t calm'


ESCAPES = [
    "{{ ''.__class__.__mro__ }}",
    "{{ messages.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ '' | attr('__class__') }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__code__ }}",
    "{{ namespace.__init__ }}",
    "{{ dict.__call__ }}{{ dict.__class__ }}",
    "{{ dict.mro() }}",
    "{% set n = namespace(__class__=1) %}",
    "{% set n = namespace() %}{% set n.__dict__ = 1 %}",
    "{{ self.__init__.__globals__ }}",
    "{{ '{0.__class__}'.format(messages) }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(role='x') }}",
    "{{ messages[0].pop('role') }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
]
WITHOUT_END = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f() %}{% set x = f() %}{% set x = f() %}{% endmacro %}{{ f() }}",
    "{{ range(100000000) | list | length }}",
    "{{ 'x' * 1000000000 }}",
    "{{ [1] * 1000000000 }}",
    "{{ 10 ** 1000000000 }}",
    "{{ 2 ** 2.5 ** 99999 }}",
    "{% for a in range(1000) %}{{ 'x' * 1000000 }}{% endfor %}",
    "{{ lipsum(1000000) }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_a_template_cannot_leave_the_sandbox(source):
    try:
        text = template_of(source).render(TALK)
    except ServeError:
        return
    assert text == "", f"{source} wrote {text!r}"


@pytest.mark.parametrize(
    "source", [one for one in ESCAPES if "set n" in one or "messages[0]" in one]
)
def test_what_a_template_must_not_is_named(source):
    with pytest.raises(BundleError, match="does what a template must not"):
        template_of(source).render(TALK)


@pytest.mark.parametrize("source", WITHOUT_END)
@pytest.mark.timeout(60)
def test_a_template_ends(source, monkeypatch):
    monkeypatch.setattr(sandbox, "MOST_STEPS", 20_000)
    with pytest.raises(ServeError, match="the chat template"):
        template_of(source).render(TALK)


def test_bounds_leave_room_for_long_conversations():
    text = "a word or two of it " * 2000
    talk = [{"role": role, "content": text} for role in ("user", "assistant") * 30]
    assert len(template_of(TEMPLATES["chatml"]).render(talk)) > 60 * len(text)


def test_what_templates_use_of_python():
    source = """
    {%- set seen = dict(a=1) %}{% set n = namespace(self=2, items=[]) %}{% set n.self = 3 %}
    {{- seen.a }} {{ n.self }} {{ dict.fromkeys('ab', 0) | tojson }} {{ 'x-' * 3 }} {{ 2 ** 10 }}
    {%- for key, value in seen.items() %} {{ key }}{{ value }}{% endfor %}
    {%- for one in range(9) %}{% if one == 2 %}{% continue %}{% endif %}
    {%- if one > 3 %}{% break %}{% endif %}{{ one }}{% endfor %}"""
    text = template_of(source).render(TALK)
    assert text == '1 3 {"a": 0, "b": 0} x-x-x- 1024 a1013'


def test_the_messages_stay_as_they_are():
    talk = [{"role": "user", "content": "a", "name": None}]
    template_of("{% set m = messages[0] %}{{ m.content }}").render(talk)
    assert talk == [{"role": "user", "content": "a", "name": None}]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "at least one message"),
        ("text", "list of at least one message"),
        (["text"], "message 0 is 'text'"),
        ([{"content": "a"}], "message 0 has role=None"),
        (
            [{"role": "user", "content": "a"}, {"role": "user"}],
            r"message 1 \(user\) has no content",
        ),
        ([{"role": "user", "content": 3}], "content=3"),
        ([{"role": "user", "content": [object()]}], "message 0 holds a object"),
    ],
)
def test_what_is_no_conversation(messages, message):
    with pytest.raises(InputError, match=message):
        template_of(SHORT).render(messages)


def test_a_template_that_refuses_says_why():
    with pytest.raises(InputError, match="refuses the conversation: System role not supported"):
        template_of(TEMPLATES["gemma"]).render(TALK)
    with pytest.raises(InputError, match="fails on the conversation: ZeroDivisionError"):
        template_of("{{ 1 / 0 }}").render(TALK)
    with pytest.raises(BundleError, match="no Jinja template: line 2"):
        template_of("{{ 1 }}\n{% if %}").render(TALK)
    with pytest.raises(InputError, match="leaves out the end of the last message"):
        template_of("{{ messages[0].role }}").render(TALK, continue_final_message=True)
    with pytest.raises(InputError, match="no text to go on with"):
        template_of(SHORT).render(
            [{"role": "assistant", "content": [{"type": "image"}]}], continue_final_message=True
        )
    with pytest.raises(InputError, match="exclude each other"):
        template_of(SHORT).render(TALK, continue_final_message=True, add_generation_prompt=True)


# Files


def write(folder: Path, config=None, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".jinja").write_text(text)
    return folder


def test_where_templates_are_found(tmp_path):
    def told(folder, template=None, **options):
        return ChatTemplate.of(folder, template).render(TALK[1:2], **options)

    tokens = {"bos_token": {"content": "<b>"}, "eos_token": "</b>", "unk_token": None}
    text = write(tmp_path / "text", tokens | {"chat_template": "{{ bos_token }}1{{ eos_token }}"})
    assert told(text) == "<b>1</b>"
    assert told(text, "{{ 1 + 1 }}") == "2"
    assert told(text, "plain") == "the cat"
    both = write(tmp_path / "both", {"chat_template": "1"}, chat_template="2")
    assert told(both) == "2"
    listed = [{"name": name, "template": name[0]} for name in ("default", "tool_use", "rag")]
    named = write(tmp_path / "named", {"chat_template": listed})
    assert told(named) == told(named, "default") == "d"
    assert told(named, tools=[{"name": "f"}]) == "t"
    assert told(named, "rag") == told(named, "rag", tools=[{"name": "f"}]) == "r"
    files = write(tmp_path / "files", chat_template="d", additional_chat_templates__tool_use="t")
    assert told(files) == "d" and told(files, tools=[]) == "t"
    with pytest.raises(InputError, match="one of the bundle's own: default, rag, tool_use"):
        told(named, "other")
    with pytest.raises(InputError, match="none of the name 'default'"):
        told(write(tmp_path / "two", {"chat_template": listed[1:]}))
    with pytest.raises(BundleError, match="has no chat template"):
        told(write(tmp_path / "none", {}))
    with pytest.raises(BundleError, match="objects with name and template"):
        told(write(tmp_path / "broken", {"chat_template": ["x"]}))
    broken = write(tmp_path / "bytes", chat_template="")
    (broken / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(BundleError, match="cannot be read"):
        told(broken)


def test_the_token_behind_an_answer_ends_it(tmp_path):
    bundles.bpe_tokenizer(tmp_path)
    backend = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.add_special_tokens([AddedToken("<|im_end|>", special=True), AddedToken("</s>")])
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = TextTokenizer(tmp_path / "tokenizer.json", TokenizerSpec(max_length=10))
    ends = {
        name: template_of(TEMPLATES[name]).end_of_turn(tokenizer)
        for name in ("chatml", "zephyr", "llama-2", "gemma", "llama-3")
    }
    chatml, other = backend.token_to_id("<|im_end|>"), backend.token_to_id("</s>")
    assert ends == {
        "chatml": chatml, "zephyr": other, "llama-2": other, "gemma": None, "llama-3": None
    }  # fmt: skip
    assert ChatTemplate.of(tmp_path, "plain").end_of_turn(tokenizer) is None
