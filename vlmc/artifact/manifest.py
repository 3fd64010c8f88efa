"""The manifest of an artifact: what it holds, what it was made from, how it is used."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast, get_args

from vlmc.artifact.identity import check_identity
from vlmc.errors import IntegrityError, UsageError
from vlmc.files.bounded_read import MAX_BYTES, read_bytes
from vlmc.files.strict_json import parse_json
from vlmc.files.units import shorten
from vlmc.image.tiles import TileRule, kept_tokens
from vlmc.text.template import TEMPLATES

SCHEMA = 1
MANIFEST = "manifest.json"
DTYPES = ("float32", "bfloat16", "float16")
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
CALIBRATED_PRECISIONS = ("fp16", "int8", "fp8")
"""Precisions that a tower is measured for: their artifacts hold `vision/ranges.json`."""
SCHEMES = ("none", "w4a16", "fp8")
PrefixCachePolicy = Literal["off", "text", "content"]
LEAST_BATCH_TOKENS = 256
"""The least that `runtime.max_batch_tokens` may be: a tile has as many tokens."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class PayloadFile:
    """One file of the payload; `size` in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Profile:
    """Numbers of tiles that an engine takes at once, 1 ≤ min ≤ opt ≤ max; fastest at opt."""

    min: int
    opt: int
    max: int


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """One engine of the vision tower.

    `file` is relative to the artifact; `target` is `cpu` or an SM such as `sm89`; `profiles` are
    the batches that it was built for, of which onnxruntime keeps to the largest alone; `versions`
    are those of the tools that made it, and of what it needs to run; `device_memory_bytes` is
    what it takes beside its weights, None where that is not known before it runs; a golden tile
    whose features have a smaller cosine to the fp32 ones than `min_feature_cosine` refuses it.
    """

    engine: str
    target: str
    precision: str
    file: str
    profiles: tuple[Profile, ...]
    versions: Mapping[str, str]
    device_memory_bytes: int | None
    min_feature_cosine: float


@dataclass(frozen=True, slots=True)
class ImageRules:
    """From encoded image to tiles, as verified; `published` is the checkpoint's own tile rule.

    `keep` is the share of a tile's tokens that the language model is given, the most diverse ones.
    The JSON form has `high_bit_depth` and `keep` only where they are not the default, so that
    manifests from before these rules keep their identity.
    """

    resampler: Literal["opencv", "pillow"]
    exif: Literal["ignore", "apply"]
    tiles: TileRule
    published: TileRule
    high_bit_depth: Literal["original", "scale"] = "original"
    keep: float = 1.0

    @property
    def tokens_per_tile(self) -> int:
        """Tokens that the language model is given of a tile."""
        return kept_tokens(self.keep)


@dataclass(frozen=True, slots=True)
class PromptRules:
    """The conversation template by name, and its system message."""

    template: str
    system_message: str


@dataclass(frozen=True, slots=True)
class RuntimeRules:
    """How the runtime serves the artifact: the recipe's `runtime`.

    `prefix_cache` says which pages of a prompt's keys and values another request reuses: none,
    those before the first image, or those up to the last equal image. `max_batch_tokens` is the
    most that a step takes, of all requests together; on a CPU a step takes 4,096 at most.
    """

    cuda_graphs: bool = True
    prefix_cache: PrefixCachePolicy = "content"
    max_batch_tokens: int = 16384

    def __post_init__(self) -> None:
        """Raise UsageError for a value that no runtime has."""
        policies = get_args(PrefixCachePolicy)
        if type(self.cuda_graphs) is not bool:
            raise UsageError(f"cuda_graphs is {self.cuda_graphs!r:.100}; it must be true or false")
        if self.prefix_cache not in policies:
            raise UsageError(
                f"prefix_cache is {self.prefix_cache!r:.100}; it must be {', '.join(policies)}"
            )
        if type(self.max_batch_tokens) is not int or self.max_batch_tokens < LEAST_BATCH_TOKENS:
            raise UsageError(
                f"max_batch_tokens is {self.max_batch_tokens!r:.100}; it must be a whole number of "
                f"at least {LEAST_BATCH_TOKENS}"
            )


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a loader needs to know before it opens another file."""

    name: str
    vlmc: str
    tools: Mapping[str, str]
    source: Mapping[str, str]
    hidden_size: int
    image: ImageRules
    prompt: PromptRules
    language_scheme: str
    language_dtype: Literal["float32", "bfloat16", "float16"]
    calibration: Mapping[str, str]  # "vision", "language" → SHA-256 of the samples it was made on
    engines: tuple[EngineRecord, ...]
    payload: Mapping[str, PayloadFile]
    runtime: RuntimeRules = RuntimeRules()

    @property
    def identity(self) -> str:
        """SHA-256 of the canonical form, 64 hexadecimal digits."""
        return hashlib.sha256(canonical(self.to_json())).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The JSON form; `runtime` is left out where it is the default, so that manifests from
        before it keep their identity."""
        values = asdict(self)
        values["schema"] = SCHEMA
        if self.runtime == RuntimeRules():
            del values["runtime"]
        if self.image.high_bit_depth == "original":
            del values["image"]["high_bit_depth"]
        if self.image.keep == 1:
            del values["image"]["keep"]
        # Lists, as JSON reads them back.
        values["engines"] = [
            asdict(engine) | {"profiles": [asdict(profile) for profile in engine.profiles]}
            for engine in self.engines
        ]
        return values

    def to_text(self) -> str:
        """The content of `manifest.json`, the same text for the same values."""
        return json.dumps(self.to_json(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def canonical(values: Mapping[str, Any]) -> bytes:
    """JSON with sorted keys and no spaces, so that equal manifests have equal bytes."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def read_manifest(folder: Path) -> Manifest:
    """Read and check `manifest.json`, and the identity beside it if the artifact carries one.

    Raises:
        IntegrityError: it is missing, oversized, of another schema, malformed, or changed.
    """
    path = folder / MANIFEST
    try:
        data = read_bytes(path, MAX_BYTES, follow_links=False)
        values = parse_json(data)
    except OSError as error:
        if path.is_symlink():
            raise IntegrityError(f"{path} is a link; an artifact holds plain files only") from error
        raise IntegrityError(
            f"{path} cannot be read ({error.strerror}); {folder} is not an artifact. "
            "Give a folder that `vlmc build` wrote."
        ) from error
    except ValueError as error:
        raise IntegrityError(
            f"{path} is not a manifest: {error}. Copy the artifact again."
        ) from error
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        found = values.get("schema") if isinstance(values, dict) else None
        raise IntegrityError(
            f"{path} has schema {shorten(repr(found))}; this vlmc reads schema {SCHEMA}. Load the "
            "artifact with the vlmc version that built it, or build it again."
        )
    try:
        manifest = _parse(values)
        # The identity is of what was read, so nothing in the file may have been passed over.
        if canonical(manifest.to_json()) != canonical(values):
            raise ValueError("it holds keys or values that schema 1 does not have")
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise IntegrityError(
            f"{path} is malformed ({_reason(error)}); copy the artifact again"
        ) from error
    same_text = data == manifest.to_text().encode()
    check_identity(folder, manifest.identity, same_text=same_text)
    return manifest


def _parse(values: dict[str, Any]) -> Manifest:
    image, prompt = values["image"], values["prompt"]
    return Manifest(
        name=_text(values["name"]),
        vlmc=_text(values["vlmc"]),
        tools=_texts(values["tools"]),
        source=_texts(values["source"]),
        hidden_size=_count(values["hidden_size"]),
        image=ImageRules(
            resampler=cast(Any, _one_of(image["resampler"], ("opencv", "pillow"))),
            exif=cast(Any, _one_of(image["exif"], ("ignore", "apply"))),
            tiles=TileRule(**image["tiles"]),
            published=TileRule(**image["published"]),
            high_bit_depth=cast(
                Any, _one_of(image.get("high_bit_depth", "original"), ("original", "scale"))
            ),
            keep=_share(image.get("keep", 1.0)),
        ),
        prompt=PromptRules(
            _one_of(prompt["template"], tuple(TEMPLATES)), _message(prompt["system_message"])
        ),
        language_scheme=_one_of(values["language_scheme"], SCHEMES),
        language_dtype=cast(Any, _one_of(values["language_dtype"], DTYPES)),
        calibration={
            _one_of(wing, ("vision", "language")): _digest(digest)
            for wing, digest in values["calibration"].items()
        },
        engines=tuple(_engine(engine) for engine in values["engines"]),
        payload={
            _relative(path): PayloadFile(_digest(entry["sha256"]), _count(entry["size"]))
            for path, entry in values["payload"].items()
        },
        runtime=RuntimeRules(**values["runtime"]) if "runtime" in values else RuntimeRules(),
    )


def _share(value: object) -> float:
    if type(value) is not float or not 0 < value <= 1:
        raise ValueError(f"{value!r} is not a share of tokens")
    return value


def _engine(values: dict[str, Any]) -> EngineRecord:
    memory, cosine = values["device_memory_bytes"], values["min_feature_cosine"]
    if type(cosine) is not float or not 0 < cosine <= 1:
        raise ValueError(f"{cosine!r} is not a cosine")
    return EngineRecord(
        engine=_text(values["engine"]),
        target=_text(values["target"]),
        precision=_one_of(values["precision"], PRECISIONS),
        file=_relative(values["file"]),
        profiles=tuple(_profile(profile) for profile in values["profiles"]),
        versions=_texts(values["versions"]),
        device_memory_bytes=None if memory is None else _count(memory),
        min_feature_cosine=cosine,
    )


def _profile(values: dict[str, Any]) -> Profile:
    profile = Profile(**{name: _count(value) for name, value in values.items()})
    if not 1 <= profile.min <= profile.opt <= profile.max:
        raise ValueError(f"{profile} is not 1 ≤ min ≤ opt ≤ max")
    return profile


def _text(value: object) -> str:
    """A text of one line that may be shown on a terminal."""
    if not isinstance(value, str):
        raise TypeError(f"expected a text, found {type(value).__name__}")
    if not value.isprintable():
        raise ValueError(f"{value!r} holds characters that cannot be shown")
    return value


def _message(value: object) -> str:
    """A text of any characters; a lone surrogate is none, and no tokenizer takes it."""
    if not isinstance(value, str):
        raise TypeError(f"expected a text, found {type(value).__name__}")
    value.encode()
    return value


def _texts(value: Mapping[str, object]) -> dict[str, str]:
    return {_text(key): _text(item) for key, item in value.items()}


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value


def _one_of(value: object, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"{value!r} is not one of {', '.join(allowed)}")
    return str(value)


def _digest(value: object) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError(f"{value!r} is not a SHA-256 digest")
    return value


def _relative(value: object) -> str:
    path = PurePosixPath(_text(value))
    if path.is_absolute() or ".." in path.parts or str(path) != value or "\\" in str(value):
        raise ValueError(f"{value!r} leads out of the artifact")
    return str(path)


def _reason(error: Exception) -> str:
    return shorten(f"it lacks {error}" if isinstance(error, KeyError) else str(error))
