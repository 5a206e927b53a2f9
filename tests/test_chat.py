"""Conversations answered by a bundle."""

import json
import re
from pathlib import Path

import pytest
import serve_bundles as bundles
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

import serve
from serve.errors import BundleError, InputError

SHORT = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}"
SHORT += "{% if add_generation_prompt %}a:{% endif %}"
TALK = [
    {"role": "system", "content": "be old"},
    {"role": "user", "content": "the cat"},
    {"role": "assistant", "content": "sat on"},
    {"role": "user", "content": "the sea"},
]


@pytest.fixture(scope="module", params=["buffer", "grow"])
def bundle(tmp_path_factory, request) -> Path:
    folder = bundles.decoder_bundle(tmp_path_factory.mktemp("chat") / "b", request.param)
    (folder / "chat_template.jinja").write_text(SHORT)
    return folder


@pytest.fixture
def chat(bundle):
    return serve.load(bundle, task="chat")


def test_a_conversation_is_answered_as_its_text_would_be(bundle, chat):
    plain = serve.load(bundle)
    text = "s:be old\nu:the cat\na:sat on\nu:the sea\na:"
    assert chat.text(TALK) == text
    reply = chat(TALK, max_new_tokens=10)
    expected = plain(text, max_new_tokens=10)
    assert reply.text == expected.text and reply.token_ids == expected.token_ids
    assert reply.prompt_tokens == expected.prompt_tokens and reply.dropped_messages == 0
    assert reply.message == {"role": "assistant", "content": reply.text}
    assert reply.to_dict()["text"] == str(reply) == reply.text
    assert chat.text("the cat") == "u:the cat\na:"


def test_one_conversation_several_and_a_stream(chat):
    talks = ["the cat", TALK, TALK[:2]]
    several = chat(talks, max_new_tokens=8)
    assert [one.text for one in several] == [chat(t, max_new_tokens=8).text for t in talks]
    assert [one.text for one in chat(iter(talks), max_new_tokens=8)] == [o.text for o in several]
    assert chat([]) == []
    for talk, one in zip(talks, several, strict=True):
        stream = chat.stream(talk, max_new_tokens=8)
        assert stream.reply is None
        assert "".join(stream) == one.text == stream.reply.text
        assert stream.reply.token_ids == one.token_ids
        assert stream.reply.finish_reason == one.finish_reason


def test_a_stream_that_is_closed_keeps_what_was_written(chat):
    stream = chat.stream("the cat", max_new_tokens=12)
    first = next(stream)
    stream.close()
    assert list(stream) == []
    assert stream.reply.finish_reason == "cancelled"
    assert stream.reply.text.startswith(first)
    assert 1 <= len(stream.reply.token_ids) < 12


def test_a_message_is_gone_on_with(chat):
    talk = [*TALK[:2], {"role": "assistant", "content": "sat"}]
    assert chat.text(talk, continue_final_message=True) == "s:be old\nu:the cat\na:sat"
    assert chat(talk, continue_final_message=True, max_new_tokens=3).token_ids


def test_special_tokens_are_not_written_twice(tmp_path):
    folder = bundles.decoder_bundle(tmp_path / "b")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing("<pad> $A", special_tokens=[("<pad>", 0)])
    tokenizer.save(str(folder / "tokenizer.json"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tokenizer"]["adds_special_tokens"] = True
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<pad>"}')
    source = "{{ bos_token }}" + SHORT
    chat = serve.load(folder, task="chat", check=False, template=source)
    turn = chat._turn("the cat", chat.settings())
    assert turn.request.input_ids.count(0) == 1 and turn.request.input_ids[0] == 0
    plain = serve.load(folder, task="chat", check=False, template="plain")
    assert plain._turn("the cat", plain.settings()).request.input_ids[0] == 0
    assert plain.text(TALK) == "be oldthe catsat onthe sea"


def test_old_turns_are_dropped_only_when_asked(chat):
    talk = [TALK[0]]
    for number in range(9):
        talk.append({"role": "user", "content": f"the cat {number}"})
        talk.append({"role": "assistant", "content": "sat on"})
    talk.append({"role": "user", "content": "the sea"})
    with pytest.raises(InputError, match="pass overflow='drop_oldest'"):
        chat(talk)
    with pytest.raises(InputError, match="pass overflow='drop_oldest'"):
        chat.stream(talk)
    reply = chat(talk, overflow="drop_oldest", max_new_tokens=6)
    assert reply.dropped_messages % 2 == 0 and 2 <= reply.dropped_messages <= 18
    assert reply.truncated
    kept = [talk[0], *talk[1 + reply.dropped_messages :]]
    assert chat(kept, max_new_tokens=6).token_ids == reply.token_ids
    more = [talk[0], *talk[reply.dropped_messages - 1 :]]  # not more than needed
    with pytest.raises(InputError, match="exceed the model's max_length of 64"):
        chat(more, max_new_tokens=6)
    with pytest.raises(InputError, match="its last message alone is too long"):
        chat("the cat " * 60, overflow="drop_oldest")
    assert chat(TALK, overflow="drop_oldest").dropped_messages == 0


def test_what_was_read_is_known_in_the_next_turn(bundle):
    cached = serve.load(bundle, task="chat")
    fresh = serve.load(bundle, task="chat", prefix_cache=0)
    talk = [{"role": "user", "content": "the old house, bread, milk, honey, wind, cold, sun, low"}]
    first = cached(talk, max_new_tokens=4)
    assert first.cached_tokens == 0 and first.prompt_tokens >= 32
    talk += [first.message, {"role": "user", "content": "sea"}]
    again = cached(talk, max_new_tokens=4)
    assert again.cached_tokens >= 32
    assert again.token_ids == fresh(talk, max_new_tokens=4).token_ids


def test_a_chat_may_be_constrained_and_stopped(chat):
    assert chat(TALK, choices=["yes", "no"]).text in ("yes", "no")
    free = chat(TALK, max_new_tokens=10)
    stop = free.text[2:4]
    cut = chat(TALK, max_new_tokens=10, stop=[stop])
    assert cut.text == free.text[: free.text.index(stop)] and cut.finish_reason == "stop"


def test_what_a_chat_refuses(bundle, chat, tmp_path):
    for wrong, message in (
        ({"overflow": "cut"}, "overflow='cut'"),
        ({"instruction": "be"}, "role 'system'"),
        ({"beams": 2}, "unknown generation setting 'beams'"),
    ):
        with pytest.raises(InputError, match=message):
            chat(TALK, **wrong)
    with pytest.raises(InputError, match="cannot be streamed"):
        chat.stream(TALK, num_beams=2)
    with pytest.raises(InputError, match="got int"):
        chat(3)
    with pytest.raises(InputError, match="message 1 has role=None") as caught:
        chat(["the cat", [TALK[1], {}]])
    assert caught.value.row == 1
    bare = bundles.decoder_bundle(tmp_path / "bare")
    with pytest.raises(BundleError, match="has no chat template"):
        serve.load(bare, task="chat")
    assert serve.load(bare, task="chat", template=SHORT)(TALK, max_new_tokens=3).token_ids
    answerer = bundles.seq2seq_bundle(tmp_path / "s")
    with pytest.raises(InputError, match="needs a bundle of text-generation"):
        serve.load(answerer, task="chat")


def test_the_lines_of_the_documents(tmp_path, monkeypatch, capsys):
    page = Path(__file__).parents[1] / "docs" / "chat.md"
    [code] = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)
    folder = bundles.decoder_bundle(tmp_path / "bundles" / "chat")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.role[0] }}{% endfor %}"
    )
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page, "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1].split()[-1].isdigit()


def test_an_answer_ends_where_the_template_ends_turns(tmp_path):
    folder = bundles.decoder_bundle(tmp_path / "b")
    source = SHORT.replace("\n", "<pad>\n")
    chat = serve.load(folder, task="chat", template=source)
    pad, end = (chat.tokenizer.backend.token_to_id(token) for token in ("<pad>", "<|endoftext|>"))
    assert set(chat.settings().generation.eos_token_id) == {pad, end}
    likely = {"logit_bias": {pad: 1000.0}, "max_new_tokens": 4}
    ended = chat("the cat", **likely)
    assert ended.token_ids == () and ended.finish_reason == "eos"
    assert chat("the cat", eos_token_id=[end], **likely).token_ids == (pad,) * 4
    other = serve.load(folder, task="chat", template=SHORT)
    assert other.settings().generation.eos_token_id == (end,)
