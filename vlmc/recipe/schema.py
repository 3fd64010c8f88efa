"""What a recipe may say, with the defaults. Pydantic is used here only.

What the parts cannot mean together is in `combinations`, what this version does not build yet in
`extent`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    StringConstraints,
    WithJsonSchema,
)

from vlmc.artifact.manifest import LEAST_BATCH_TOKENS
from vlmc.machine.support import EngineName, Precision, Target
from vlmc.recipe.document import Document, KeyPath, Problem

LANGUAGE_KEYS: dict[str, tuple[str, ...]] = {
    "method": ("w4a16",),
    "group_size": ("w4a16",),
    "symmetric": ("w4a16",),
    "keep": ("w4a16", "fp8"),
}
"""Key of `language` → the schemes that act on it."""
NAME = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


def _whole_number(value: object) -> object:
    if type(value) is not int:  # true and 1.0 equal 1 and would pass for it
        raise ValueError("it must be a whole number")
    return value


def _word_off(value: object) -> object:
    return "off" if value is False else value  # YAML reads the bare word as false


def _cosine(value: object) -> object:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value != "auto" and not (number and 0 < value <= 1):  # type: ignore[operator]
        raise ValueError("it must be auto, or a number above 0 and at most 1")
    return value


def _words_filled(value: int) -> int:
    if value < 8 or value % 8:
        raise ValueError(
            "it must be a multiple of 8, such as 128: eight 4-bit weights fill a 32-bit word"
        )
    return value


Text = Annotated[str, StringConstraints(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Cosine = Annotated[
    Literal["auto"] | float,
    PlainValidator(_cosine),
    WithJsonSchema(
        {"anyOf": [{"const": "auto"}, {"type": "number", "exclusiveMinimum": 0, "maximum": 1}]}
    ),
]


class Part(BaseModel):
    """A mapping of a recipe."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class ModelPart(Part):
    """The source, and what the language model computes in."""

    checkpoint: Text
    """Local folder in the original OpenGVLab layout, relative to the recipe."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """What the language model computes in; auto is the checkpoint's."""
    template: Literal["auto", "internlm2-chat", "Hermes-2", "phi3-chat", "internvl2_5"] = "auto"
    """The prompt's template; auto is the checkpoint's."""
    system_message: str = "auto"
    """The system message; auto is the template's."""


class TilesPart(Part):
    """The tile rule; what is left out comes from the checkpoint or the rule."""

    rule: Literal["original", "native", "single"] = "original"
    """original: the published rule; native: the fewest tiles that lose no resolution; single."""
    min: int | None = None
    max: int | None = None
    thumbnail: bool | None = None
    """Whether the whole image follows as one tile more."""
    tolerance: float | None = None
    """Share of the resolution that `native` may lose."""


class PrunePart(Part):
    """Visual tokens that the language model is not given."""

    keep: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of each tile's 256 tokens that is kept, the most diverse ones; 1 drops none."""


class ImagePart(Part):
    """From encoded image to tiles."""

    resampler: Literal["opencv", "pillow"] = "opencv"
    """opencv is quick, pillow bit for bit the original."""
    exif: Literal["ignore", "apply"] = "ignore"
    """Whether the orientation in the image's EXIF data is applied; the original ignores it."""
    high_bit_depth: Literal["original", "scale"] = "original"
    """original clips grey pictures of 16 bits or floats to 0..255; scale scales them to 8 bits."""
    tiles: TilesPart = TilesPart()
    prune: PrunePart = PrunePart()


class EnginePart(Part):
    """One engine of the vision tower."""

    engine: EngineName = "onnxruntime"
    targets: Annotated[tuple[Target, ...], Field(min_length=1, strict=False)] = ()
    """The cards that it is built for, by compute capability."""


class ProfilePart(Part):
    """Batch sizes that an engine is tuned for, in tiles: 1 ≤ min ≤ opt ≤ max."""

    min: int
    opt: int
    max: int


class VisionPart(Part):
    """The vision tower's graph and engines."""

    precision: Precision = "fp16"
    """int8 and fp8 need a calibration dataset."""
    engines: Annotated[tuple[EnginePart, ...], Field(min_length=1, strict=False)] = (EnginePart(),)
    """In order of preference; the loader takes the first that fits the machine."""
    profiles: Annotated[tuple[ProfilePart, ...], Field(min_length=1, strict=False)] = (
        ProfilePart(min=1, opt=4, max=13),
    )


class LanguagePart(Part):
    """The language model's weights."""

    scheme: Literal["none", "w4a16", "fp8"] = "none"
    """none keeps the weights as found; w4a16: 4-bit weights; fp8: 8-bit weights and activations."""
    method: Literal["awq", "gptq", "rtn"] = "awq"
    """How the 4-bit weights are found; rtn rounds to the nearest and looks at no data."""
    group_size: Annotated[
        int,
        AfterValidator(_words_filled),
        Field(json_schema_extra={"minimum": 8, "multipleOf": 8}),
    ] = 128
    """Inputs that share a scale."""
    symmetric: bool = False
    """Without zero points."""
    keep: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """Patterns of layers left in 16 bits, such as `*.down_proj` or `model.layers.0.*`."""


class CalibrationPart(Part):
    """The examples that ranges and scales are measured on."""

    dataset: Text | None = None
    """JSON lines of image, prompt and (optional) answer, relative to the recipe."""
    modality: Literal["image_text", "text"] = "image_text"
    samples: Annotated[int, Field(ge=1)] = 128
    seed: Annotated[int, Field(ge=0)] = 0


class RuntimePart(Part):
    """How the artifact is run."""

    cuda_graphs: bool = True
    """On a GPU: decode steps, and small batches of the vision engine inductor."""
    prefix_cache: Annotated[Literal["off", "text", "content"], BeforeValidator(_word_off)] = (
        "content"
    )
    """content: shares prompts up to the last equal image; text: only what precedes images."""
    max_batch_tokens: Annotated[int, Field(ge=LEAST_BATCH_TOKENS)] = 16384
    """Tokens of all requests of a batch; a tile has 256. On a CPU a batch takes 4,096 at most."""


class AccuracyPart(Part):
    """What `vlmc verify accuracy` holds the artifact to."""

    dataset: Text | None = None
    """JSON lines of image, prompt and label, relative to the recipe."""
    reference_dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """What the source model is run in."""
    normalize: Annotated[
        tuple[Literal["nfkc", "casefold", "strip_punctuation"], ...], Field(strict=False)
    ] = ("nfkc", "casefold", "strip_punctuation")
    """What is done to answers before they are compared."""
    min_feature_cosine: Cosine = "auto"
    """Of the worst tile; auto depends on vision.precision."""
    min_answer_agreement: Fraction = 0.95
    max_recall_drop: Fraction = 0.01


class Recipe(Part):
    """A whole recipe."""

    version: Annotated[Literal[1], BeforeValidator(_whole_number)]
    name: Annotated[
        str,
        StringConstraints(pattern=NAME),
        # JSON Schema's regular expressions know neither \A nor \Z.
        Field(json_schema_extra={"pattern": NAME.pattern.replace(r"\A", "^").replace(r"\Z", "$")}),
    ]
    """Becomes a folder's name."""
    model: ModelPart
    image: ImagePart = ImagePart()
    vision: VisionPart = VisionPart()
    language: LanguagePart = LanguagePart()
    calibration: CalibrationPart = CalibrationPart()
    runtime: RuntimePart = RuntimePart()
    accuracy: AccuracyPart = AccuracyPart()
    _document: Document | None = PrivateAttr(default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain values as an artifact keeps them: every default that acts is written out."""
        values = self.model_dump(mode="json")
        for engine in values["vision"]["engines"]:
            if not engine["targets"]:  # no recipe may write an empty list
                del engine["targets"]
        for name, schemes in LANGUAGE_KEYS.items():
            if self.language.scheme not in schemes:
                del values["language"][name]
        if not self.calibrated_wings:
            del values["calibration"]
        return values

    @property
    def calibrated_wings(self) -> tuple[str, ...]:
        """What looks at calibration samples: `vision`, `language`. Rounding to the nearest does
        so only to report what it cost, fp16 only to find what would overflow; both need none."""
        scheme, dataset = self.language.scheme, self.calibration.dataset
        language = scheme == "w4a16" and (self.language.method != "rtn" or dataset is not None)
        images = dataset is not None and self.calibration.modality == "image_text"
        precision = self.vision.precision
        vision = precision in ("int8", "fp8") or (precision == "fp16" and images)
        return ("vision",) * vision + ("language",) * language

    def given(self) -> tuple[KeyPath, ...]:
        """The key paths that the recipe or a `--set` writes, in the schema's order."""
        return tuple(_given(self, ()))

    def describe(self, problems: Iterable[Problem]) -> str:
        """A line for each problem behind its place, `file:line` or `--set`."""
        if self._document is None:
            return "\n".join(f"recipe: {said}" for _, said in problems)
        return self._document.describe(problems)

    def read_from(self, document: Document) -> Recipe:
        """The same recipe, with the places of its keys in `document`."""
        recipe = self.model_copy()
        recipe._document = document
        return recipe


def _given(part: BaseModel, above: KeyPath) -> Iterator[KeyPath]:
    for name in type(part).model_fields:
        if name not in part.model_fields_set:
            continue
        key, value = (*above, name), getattr(part, name)
        yield key
        for below, item in ((key, value),) if isinstance(value, BaseModel) else _items(key, value):
            yield from _given(item, below)


def _items(key: KeyPath, value: object) -> Iterator[tuple[KeyPath, BaseModel]]:
    if isinstance(value, tuple):
        for index, item in enumerate(value):
            if isinstance(item, BaseModel):
                yield (*key, index), item
