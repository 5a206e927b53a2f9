"""Cached, batched, ragged generation equals the full pass of the same model in numpy."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import serve_bundles as bundles

from serve.bundle.integrity import FileSpec
from serve.bundle.manifest import Manifest
from serve.bundle.selfcheck import replay
from serve.decoding.generator import Generator, pad
from serve.decoding.settings import GenerationSettings
from serve.errors import BundleError, InputError
from serve.pipelines import load
from serve.runtime.session import SessionOptions

PROMPTS = [[5, 6, 7, 8, 9], [10, 11], [12, 14, 13, 12, 12, 19, 12, 12, 12], [7]]
TOLERANCE = 2e-4  # float32 in another order of summation; measured 3e-5


def weights_of(generator):
    graph = generator.manifest.graphs["decoder" if generator.encoder else "model"]
    vocabulary = graph.outputs[0].shape[2]
    return bundles.make_weights(vocabulary, seed=3 if generator.encoder else 0)


def test_decoder_batch_equals_reference(decoder):
    weights = weights_of(decoder)
    found = decoder.generate_ids(PROMPTS, decoder.settings(max_new_tokens=20))
    assert found == [bundles.greedy(weights, prompt, 20, (1,)) for prompt in PROMPTS]
    assert len({tuple(row) for row in found}) == len(PROMPTS)


def test_seq2seq_batch_equals_reference(seq2seq):
    weights = weights_of(seq2seq)
    found = seq2seq.generate_ids(PROMPTS, seq2seq.settings(max_new_tokens=20))
    assert found == [bundles.greedy(weights, [0], 20, (1,), source=ids) for ids in PROMPTS]
    assert len({tuple(row) for row in found}) > 1


def test_seq2seq_forced_prefix(seq2seq):
    weights = weights_of(seq2seq)
    prefix = [[0, 17], [0, 20, 21, 22], [0], [0, 4]]
    found = seq2seq.generate_ids(PROMPTS, seq2seq.settings(max_new_tokens=8), prefix)
    pairs = zip(PROMPTS, prefix, strict=True)
    assert found == [bundles.greedy(weights, start, 8, (1,), source=ids) for ids, start in pairs]


def test_eos_ends_rows_at_different_times_and_rows_are_dropped(decoder):
    weights = weights_of(decoder)
    free = [bundles.greedy(weights, prompt, 30) for prompt in PROMPTS]
    eos = (free[0][1], free[1][3], free[3][12])
    generation = decoder.generate(PROMPTS, decoder.settings(max_new_tokens=30, eos_token_id=eos))
    answers, rows = [[] for _ in PROMPTS], set()
    for row, token in generation:
        answers[row].append(token)
        rows.add(generation.engine.cache.rows)
    expected = [bundles.greedy(weights, prompt, 30, eos) for prompt in PROMPTS]
    assert answers == expected
    assert rows >= {1, 2, 3}, "rows ended together: choose other eos tokens"
    reasons = ["eos" if len(row) < 30 else "length" for row in expected]
    assert generation.finish_reasons == reasons


def test_logits_of_prefill_and_steps(decoder):
    weights = weights_of(decoder)
    rng = np.random.default_rng(0)
    rows = [rng.integers(2, 100, size).tolist() for size in (20, 14, 17)]
    starts = np.array([9, 2, 6])
    prompts = [row[:size] for row, size in zip(rows, starts, strict=True)]
    reference = [bundles.full_pass(weights, row) for row in rows]
    decoding, logits = decoder.start(prompts, prompts, room=12)
    for step in range(8):
        for row in range(3):
            gap = np.abs(logits[row] - reference[row][starts[row] + step - 1]).max()
            assert gap < TOLERANCE
        logits = decoding.step(
            np.array([row[at + step] for row, at in zip(rows, starts, strict=True)])
        )
    _, every = decoder.start(prompts, prompts, room=1, every=True)
    assert np.abs(every[1, :2] - reference[1][:2]).max() < TOLERANCE


def test_buffers_are_written_in_place(tmp_path):
    generator = Generator(bundles.decoder_bundle(tmp_path / "d"))
    cache, logits = generator.start([[5, 6]], [[5, 6]], room=10)
    tensors = cache.store._tensors
    buffer = tensors["past_key_values.0.key"]
    assert buffer.shape == (1, bundles.KV_HEADS, 12, bundles.HEAD_DIM)
    assert np.abs(buffer[:, :, :2]).min(-1).max() > 0
    assert not buffer[:, :, 2:].any()
    cache.step(logits.argmax(-1))
    assert buffer[:, :, 2].any()
    assert not buffer[:, :, 3:].any()


@pytest.mark.parametrize(
    "sampling", [{"temperature": 0.9, "top_k": 20}, {"temperature": 2.0}, {"top_p": 0.8}]
)
def test_a_seed_gives_the_same_alone_and_in_a_batch(decoder, sampling):
    settings = decoder.settings(max_new_tokens=12, seed=11, **sampling)
    assert settings.do_sample
    together = decoder.generate_ids(PROMPTS, settings)
    assert together == [decoder.generate_ids([prompt], settings)[0] for prompt in PROMPTS]
    assert together == decoder.generate_ids(PROMPTS, settings)
    assert together != decoder.generate_ids(
        PROMPTS, decoder.settings(max_new_tokens=12, seed=12, **sampling)
    )


def test_rows_may_have_settings_of_their_own(decoder):
    settings = [
        decoder.settings(max_new_tokens=3),
        decoder.settings(max_new_tokens=9, seed=4, do_sample=True),
        decoder.settings(max_new_tokens=1),
        decoder.settings(max_new_tokens=5),
    ]
    together = decoder.generate_ids(PROMPTS, settings)
    alone = [decoder.generate_ids([p], s)[0] for p, s in zip(PROMPTS, settings, strict=True)]
    assert together == alone
    assert [len(row) for row in together] == [3, 9, 1, 5]


def test_limits(decoder):
    full = list(range(2, 2 + bundles.MAX_LENGTH))
    assert len(decoder.generate_ids([full], decoder.settings(max_new_tokens=1))[0]) == 1
    assert len(decoder.generate_ids([full])[0]) == 1  # the default is cut to what fits
    with pytest.raises(InputError, match="lower max_new_tokens to 1"):
        decoder.generate_ids([full], decoder.settings(max_new_tokens=2))
    with pytest.raises(InputError, match="65 tokens is longer than the model's max_length of 64"):
        decoder.generate_ids([[*full, 3]])
    with pytest.raises(InputError, match="input 1: the prompt is empty"):
        decoder.generate_ids([[3], []])
    with pytest.raises(InputError, match="prefix"):
        decoder.generate_ids([[3]], prefix=[[3]])
    assert len(decoder.generate_ids([full[:60]], decoder.settings(max_new_tokens=5))[0]) == 5
    assert decoder.generate_ids([]) == []


def test_decoding_beyond_the_limit_is_an_error(decoder):
    full = list(range(2, 2 + bundles.MAX_LENGTH))
    decoding, _ = decoder.start([full], [full], room=1)
    with pytest.raises(InputError, match="65 positions are more than the 64"):
        decoding.step(np.array([3]))


def test_stop_by_the_caller(decoder):
    generation = decoder.generate(PROMPTS[:2], decoder.settings(max_new_tokens=10))
    counts = [0, 0]
    for row, _ in generation:
        counts[row] += 1
        if counts[0] == 3:
            generation.stop(0)
    assert counts == [3, 10]
    assert generation.finish_reasons == ["cancelled", "length"]


@pytest.mark.parametrize(
    "bad",
    [
        {"max_new_tokens": 0}, {"temperature": 0}, {"temperature": 1e-50},
        {"temperature": float("nan")}, {"length_penalty": 500.0}, {"length_penalty": -60},
        {"top_k": 0}, {"top_k": 1.5}, {"top_p": 0}, {"top_p": 1.1}, {"seed": -1}, {"stop": ("",)},
        {"colour": 1},
    ],
)  # fmt: skip
def test_settings_are_checked(decoder, bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        decoder.settings(**bad)


def test_a_stop_text_may_be_given_alone():
    assert GenerationSettings(stop="end").stop == ("end",)


def test_tokens_may_be_given_as_an_array():
    assert GenerationSettings(eos_token_id=np.array([3, 4])).eos_token_id == (3, 4)
    assert GenerationSettings(eos_token_id=None).eos_token_id == ()


def add_reference(folder, arrays):
    np.savez(folder / "verification.npz", **arrays)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["verification.npz"] = FileSpec.of(folder / "verification.npz").model_dump()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def sequence(generator):
    weights = weights_of(generator)
    rng = np.random.default_rng(1)
    rows = [rng.integers(2, 90, size).tolist() for size in (11, 6, 1)]
    ids, lengths = pad(rows, 0)
    mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
    case = {"input_ids": ids, "attention_mask": mask}
    if generator.encoder:
        target = rng.integers(2, 90, (3, 9))
        case["decoder_input_ids"] = target
        pairs = zip(target, rows, strict=True)
        case["logits"] = np.stack([bundles.full_pass(weights, t, source=s) for t, s in pairs])
    else:
        case["logits"] = np.stack([bundles.full_pass(weights, row) for row in ids])
    return {f"ragged/sequence/{name}": array for name, array in case.items()}


@pytest.mark.parametrize("which", ["decoder", "seq2seq"])
def test_replay(which, layout, tmp_path):
    make = bundles.decoder_bundle if which == "decoder" else bundles.seq2seq_bundle
    folder = make(tmp_path / "b", layout)
    assert replay(folder)["has_reference"] is False
    generator = Generator(folder)
    arrays = sequence(generator)
    name = "model" if which == "decoder" else "decoder"
    feeds = {"input_ids": np.array([[5, 6, 7]]), "attention_mask": np.ones((1, 3), np.int64)}
    if which == "seq2seq":
        constants = generator.encode([[4, 5]])
        feeds |= constants
    for past, spec in generator.decoder.inputs.items():
        if past not in feeds:
            feeds[past] = np.zeros((1, spec.shape[1], 0, spec.shape[3]), np.float32)
    outputs = generator.decoder.run(feeds)
    arrays |= {f"full/{name}/inputs/{key}": value for key, value in feeds.items()}
    arrays |= {f"full/{name}/outputs/{key}": value for key, value in outputs.items()}
    arrays["tokenizer/texts"] = json.dumps(["the cat", "日本語"])
    ids = [x.ids for x in load(folder).tokenizer.encode(["the cat", "日本語"])]
    arrays["tokenizer/ids"] = json.dumps(ids)
    add_reference(folder, arrays)
    report = replay(folder)
    assert report["largest"] < TOLERANCE
    assert report["tokenizer_texts"] == 2
    assert set(report["cases"]["ragged"]["sequence"]) == {"prefill", "chunks", "steps"}
    assert report["cases"]["full"][name]["logits"] == 0

    arrays["ragged/sequence/logits"][0, 5] += 0.5
    add_reference(folder, arrays)
    with pytest.raises(BundleError, match=r"case 'ragged', sequence (prefill|chunks|steps): 0\.5"):
        replay(folder)
    assert replay(folder, tolerance=0.6)["largest"] > 0.4
    arrays["tokenizer/ids"] = json.dumps([ids[0], ids[0]])
    add_reference(folder, arrays)
    with pytest.raises(BundleError, match="tokenizer gives"):
        replay(folder)
    (folder / "verification.npz").write_bytes(b"PK nonsense")
    with pytest.raises(BundleError, match="cannot be read"):
        replay(Manifest.load(folder, check=False))


def test_a_bundle_without_cache_does_not_generate(tmp_path):
    folder = bundles.encoder_bundle(tmp_path / "e", "fill-mask")
    with pytest.raises(BundleError, match="does not generate"):
        Generator(folder)


def test_one_generator_serves_several_threads(decoder):
    settings = decoder.settings(max_new_tokens=15, seed=2, temperature=1.3)
    expected = [decoder.generate_ids([prompt], settings) for prompt in PROMPTS]
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(decoder.generate_ids, [prompt], settings) for prompt in PROMPTS * 5]
        assert [job.result() for job in jobs] == expected * 5


def test_threads_do_not_change_the_answer(decoder):
    other = Generator(decoder.manifest, SessionOptions(threads=1, spinning=False, arena=False))
    settings = decoder.settings(max_new_tokens=10)
    assert other.generate_ids(PROMPTS, settings) == decoder.generate_ids(PROMPTS, settings)
