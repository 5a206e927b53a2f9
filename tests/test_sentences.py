"""Folders of sentence-transformers: pooling, length and lowering as their files say, both ways."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import export
import serve
import zoo
from export.commands.sources import open_source
from zoo.errors import ConfigError

TEXTS = ["A fine film.", "a dull plot", "film", "The plot of a fine film was dull, dull, dull."]
LONGEST = 9


def write(path: Path, values: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(values))


def modules(*names: str) -> list[dict[str, Any]]:
    kinds = [("Transformer", ""), *((name, f"{i}_{name}") for i, name in enumerate(names, 1))]
    return [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(kinds)
    ]


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    """A tiny BERT with its tokenizer."""
    tokenizer = zoo.Tokenizer.train("wordpiece", TEXTS, vocab_size=90, lowercase=False)
    config = zoo.EncoderConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_dim=24,
        num_layers=2,
        num_heads=3,
        intermediate_dim=40,
        max_length=32,
        token_types=2,
        norm_position="post",
        norm_epsilon=1e-12,
        embedding_norm=True,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = zoo.TaskModel(config, "feature-extraction")
    for number, weight in enumerate(model.weights):
        if "seed_generator" not in weight.path:
            rng = np.random.default_rng(number)
            weight.assign(rng.normal(0.0, 0.3, weight.shape) + weight.path.endswith("scale"))
    model.tokenizer = tokenizer
    path = tmp_path_factory.mktemp("sentences") / "bert"
    model.save_pretrained(path, model_type="bert")
    return path


@pytest.fixture
def folder(bert, tmp_path) -> Path:
    """The same as a folder of sentence-transformers: the mean, of length 1, at most 9 tokens."""
    path = tmp_path / "given"
    path.mkdir()
    for file in bert.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    write(path / "modules.json", modules("Pooling", "Normalize"))
    pooling = {"word_embedding_dimension": 24, "pooling_mode_cls_token": False}
    write(path / "1_Pooling" / "config.json", {**pooling, "pooling_mode_mean_tokens": True})
    write(path / "sentence_bert_config.json", {"max_seq_length": LONGEST, "do_lower_case": False})
    return path


def load(folder: Path) -> zoo.TaskModel:
    return zoo.from_pretrained(folder, task="sentence-similarity")


def fed(model: zoo.TaskModel) -> dict[str, np.ndarray]:
    return model.tokenizer(TEXTS, max_length=model.tokenizer.model_max_length)


def embedded(model: zoo.TaskModel) -> np.ndarray:
    return np.asarray(model(fed(model))["sentence_embedding"])


def expected(folder: Path, inputs: dict[str, np.ndarray], how: str, normalize: bool) -> np.ndarray:
    """Each text alone, pooled here."""
    model = zoo.from_pretrained(folder, task="feature-extraction")
    rows = []
    for i, length in enumerate(inputs["attention_mask"].sum(axis=1)):
        row = {name: value[i : i + 1, :length] for name, value in inputs.items()}
        states = np.asarray(model(row)["last_hidden_state"])[0]
        pooled = {"cls": states[0], "last": states[-1], "max": states.max(0)}
        vector = pooled.get(how, states.mean(0))
        rows.append(vector / np.linalg.norm(vector) if normalize else vector)
    return np.stack(rows)


@pytest.mark.parametrize(
    ("flag", "how"),
    [("mean_tokens", "mean"), ("cls_token", "cls"), ("max_tokens", "max"), ("lasttoken", "last")],
)
@pytest.mark.parametrize("normalize", [True, False])
def test_pooling_is_that_of_the_files(folder, flag, how, normalize) -> None:
    write(folder / "modules.json", modules("Pooling", *(["Normalize"] if normalize else [])))
    pooling = {"word_embedding_dimension": 24, f"pooling_mode_{flag}": True}
    write(folder / "1_Pooling" / "config.json", pooling)
    model = load(folder)
    assert (model.head.pooling, model.head.normalize) == (how, normalize)
    wanted = expected(folder, fed(model), how, normalize)
    np.testing.assert_allclose(embedded(model), wanted, rtol=0, atol=1e-5)


def test_served_texts_are_cut_where_the_files_say(folder, tmp_path) -> None:
    model = load(folder)
    inputs = fed(model)
    assert inputs["attention_mask"].sum(axis=1).max() == LONGEST
    export.to_onnx(model, tmp_path / "bundle", name="sentences")
    answers = serve.load(tmp_path / "bundle")(TEXTS, long="cut")
    assert [answer.truncated for answer in answers] == [False, False, False, True]
    found = np.stack([answer.values for answer in answers])
    np.testing.assert_allclose(found, embedded(model), rtol=0, atol=1e-5)


def test_their_folders_are_exported_as_what_they_are(folder) -> None:
    assert open_source(folder, None).model.task == "sentence-similarity"
    assert open_source(folder, "feature-extraction").model.task == "feature-extraction"
    (folder / "modules.json").unlink()
    assert open_source(folder, None).model.task == "feature-extraction"


def test_served_prompts_are_those_of_the_files(folder, tmp_path) -> None:
    write(folder / "config_sentence_transformers.json", {"prompts": {"query": "film: "}})
    export.to_onnx(load(folder), tmp_path / "bundle", name="sentences")
    embedder = serve.load(tmp_path / "bundle")
    assert embedder.prompts == {"query": "film: "}
    named, spelled = embedder.embed(["a"], prompt_name="query"), embedder.embed(["film: a"])
    assert np.array_equal(named, spelled)
    assert not np.array_equal(named, embedder.embed(["a"]))


def test_what_is_saved_says_the_same(folder, tmp_path) -> None:
    write(folder / "modules.json", modules("Pooling"))
    pooling = {"word_embedding_dimension": 24, "pooling_mode_cls_token": True}
    write(folder / "1_Pooling" / "config.json", pooling)
    kept = {"prompts": {"query": "search: "}, "default_prompt_name": None}
    write(folder / "config_sentence_transformers.json", kept)
    model = load(folder)
    model.save_pretrained(tmp_path / "ours")
    model.save_pretrained(tmp_path / "ours")  # over itself
    again = load(tmp_path / "ours")
    assert (again.head.pooling, again.head.normalize) == ("cls", False)
    assert again.tokenizer.model_max_length == LONGEST
    assert np.array_equal(embedded(again), embedded(model))
    written = json.loads((tmp_path / "ours" / "config_sentence_transformers.json").read_text())
    assert written == kept
    saved = json.loads((tmp_path / "ours" / "modules.json").read_text())
    assert saved == modules("Pooling")


def test_texts_are_lowered_where_the_files_say(folder) -> None:
    write(folder / "sentence_bert_config.json", {"max_seq_length": 9, "do_lower_case": True})
    model = load(folder)
    assert model.tokenizer.encode("A FINE Film").ids == model.tokenizer.encode("a fine film").ids


def test_the_transformer_may_have_a_folder_of_its_own(folder, tmp_path) -> None:
    wanted = embedded(load(folder))
    inner = tmp_path / "older" / "0_Transformer"
    inner.mkdir(parents=True)
    for file in folder.iterdir():
        if file.is_file() and file.name != "modules.json":
            (inner / file.name).write_bytes(file.read_bytes())
    listed = modules("Pooling", "Normalize")
    listed[0]["path"] = "0_Transformer"
    write(tmp_path / "older" / "modules.json", listed)
    write(tmp_path / "older" / "1_Pooling" / "config.json", {"pooling_mode": "mean"})
    assert np.array_equal(embedded(load(tmp_path / "older")), wanted)


def test_without_such_files_the_mean_of_length_1_is_taken(bert) -> None:
    model = load(bert)
    assert (model.head.pooling, model.head.normalize) == ("mean", True)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("modules.json", modules("Pooling", "Dense"), "Transformer, Pooling, Dense are not"),
        ("1_Pooling/config.json", {"pooling_mode_weightedmean_tokens": True}, "weightedmean"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "mean_tokens, cls_token is not supported",
        ),
        ("1_Pooling/config.json", {"word_embedding_dimension": 7}, "= 7, expected 24"),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "query"},
            "default_prompt_name = 'query' is not supported",
        ),
    ],
)
def test_what_would_change_the_vectors_and_is_not_supported_is_an_error(
    folder, file, values, message
) -> None:
    write(folder / file, values)
    with pytest.raises(ConfigError, match=message):
        load(folder)
    assert zoo.from_pretrained(folder).task == "feature-extraction"
