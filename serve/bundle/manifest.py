"""The bundle's manifest: its schema, and the reading of it. Export writes with the same classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from serve.bundle.integrity import Check, FileSpec, check_files
from serve.errors import BundleError, InputError

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSIONS = (1,)

Task = Literal[
    "feature-extraction",
    "fill-mask",
    "question-answering",
    "sentence-similarity",
    "text-classification",
    "text-generation",
    "text2text-generation",
    "token-classification",
]
Architecture = Literal["encoder", "decoder", "encoder-decoder"]
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
"""What the logits of a classifier are, as Hugging Face's configs name it."""
GRAPH_NAMES: dict[str, tuple[str, ...]] = {
    "encoder": ("model",),
    "decoder": ("model",),
    "encoder-decoder": ("encoder", "decoder"),
}
PREFILL = "prefill"
"""A decoder may have a second graph, which reads prompts; both work on the same cache."""


class Part(BaseModel):
    """A part of the manifest: no unknown key, no change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class TensorSpec(Part):
    """One input or output of a graph; a named axis is dynamic."""

    name: str
    dtype: str
    shape: list[int | str | None]


class GraphSpec(Part):
    """One ONNX file: what goes in, what comes out, what it is made of."""

    file: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    operators: dict[str, int] = Field(default_factory=dict)
    parameters: int = 0
    optional_inputs: list[str] = Field(default_factory=list)  # initializers that a feed overrides


class TokenizerSpec(Part):
    """The tokenizer's file and the facts that tokenizer.json does not hold."""

    file: str = "tokenizer.json"
    pad_token_id: int = 0
    max_length: int = Field(gt=0)  # tokens, special tokens included
    adds_special_tokens: bool = True
    mask_token_id: int | None = None


class CacheSpec(Part):
    """The decoder's key/value cache, `[batch, num_kv_heads, time, head_dim]` per layer.

    Layout "buffer": past and present are one preallocated buffer, written in place.
    Layout "grow": present is past with the new positions appended.
    """

    layout: Literal["buffer", "grow"]
    num_layers: int = Field(gt=0)
    num_kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    dtype: str = "float32"
    max_length: int = Field(gt=0)


class GenerationSpec(Part):
    """What generation needs to know of the model, and its defaults.

    The defaults have the names and meanings of `serve.decoding.settings.GenerationSettings`. Those
    behind `top_p` are left out of manifest.json where they are as here.
    """

    bos_token_id: int | None = None
    eos_token_id: list[int] = Field(default_factory=list)
    pad_token_id: int = 0
    decoder_start_token_id: int | None = None
    max_new_tokens: int = Field(default=64, gt=0)
    do_sample: bool = False
    temperature: float = Field(default=1.0, gt=0)
    top_k: int | None = Field(default=None, gt=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    min_p: float | None = Field(default=None, gt=0, le=1)
    typical_p: float | None = Field(default=None, gt=0, le=1)
    max_length: int | None = Field(default=None, gt=0)
    min_length: int = Field(default=0, ge=0)
    min_new_tokens: int = Field(default=0, ge=0)
    num_beams: int = Field(default=1, gt=0)
    num_beam_groups: int = Field(default=1, gt=0)
    diversity_penalty: float = 0.0
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    repetition_penalty: float = Field(default=1.0, gt=0)
    no_repeat_ngram_size: int = Field(default=0, ge=0)
    encoder_no_repeat_ngram_size: int = Field(default=0, ge=0)
    bad_words_ids: list[list[int]] = Field(default_factory=list)
    suppress_tokens: list[int] = Field(default_factory=list)
    begin_suppress_tokens: list[int] = Field(default_factory=list)
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    renormalize_logits: bool = False
    stop: list[str] = Field(default_factory=list)
    language_tokens: dict[str, int] = Field(default_factory=dict)
    """The token of each language that a multilingual model reads or writes: `{"fr_XX": 250008}`."""
    tasks: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """What the checkpoint says of tasks by name: an instruction ("prefix"), lengths, beams."""

    @model_serializer(mode="wrap")
    def _short(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Only what differs from the defaults, and what has always been written."""
        return {
            name: value
            for name, value in written(self).items()
            if name in _ALWAYS or getattr(self, name) != _default(name)
        }

    def language_token(self, language: str) -> int:
        """The token of a language, by the model's name for it or by what stands before its `_`.

        Raises:
            InputError: The model has none for it, or several that begin so.
        """
        if language in self.language_tokens:
            return self.language_tokens[language]
        meant = [name for name in self.language_tokens if name.split("_")[0] == language]
        if len(meant) == 1:
            return self.language_tokens[meant[0]]
        if not self.language_tokens:
            raise InputError(f"language {language!r}: the model has no tokens of languages")
        raise InputError(
            f"language {language!r}: expected one of "
            f"{', '.join(sorted(meant or self.language_tokens))}"
        )


_ALWAYS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "max_new_tokens",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
)


def _default(name: str) -> Any:
    return GenerationSpec.model_fields[name].get_default(call_default_factory=True)


class Manifest(Part):
    """manifest.json, the contract between export and serve."""

    schema_version: Literal[1] = 1
    name: str
    task: Task
    architecture: Architecture
    target: str = "onnxruntime"
    opset: int
    precision: str = "float32"
    quantization: dict[str, Any] | None = None
    graphs: dict[str, GraphSpec]
    files: dict[str, FileSpec]
    tokenizer: TokenizerSpec | None = None
    labels: list[str] | None = None
    problem_type: ProblemType | None = None
    pooling: str | None = None
    normalize: bool | None = None
    cache: CacheSpec | None = None
    generation: GenerationSpec | None = None
    verification: dict[str, Any] = Field(default_factory=dict)
    source: dict[str, Any] = Field(default_factory=dict)
    created_with: dict[str, str] = Field(default_factory=dict)

    _folder: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        generates = self.task in ("text-generation", "text2text-generation")
        expected = GRAPH_NAMES[self.architecture] if generates else ("model",)
        optional = {PREFILL} if generates and self.architecture == "decoder" else set()
        if set(self.graphs) - optional != set(expected):
            raise ValueError(
                f"an {self.architecture} bundle has the graphs {list(expected)}, "
                f"not {sorted(self.graphs)}"
            )
        needed = [graph.file for graph in self.graphs.values()]
        if self.tokenizer:
            needed.append(self.tokenizer.file)
        unlisted = sorted(set(needed) - set(self.files))
        if unlisted:
            raise ValueError(f"used but not listed under 'files': {unlisted}")
        if PREFILL in self.graphs and self.cache is not None and self.cache.layout != "buffer":
            raise ValueError("a graph 'prefill' needs a cache of layout 'buffer'")
        if generates:
            missing = [name for name in ("cache", "generation") if getattr(self, name) is None]
            if missing:
                raise ValueError(f"task {self.task} needs {missing}, which are null")
        if (
            self.architecture == "encoder-decoder"
            and self.generation
            and self.generation.decoder_start_token_id is None
        ):
            raise ValueError("an encoder-decoder needs generation.decoder_start_token_id")
        return self

    @property
    def folder(self) -> Path:
        """The folder this manifest was loaded from."""
        if self._folder is None:
            raise BundleError(f"manifest {self.name!r} was not loaded from a folder")
        return self._folder

    def path(self, file: str) -> Path:
        """Path of a file of the bundle."""
        return self.folder / file

    @classmethod
    def load(cls, folder: str | Path, check: Check = True) -> Manifest:
        """Read and check a bundle.

        Args:
            folder: The bundle.
            check: `True` (the default) looks at the size of every file and at the sha256 of those
                up to 32 MiB (graphs, tokenizer, settings), which costs milliseconds; weights
                beyond that are only measured, as hashing 540 MB would cost about as much as
                loading them. `"full"` hashes everything (what `zoo verify` does), `"size"` only
                measures, `False` only looks whether the files are there.

        Raises:
            BundleError: Something is missing, changed, of an unknown schema or outside the bundle.
        """
        folder = Path(folder)
        manifest = cls.parse(_read(folder), where=str(folder / MANIFEST_NAME))
        manifest._folder = folder
        graphs = [graph.file for graph in manifest.graphs.values()]
        check_files(folder, manifest.files, graphs, check)
        return manifest

    @classmethod
    def parse(cls, text: str, where: str = MANIFEST_NAME) -> Manifest:
        """Validate the manifest's text, without looking at any file."""
        try:
            data = json.loads(text)
        except ValueError as error:
            raise BundleError(f"{where} is not JSON: {error}") from error
        if not isinstance(data, dict):
            raise BundleError(f"{where} holds a {type(data).__name__}, expected a JSON object")
        version = data.get("schema_version")
        if version not in SCHEMA_VERSIONS or isinstance(version, bool):
            raise BundleError(
                f"{where} has schema_version {version!r}, this version of serve knows "
                f"{list(SCHEMA_VERSIONS)}: upgrade keras-text-zoo, or export the model again"
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            problems = [
                f"{'.'.join(map(str, problem['loc'])) or 'manifest'}: {problem['msg']}"
                for problem in error.errors()
            ]
            more = f" (and {len(problems) - 4} more)" if len(problems) > 4 else ""
            raise BundleError(f"{where}: {'; '.join(problems[:4])}{more}") from error

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"

    def save(self, folder: str | Path) -> Path:
        """Write manifest.json into `folder`; write it last, once the files it lists are there."""
        path = Path(folder) / MANIFEST_NAME
        path.write_text(self.to_json(), encoding="utf-8")
        return path


def _read(folder: Path) -> str:
    if not folder.exists():
        raise BundleError(f"no bundle at {folder}: there is no such folder")
    if not folder.is_dir():
        raise BundleError(f"{folder} is a file; a bundle is a folder with {MANIFEST_NAME} in it")
    path = folder / MANIFEST_NAME
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST_NAME}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
