"""Translation and summaries: an encoder-decoder is asked in the form that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from serve.bundle.manifest import GenerationSpec
from serve.decoding.agreement import SAMPLING
from serve.decoding.request import Request
from serve.errors import InputError
from serve.pipelines.text_generation import Text2TextGenerator, WritingSettings


@dataclass(frozen=True)
class TranslationSettings(WritingSettings):
    """Settings of a translation.

    Attributes:
        source_language: What the text is written in; by default what the tokenizer was saved with.
        target_language: What to write; by default what the model was saved with.
    """

    source_language: str | None = None
    target_language: str | None = None


class TaskedGenerator(Text2TextGenerator):
    """Takes the settings that a checkpoint names for one of its tasks (T5's
    `task_specific_params`, https://arxiv.org/abs/1910.10683): its instruction, lengths, beams.
    """

    def _task_settings(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """What the checkpoint says of a task, below what is given."""
        said = self.generator.defaults.tasks.get(name) or {}
        known = {**GenerationSpec.model_fields, "prefix": None}
        facts = {key: value for key, value in said.items() if key in known and value is not None}
        if "prefix" in facts:
            facts["instruction"] = facts.pop("prefix")
        if {"max_new_tokens", "max_length"} & set(given):
            facts.pop("max_length", None)
        if {"min_new_tokens", "min_length"} & set(given):
            facts.pop("min_length", None)
        draws = [one for one in SAMPLING if given.get(one) is not None]
        if given.get("do_sample") is False or draws:  # what a checkpoint says of drawing gives way
            drawing = (
                ("do_sample", *SAMPLING) if given.get("do_sample") is False else ("do_sample",)
            )
            facts = {key: value for key, value in facts.items() if key not in drawing}
        return {**facts, **{key: value for key, value in given.items() if value is not None}}


class Summarizer(TaskedGenerator):
    """Summarises texts; one longer than the encoder reads is cut, which the result says."""

    @property
    def task(self) -> str:
        """Same for every bundle."""
        return "summarization"

    def settings(self, **given: Any) -> WritingSettings:
        """As for other generation; what is not given is as the checkpoint summarises."""
        return super().settings(**self._task_settings("summarization", given))


class Translator(TaskedGenerator):
    """Translates texts.

    Languages are named as the model names them ("fr_XX", "fra_Latn", "fr") or by the part before
    the underscore. How a language is asked for depends on the model: by the first token of the
    answer (M2M-100, NLLB, mBART-50), by the decoder's start token (mBART), by a word before the
    text (multilingual Marian), or by an instruction (T5). A model of one pair takes none.
    """

    @property
    def task(self) -> str:
        """Same for every bundle."""
        return "translation"

    @classmethod
    def setting_names(cls) -> list[str]:
        """What `settings` takes."""
        return [*super().setting_names(), "source_language", "target_language"]

    def settings(self, **given: Any) -> TranslationSettings:
        """As for other generation, with `source_language` and `target_language`."""
        source = given.pop("source_language", None)
        target = given.pop("target_language", None)
        spec = self.generator.defaults
        instruction = given.get("instruction")
        tasked = f"translation_{source}_to_{target}"
        word = f">>{target}<<"
        by_token = bool(spec.language_tokens)
        if source and target and tasked in spec.tasks:
            given = self._task_settings(tasked, given)
        elif target and not by_token and self.tokenizer.backend.token_to_id(word) is not None:
            given["instruction"] = f"{word} {instruction or ''}"
        elif (source or target) and not by_token:
            raise InputError(
                f"{'target' if target else 'source'}_language={target or source!r}: "
                f"{self.manifest.name!r} has no tokens of languages; leave it out, or say what is "
                "wanted by instruction=..."
            )
        base = super().settings(**given)
        if target and by_token:
            token = spec.language_token(target)
            if not self._starts_with_language():
                generation = replace(base.generation, forced_bos_token_id=token)
                base = replace(base, generation=generation)
        if source and by_token:
            spec.language_token(source)  # refuse a language that there is not
        languages = (source, target) if by_token else (None, None)
        return TranslationSettings(base.generation, base.long, base.instruction, *languages)

    def _requests(
        self, texts: Sequence[Any], settings: WritingSettings
    ) -> list[tuple[Request, bool]]:
        found = super()._requests(texts, settings)
        assert isinstance(settings, TranslationSettings)
        spec = self.generator.defaults
        languages = set(spec.language_tokens.values())
        source = spec.language_token(settings.source_language) if settings.source_language else None
        start = None
        if settings.target_language and self._starts_with_language():
            start = [spec.language_token(settings.target_language)]
        rows = []
        for request, cut in found:
            ids = list(request.input_ids)
            if source is not None and languages:
                at = _language_place(ids, languages)
                if at is None:
                    raise InputError(
                        f"source_language={settings.source_language!r}: the tokenizer of "
                        f"{self.manifest.name!r} puts no token of a language to a text"
                    )
                ids[at] = source
            rows.append((Request(ids, request.settings, start), cut))
        return rows

    def _starts_with_language(self) -> bool:
        """Whether the decoder's start token is that of the target language."""
        spec = self.generator.defaults
        return spec.decoder_start_token_id in spec.language_tokens.values()


def _language_place(ids: Sequence[int], languages: set[int]) -> int | None:
    """Where the token of the source language stands: first, or last behind the end of the text."""
    for at in (0, len(ids) - 1):
        if ids and ids[at] in languages:
            return at
    return None
