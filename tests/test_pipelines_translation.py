"""Translation and summaries: languages and instructions in each form that models know."""

import json

import pytest
import serve_bundles as bundles
from tokenizers import Tokenizer, processors

import serve
from serve.bundle.integrity import FileSpec
from serve.errors import InputError

FRENCH, GERMAN, ENGLISH = 20, 21, 22


def edited(folder, **generation):
    """The bundle with other generation facts, and the tokenizer's file as it lies there now."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["generation"] |= generation
    manifest["files"]["tokenizer.json"] = FileSpec.of(folder / "tokenizer.json").model_dump()
    path.write_text(json.dumps(manifest))
    return folder


def multilingual(folder, **generation):
    bundles.seq2seq_bundle(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    name = tokenizer.id_to_token(ENGLISH)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{name} $A", special_tokens=[(name, ENGLISH)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    languages = {"fr_XX": FRENCH, "de_DE": GERMAN, "en_XX": ENGLISH}
    return edited(folder, language_tokens=languages, **generation)


def expected(pipeline, ids, prefix=None, **settings):
    generator = pipeline.generator
    prefix = None if prefix is None else [prefix]
    return tuple(generator.generate_ids([ids], generator.settings(**settings), prefix)[0])


def test_the_target_language_is_the_first_token(tmp_path):
    translate = serve.load(multilingual(tmp_path / "m"), task="translation")
    ids = translate.tokenizer.encode(["the cat"])[0].ids
    assert ids[0] == ENGLISH
    answers = [translate("the cat", target_language=name) for name in ("fr", "de_DE")]
    for answer, token in zip(answers, (FRENCH, GERMAN), strict=True):
        assert answer.token_ids[0] == token
        assert answer.token_ids == expected(translate, ids, forced_bos_token_id=token)
    assert answers[0].text != answers[1].text
    assert translate(["the cat", "a dog"], target_language="fr")[0] == answers[0]
    german = translate("the cat", source_language="de", target_language="fr")
    assert german.token_ids == expected(translate, [GERMAN, *ids[1:]], forced_bos_token_id=FRENCH)
    with pytest.raises(InputError, match="language 'it': expected one of de_DE, en_XX, fr_XX"):
        translate("the cat", target_language="it")


def test_the_target_language_begins_the_decoder(tmp_path):
    folder = multilingual(tmp_path / "m", decoder_start_token_id=ENGLISH)
    translate = serve.load(folder, task="translation")
    ids = translate.tokenizer.encode(["the cat"])[0].ids
    answer = translate("the cat", target_language="fr_XX")
    assert answer.token_ids == expected(translate, ids, prefix=[FRENCH])
    assert translate("the cat").token_ids == expected(translate, ids, prefix=[ENGLISH])


def test_the_target_language_is_a_word_before_the_text(tmp_path):
    folder = bundles.seq2seq_bundle(tmp_path / "m")
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
    number = vocabulary.pop("".join(merges.pop()))
    vocabulary[">>fra<<"] = number
    token = {"id": number, "content": ">>fra<<", "special": False, "normalized": False}
    token |= {"single_word": False, "lstrip": False, "rstrip": True}
    tokenizer["added_tokens"].append(token)
    path.write_text(json.dumps(tokenizer))
    translate = serve.load(edited(folder), task="translation")
    ids = translate.tokenizer.encode(["the cat"])[0].ids
    answer = translate("the cat", target_language="fra")
    assert answer.token_ids == expected(translate, [number, *ids])
    with pytest.raises(InputError, match="target_language='deu'"):
        translate("the cat", target_language="deu")


def test_instructions_and_settings_of_a_checkpoints_tasks(tmp_path):
    tasks = {
        "translation_en_to_de": {"prefix": "translate: ", "max_length": 5, "num_beams": 2},
        "summarization": {"prefix": "sum: ", "max_length": 7, "min_length": 3, "unknown": 1},
    }
    folder = edited(bundles.seq2seq_bundle(tmp_path / "m"), tasks=tasks)
    translate = serve.load(folder, task="translation")
    summarise = serve.load(folder, task="summarization")
    encode = translate.tokenizer.encode
    answer = translate("the cat", source_language="en", target_language="de")
    ids = encode(["translate: the cat"])[0].ids
    assert answer.token_ids == expected(translate, ids, max_length=5, num_beams=2)
    assert answer.score is not None
    ids = encode(["sum: the cat"])[0].ids
    assert summarise("the cat").token_ids == expected(translate, ids, max_length=7, min_length=3)
    longer = summarise("the cat", max_new_tokens=9)
    assert longer.token_ids == expected(translate, ids, max_new_tokens=9, min_length=3)
    ids = encode(["tl;dr the cat"])[0].ids
    answer = summarise("the cat", instruction="tl;dr ")
    assert answer.token_ids == expected(translate, ids, max_length=7, min_length=3)
    with pytest.raises(InputError, match="'tiny' has no tokens of languages"):
        translate("the cat", target_language="fr")
    assert (summarise.task, translate.task) == ("summarization", "translation")


def test_a_text_that_is_too_long_is_cut_and_says_so(tmp_path):
    summarise = serve.load(bundles.seq2seq_bundle(tmp_path / "m"), task="summarization")
    text = "the cat sat on a mat and " * 30
    ids = summarise.tokenizer.encode([text])[0].ids
    answer = summarise(text)
    assert answer.truncated
    assert answer.prompt_tokens == bundles.MAX_LENGTH
    assert answer.token_ids == expected(summarise, ids[: bundles.MAX_LENGTH])
    with pytest.raises(InputError, match="longer than the model's 64"):
        summarise(text, long="error")
