"""CTranslate2's classes."""

import time
from typing import Any

from benchmarks.references import work

DEVICE: dict[str, Any] = {"device": "cpu", "intra_threads": work.THREADS}


class Encoder:
    def __init__(self, folder: str) -> None:
        import ctranslate2

        self.view = ctranslate2.StorageView.from_array
        self.model = ctranslate2.Encoder(folder, **DEVICE)

    def encode(self, batch: int, length: int) -> None:
        import numpy as np

        ids = work.encoder_inputs(batch, length)["input_ids"].astype("int32")
        lengths = np.full(batch, length, "int32")
        self.model.forward_batch(self.view(ids), lengths=self.view(lengths))


class Writer:
    """Reads and writes in one call: decoding counts what a call of more tokens takes longer."""

    def __init__(self, folder: str) -> None:
        import ctranslate2

        self.model = ctranslate2.Generator(folder, **DEVICE)

    def prefill(self, length: int) -> None:
        self.tokens = work.words(work.ids(1, length).tolist())
        started = time.perf_counter()
        self._generate(self.tokens, [1])
        self.reading = time.perf_counter() - started

    def decode(self, count: int) -> float:
        started = time.perf_counter()
        self._generate(self.tokens, [count + 1])
        return time.perf_counter() - started - self.reading

    def alone(self) -> None:
        """The mixed requests one by one."""
        for row, count in zip(*work.requests(), strict=True):
            self._generate(work.words([row]), [count])

    def together(self) -> None:
        """The mixed requests as one batch, each ended where it wants no more."""
        rows, counts = work.requests()
        self._generate(work.words(rows), counts)

    def _generate(self, tokens: list[list[str]], counts: list[int]) -> None:
        """Exactly so many new tokens for each row."""
        end = None
        if len(set(counts)) > 1:
            # The shortest prompt is read at once, and what others have more of it step by step.
            shortest = min(map(len, tokens))
            last = [len(row) - shortest + n for row, n in zip(tokens, counts, strict=True)]

            def end(step: Any) -> bool:
                return step.step + 1 >= last[step.batch_id]

        results = self.model.generate_batch(
            tokens,
            max_length=max(counts),
            min_length=max(counts),
            sampling_topk=1,
            include_prompt_in_result=False,
            callback=end,
        )
        found = [len(result.sequences_ids[0]) for result in results]
        if found != counts:
            raise SystemExit(f"{found} tokens instead of {counts}")


class Translator:
    def __init__(self, folder: str) -> None:
        import ctranslate2

        self.model = ctranslate2.Translator(folder, **DEVICE)

    def translate(self, beams: int, batch: int) -> None:
        results = self.model.translate_batch(
            work.words(work.sources(batch)),
            beam_size=beams,
            max_decoding_length=work.TARGET,
            min_decoding_length=work.TARGET,
        )
        found = {len(result.hypotheses[0]) for result in results}
        if found != {work.TARGET}:
            raise SystemExit(f"{found} tokens instead of {work.TARGET}")
