"""What a request asks of generation, on top of the model's own defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from serve.bundle.manifest import GenerationSpec
from serve.decoding.agreement import SAMPLING, check_given, unknown_setting
from serve.decoding.setting_checks import (
    RULES,
    check_values,
    texts,
    token_biases,
    token_ids,
    token_rows,
)
from serve.errors import InputError

_BEAMS = ("num_beam_groups", "diversity_penalty")
_CONSTRAINTS = ("regex", "json_schema", "choices", "grammar")


@dataclass(frozen=True)
class GenerationSettings:
    """Settings of one request; names and meanings are those of Hugging Face's `generate`, where it
    has them.

    Attributes:
        max_new_tokens: Most tokens to generate. None: the model's default, cut to what still fits.
        min_new_tokens: No end token before as many new tokens.
        max_length: Most tokens of prompt (what a decoder began with) and answer together.
        min_length: No end token before as many tokens, prompt included. Of no account beside
            `min_new_tokens`.
        do_sample: Draw at random; otherwise always the likeliest token.
        temperature: Divides the logits before drawing; below 1 is more certain.
        top_k: Draw among the k likeliest only.
        top_p: Draw among the likeliest that together hold this probability (nucleus sampling,
            https://arxiv.org/abs/1904.09751).
        min_p: Draw among tokens at least this share as likely as the likeliest
            (https://arxiv.org/abs/2407.01082).
        typical_p: Draw among the tokens closest to the expected information that together hold
            this probability (https://arxiv.org/abs/2202.00666).
        seed: Makes the draw repeatable: a request gives the same tokens alone and in a batch.
        num_return_sequences: Answers to one prompt; with beams the best of them.
        num_beams: Hypotheses of a beam search; 1 is none.
        num_beam_groups: Groups of beams that are kept apart by `diversity_penalty`
            (https://arxiv.org/abs/1610.02424).
        diversity_penalty: Taken from a token's log-probability for every earlier group that chose
            it in the same step.
        length_penalty: A hypothesis' score is divided by its number of new tokens to this power.
        early_stopping: When a beam search ends: True, once `num_beams` hypotheses have ended;
            False, once a better one is unlikely; "never", once there can be none.
        repetition_penalty: Divides positive and multiplies negative logits of tokens that prompt
            or answer hold (https://arxiv.org/abs/1909.05858).
        presence_penalty: Taken from the logits of tokens that the answer holds.
        frequency_penalty: Taken from the logits of tokens, times their number in the answer.
        no_repeat_ngram_size: No n-gram of this length may occur twice.
        encoder_no_repeat_ngram_size: No n-gram of this length of the input may occur.
        bad_words: Texts that the answer never holds, in whatever tokens, nor within longer words.
        bad_words_ids: Rows of tokens that must not be generated.
        logit_bias: Added to the logits of tokens, by id.
        suppress_tokens: Tokens that are never generated.
        begin_suppress_tokens: Tokens that are not generated first.
        forced_bos_token_id: The first token of the answer, such as the target language's, where
            the decoder began with its start token alone.
        forced_eos_token_id: The last token, once `max_new_tokens` is reached.
        renormalize_logits: Make what penalties and ruled out tokens leave a distribution again,
            which the scores of beams then add up.
        stop: Texts that end the answer; they are not part of it.
        eos_token_id: Tokens that end the answer; they are not part of it.
        ignore_eos: Go on behind end tokens, which are never chosen.
        logprobs: Return each token's log-probability, and those of as many likeliest tokens; 0
            for the token's alone. As the model gave them, before penalties and temperature.
        penalty_alpha: Contrastive search among the `top_k` likeliest: the weight of being unlike
            what was written (https://arxiv.org/abs/2202.06417). Needs a bundle with hidden states.
        prompt_lookup: Look ahead up to so many tokens that stood behind the newest ones earlier in
            the text, and check them in one run; the answer is the same. 0 does not.
        draft_tokens: Tokens that a draft model writes ahead, where there is one.
        regex: A regular expression that the whole answer matches.
        json_schema: A JSON schema (dict, or its text) of which the answer is an instance.
        choices: Texts one of which the answer is.
        grammar: A Lark grammar, as llguidance reads it, that the answer follows.
        pad_token_id: What finished rows are fed with.
    """

    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    max_length: int | None = None
    min_length: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    seed: int | None = None
    num_return_sequences: int = 1
    num_beams: int = 1
    num_beam_groups: int = 1
    diversity_penalty: float = 0.0
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    bad_words: tuple[str, ...] = ()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    renormalize_logits: bool = False
    stop: tuple[str, ...] = ()
    eos_token_id: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    penalty_alpha: float | None = None
    prompt_lookup: int = 0
    draft_tokens: int = 5
    regex: str | None = None
    json_schema: Any = None
    choices: tuple[str, ...] | None = None
    grammar: str | None = None
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        for name in ("stop", "choices", "bad_words"):
            value = getattr(self, name)
            if value is not None or name != "choices":
                object.__setattr__(self, name, texts(name, value))
        if self.choices == ():
            raise InputError("choices is empty: expected at least one text")
        for name in ("eos_token_id", "suppress_tokens", "begin_suppress_tokens"):
            object.__setattr__(self, name, token_ids(name, getattr(self, name)))
        rows = tuple(token_ids("bad_words_ids", row) for row in token_rows(self.bad_words_ids))
        if not all(rows):
            raise InputError(
                "bad_words_ids holds a row of no tokens, expected at least one in each"
            )
        object.__setattr__(self, "bad_words_ids", rows)
        check_values({name: getattr(self, name) for name in RULES})
        object.__setattr__(self, "logit_bias", token_biases(self.logit_bias))
        self._agree()

    def _agree(self) -> None:
        """Settings that exclude or need one another."""
        given = [name for name in _CONSTRAINTS if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(f"{given[0]} and {given[1]} are both given: an answer follows one")
        if self.choices and self.stop:
            raise InputError(
                f"choices and stop={self.stop[0]!r} are both given: a choice is written whole; "
                "leave stop out"
            )
        if self.choices and not self.allowed_choices:
            raise InputError("choices: each of them holds one of bad_words, so none may be written")
        if self.num_beams % self.num_beam_groups:
            raise InputError(
                f"num_beams={self.num_beams} does not divide into "
                f"num_beam_groups={self.num_beam_groups}"
            )
        if self.num_beams > 1 and self.num_return_sequences > self.num_beams:
            raise InputError(
                f"num_return_sequences={self.num_return_sequences} of num_beams={self.num_beams}: "
                "expected at most as many as there are beams"
            )
        if self.num_beams == 1 and self.num_return_sequences > 1 and not self.do_sample:
            raise InputError(
                f"num_return_sequences={self.num_return_sequences}: the likeliest tokens make one "
                "answer; set do_sample=True or num_beams"
            )
        if self.penalty_alpha and (self.num_beams > 1 or self.do_sample or not self.top_k):
            raise InputError(
                f"penalty_alpha={self.penalty_alpha}: contrastive search needs top_k, and takes "
                "neither num_beams nor do_sample"
            )

    @property
    def constrained(self) -> bool:
        """Whether the answer has to follow an expression, schema, list or grammar."""
        return any(getattr(self, name) is not None for name in _CONSTRAINTS)

    @property
    def allowed_choices(self) -> tuple[str, ...]:
        """The choices that hold none of `bad_words`."""
        return tuple(
            choice
            for choice in self.choices or ()
            if not any(word in choice for word in self.bad_words)
        )

    @property
    def rows(self) -> int:
        """Rows of the cache that a request takes."""
        if self.penalty_alpha:
            return self.top_k or 1
        return max(self.num_beams, self.num_return_sequences)

    @classmethod
    def for_model(cls, spec: GenerationSpec | None, **given: Any) -> GenerationSettings:
        """The model's defaults, overridden by what is given and not None.

        A temperature, top_k, top_p, min_p or typical_p that is given asks for sampling, unless
        `do_sample` says otherwise, or `penalty_alpha` is given; a seed alone does not. A
        `max_new_tokens` that is given stands above the model's `max_length`, and `choices` above
        its `stop`.

        Raises:
            InputError: There is no such setting, its value is none that it can have, or what is
                given contradicts itself.
        """
        given = {name: value for name, value in given.items() if value is not None}
        for name in given:
            if name not in cls.__dataclass_fields__:
                raise unknown_setting(name, cls.__dataclass_fields__)
        check_values(given)
        if set(SAMPLING) & set(given) and not given.get("penalty_alpha"):
            given.setdefault("do_sample", True)
        if spec is None:
            spec = GenerationSpec()
        known = {one.name for one in fields(cls)}
        base = {
            name: value
            for name, value in spec.model_dump().items()
            if name in known and value is not None and name != "max_new_tokens"
        }
        if "max_new_tokens" in given:
            base.pop("max_length", None)
        if given.get("num_beams") == 1:  # what the model's own beams would need
            base = {name: base[name] for name in base if name not in _BEAMS}
        if given.get("penalty_alpha"):  # contrastive search goes without
            base = {name: base[name] for name in base if name not in ("num_beams", *_BEAMS)}
        if given.get("do_sample") is False or given.get("penalty_alpha"):
            base["do_sample"] = False
        if "choices" in given:  # of which none is cut
            base.pop("stop", None)
        made = cls(**{**base, **given})
        check_given(given, made.num_beam_groups)
        return made
