"""The pipelines that write text: continuing a prompt, and answering a text with a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast, overload

from serve.bundle.manifest import Manifest
from serve.decoding.generator import Generator
from serve.decoding.settings import GenerationSettings
from serve.errors import InputError
from serve.pipelines.results import Generated
from serve.runtime.batching import token_batches
from serve.runtime.session import SessionOptions
from serve.text.assembling import TextAssembler
from serve.text.tokenizer import TextTokenizer


class TextGenerator:
    """Continues prompts (task text-generation).

    Args:
        manifest: The bundle.
        options: How to run its graphs.
        batch_size: Most texts generated together.
        batch_tokens: Most positions of a batch, prompts and new tokens together.
    """

    truncation: str | None = None  # a cut prompt would be a different question

    def __init__(
        self,
        manifest: Manifest,
        options: SessionOptions | None = None,
        batch_size: int = 16,
        batch_tokens: int = 16384,
    ) -> None:
        self.manifest = manifest
        self.tokenizer = TextTokenizer.of(manifest, self.truncation)
        self.generator = Generator(manifest, options)
        self.batch_size = batch_size
        self.batch_tokens = batch_tokens

    @property
    def task(self) -> str:
        """The bundle's task."""
        return self.manifest.task

    @overload
    def __call__(self, inputs: str, **settings: Any) -> Generated: ...
    @overload
    def __call__(self, inputs: Sequence[str], **settings: Any) -> list[Generated]: ...
    def __call__(self, inputs: str | Sequence[str], **settings: Any) -> Generated | list[Generated]:
        """Same as `generate`."""
        return self.generate(inputs, **settings)

    @overload
    def generate(self, texts: str, **settings: Any) -> Generated: ...
    @overload
    def generate(self, texts: Sequence[str], **settings: Any) -> list[Generated]: ...
    def generate(self, texts: str | Sequence[str], **settings: Any) -> Generated | list[Generated]:
        """Generate an answer for a text, or for each of several.

        Args:
            texts: One text or several.
            **settings: Fields of `GenerationSettings`: max_new_tokens, do_sample, temperature,
                top_k, top_p, seed, stop. The model's defaults hold for what is not given.

        Raises:
            InputError: A text does not fit the model, or a setting is out of range.
        """
        single = isinstance(texts, str)
        chosen = self.generator.settings(**settings)
        rows = self._encode(cast("list[str]", [texts] if single else list(texts)))
        answers: list[Generated | None] = [None] * len(rows)
        room = chosen.max_new_tokens or self.generator.defaults.max_new_tokens
        sizes = [len(ids) + room for ids, _ in rows]
        for batch in token_batches(sizes, self.batch_tokens, self.batch_size):
            for row, answer in zip(
                batch, self._generate([rows[row] for row in batch], chosen), strict=True
            ):
                answers[row] = answer
        done = cast("list[Generated]", answers)
        return done[0] if single else done

    def stream(self, text: str, **settings: Any) -> Iterator[str]:
        """Yield the answer piece by piece; the pieces add up to `generate(text).text`."""
        chosen = self.generator.settings(**settings)
        [(ids, _)] = self._encode([text])
        generation = self.generator.generate([ids], chosen)  # refuses what does not fit at once
        return self._pieces(generation, TextAssembler(self.tokenizer, chosen.stop))

    @staticmethod
    def _pieces(generation: Any, assembler: TextAssembler) -> Iterator[str]:
        for row, token in generation:
            if piece := assembler.push(token):
                yield piece
            if assembler.stopped:
                generation.stop(row)
        if piece := assembler.finish():
            yield piece

    def _generate(
        self, rows: Sequence[tuple[list[int], bool]], settings: GenerationSettings
    ) -> list[Generated]:
        """One batch."""
        generation = self.generator.generate([ids for ids, _ in rows], settings)
        assemblers = [TextAssembler(self.tokenizer, settings.stop) for _ in rows]
        texts, tokens = ["" for _ in rows], [[] for _ in rows]  # type: list[str], list[list[int]]
        for row, token in generation:
            tokens[row].append(token)
            texts[row] += assemblers[row].push(token)
            if assemblers[row].stopped:
                generation.stop(row)
        return [
            Generated(
                texts[row] + assembler.finish(),
                "stop" if assembler.stopped else generation.finish_reasons[row] or "length",
                tuple(tokens[row]),
                len(rows[row][0]),
                rows[row][1],
            )
            for row, assembler in enumerate(assemblers)
        ]

    def _encode(self, texts: Sequence[str]) -> list[tuple[list[int], bool]]:
        """(ids, truncated) of every text."""
        bos = self.generator.defaults.bos_token_id
        rows = []
        for text, encoding in zip(texts, self.tokenizer.encode(texts), strict=True):
            ids = list(encoding.ids)
            if not ids and bos is not None:
                ids = [bos]
            if not ids:
                raise InputError(f"the text {text!r} has no tokens: expected something to go on")
            rows.append((ids, bool(encoding.overflowing)))
        return rows


class Text2TextGenerator(TextGenerator):
    """Answers a text with a text (task text2text-generation).

    A text longer than the encoder can read is cut, which the result says (`truncated`).
    """

    truncation = "longest_first"
