"""Optimum's classes over ONNX Runtime."""

from pathlib import Path
from typing import Any

from benchmarks.references import work


def _options() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = work.THREADS
    return options


class Encoder:
    def __init__(self, folder: str) -> None:
        from optimum.onnxruntime import ORTModelForFeatureExtraction

        names = [path.name for path in Path(folder).glob("*.onnx")]
        self.model = ORTModelForFeatureExtraction.from_pretrained(
            folder, file_name=names[0], session_options=_options()
        )

    def encode(self, batch: int, length: int) -> None:
        self.model(**work.encoder_inputs(batch, length))


class Translator:
    def __init__(self, folder: str) -> None:
        import torch
        from optimum.onnxruntime import ORTModelForSeq2SeqLM

        torch.set_num_threads(work.THREADS)
        self.model = ORTModelForSeq2SeqLM.from_pretrained(folder, session_options=_options())

    def translate(self, beams: int, batch: int) -> None:
        import torch

        rows = work.sources(batch)
        ids = torch.zeros((batch, max(map(len, rows))), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for line, row in enumerate(rows):
            ids[line, : len(row)] = torch.tensor(row)
            mask[line, : len(row)] = 1
        found = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            num_beams=beams,
            do_sample=False,
            min_new_tokens=work.TARGET,
            max_new_tokens=work.TARGET,
        )
        if tuple(found.shape) != (batch, work.TARGET + 1):  # the start token is one of them
            raise SystemExit(f"answers of shape {tuple(found.shape)}")
