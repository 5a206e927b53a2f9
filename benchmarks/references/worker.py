"""One engine with one model, told on standard input what to do: prints the seconds it took.

    python worker.py ENGINE FOLDER

Runs in the engine's own environment and imports nothing of this project but, as the engine
`serve`, what answers requests. Commands, a line each: `encode BATCH LENGTH`, `prefill LENGTH`,
`decode COUNT` (behind the last prefill).
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

THREADS = 2


def prompt(length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(5, 30000, (1, length))


def encoder_inputs(batch: int, length: int) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(0).integers(5, 30000, (batch, length))
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }


class Serve:
    """This project, without Keras."""

    def __init__(self, folder: str) -> None:
        from serve.bundle.manifest import Manifest
        from serve.decoding.generator import Generator
        from serve.runtime.session import Session, SessionOptions

        manifest, options = Manifest.load(folder), SessionOptions(threads=THREADS)
        self.manifest = manifest
        if manifest.cache is None:
            self.session = Session(manifest.path(manifest.graphs["model"].file), options)
        else:
            self.generator = Generator(manifest, options)

    def encode(self, batch: int, length: int) -> None:
        from serve.pipelines.encoder import tokens_per_run
        from serve.runtime.batching import token_batches

        feeds, most = encoder_inputs(batch, length), tokens_per_run(self.manifest, "cpu")
        for rows in token_batches([length] * batch, most, batch):  # as pipelines do
            self.session.run({name: values[rows] for name, values in feeds.items()})

    def prefill(self, length: int) -> None:
        ids = prompt(length).tolist()
        self.decoding, self.logits = self.generator.start(ids, ids, 256)

    def decode(self, count: int) -> None:
        for _ in range(count):
            self.logits = self.decoding.step(self.logits.argmax(axis=-1))


class Optimum:
    """Optimum's class over ONNX Runtime."""

    def __init__(self, folder: str) -> None:
        import onnxruntime
        from optimum.onnxruntime import ORTModelForFeatureExtraction

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        names = [path.name for path in Path(folder).glob("*.onnx")]
        self.model = ORTModelForFeatureExtraction.from_pretrained(
            folder, file_name=names[0], session_options=options
        )

    def encode(self, batch: int, length: int) -> None:
        self.model(**encoder_inputs(batch, length))


class CTranslate2Encoder:
    def __init__(self, folder: str) -> None:
        import ctranslate2

        self.view = ctranslate2.StorageView.from_array
        self.model = ctranslate2.Encoder(folder, device="cpu", intra_threads=THREADS)

    def encode(self, batch: int, length: int) -> None:
        ids = encoder_inputs(batch, length)["input_ids"].astype("int32")
        lengths = np.full(batch, length, "int32")
        self.model.forward_batch(self.view(ids), lengths=self.view(lengths))


class CTranslate2Decoder:
    """Reads and writes in one call: decoding counts what a call of more tokens takes longer."""

    def __init__(self, folder: str) -> None:
        import ctranslate2

        self.model = ctranslate2.Generator(folder, device="cpu", intra_threads=THREADS)

    def _generate(self, count: int) -> None:
        self.model.generate_batch(
            self.tokens,
            max_length=count,
            min_length=count,
            sampling_topk=1,
            include_prompt_in_result=False,
        )

    def prefill(self, length: int) -> None:
        self.tokens = [[f"w{i}" for i in prompt(length)[0]]]
        started = time.perf_counter()
        self._generate(1)
        self.reading = time.perf_counter() - started

    def decode(self, count: int) -> float:
        started = time.perf_counter()
        self._generate(count + 1)
        return time.perf_counter() - started - self.reading


class Genai:
    """onnxruntime-genai."""

    def __init__(self, folder: str) -> None:
        import onnxruntime_genai

        self.library = onnxruntime_genai
        self.model = onnxruntime_genai.Model(folder)

    def prefill(self, length: int) -> None:
        options = self.library.GeneratorParams(self.model)
        options.set_search_options(max_length=length + 256, min_length=length + 256)
        self.generator = self.library.Generator(self.model, options)
        self.generator.append_tokens(prompt(length).astype("int32"))
        self.generator.generate_next_token()

    def decode(self, count: int) -> None:
        for _ in range(count):
            self.generator.generate_next_token()


ENGINES: dict[str, Any] = {
    "serve": Serve,
    "optimum": Optimum,
    "ctranslate2-encoder": CTranslate2Encoder,
    "ctranslate2-decoder": CTranslate2Decoder,
    "genai": Genai,
}


def main() -> None:
    engine = ENGINES[sys.argv[1]](sys.argv[2])
    print("ready", flush=True)
    for line in sys.stdin:
        command, *numbers = line.split()
        if command == "encode":  # once for the caches, which the others have filled meanwhile
            engine.encode(*map(int, numbers))
        started = time.perf_counter()
        own = getattr(engine, command)(*map(int, numbers))
        print(time.perf_counter() - started if own is None else own, flush=True)


if __name__ == "__main__":
    main()
