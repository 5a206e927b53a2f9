"""What bundles generate, beside stored answers of Hugging Face's `generate`; `make parity` compares
more of them with the live reference.
"""

import pytest
from parity import generation_goldens as goldens
from parity.generation_compare import compare_answer, requests_of

import export
import zoo
from serve.decoding.generator import Generator


@pytest.fixture(scope="module", params=goldens.STORED)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def generator(kind, tmp_path_factory):
    folder = tmp_path_factory.mktemp(kind)
    goldens.write_folder(kind, folder / "checkpoint")
    model = zoo.from_pretrained(folder / "checkpoint", dtype="float32")
    export.to_onnx(model, folder / "bundle", verify=False)
    return Generator(folder / "bundle")


@pytest.mark.parametrize("share", range(2))
def test_answers_are_those_of_the_reference(generator, kind, share):
    """Tokens, scores and log-probabilities of greedy choice and beams, requests run together."""
    rows = goldens.answers(kind)[share::2]
    input_ids, settings, prefix = requests_of(rows, generator)
    found = generator.complete(input_ids, settings, prefix)
    assert len(rows) >= 16
    for row, answers, one in zip(rows, found, settings, strict=True):
        report = {"sequences": 0, "ties": 0, "score": 0.0, "logprob": 0.0}
        problem = compare_answer(row["answers"], answers, one, report)
        assert problem is None, f"{problem}; {row['settings']}"
        assert report["sequences"] == len(row["answers"])
