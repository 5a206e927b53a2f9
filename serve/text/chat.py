"""Conversations as the text that a model reads: the chat templates that come with models.

Templates are Jinja, in the form that transformers gave them
(https://huggingface.co/docs/transformers/chat_templating), and are run in a sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serve.errors import BundleError, InputError
from serve.text.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from serve.text.sandbox import SandboxedTemplate

TEMPLATE_FILE = "chat_template.jinja"
NAMED_FOLDER = "additional_chat_templates"
CONFIG_FILE = "tokenizer_config.json"
PLAIN = "plain"
"""The name of no template at all: texts of messages are put one behind the other."""

_PLAIN_SOURCE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
_DEFAULT, _TOOLS = "default", "tool_use"
# Stands behind the text that a model goes on from; templates that trim it cut the last character.
_END = "\ue000here\ue000 "
_PROBE = "\ue000answer\ue000"

Message = Mapping[str, Any]


class ChatTemplate:
    """Writes conversations as a model was trained to read them.

    Args:
        sources: Jinja templates by name. One of the name "tool_use" is used where tools are given,
            else the one of the name "default", or the only one.
        tokens: Texts of special tokens by role, such as `{"bos_token": "<s>"}`.
    """

    def __init__(self, sources: Mapping[str, str], tokens: Mapping[str, str] | None = None) -> None:
        self._sources = dict(sources)
        self._tokens = dict(tokens or {})
        self._compiled: dict[str, SandboxedTemplate] = {}

    @classmethod
    def of(cls, folder: str | Path, template: str | None = None) -> ChatTemplate:
        """The template of a bundle or checkpoint.

        Args:
            folder: Where `chat_template.jinja` or `tokenizer_config.json` are.
            template: One of several templates by name, the text of another, or "plain".

        Raises:
            BundleError: The folder has no template, or its files are broken.
            InputError: There is no template of this name.
        """
        if template is not None and not isinstance(template, str):
            raise InputError(
                f"template={template!r:.60}: expected a text, got {type(template).__name__}"
            )
        folder = Path(folder)
        config = _read_config(folder)
        tokens = _special_tokens(config)
        if template == PLAIN:
            return cls({PLAIN: _PLAIN_SOURCE}, tokens)
        if template is not None and ("{{" in template or "{%" in template):
            return cls({_DEFAULT: template}, tokens)
        sources = _read_templates(folder, config)
        if template is not None:
            if template not in sources:
                raise InputError(
                    f"template={template!r}: expected the text of a Jinja template, {PLAIN!r}, or "
                    f"one of the bundle's own: {', '.join(sorted(sources)) or 'it has none'}"
                )
            sources = {template: sources[template]}
        if not sources:
            raise BundleError(
                f"{folder} has no chat template (neither {TEMPLATE_FILE} nor chat_template in "
                f"{CONFIG_FILE}): the model may not be made for chat; give template=, the text of "
                f"a Jinja template, or {PLAIN!r} for a model that only continues texts"
            )
        return cls(sources, tokens)

    @property
    def plain(self) -> bool:
        """Whether there is no template, and the tokenizer adds special tokens as to any text."""
        return set(self._sources) == {PLAIN}

    def render(
        self,
        messages: Sequence[Message],
        *,
        continue_final_message: bool = False,
        add_generation_prompt: bool | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        now: datetime | None = None,
    ) -> str:
        """The conversation as text.

        Args:
            messages: Dicts with `role` and `content`, as far as the template needs more.
            continue_final_message: Leave the last message open, for the model to go on with.
            add_generation_prompt: End with the beginning of an answer; by default where the last
                message is not continued.
            tools: JSON schemas of functions that the model may call.
            documents: Texts to answer from, dicts with `title` and `text`.
            variables: Anything else that the template knows, such as `enable_thinking`.
            now: The time that the template may tell the model.

        Raises:
            BundleError: The template is broken, or tries what it must not.
            InputError: The messages are not such, or the template refuses them.
        """
        if add_generation_prompt is None:
            add_generation_prompt = not continue_final_message
        elif add_generation_prompt and continue_final_message:
            raise InputError(
                "add_generation_prompt and continue_final_message exclude each other: an answer "
                "is begun, or gone on with"
            )
        plain = check_messages(messages)
        if continue_final_message:
            plain[-1] = _left_open(plain[-1])
        given = {
            **self._tokens,
            **plain_value("variables", variables or {}),
            "messages": plain,
            "tools": plain_value("tools", tools),
            "documents": plain_value("documents", documents),
            "add_generation_prompt": add_generation_prompt,
        }
        text = self._template(tools is not None).render(given, now)
        return _cut_open(text) if continue_final_message else text

    def end_of_turn(self, tokenizer: TextTokenizer) -> int | None:
        """The token that ends an answer, told by what the template writes behind one.

        Models whose answers end by it often name another as the end of all texts.
        """
        talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _PROBE}]
        try:
            text = self.render(talk, add_generation_prompt=False)
        except InputError:
            return None
        if self.plain or _PROBE not in text:
            return None
        behind = text[text.rindex(_PROBE) + len(_PROBE) :].lstrip()
        added = tokenizer.backend.get_added_tokens_decoder()
        found = [number for number, token in added.items() if behind.startswith(token.content)]
        return max(found, key=lambda number: len(added[number].content), default=None)

    def _template(self, tools: bool) -> SandboxedTemplate:
        from serve.text.sandbox import SandboxedTemplate

        name = self._named_for_tools if tools else self._name
        if name not in self._compiled:
            called = "the chat template" + ("" if len(self._sources) == 1 else f" {name!r}")
            self._compiled[name] = SandboxedTemplate(self._sources[name], called)
        return self._compiled[name]

    @cached_property
    def _named_for_tools(self) -> str:
        return _TOOLS if _TOOLS in self._sources else self._name

    @cached_property
    def _name(self) -> str:
        if len(self._sources) == 1:
            return next(iter(self._sources))
        if _DEFAULT not in self._sources:
            raise InputError(
                f"the bundle has the chat templates {', '.join(sorted(self._sources))} and none of "
                f"the name {_DEFAULT!r}: give template=, the name of one"
            )
        return _DEFAULT


def has_template(folder: str | Path) -> bool:
    """Whether a bundle or checkpoint says how conversations are written.

    Raises:
        BundleError: Its files are broken.
    """
    return bool(_read_templates(Path(folder), _read_config(Path(folder))))


def check_messages(messages: Any) -> list[dict[str, Any]]:
    """Plain copies of the messages, without what is None.

    Raises:
        InputError: They are no messages.
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence) or not messages:
        raise InputError(f"messages={messages!r:.80}: expected a list of at least one message")
    checked = []
    for at, message in enumerate(messages):
        where = f"message {at}"
        if not isinstance(message, Mapping):
            raise InputError(f"{where} is {message!r:.80}: expected a dict with role and content")
        plain = {k: v for k, v in plain_value(where, message).items() if v is not None}
        role, content = plain.get("role"), plain.get("content")
        if not isinstance(role, str) or not role:
            raise InputError(f"{where} has role={role!r:.40}: expected 'system', 'user', ...")
        if content is None and len(plain) == 1:
            raise InputError(f"{where} ({role}) has no content")
        if content is not None and not isinstance(content, str | list):
            raise InputError(f"{where} ({role}) has content={content!r:.60}: expected a text")
        checked.append(plain)
    return checked


def plain_value(where: str, value: Any) -> Any:
    """A copy of JSON values alone: whatever else could be called by a template.

    Raises:
        InputError: There is something else in it.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain_value(where, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(where, item) for item in value]
    if isinstance(value, str):  # enumerations and the like
        return str.__str__(value)
    raise InputError(
        f"{where} holds a {type(value).__name__}: expected texts, numbers, lists and dicts"
    )


def _left_open(message: dict[str, Any]) -> dict[str, Any]:
    """The message with a mark at its end."""
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": content + _END}
    if isinstance(content, list):
        for at in reversed(range(len(content))):
            if isinstance(content[at], dict) and isinstance(content[at].get("text"), str):
                part = {**content[at], "text": content[at]["text"] + _END}
                return {**message, "content": [*content[:at], part, *content[at + 1 :]]}
    raise InputError("continue_final_message: the last message has no text to go on with")


def _cut_open(text: str) -> str:
    at = text.rfind(_END.rstrip())
    if at < 0:
        raise InputError(
            "continue_final_message: the chat template leaves out the end of the last message"
        )
    # A template that trims messages would have trimmed the spaces at the end of this one.
    return text[:at] if text.startswith(_END, at) else text[:at].rstrip()


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise BundleError(f"{path} holds a {type(config).__name__}, expected a JSON object")
    return config


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Texts of the tokens that have a role: written as texts, or as objects with `content`."""
    found = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, Mapping) else value
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    return found


def _read_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The templates of a folder by name; files come before what the configuration says."""
    given = config.get("chat_template")
    sources: dict[str, str] = {}
    if isinstance(given, str):
        sources[_DEFAULT] = given
    elif isinstance(given, list):
        try:
            sources.update({entry["name"]: entry["template"] for entry in given})
        except (TypeError, KeyError) as error:
            raise BundleError(
                f"{folder / CONFIG_FILE}: chat_template is a list, expected objects with name and "
                "template"
            ) from error
    files = [(_DEFAULT, folder / TEMPLATE_FILE)]
    files += [(path.stem, path) for path in sorted((folder / NAMED_FOLDER).glob("*.jinja"))]
    for name, path in files:
        if path.is_file():
            try:
                sources[name] = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise BundleError(f"{path} cannot be read: {error}") from error
    for name, source in sources.items():
        if not isinstance(name, str) or not isinstance(source, str):
            raise BundleError(f"{folder}: the chat template {name!r} is no text")
    return sources
