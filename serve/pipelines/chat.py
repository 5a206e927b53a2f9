"""The pipeline that answers conversations (task chat), by the chat template of the bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from serve.bundle.manifest import Manifest
from serve.decoding.agreement import unknown_setting
from serve.decoding.engine import SLOTS
from serve.decoding.generation import Generation
from serve.decoding.request import Completion, Request
from serve.errors import InputError
from serve.pipelines.base import check_choice, for_each
from serve.pipelines.results import Generated
from serve.pipelines.text_generation import TextGenerator, WritingSettings
from serve.runtime.session import SessionOptions
from serve.text.assembling import TextAssembler
from serve.text.chat import ChatTemplate, check_messages
from serve.text.unicode import half_character

PREFIX_CACHE = 64 * 2**20  # bytes: what a conversation said before is not read again
OVERFLOW = ("error", "drop_oldest")
_KEPT_ROLES = ("system", "developer")  # at the beginning, whatever else is dropped

Conversation = str | Mapping[str, Any] | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class ChatReply(Generated):
    """An answer to a conversation.

    Attributes:
        dropped_messages: The oldest messages that were left out because all did not fit.
    """

    dropped_messages: int = 0

    @property
    def message(self) -> dict[str, str]:
        """The answer as a message, to be put behind the conversation."""
        return {"role": "assistant", "content": self.text}


@dataclass(frozen=True)
class ChatSettings(WritingSettings):
    """Settings of a call.

    Attributes:
        overflow: What to do with a conversation that leaves no room for the answer: "error", or
            "drop_oldest" to leave out its oldest turns, but not the system's message.
        tools: JSON schemas of functions that the model may call.
        documents: Texts to answer from, dicts with `title` and `text`.
        continue_final_message: Go on with the last message instead of answering it.
        variables: Anything else that the template knows, such as `{"enable_thinking": False}`.
    """

    overflow: str = "error"
    tools: Sequence[Mapping[str, Any]] | None = None
    documents: Sequence[Mapping[str, Any]] | None = None
    continue_final_message: bool = False
    variables: Mapping[str, Any] = field(default_factory=dict)


_NOT_FOR_CHAT = ("long", "instruction")
_OWN = [one.name for one in fields(ChatSettings) if one not in fields(WritingSettings)]


@dataclass(frozen=True)
class _Turn:
    """A conversation as token ids, and how many of its messages were left out."""

    request: Request
    dropped: int


class ChatPipeline(TextGenerator):
    """Answers conversations: a text, a list of messages, or a list of conversations.

    A message is a dict with `role` ("system", "user", "assistant" or what the template knows) and
    `content`. A list of messages is one conversation and has one `ChatReply`.

    Args:
        manifest: The bundle, of task text-generation.
        options: How to run its graphs.
        template: The text of a Jinja template, the name of one of several in the bundle, or "plain"
            for models that only continue texts: messages are then put one behind the other.
        batch_size: As for `TextGenerator`.
        batched_steps: As for `TextGenerator`.
        prefix_cache: As for `TextGenerator`; what was read of a conversation is known in its next
            turn.
        draft: As for `TextGenerator`.

    Raises:
        BundleError: The bundle has no chat template, and none is given.
    """

    def __init__(
        self,
        manifest: Manifest,
        options: SessionOptions | None = None,
        template: str | None = None,
        batch_size: int = SLOTS,
        batched_steps: bool = True,
        prefix_cache: int = PREFIX_CACHE,
        draft: str | Path | None = None,
    ) -> None:
        self.template = ChatTemplate.of(manifest.folder, template)
        super().__init__(manifest, options, batch_size, batched_steps, prefix_cache, draft)
        self._end_of_turn = self.template.end_of_turn(self.tokenizer)

    @property
    def task(self) -> str:
        """What the pipeline does."""
        return "chat"

    @classmethod
    def setting_names(cls) -> list[str]:
        """What `settings` takes."""
        return [name for name in (*super().setting_names(), *_OWN) if name not in _NOT_FOR_CHAT]

    def settings(self, **given: Any) -> ChatSettings:
        """Fields of `GenerationSettings` and `ChatSettings`.

        Unless `eos_token_id` is given, the token that the template puts behind answers ends them
        too: models often name only the end of all texts.
        """
        if given.get("instruction"):
            raise InputError("chat takes no instruction: begin with a message of role 'system'")
        for name in given:
            if name not in self.setting_names():
                raise unknown_setting(name, self.setting_names())
        own = {name: given.pop(name) for name in _OWN if name in given}
        chosen = super().settings(**given)
        generation, end = chosen.generation, self._end_of_turn
        ends = generation.eos_token_id
        if given.get("eos_token_id") is None and end is not None and end not in ends:
            generation = replace(generation, eos_token_id=(*ends, end))
        own = {name: value for name, value in own.items() if value is not None}
        settings = ChatSettings(generation, **own)
        check_choice("overflow", settings.overflow, OVERFLOW)
        if not isinstance(settings.continue_final_message, bool):
            raise InputError(
                f"continue_final_message={settings.continue_final_message!r:.60}: expected True or "
                "False"
            )
        if not isinstance(settings.variables, Mapping):
            raise InputError(
                f"variables={settings.variables!r:.60}: expected a dict of what the template knows"
            )
        return settings

    def __call__(self, inputs: Any, **settings: Any) -> Any:
        """Answer one conversation, each of a list, or each of an iterator.

        Args:
            inputs: A text (what a user says), a list of messages, or several of these.
            **settings: See `settings`.

        Returns:
            A `ChatReply`, a list of them in the order of the conversations, or an iterator.
        """
        if isinstance(inputs, list) and inputs and all(isinstance(one, Mapping) for one in inputs):
            inputs = tuple(inputs)  # one conversation, not one for each message
        return super().__call__(inputs, **settings)

    def stream(  # type: ignore[override]  # what is streamed has another name here
        self, messages: Conversation, **settings: Any
    ) -> ChatStream:
        """Yield the answer piece by piece; its `reply` is the whole, once it has ended.

        Raises:
            InputError: As for a call; also where settings ask for several sequences or beams, which
                are decided at the end only.
        """
        chosen = self.settings(**settings)
        if chosen.generation.num_beams > 1 or chosen.generation.num_return_sequences > 1:
            raise InputError("beams and several sequences cannot be streamed: ask for one of each")
        return ChatStream(self, self._turn(messages, chosen))

    def text(self, messages: Conversation, **settings: Any) -> str:
        """What the model reads of a conversation, for a look at the template."""
        chosen = self.settings(**settings)
        return self._render(check_messages(_messages(messages)), chosen)

    def _answer(self, items: Sequence[Any], settings: WritingSettings) -> list[Generated]:
        assert isinstance(settings, ChatSettings)
        turns = for_each(items, lambda item: self._turn(item, settings))
        requests = [turn.request for turn in turns]
        generation = Generation(self.generator.engine_for(requests, self.batch_size), requests)
        for _ in generation:
            pass
        return [
            self.reply(ticket.completions or [], turn, ticket.cached_tokens)
            for ticket, turn in zip(generation.tickets, turns, strict=True)
        ]

    def reply(self, completions: Sequence[Completion], turn: _Turn, cached: int) -> ChatReply:
        """The answer that completions make."""
        made = self._result(completions, turn.request, cached, turn.dropped > 0)
        values = {one.name: getattr(made, one.name) for one in fields(Generated)}
        return ChatReply(**values, dropped_messages=turn.dropped)

    def assembler(self, request: Request) -> TextAssembler:
        """Makes the text of an answer. One that goes on with the text before it keeps its space."""
        after = () if request.settings.constrained or not self.template.plain else request.input_ids
        return TextAssembler(self.tokenizer, request.settings.stop, after)

    def _turn(self, conversation: Any, settings: ChatSettings) -> _Turn:
        """Read a conversation, as much of it as fits.

        Raises:
            InputError: It does not fit, and nothing may be dropped.
        """
        messages = check_messages(_messages(conversation))
        total = len(messages)
        asked = settings.generation.max_new_tokens
        longest = self.generator.max_length
        dropping = settings.overflow == "drop_oldest"
        # An answer of no asked length is as long as still fits, but not nothing.
        wished = max(1, min(self.generator.defaults.max_new_tokens, longest // 2))
        needed = asked or (wished if dropping else 1)
        while True:
            ids = self._encoded(self._render(messages, settings))
            if len(ids) + needed - 1 <= longest:
                break
            fewer = _without_oldest(messages) if dropping else None
            if fewer is None:
                raise InputError(_too_long(len(ids), needed, longest, dropping))
            messages = fewer
        request = Request(ids, settings.generation)
        self.generator.prepare(request)
        return _Turn(request, total - len(messages))

    def _render(self, messages: Sequence[Mapping[str, Any]], settings: ChatSettings) -> str:
        return self.template.render(
            messages,
            continue_final_message=settings.continue_final_message,
            tools=settings.tools,
            documents=settings.documents,
            variables=settings.variables,
        )

    def _encoded(self, text: str) -> list[int]:
        """Ids of a rendered conversation: a template writes the special tokens itself."""
        if self.template.plain:
            ids = list(self.tokenizer.encode([text])[0].ids)
        else:
            try:
                ids = list(self.tokenizer.backend.encode(text, add_special_tokens=False).ids)
            except Exception as error:  # lone surrogates; the library raises nothing more specific
                reason = half_character(text) or error
                raise InputError(
                    f"the tokenizer cannot encode the conversation: {reason}"
                ) from error
        if not ids and self.generator.defaults.bos_token_id is not None:
            ids = [self.generator.defaults.bos_token_id]
        if not ids:
            raise InputError("the conversation has no tokens: expected something to answer")
        return ids


class ChatStream(Iterator[str]):
    """An answer under way: its pieces, which add up to the text of `reply`.

    Attributes:
        reply: The answer: whole once the pieces have ended, and what was written so far after
            `close`. None while it is being written.
    """

    def __init__(self, pipeline: ChatPipeline, turn: _Turn) -> None:
        """Made by `ChatPipeline.stream`."""
        self.reply: ChatReply | None = None
        self._pipeline = pipeline
        self._turn = turn
        self._assembler = pipeline.assembler(turn.request)
        self._tokens: list[int] = []
        requests = [turn.request]
        self._generation = Generation(pipeline.generator.engine_for(requests), requests)

    def __next__(self) -> str:
        while self.reply is None:
            try:
                _, token = next(self._generation)
            except StopIteration:
                return self._end()
            self._tokens.append(token)
            if piece := self._assembler.push(token):
                return piece
        raise StopIteration

    def close(self) -> None:
        """Write no more; the reply is what there is, and its finish_reason "cancelled"."""
        if self.reply is None:
            written = Completion(tuple(self._tokens), "cancelled")
            self.reply = self._pipeline.reply([written], self._turn, 0)

    def _end(self) -> str:
        """The last piece."""
        [ticket] = self._generation.tickets
        completions = ticket.completions or []
        self.reply = self._pipeline.reply(completions, self._turn, ticket.cached_tokens)
        if piece := self._assembler.finish():
            return piece
        raise StopIteration


def _messages(conversation: Any) -> list[Any]:
    """The messages of what a user gave."""
    if isinstance(conversation, str):
        return [{"role": "user", "content": conversation}]
    if isinstance(conversation, Mapping):
        return [conversation]
    if isinstance(conversation, list | tuple):
        return list(conversation)
    raise InputError(
        f"expected a text or a list of messages, got {type(conversation).__name__}: "
        f"{conversation!r:.60}"
    )


def _without_oldest(messages: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Without the oldest turn: a user's message and what answers it. None: nothing may go."""
    first = next((at for at, one in enumerate(messages) if one["role"] not in _KEPT_ROLES), 0)
    turns = range(first + 1, len(messages))
    after = next((at for at in turns if messages[at]["role"] == "user"), None)
    return None if after is None else messages[:first] + messages[after:]


def _too_long(tokens: int, needed: int, longest: int, dropping: bool) -> str:
    text = (
        f"the conversation has {tokens} tokens, which with {needed} of the answer exceed the "
        f"model's max_length of {longest}; "
    )
    if dropping:
        return text + "its last message alone is too long: shorten it, or lower max_new_tokens"
    return text + (
        "shorten it, lower max_new_tokens, or pass overflow='drop_oldest' to leave out its oldest "
        "turns"
    )
