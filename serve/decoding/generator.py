"""Generation over token ids: prefill, steps, and rows that end at different times.

Text, stop strings and streaming lie one layer above, in `serve.pipelines.text_generation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from serve.bundle.integrity import Check
from serve.bundle.manifest import PREFILL, CacheSpec, GenerationSpec, Manifest
from serve.decoding.cache import Decoding, first_capacity
from serve.decoding.cache_layouts import LAYOUTS
from serve.decoding.sampling import Sampler
from serve.decoding.settings import GenerationSettings
from serve.errors import BundleError, InputError
from serve.runtime.session import Session, SessionOptions, run_bound

if TYPE_CHECKING:
    from onnxruntime import OrtValue


class Generator:
    """A decoder or encoder-decoder, ready to generate.

    Args:
        bundle: The bundle's folder, or its manifest already loaded.
        options: How to run the graphs.
        check: As for `Manifest.load`.
    """

    def __init__(
        self,
        bundle: str | Path | Manifest,
        options: SessionOptions | None = None,
        check: Check = True,
    ) -> None:
        self.manifest = bundle if isinstance(bundle, Manifest) else Manifest.load(bundle, check)
        manifest = self.manifest
        if manifest.cache is None or manifest.generation is None:
            raise BundleError(
                f"bundle {manifest.name!r} ({manifest.task}) does not generate: "
                "its manifest has no cache"
            )
        self.cache: CacheSpec = manifest.cache
        self.defaults: GenerationSpec = manifest.generation
        self.encoder: Session | None = None
        name = "model"
        if manifest.architecture == "encoder-decoder":
            self.encoder = Session(manifest.path(manifest.graphs["encoder"].file), options)
            name = "decoder"
        self.decoder = Session(manifest.path(manifest.graphs[name].file), options)
        self.reader = self.decoder  # what reads prompts
        if PREFILL in manifest.graphs:
            self.reader = Session(manifest.path(manifest.graphs[PREFILL].file), options)

    @property
    def max_length(self) -> int:
        """Positions that the decoder's cache can hold, prompt and new tokens together."""
        return self.cache.max_length

    def settings(self, **given: Any) -> GenerationSettings:
        """The model's generation settings, overridden by what is given and not None."""
        return GenerationSettings.for_model(self.defaults, **given)

    def generate_ids(
        self,
        input_ids: Sequence[Sequence[int]],
        settings: GenerationSettings | Sequence[GenerationSettings] | None = None,
        prefix: Sequence[Sequence[int]] | None = None,
    ) -> list[list[int]]:
        """New tokens of every row, without the ending eos.

        Args:
            input_ids: Prompts of any lengths; for an encoder-decoder what the encoder reads.
            settings: One for all, or one per row; the model's own by default.
            prefix: For an encoder-decoder, what the decoder is forced to begin with, start token
                included.
        """
        answers: list[list[int]] = [[] for _ in input_ids]
        for row, token in self.generate(input_ids, settings, prefix):
            answers[row].append(token)
        return answers

    def generate(
        self,
        input_ids: Sequence[Sequence[int]],
        settings: GenerationSettings | Sequence[GenerationSettings] | None = None,
        prefix: Sequence[Sequence[int]] | None = None,
    ) -> Generation:
        """Start a generation, to be iterated over; arguments as for `generate_ids`.

        Raises:
            InputError: A prompt is empty, or longer than the model can hold.
        """
        if settings is None or isinstance(settings, GenerationSettings):
            settings = [settings or self.settings()] * len(input_ids)
        if len(settings) != len(input_ids):
            raise InputError(f"{len(settings)} settings for {len(input_ids)} prompts")
        prompts = self._decoder_prompts(input_ids, prefix)
        rooms = [
            self._room(len(prompt), one.max_new_tokens)
            for prompt, one in zip(prompts, settings, strict=True)
        ]
        return Generation(self, input_ids, prompts, settings, rooms)

    def start(
        self,
        input_ids: Sequence[Sequence[int]],
        prompts: Sequence[Sequence[int]],
        room: int,
        every: bool = False,
    ) -> tuple[Decoding, np.ndarray]:
        """Run the encoder, if there is one, and prefill the decoder.

        Args:
            input_ids: What the encoder reads (ignored without one).
            prompts: What the decoder begins with, [rows] of any lengths.
            room: New positions that are expected beyond the longest prompt.
            every: Return the logits of all positions.

        Returns:
            The rows under way, and the logits of `Decoding.prefill`.
        """
        constants = self.encode(input_ids) if self.encoder else {}
        ids, lengths = pad(prompts, self.defaults.pad_token_id)
        capacity = first_capacity(ids.shape[1], room, self.max_length)
        layout = LAYOUTS[self.cache.layout]
        decoding = layout(self.decoder, self.cache, len(prompts), capacity, constants, self.reader)
        return decoding, decoding.prefill(ids, lengths, every)

    def encode(self, input_ids: Sequence[Sequence[int]]) -> dict[str, OrtValue]:
        """Run the encoder once; returns what each decoder run is fed, by its input names."""
        from onnxruntime import OrtValue

        assert self.encoder is not None
        session, target = self.encoder, self.decoder
        ids, lengths = pad(input_ids, self.defaults.pad_token_id)
        mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
        feeds = session.prepare({"input_ids": ids, "attention_mask": mask})
        binding = session.runtime.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        renamed = {name: _decoder_input(name) for name in session.outputs}
        wanted = [name for name, given in renamed.items() if given in target.inputs]
        for name in wanted:
            binding.bind_output(name, session.device, session.device_id)
        run_bound(session, binding, f"encoder input of shape {list(ids.shape)}")
        constants = dict(
            zip((renamed[name] for name in wanted), binding.get_outputs(), strict=True)
        )
        if "encoder_attention_mask" in target.inputs:
            constants["encoder_attention_mask"] = OrtValue.ortvalue_from_numpy(
                mask, session.device, session.device_id
            )
        return constants

    def _decoder_prompts(
        self, input_ids: Sequence[Sequence[int]], prefix: Sequence[Sequence[int]] | None
    ) -> list[list[int]]:
        for row, ids in enumerate(input_ids):
            if len(ids) == 0:
                raise InputError(f"prompt {row} is empty: expected at least one token")
        if self.encoder is None:
            if prefix is not None:
                raise InputError("prefix is for encoder-decoders; put it into the prompt")
            return [list(ids) for ids in input_ids]
        if prefix is None:
            start = self.defaults.decoder_start_token_id
            return [[int(start or 0)] for _ in input_ids]
        if len(prefix) != len(input_ids) or any(len(ids) == 0 for ids in prefix):
            raise InputError(f"prefix: expected {len(input_ids)} rows of at least one token")
        return [list(ids) for ids in prefix]

    def _room(self, prompt: int, asked: int | None) -> int:
        """New tokens that a row may have; the last of them needs no place in the cache."""
        most = self.max_length - prompt + 1
        if most < 1:
            raise InputError(
                f"a prompt of {prompt} tokens is longer than the model's max_length of "
                f"{self.max_length}; shorten it"
            )
        if asked is None:
            return min(self.defaults.max_new_tokens, most)
        if asked > most:
            raise InputError(
                f"{prompt} prompt tokens and max_new_tokens={asked} exceed the model's max_length "
                f"of {self.max_length}; lower max_new_tokens to {most} or shorten the prompt"
            )
        return asked


class Generation(Iterator[tuple[int, int]]):
    """A batch under way: iterate for (row, token) pairs, step after step, in the order of rows.

    Attributes:
        finish_reasons: Per row "eos", "length", "stop" (ended by `stop`), or None while it runs.
    """

    def __init__(
        self,
        generator: Generator,
        input_ids: Sequence[Sequence[int]],
        prompts: Sequence[Sequence[int]],
        settings: Sequence[GenerationSettings],
        rooms: Sequence[int],
    ) -> None:
        self.finish_reasons: list[str | None] = [None] * len(prompts)
        self._generator = generator
        self._inputs = (input_ids, prompts)
        self._settings = settings
        self._left = list(rooms)
        self._sampler = Sampler(settings)
        self._rows = np.arange(len(prompts))  # which request each line of the batch belongs to
        self._active = np.ones(len(prompts), np.bool_)
        self._tokens = np.zeros(len(prompts), np.int64)
        self._decoding: Decoding | None = None
        self._ready: list[tuple[int, int]] = []

    def stop(self, row: int) -> None:
        """End a row: it gets no more tokens."""
        self._finish(row, "stop")
        self._ready = [pair for pair in self._ready if pair[0] != row]

    def __next__(self) -> tuple[int, int]:
        while not self._ready:
            if not self._active.any():
                self._decoding = None  # the cache's memory is free again
                raise StopIteration
            self._ready = self._advance()[::-1]
        return self._ready.pop()

    def _advance(self) -> list[tuple[int, int]]:
        """One step of the model; returns the new tokens."""
        if self._decoding is None:
            room = max(self._left, default=0)
            self._decoding, logits = self._generator.start(*self._inputs, room)
        else:
            self._shrink(self._decoding)
            logits = self._decoding.step(self._tokens, self._active)
        tokens = self._sampler(logits, self._rows.tolist())
        self._tokens = tokens
        fresh = []
        for line, (row, token) in enumerate(zip(self._rows.tolist(), tokens.tolist(), strict=True)):
            if not self._active[line]:
                continue
            settings = self._settings[row]
            if token in settings.eos_token_id:
                self._finish(row, "eos")
                continue
            fresh.append((row, token))
            self._left[row] -= 1
            if self._left[row] == 0:
                self._finish(row, "length")
        return fresh

    def _finish(self, row: int, reason: str) -> None:
        lines = np.flatnonzero(self._rows == row)
        if len(lines) and self._active[lines[0]]:
            self._active[lines[0]] = False
            self.finish_reasons[row] = reason
        elif reason == "stop" and self.finish_reasons[row] == "length":
            self.finish_reasons[row] = reason  # its last token completed a stop string

    def _shrink(self, decoding: Decoding) -> None:
        """Drop finished rows once they are half of the batch: moving the others costs a copy."""
        lines = np.flatnonzero(self._active)
        if 2 * len(lines) > len(self._rows):
            return
        decoding.keep(lines)
        self._rows, self._tokens = self._rows[lines], self._tokens[lines]
        self._active = self._active[lines]


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
