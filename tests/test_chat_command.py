"""`zoo chat`: piped and typed conversations, and their commands."""

import json
import sys
from pathlib import Path

import pytest
import serve_bundles as bundles
from click.testing import CliRunner

import serve
from serve.commands import chat as command
from serve.commands.conversation import Conversation
from serve.errors import InputError
from serve.pipelines.chat import ChatStream

SHORT = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}"
SHORT += "{% if add_generation_prompt %}a:{% endif %}"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = bundles.decoder_bundle(tmp_path_factory.mktemp("chat") / "b")
    (folder / "chat_template.jinja").write_text(SHORT)
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    return bundles.decoder_bundle(tmp_path_factory.mktemp("chat") / "bare")


@pytest.fixture
def talk(bundle) -> Conversation:
    return Conversation(serve.load(bundle, task="chat"), {"max_new_tokens": 3})


def run(folder, lines, *options):
    text = "".join(f"{line}\n" for line in lines)
    arguments = [str(folder), "--max-new-tokens", "3", *options]
    return CliRunner().invoke(command.chat, arguments, input=text)


def answers(bundle, talks, **settings):
    chat = serve.load(bundle, task="chat", **settings)
    return [chat(one, max_new_tokens=3).text for one in talks]


def test_lines_are_answered_in_one_conversation(bundle):
    got = run(bundle, ["the cat", "", "the sea"], "--json")
    assert got.exit_code == 0, got.output
    first, second = map(json.loads, got.stdout.splitlines())
    talk = [{"role": "user", "content": "the cat"}]
    talk += [{"role": "assistant", "content": first["text"]}]
    talk += [{"role": "user", "content": "the sea"}]
    assert [first["text"], second["text"]] == answers(bundle, ["the cat", talk])
    assert second["input"] == "the sea" and second["dropped_messages"] == 0
    plain = run(bundle, ["the cat"])
    assert plain.stdout == first["text"] + "\n"
    assert "max_new_tokens were used up after 3 tokens" in plain.stderr


def test_a_system_message_and_a_template_of_ones_own(bundle, tmp_path):
    (tmp_path / "own.jinja").write_text("{% for m in messages %}<{{ m.content }}>{% endfor %}")
    (tmp_path / "system.txt").write_text("be old")
    options = ["--system", str(tmp_path / "system.txt")]
    options += ["--template", str(tmp_path / "own.jinja")]
    told = [json.loads(run(bundle, ["the cat"], "--json", *given).stdout)["prompt_tokens"]
            for given in (options, options[:2], [])]  # fmt: skip
    chat = serve.load(bundle, task="chat")
    text = "<be old><the cat>"
    begun = [{"role": "system", "content": "be old"}, {"role": "user", "content": "the cat"}]
    texts = [text, chat.text(begun), chat.text("the cat")]
    assert told == [len(one.ids) for one in chat.tokenizer.encode(texts)]


def test_without_a_template_a_text_is_gone_on_with(bare):
    got = run(bare, ["the cat", "sat"])
    assert got.exit_code == 0 and "plain continuation" in got.stderr
    plain = serve.load(bare, task="chat", template="plain")
    first = plain("the cat", max_new_tokens=3)
    second = plain("the cat" + first.text + " sat", max_new_tokens=3)
    assert got.stdout == f"{first.text}\n{second.text}\n"


def test_lines_that_begin_with_a_slash(bundle):
    got = run(bundle, ["//path", "/help", "/reset", "/quit", "never"], "--json")
    [answer] = map(json.loads, got.stdout.splitlines())
    assert answer["input"] == "/path" and "/settings" in got.stderr
    got = run(bundle, ["the cat", "/fly"])
    assert got.exit_code != 0 and str(got.exception).startswith("line 2: /fly is no command")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-beams", "2"], "streams one answer"),
        (["--template", "other"], "--template other: expected"),
        (["--overflow", "cut"], "'error', 'drop_oldest'"),
    ],
)
def test_options_that_cannot_be(bundle, options, message):
    got = run(bundle, ["the cat"], *options)
    assert got.exit_code == 2
    assert message in got.output


def say(talk, text):
    stream = talk.ask(text)
    list(stream)
    return talk.keep(stream)


def test_commands_of_a_conversation(talk, tmp_path):
    assert talk.command("the cat") is None and talk.command("//x") is None
    assert "no system message" in talk.command("/system")
    talk.command("/system be old")
    assert talk.command("/system") == "be old"
    say(talk, "the cat")
    path = tmp_path / "talk.json"
    assert talk.command(f"/save {path}") == f"3 messages written to {path}"
    saved = talk.messages
    assert json.loads(path.read_text())["messages"] == saved
    talk.command("/reset")
    assert talk.messages == [{"role": "system", "content": "be old"}]
    talk.command("/system -")
    assert talk.messages == []
    assert talk.command(f"/load {path}") == f"3 messages read from {path}"
    assert talk.messages == saved and talk.system == "be old"
    talk.command("/quit")
    assert talk.done


def test_settings_are_changed_together_or_not_at_all(talk):
    shown = talk.command('/settings temperature=0.5 stop=["a b", "c"] seed=3 regex=[a-z]+')
    assert "temperature = 0.5" in shown and "do_sample = True" in shown
    wanted = {"temperature": 0.5, "stop": ["a b", "c"], "seed": 3, "regex": "[a-z]+"}
    assert talk.settings == {"max_new_tokens": 3, **wanted}
    for wrong, message in (
        ("seed=4 temperature=-1", "temperature=-1"),
        ("beams=3", "did you mean .num_beams."),
        ("seed", "expected NAME=VALUE"),
    ):
        with pytest.raises(InputError, match=message):
            talk.command(f"/settings {wrong}")
        assert talk.settings["seed"] == 3
    talk.command("/settings seed= regex= stop=")
    assert talk.settings == {"max_new_tokens": 3, "temperature": 0.5}
    assert say(talk, "the cat").token_ids


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/save", "needs a file's name"),
        ("/save /no/such/folder/x", "No such file"),
        ("/load /no/such/file", "No such file"),
        ("/load {broken}", "not a JSON file"),
        ("/load {empty}", "at least one message"),
    ],
)
def test_commands_that_cannot_be_done(talk, line, message, tmp_path):
    for name, text in (("broken", "{"), ("empty", "[]")):
        (tmp_path / name).write_text(text)
        line = line.replace(f"{{{name}}}", str(tmp_path / name))
    with pytest.raises(InputError, match=message):
        talk.command(line)


def typed(monkeypatch, lines):
    """A terminal where these lines are typed; an exception among them is raised."""
    left = iter(lines)

    def read(prompt):
        line = next(left, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr(command, "_edit_lines", lambda: None)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)


def test_an_answer_can_be_stopped_and_the_chat_goes_on(talk, monkeypatch, capsys):
    typed(monkeypatch, ["the cat", KeyboardInterrupt(), "/fly", "the sea"])
    talk.settings["max_new_tokens"] = 12
    following, calls = ChatStream.__next__, []

    def interrupted(stream):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return following(stream)

    monkeypatch.setattr(ChatStream, "__next__", interrupted)
    command._talk(talk, False)
    shown = capsys.readouterr()
    first, second, third, fourth = talk.messages
    assert first["content"] == "the cat" and third["content"] == "the sea"
    assert shown.out.startswith(second["content"])
    assert len(second["content"]) < len(fourth["content"])
    assert "stopped after" in shown.err and "/fly is no command" in shown.err


def test_what_does_not_fit_is_said_and_forgotten(talk, monkeypatch, capsys):
    typed(monkeypatch, ["the cat " * 60, "the sea"])
    command._talk(talk, False)
    assert "exceed the model's max_length" in capsys.readouterr().err
    assert talk.messages[0]["content"] == "the sea"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--system", "nofile.txt"], "nofile.txt: there is no such file"),
        (["--template", "nofile.jinja"], "nofile.jinja: there is no such file"),
        (
            ["--greedy", "--temperature", "0.5"],
            "--greedy takes the likeliest",
        ),
        (["--choice", "a", "--stop", "b"], "--stop b are both given"),
    ],
)
def test_options_that_cannot_be_meant(bundle, options, words):
    got = run(bundle, ["the cat"], *options)
    assert got.exit_code == 2 and words in " ".join(got.output.split()), got.output


def test_a_setting_that_is_misspelt_is_guessed(talk):
    with pytest.raises(InputError, match=r"/settings temprature=1: .* did you mean 'temperature'"):
        talk.command("/settings temprature=1")
    with pytest.raises(InputError, match="/settings top_k: expected NAME=VALUE"):
        talk.command("/settings top_k")
    with pytest.raises(InputError, match=r"do_sample=False .* temperature=0.5"):
        talk.command("/settings temperature=0.5 do_sample=false")
    assert "temperature" not in talk.settings
