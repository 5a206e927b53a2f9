"""The pipelines that write text: continuing a prompt, and answering a text with a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tokenizers import Encoding

from serve.bundle.manifest import Manifest
from serve.decoding.agreement import unknown_setting
from serve.decoding.engine import SLOTS
from serve.decoding.generation import Generation
from serve.decoding.generator import Generator
from serve.decoding.request import Completion, Request
from serve.decoding.settings import GenerationSettings
from serve.errors import InputError
from serve.pipelines.base import Pipeline, check_choice, for_each
from serve.pipelines.results import Generated, GeneratedSequence, TokenProbability
from serve.runtime.session import SessionOptions
from serve.text.assembling import TextAssembler
from serve.text.tokenizer import TextTokenizer
from serve.text.windows import read_cut


@dataclass(frozen=True)
class WritingSettings:
    """Settings of a call.

    Attributes:
        generation: How tokens are chosen.
        long: What to do with a text longer than the model reads: "cut" or "error".
        instruction: Text put before every input, such as T5's "summarize: ".
    """

    generation: GenerationSettings
    long: str = "error"
    instruction: str = ""


class TextGenerator(Pipeline):
    """Continues prompts (task text-generation).

    Args:
        manifest: The bundle.
        options: How to run its graphs.
        batch_size: Most prompts that are answered together.
        batched_steps: As for `Generator`.
        prefix_cache: Bytes of keys and values of prompts' beginnings to keep for later prompts that
            begin alike; 0 keeps none.
        draft: A bundle of a smaller model of the same tokens, which writes ahead where a prompt is
            alone; the answers are the same.
    """

    long_choices: tuple[str, ...] = ("error",)  # a cut prompt would be a different question

    def __init__(
        self,
        manifest: Manifest,
        options: SessionOptions | None = None,
        batch_size: int = SLOTS,
        batched_steps: bool = True,
        prefix_cache: int = 0,
        draft: str | Path | None = None,
    ) -> None:
        if draft is not None and not isinstance(draft, str | Path):
            raise InputError(f"draft={draft!r:.60}: expected the folder of a bundle")
        self.manifest = manifest
        self.tokenizer = TextTokenizer.of(manifest)
        self.generator = Generator(
            manifest,
            options,
            batched_steps=batched_steps,
            prefix_cache=prefix_cache,
            draft=Generator(draft, options) if draft is not None else None,
        )
        self.batch_size = batch_size

    @classmethod
    def setting_names(cls) -> list[str]:
        """What `settings` takes."""
        names = [field.name for field in fields(GenerationSettings)]
        return [*names, "long", "instruction"]

    def settings(self, **given: Any) -> WritingSettings:
        """Fields of `GenerationSettings`, and those of `WritingSettings`.

        The model's defaults hold for what is not given.

        Raises:
            InputError: There is no such setting, its value is none that it can have, or what is
                given contradicts itself.
        """
        for name in given:
            if name not in self.setting_names():
                raise unknown_setting(name, self.setting_names())
        long = given.pop("long", None) or self.long_choices[0]
        check_choice("long", long, self.long_choices)
        instruction = given.pop("instruction", None)
        instruction = "" if instruction is None else instruction
        if not isinstance(instruction, str):
            raise InputError(f"instruction={instruction!r:.60}: expected a text")
        ahead = given.get("draft_tokens")
        if ahead is not None and self.generator.draft is None:
            raise InputError(
                f"draft_tokens={ahead!r} is for a draft model: open the bundle with draft=..., or "
                "set prompt_lookup to guess from the text itself"
            )
        return WritingSettings(self.generator.settings(**given), long, instruction)

    def generate(self, texts: Any, **settings: Any) -> Any:
        """Same as calling the pipeline."""
        return self(texts, **settings)

    def stream(self, text: str, **settings: Any) -> Iterator[str]:
        """Yield the answer piece by piece; the pieces add up to the text of the whole answer.

        Raises:
            InputError: As for a call; also where settings ask for several sequences or beams, which
                are decided at the end only.
        """
        chosen = self.settings(**settings)
        if chosen.generation.num_beams > 1 or chosen.generation.num_return_sequences > 1:
            raise InputError("beams and several sequences cannot be streamed: ask for one of each")
        [(request, _)] = self._requests([text], chosen)
        return self.stream_request(request)

    def stream_request(self, request: Request) -> Iterator[str]:
        """Yield the answer to a request of token ids piece by piece."""
        generation = Generation(self.generator.engine_for([request]), [request])
        return self._pieces(generation, self.assembler(request))

    def assembler(self, request: Request) -> TextAssembler:
        """Makes the text of an answer: it goes on with the prompt, so a space between is kept."""
        after = () if request.settings.constrained else request.input_ids
        return TextAssembler(self.tokenizer, request.settings.stop, after)

    @staticmethod
    def _pieces(generation: Generation, assembler: TextAssembler) -> Iterator[str]:
        for _, token in generation:
            if piece := assembler.push(token):
                yield piece
        if piece := assembler.finish():
            yield piece

    def complete(self, request: Request) -> Generated:
        """The answer to a request of token ids."""
        generation = Generation(self.generator.engine_for([request]), [request])
        for _ in generation:
            pass
        return self._result(generation.tickets[0].completions or [], request, 0, False)

    def _answer(self, items: Sequence[Any], settings: WritingSettings) -> list[Generated]:
        rows = self._requests(items, settings)
        requests = [request for request, _ in rows]
        engine = self.generator.engine_for(requests, self.batch_size)
        generation = Generation(engine, requests)
        for _ in generation:
            pass
        return [
            self._result(ticket.completions or [], request, ticket.cached_tokens, cut)
            for ticket, (request, cut) in zip(generation.tickets, rows, strict=True)
        ]

    def _result(
        self, completions: Sequence[Completion], request: Request, cached: int, cut: bool
    ) -> Generated:
        sequences = [self._sequence(one, request) for one in completions]
        best = sequences[0]
        return Generated(
            best.text,
            best.finish_reason,
            best.token_ids,
            len(request.input_ids),
            cut,
            best.score,
            best.logprobs,
            tuple(sequences) if len(sequences) > 1 else (),
            cached,
        )

    def _sequence(self, one: Completion, request: Request) -> GeneratedSequence:
        assembler = self.assembler(request)
        text = "".join(map(assembler.push, one.token_ids)) + assembler.finish()
        logprobs = None
        if one.logprobs is not None:
            name = self.tokenizer.backend.id_to_token
            logprobs = tuple(
                TokenProbability(
                    name(at.token) or "",
                    at.token,
                    at.logprob,
                    tuple((name(token) or "", token, value) for token, value in at.top),
                )
                for at in one.logprobs
            )
        return GeneratedSequence(text, one.finish_reason, one.token_ids, one.score, logprobs)

    def _requests(
        self, texts: Sequence[Any], settings: WritingSettings
    ) -> list[tuple[Request, bool]]:
        """(request, whether its text was cut) of every text."""
        for_each(texts, _check_text)
        encodings = self.tokenizer.encode([settings.instruction + text for text in texts])

        def read(at: int) -> tuple[Request, bool]:
            ids, cut = self._fit(encodings[at], texts[at], settings.long)
            request = Request(ids, settings.generation)
            self.generator.prepare(request)  # refuses what does not fit, by its row
            return request, cut

        return for_each(range(len(texts)), read)

    def _fit(self, encoding: Encoding, text: str, long: str) -> tuple[list[int], bool]:
        """What is read of a text, and whether some of it was cut."""
        bos = self.generator.defaults.bos_token_id
        ids = list(encoding.ids) or ([bos] if bos is not None else [])
        if not ids:
            raise InputError(f"the text {text!r} has no tokens: expected something to go on")
        return ids, False


class Text2TextGenerator(TextGenerator):
    """Answers a text with a text (task text2text-generation).

    A text longer than the encoder can read is cut, which the result says (`truncated`).
    """

    long_choices = ("cut", "error")

    def assembler(self, request: Request) -> TextAssembler:
        """Makes the text of an answer, which stands for itself."""
        return TextAssembler(self.tokenizer, request.settings.stop)

    def _fit(self, encoding: Encoding, text: str, long: str) -> tuple[list[int], bool]:
        most = self.tokenizer.spec.max_length
        if len(encoding) > most and long == "error":
            raise InputError(
                f"{len(encoding)} tokens are longer than the model's {most}; shorten the text, or "
                "pass long='cut'"
            )
        if len(encoding) > most:
            return list(read_cut(encoding, most, "first").pieces[0].ids), True
        return super()._fit(encoding, text, long)


def _check_text(text: Any) -> None:
    if not isinstance(text, str):
        raise InputError(f"expected a text, got {type(text).__name__}: {text!r:.60}")
