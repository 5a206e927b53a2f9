"""A bundle that generates, over token ids: its graphs, and requests run one by one or together.

Text lies one layer above, in `serve.pipelines.text_generation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from serve.bundle.integrity import Check
from serve.bundle.manifest import PREFILL, CacheSpec, GenerationSpec, Manifest
from serve.decoding.banned_words import BannedWords
from serve.decoding.beams import BeamSearch
from serve.decoding.buffers import BufferCache
from serve.decoding.cache import Cache
from serve.decoding.constraints import Grammar
from serve.decoding.contrastive import ContrastiveSearch
from serve.decoding.engine import SLOTS, Engine
from serve.decoding.generation import Generation
from serve.decoding.growing import GrowCache
from serve.decoding.prefix_cache import PrefixCache
from serve.decoding.processing import Processors
from serve.decoding.request import Completion, Request
from serve.decoding.search import Sampling, Search, Task
from serve.decoding.settings import GenerationSettings
from serve.decoding.ticket import positions_of
from serve.errors import BundleError, InputError
from serve.runtime.session import Session, SessionOptions
from serve.text.stops import StopMatcher
from serve.text.tokenizer import TextTokenizer

LAYOUTS: dict[str, type[Cache]] = {"buffer": BufferCache, "grow": GrowCache}
Settings = GenerationSettings | Sequence[GenerationSettings] | None


class Generator:
    """A decoder or encoder-decoder, ready to generate; several threads may use it at once.

    Args:
        bundle: The bundle's folder, or its manifest already loaded.
        options: How to run the graphs.
        check: As for `Manifest.load`.
        batched_steps: Where prompts have a graph of their own, let it also step many rows, which it
            does faster. Its weights are held in another precision, so what a request is answered
            may then depend on how many share its steps.
        prefix_cache: Bytes of keys and values of prompts' beginnings to keep for later prompts that
            begin alike; 0 keeps none.
        draft: A smaller model of the same tokens, which writes ahead.
    """

    def __init__(
        self,
        bundle: str | Path | Manifest,
        options: SessionOptions | None = None,
        check: Check = True,
        batched_steps: bool = True,
        prefix_cache: int = 0,
        draft: Generator | None = None,
    ) -> None:
        self.manifest = bundle if isinstance(bundle, Manifest) else Manifest.load(bundle, check)
        manifest = self.manifest
        if manifest.cache is None or manifest.generation is None:
            raise BundleError(
                f"bundle {manifest.name!r} ({manifest.task}) does not generate: "
                "its manifest has no cache"
            )
        self.spec: CacheSpec = manifest.cache
        self.defaults: GenerationSpec = manifest.generation
        self.batched_steps = batched_steps
        if isinstance(prefix_cache, bool) or not isinstance(prefix_cache, int) or prefix_cache < 0:
            raise InputError(
                f"prefix_cache={prefix_cache!r}: expected a number of bytes, such as 64 * 2**20, "
                "or 0 for none"
            )
        self.prefixes = PrefixCache(prefix_cache) if prefix_cache else None
        self.draft = draft
        self.encoder: Session | None = None
        name = "model"
        if manifest.architecture == "encoder-decoder":
            self.encoder = Session(manifest.path(manifest.graphs["encoder"].file), options)
            name = "decoder"
        self.decoder = Session(manifest.path(manifest.graphs[name].file), options)
        self.reader = self.decoder  # what reads prompts
        if PREFILL in manifest.graphs:
            self.reader = Session(manifest.path(manifest.graphs[PREFILL].file), options)
        if draft is not None:
            self._check_draft(draft)

    @property
    def max_length(self) -> int:
        """Positions that the decoder's cache can hold, prompt and new tokens together."""
        return self.spec.max_length

    @property
    def vocabulary(self) -> int:
        """Tokens that the model scores."""
        size = self.decoder.outputs["logits"].shape[-1]
        if not isinstance(size, int):
            raise BundleError(f"{self.decoder.path.name}: the vocabulary's size is not fixed")
        return size

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """The bundle's tokenizer, which stop strings and constraints need."""
        return TextTokenizer.of(self.manifest)

    def settings(self, **given: Any) -> GenerationSettings:
        """The model's generation settings, overridden by what is given and not None.

        Raises:
            InputError: As for `GenerationSettings.for_model`; or a decoder is given a
                `forced_bos_token_id`, which begins the answers of encoder-decoders.
        """
        first = given.get("forced_bos_token_id")
        if self.encoder is None and first is not None:
            raise InputError(
                f"forced_bos_token_id={first!r} is for encoder-decoders, whose answers begin with "
                f"it: {self.manifest.name!r} is a decoder; put the token behind the prompt"
            )
        return GenerationSettings.for_model(self.defaults, **given)

    def generate_ids(
        self,
        input_ids: Sequence[Sequence[int]],
        settings: Settings = None,
        prefix: Sequence[Sequence[int]] | None = None,
    ) -> list[list[int]]:
        """New tokens of the best answer to every prompt, without the ending eos.

        Args:
            input_ids: Prompts of any lengths; for an encoder-decoder what the encoder reads.
            settings: One for all, or one per prompt; the model's own by default.
            prefix: For an encoder-decoder, what the decoder is forced to begin with, start token
                included.
        """
        return [list(found[0].token_ids) for found in self.complete(input_ids, settings, prefix)]

    def complete(
        self,
        input_ids: Sequence[Sequence[int]],
        settings: Settings = None,
        prefix: Sequence[Sequence[int]] | None = None,
    ) -> list[list[Completion]]:
        """Answers to every prompt, best first; arguments as for `generate_ids`.

        Raises:
            InputError: A prompt is empty, or longer than the model can hold.
        """
        generation = self.generate(input_ids, settings, prefix)
        for _ in generation:
            pass
        return [ticket.completions or [] for ticket in generation.tickets]

    def generate(
        self,
        input_ids: Sequence[Sequence[int]],
        settings: Settings = None,
        prefix: Sequence[Sequence[int]] | None = None,
    ) -> Generation:
        """Start a generation, to be iterated over; arguments as for `generate_ids`."""
        requests = self.requests(input_ids, settings, prefix)
        return Generation(self.engine_for(requests), requests)

    def requests(
        self,
        input_ids: Sequence[Sequence[int]],
        settings: Settings = None,
        prefix: Sequence[Sequence[int]] | None = None,
    ) -> list[Request]:
        """Arguments as for `generate_ids`, one request per prompt."""
        count = len(input_ids)
        if settings is None or isinstance(settings, GenerationSettings):
            settings = [settings or self.settings()] * count
        if not isinstance(settings, Sequence):
            raise InputError(f"settings={settings!r:.60}: expected those of `Generator.settings`")
        if len(settings) != count:
            raise InputError(f"{len(settings)} settings for {count} prompts")
        if prefix is not None and len(prefix) != count:
            raise InputError(f"prefix: expected {count} rows of at least one token")
        prefixes = prefix if prefix is not None else [None] * count
        rows = zip(input_ids, settings, prefixes, strict=True)
        requests = []
        for row, arguments in enumerate(rows):
            try:
                requests.append(Request(*arguments))
            except InputError as error:
                error.row = row
                raise
        return requests

    def engine_for(self, requests: Sequence[Request], together: int = SLOTS) -> Engine:
        """An engine just large enough for some requests, `together` of them at a time."""
        positions = 1
        for at, request in enumerate(requests):
            try:
                prompt, room = self.prepare(request)
            except InputError as error:
                error.row = at
                raise
            positions = max(positions, positions_of(request, prompt, room))
        rows = sorted((request.settings.rows for request in requests), reverse=True)
        hidden = any(request.settings.penalty_alpha for request in requests)
        return Engine(self, max(1, sum(rows[:together])), positions, hidden=bool(hidden))

    def start(
        self,
        input_ids: Sequence[Sequence[int]],
        prompts: Sequence[Sequence[int]],
        room: int,
        every: bool = False,
    ) -> tuple[Cache, np.ndarray]:
        """Run the encoder, if there is one, and read the decoder's prompts; chooses no tokens.

        Args:
            input_ids: What the encoder reads (ignored without one).
            prompts: What the decoder begins with, [rows] of any lengths.
            room: New positions beyond the longest prompt.
            every: Return the logits of all positions.

        Returns:
            The rows under way, and the logits of `Cache.add`.
        """
        longest = max(len(prompt) for prompt in prompts)
        cache = self.new_cache(len(prompts), longest + room)
        return cache, cache.add(prompts, self.encode(input_ids), every)

    def new_cache(self, slots: int, positions: int, hidden: bool = False) -> Cache:
        """An empty cache for so many rows of so many positions."""
        layout = LAYOUTS[self.spec.layout]
        pad = self.defaults.pad_token_id
        return layout(self.decoder, self.spec, slots, positions, self.reader, pad, hidden)

    def encode(self, input_ids: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
        """Run the encoder once; returns what each decoder run is fed, by the decoder's input names.
        Nothing without an encoder.
        """
        if self.encoder is None:
            return {}
        ids, lengths = pad(input_ids, self.defaults.pad_token_id)
        mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
        names = {name: _decoder_input(name) for name in self.encoder.outputs}
        wanted = [name for name, given in names.items() if given in self.decoder.inputs]
        found = self.encoder.run({"input_ids": ids, "attention_mask": mask}, wanted)
        memory = {names[name]: found[name] for name in wanted}
        if "encoder_attention_mask" in self.decoder.inputs:
            memory["encoder_attention_mask"] = mask
        return memory

    def prepare(self, request: Request) -> tuple[list[int], int]:
        """What the decoder begins with, and how many new tokens there may be.

        Raises:
            InputError: The request does not fit the model.
        """
        if len(request.input_ids) == 0:
            raise InputError("the prompt is empty: expected at least one token")
        if self.encoder is None:
            if request.prefix is not None:
                raise InputError("prefix is for encoder-decoders; put it into the prompt")
            prompt = list(request.input_ids)
        elif request.prefix is None:
            prompt = [int(self.defaults.decoder_start_token_id or 0)]
        elif len(request.prefix) == 0:
            raise InputError("prefix is empty: expected at least the start token")
        else:
            prompt = list(request.prefix)
        self._check_ids(prompt)
        if min(request.input_ids) < 0:  # how many tokens an encoder knows is not told
            raise InputError(f"token {min(request.input_ids)}: expected ids from 0")
        return prompt, self._room(len(prompt), request.settings)

    def search(self, request: Request, prompt: Sequence[int], room: int) -> Search:
        """How a request chooses its tokens."""
        settings = request.settings
        source = request.input_ids if self.encoder is not None else None
        words = BannedWords.of(self.tokenizer, settings.bad_words) if settings.bad_words else None
        processors = Processors(settings, prompt, self.vocabulary, source, room, words)
        grammar = ends = None
        if settings.constrained:
            grammar = Grammar.compile(
                settings, self.tokenizer, settings.eos_token_id, self.vocabulary
            )
        if settings.stop:
            ends = StopMatcher(self.tokenizer, settings.stop).ends
        task = Task(settings, processors, room, ends, grammar)
        if settings.penalty_alpha:
            return ContrastiveSearch(task)
        return BeamSearch(task) if settings.num_beams > 1 else Sampling(task)

    def _check_draft(self, draft: Generator) -> None:
        """Refuse a draft model that does not speak of the same tokens."""
        name = draft.manifest.name
        if draft.vocabulary != self.vocabulary:
            raise InputError(
                f"the draft model {name!r} has {draft.vocabulary} tokens, "
                f"{self.manifest.name!r} has {self.vocabulary}: expected the same vocabulary"
            )
        files = [
            one.manifest.files[one.manifest.tokenizer.file].sha256
            for one in (self, draft)
            if one.manifest.tokenizer is not None
        ]
        if len(set(files)) > 1:
            raise InputError(
                f"the draft model {name!r} has another tokenizer than {self.manifest.name!r}"
            )
        if (draft.encoder is None) != (self.encoder is None):
            raise InputError(f"the draft model {name!r} has another architecture")

    def _check_ids(self, ids: Sequence[int]) -> None:
        wrong = [token for token in ids if not 0 <= token < self.vocabulary]
        if wrong:
            raise InputError(
                f"token {wrong[0]} is outside the model's vocabulary of {self.vocabulary}"
            )

    def _room(self, prompt: int, settings: GenerationSettings) -> int:
        """New tokens that a row may have; see `positions_of`."""
        most = self.max_length - prompt + (not settings.penalty_alpha)
        if most < 1:
            raise InputError(
                f"a prompt of {prompt} tokens is longer than the model's max_length of "
                f"{self.max_length}; shorten it"
            )
        asked = settings.max_new_tokens
        if asked is None and settings.max_length is not None:
            if settings.max_length <= prompt:
                raise InputError(
                    f"max_length={settings.max_length} leaves no room behind {prompt} prompt "
                    "tokens; raise it, or give max_new_tokens"
                )
            return min(settings.max_length - prompt, most)
        if asked is None:
            return min(self.defaults.max_new_tokens, most)
        if asked > most:
            raise InputError(
                f"{prompt} prompt tokens and max_new_tokens={asked} exceed the model's max_length "
                f"of {self.max_length}; lower max_new_tokens to {most} or shorten the prompt"
            )
        return asked


def pad(rows: Sequence[Sequence[int]], pad_token_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Right pad: returns ids [rows, longest] and lengths [rows], int64."""
    lengths = np.array([len(row) for row in rows], np.int64)
    ids = np.full((len(rows), int(lengths.max(initial=0))), pad_token_id, np.int64)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = row
    return ids, lengths


def _decoder_input(output: str) -> str:
    """The decoder's name for an output of the encoder."""
    if output.startswith("present."):
        return "past_key_values." + output.removeprefix("present.")
    return "encoder_hidden_states" if output == "last_hidden_state" else output
