"""A conversation under way in `zoo chat`: its messages, its settings, and its commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from serve.decoding.agreement import unknown_setting
from serve.errors import InputError
from serve.pipelines.chat import ChatPipeline, ChatReply, ChatStream
from serve.text.chat import check_messages

HELP = """\
/reset             forget what was said (the system's message stays)
/system [TEXT]     show or set the system's message; - takes it away
/save FILE         write the conversation as JSON
/load FILE         go on with a conversation that was saved
/settings          show the settings
/settings NAME=VALUE ...
                   change some: temperature=0.7 stop=["\\n"]; NAME= is as it was
/quit              leave, as does Ctrl-D; Ctrl-C stops an answer
//TEXT             say a text that begins with /"""


class Conversation:
    """What was said so far.

    Args:
        pipeline: What answers.
        settings: Of every call.
        system: The system's message, if any.

    Attributes:
        done: It was left with /quit.
    """

    def __init__(
        self, pipeline: ChatPipeline, settings: dict[str, Any], system: str | None = None
    ) -> None:
        self.pipeline = pipeline
        self.settings = dict(settings)
        self.system = system
        self.done = False
        self.turns: list[dict[str, Any]] = []
        self._asked: dict[str, Any] = {}
        self._commands: dict[str, Callable[[str], str]] = {
            "help": lambda _: HELP,
            "reset": self._reset,
            "system": self._set_system,
            "save": self._save,
            "load": self._load,
            "settings": self._set,
            "quit": self._quit,
        }

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The system's message and all turns."""
        first = [] if self.system is None else [{"role": "system", "content": self.system}]
        return first + self.turns

    def ask(self, text: str) -> ChatStream:
        """Say something; it and what is answered are part of the conversation after `keep`."""
        self._asked = {"role": "user", "content": self._joined(text)}
        return self.pipeline.stream([*self.messages, self._asked], **self.settings)

    def keep(self, stream: ChatStream) -> ChatReply:
        """An answer has ended, or was stopped: it is part of what was said."""
        stream.close()
        assert stream.reply is not None
        self.turns += [self._asked, stream.reply.message]
        return stream.reply

    def command(self, line: str) -> str | None:
        """Run a command; returns what there is to say, or None where the line is none.

        Raises:
            InputError: There is no such command, or it cannot be done.
        """
        if not line.startswith("/") or line.startswith("//"):
            return None
        name, _, rest = line[1:].strip().partition(" ")
        if name not in self._commands:
            known = ", ".join(f"/{one}" for one in self._commands)
            raise InputError(f"/{name} is no command: expected {known}; // begins a text with /")
        return self._commands[name](rest.strip())

    def _joined(self, text: str) -> str:
        """In plain continuation a text must not run into the word before it."""
        said = self.messages
        before = said[-1]["content"] if said else ""
        apart = not before or before[-1].isspace() or text[:1].isspace()
        return text if apart or not self.pipeline.template.plain else f" {text}"

    def _reset(self, _: str) -> str:
        self.turns = []
        return "a new conversation"

    def _set_system(self, text: str) -> str:
        if not text:
            return "there is no system message" if self.system is None else self.system
        self.system = None if text == "-" else text
        return "the system message is " + ("gone" if self.system is None else "set")

    def _save(self, name: str) -> str:
        path = _path("/save", name)
        text = json.dumps({"messages": self.messages}, ensure_ascii=False, indent=2)
        try:
            path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"/save {path}: {error.strerror}") from error
        return f"{len(self.messages)} messages written to {path}"

    def _load(self, name: str) -> str:
        path = _path("/load", name)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"/load {path}: {error.strerror}") from error
        except ValueError as error:
            raise InputError(f"/load {path}: not a JSON file ({error})") from error
        found = found.get("messages") if isinstance(found, dict) else found
        messages = check_messages(found)
        self.system = None
        if messages[0]["role"] == "system" and isinstance(messages[0].get("content"), str):
            self.system = messages.pop(0)["content"]
        self.turns = messages
        return f"{len(self.messages)} messages read from {path}"

    def _set(self, text: str) -> str:
        """Show or change settings; nothing is changed unless all of it can be."""
        changed = dict(self.settings)
        for part in _assignments(text):
            name, equals, value = part.partition("=")
            known = self.pipeline.setting_names()
            if not equals:
                raise InputError(f"/settings {part}: expected NAME=VALUE, of {', '.join(known)}")
            if name not in known:
                raise InputError(f"/settings {part}: {unknown_setting(name, known).message}")
            if value:
                changed[name] = _value(value)
            else:
                changed.pop(name, None)
        self.pipeline.settings(**changed)
        self.settings = changed
        shown = self._shown()
        return "\n".join(f"{name} = {value}" for name, value in shown.items())

    def _shown(self) -> dict[str, str]:
        """What was given, and what the model sets otherwise than generation does by itself."""
        generation = self.pipeline.settings(**self.settings).generation
        plain = {
            one.name: getattr(generation, one.name)
            for one in fields(generation)
            if getattr(generation, one.name) != getattr(type(generation)(), one.name)
            and one.name != "pad_token_id"
        }
        return {name: repr(value) for name, value in {**plain, **self.settings}.items()}

    def _quit(self, _: str) -> str:
        self.done = True
        return ""


def _path(command: str, name: str) -> Path:
    if not name:
        raise InputError(f"{command} needs a file's name")
    return Path(name).expanduser()


def _assignments(text: str) -> list[str]:
    """Words of a line, of which quotes and brackets keep spaces together."""
    words, word, open_, quoted = [], "", 0, False
    for character in text:
        if character == '"':
            quoted = not quoted
        elif not quoted:
            open_ += (character in "[{") - (character in "]}")
        if character.isspace() and not quoted and open_ <= 0:
            words.append(word)
            word = ""
        else:
            word += character
    return [one for one in (*words, word) if one]


def _value(text: str) -> Any:
    """A value in JSON, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
