"""What a recipe may say in this version, with the defaults.

Pydantic stands at this edge only. Keys of the published recipe that this version does not act on
yet are listed apart, so that they are refused as such and never accepted in silence.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

NAME = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")

# Key path → what is used meanwhile. A later version takes the key over into the schema.
LATER_KEYS: dict[str, str] = {
    "vision.engines.targets": "the onnxruntime engine runs on any CPU",
    "vision.profiles": "the onnxruntime engine takes any batch, and batches of at most 13 tiles",
    "language.method": "the language model keeps its 16-bit weights (scheme: none)",
    "language.group_size": "the language model keeps its 16-bit weights (scheme: none)",
    "language.symmetric": "the language model keeps its 16-bit weights (scheme: none)",
    "language.keep": "the language model keeps its 16-bit weights (scheme: none)",
    "calibration": "nothing that this version builds is calibrated",
    "runtime": "the runtime's defaults are fixed in this version",
    "accuracy": "this version has no `vlmc verify`",
}
# Key path → values of the published recipe that this version refuses.
LATER_VALUES: dict[str, tuple[str, ...]] = {
    "vision.precision": ("fp16", "bf16", "int8", "fp8"),
    "vision.engines.engine": ("tensorrt", "tensorrt-rtx", "inductor"),
    "language.scheme": ("w4a16", "fp8"),
}


def _whole_number(value: object) -> object:
    if type(value) is not int:  # true and 1.0 equal 1 and would pass for it
        raise ValueError("it must be a whole number")
    return value


def _each_once(engines: tuple[EnginePart, ...]) -> tuple[EnginePart, ...]:
    if len(set(engines)) < len(engines):
        raise ValueError("an engine is given twice; the second has no effect, remove it")
    return engines


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ModelPart(_Part):
    """The source, and what the language model computes in."""

    checkpoint: Annotated[str, StringConstraints(min_length=1)]
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    template: Literal["auto", "internlm2-chat", "Hermes-2", "phi3-chat", "internvl2_5"] = "auto"
    system_message: str = "auto"


class TilesPart(_Part):
    """The tile rule; what is left out comes from the checkpoint or the rule."""

    rule: Literal["original", "native", "single"] = "original"
    min: int | None = None
    max: int | None = None
    thumbnail: bool | None = None
    tolerance: float | None = None


class ImagePart(_Part):
    """From encoded image to tiles."""

    resampler: Literal["opencv", "pillow"] = "opencv"
    exif: Literal["ignore", "apply"] = "ignore"
    tiles: TilesPart = TilesPart()


class EnginePart(_Part):
    """One engine of the vision tower."""

    engine: Literal["onnxruntime"] = "onnxruntime"


class VisionPart(_Part):
    """The vision tower's graph and engines."""

    # fp16 is the published default; until this version builds it, the key has to be written.
    precision: Literal["fp32"]
    engines: Annotated[
        tuple[EnginePart, ...], Field(min_length=1, strict=False), AfterValidator(_each_once)
    ] = (EnginePart(),)


class LanguagePart(_Part):
    """The language model's weights."""

    scheme: Literal["none"] = "none"


class Recipe(_Part):
    """A whole recipe."""

    version: Annotated[Literal[1], BeforeValidator(_whole_number)]
    name: Annotated[str, StringConstraints(pattern=NAME)]
    model: ModelPart
    image: ImagePart = ImagePart()
    vision: VisionPart
    language: LanguagePart = LanguagePart()

    def plain(self) -> dict[str, Any]:
        """Plain values, every default written out."""
        return self.model_dump(mode="json")
