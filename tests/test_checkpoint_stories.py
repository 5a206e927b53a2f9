"""A real Llama, converted, told in Keras and through serve; skipped without its weights."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import export
import serve
import zoo

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT.parent / "shared" / "data" / "weights" / "llama_stories260K"
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball."
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    if not WEIGHTS.is_dir():
        pytest.skip(f"{WEIGHTS.name} is not beside the repository")
    out = tmp_path_factory.mktemp("stories") / "checkpoint"
    script = ROOT / "examples" / "llama2c_checkpoint.py"
    files = [WEIGHTS / "stories260K.bin", WEIGHTS / "tok512.bin"]
    subprocess.run([sys.executable, script, *files, "--out", out], check=True, cwd=ROOT)
    return out


def test_keras_and_serve_tell_the_story_token_by_token(folder, tmp_path) -> None:
    model = zoo.from_pretrained(folder)
    assert model.count_params() == 260_032
    ids = np.array([model.tokenizer.encode("").ids])
    assert ids.tolist() == [[1]]
    told = model.generate(ids, max_new_tokens=60)[0].tolist()
    assert model.tokenizer.decode(told).startswith(STORY)

    export.to_onnx(model, tmp_path / "bundle", name="stories")
    pipeline = serve.load(tmp_path / "bundle")
    prompt = "Once upon a time"
    answered = pipeline.generate(prompt, max_new_tokens=50)
    prompt_ids = np.array([model.tokenizer.encode(prompt).ids])
    expected = model.generate(prompt_ids, max_new_tokens=50)[0].tolist()
    assert list(answered.token_ids) == expected
    assert (prompt + answered.text).startswith(STORY)
    pieces = "".join(pipeline.stream(prompt, max_new_tokens=50))
    assert pieces == answered.text


def test_the_folder_is_written_back_bit_for_bit(folder, tmp_path) -> None:
    from safetensors.numpy import load_file

    zoo.from_pretrained(folder).save_pretrained(tmp_path / "again")
    before = load_file(folder / "model.safetensors")
    after = load_file(tmp_path / "again" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, array in before.items():
        assert array.tobytes() == after[name].tobytes(), name
