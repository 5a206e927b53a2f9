"""A text generator in Triton's Python backend, from the bundle beside this file.

Needs keras-text-zoo's `serve` and onnxruntime in the backend's Python:
https://github.com/triton-inference-server/python_backend#creating-custom-execution-environments
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

import serve


class TritonPythonModel:
    """Answers `text` with `generated_text`; requests that wait together are generated together."""

    def initialize(self, args: dict[str, str]) -> None:
        """Opens the bundle, on the device of the instance."""
        providers: list[Any] = ["cpu"]
        if args["model_instance_kind"] == "GPU":
            device = {"device_id": int(args["model_instance_device_id"])}
            providers.insert(0, ("cuda", device))
        self.pipeline = serve.load(Path(__file__).parent, providers=providers)
        self.pipeline.batch_size = int(json.loads(args["model_config"])["max_batch_size"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request; one that fails does not take the others with it."""
        responses: dict[int, Any] = {}
        alike: dict[int | None, dict[int, list[str]]] = defaultdict(dict)
        for number, request in enumerate(requests):
            try:
                alike[most_tokens(request)][number] = texts_of(request)
            except ValueError as error:
                responses[number] = failed(error)
        for most, texts in alike.items():
            responses |= self.answers(texts, most)
        return [responses[number] for number in range(len(requests))]

    def answers(self, texts: dict[int, list[str]], most: int | None) -> dict[int, Any]:
        """Responses by request: of one batch or, where that is refused, each by itself."""
        settings = {} if most is None else {"max_new_tokens": most}
        try:
            found = self.pipeline([text for rows in texts.values() for text in rows], **settings)
        except serve.InputError as error:
            if len(texts) == 1:
                return dict.fromkeys(texts, failed(error))
            alone = [self.answers({number: rows}, most) for number, rows in texts.items()]
            return {number: response for part in alone for number, response in part.items()}
        left = iter(found)
        return {number: answer([next(left).text for _ in rows]) for number, rows in texts.items()}


def texts_of(request: Any) -> list[str]:
    """The request's rows; text that is not UTF-8 is a ValueError."""
    values = pb_utils.get_input_tensor_by_name(request, "text").as_numpy()
    return [value.decode("utf-8") for value in values.reshape(-1)]


def most_tokens(request: Any) -> int | None:
    """The request's `max_new_tokens`; the largest where its rows differ, None where it has none."""
    tensor = pb_utils.get_input_tensor_by_name(request, "max_new_tokens")
    return None if tensor is None else int(tensor.as_numpy().max())


def answer(texts: list[str]) -> Any:
    """A response with a text for each row."""
    values = np.array([text.encode("utf-8") for text in texts], dtype=object).reshape(-1, 1)
    return pb_utils.InferenceResponse([pb_utils.Tensor("generated_text", values)])


def failed(error: Exception) -> Any:
    """A response that says why there is no answer."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
