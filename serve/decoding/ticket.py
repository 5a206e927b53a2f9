"""Requests under way in an engine, and what it tells of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serve.decoding.request import Completion, Request
from serve.decoding.search import Search
from serve.decoding.speculation import Drafts


class Ticket:
    """A request under way.

    Attributes:
        request: What was asked.
        search: How it chooses its tokens.
        prompt: What the decoder begins with.
        room: Most new tokens.
        completions: The answers, once it has ended; best first.
        error: What went wrong with it, and it alone; it has ended then.
        cached_tokens: Tokens of the prompt that came from the prefix cache.
        rows: Rows of the cache, by the rows of the search.
        tokens: What these rows get next.
        drafts: Guesses of what follows.
    """

    def __init__(self, request: Request, search: Search, prompt: list[int], room: int) -> None:
        self.request = request
        self.search = search
        self.completions: list[Completion] | None = None
        self.error: Exception | None = None
        self.cached_tokens = 0
        self.prompt = prompt
        self.room = room
        self.rows: list[int] = []
        self.tokens: list[int] = []
        self.drafts: Drafts | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.completions is not None


@dataclass(frozen=True)
class Event:
    """A token that was decided for good, or, without one, the end of a request."""

    ticket: Ticket
    sequence: int = 0
    token: int | None = None


def positions_of(request: Request, prompt: Sequence[int], room: int) -> int:
    """Positions that a row of a request comes to hold: not that of the last token, unless a
    contrastive search has to read it to choose it.
    """
    return len(prompt) + room - (not request.settings.penalty_alpha)
