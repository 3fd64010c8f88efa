"""The parts of an InternVL2 `config.json` that change what the model computes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from vlmc.checkpoint.quantization import Quantization, find_quantization
from vlmc.errors import CheckpointError
from vlmc.files.strict_json import read_json
from vlmc.image.tiles import MAX_TILES, TILE_SIZE

Architecture = Literal[
    "InternLM2ForCausalLM", "Qwen2ForCausalLM", "Phi3ForCausalLM", "LlamaForCausalLM"
]
ARCHITECTURES: tuple[Architecture, ...] = (
    "InternLM2ForCausalLM",
    "Qwen2ForCausalLM",
    "Phi3ForCausalLM",
    "LlamaForCausalLM",
)
_LARGEST = 3.4e38  # of fp32, in which all of the configuration's numbers are used
# Ten times and more of what any model has, and small enough that no sum or product overflows.
_MOST = 1 << 24
_MOST_LAYERS = 1024


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """InternViT, 300M or 6B. Sizes are counts of elements, `image_size` is in pixels."""

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    image_size: int = TILE_SIZE
    patch_size: int = 14
    norm: Literal["layer_norm", "rms_norm"] = "layer_norm"
    norm_eps: float = 1e-6
    qk_norm: bool = False
    qkv_bias: bool = True

    @property
    def grid(self) -> int:
        """Patches along one side of a tile."""
        return TILE_SIZE // self.patch_size

    @property
    def positions(self) -> int:
        """Class token and patches of the checkpoint's own resolution."""
        return 1 + (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """`dynamic` is the NTK rule of InternLM2, `longrope` the `su` factors of Phi-3."""

    kind: Literal["none", "linear", "dynamic", "longrope"] = "none"
    factor: float = 1.0
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()
    original_positions: int = 0


@dataclass(frozen=True, slots=True)
class LanguageConfig:
    """One of the four language models, in the terms that they share."""

    architecture: Architecture
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    norm_eps: float
    rope_theta: float
    max_positions: int
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)
    qkv_bias: bool = False
    output_bias: bool = False


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A whole InternVL2 model: tower, pixel shuffle and projector, language model, image rules."""

    vision: VisionConfig
    language: LanguageConfig
    template: str
    system_message: str | None
    dtype: str
    select_layer: int
    pixel_shuffle: Literal["v1", "v2"]
    min_tiles: int
    max_tiles: int
    thumbnail: bool
    vision_lora_rank: int = 0
    language_lora_rank: int = 0
    quantization: Quantization | None = None  # of linears that are quantized already

    @property
    def vision_layers(self) -> int:
        """Blocks that `select_layer` needs; the ones after it never run."""
        return layers_needed(self.vision, self.select_layer)

    @property
    def hidden_size(self) -> int:
        """Of the language model, which is what image features have."""
        return self.language.hidden_size


def layers_needed(vision: VisionConfig, select_layer: int) -> int:
    """Blocks whose output `select_layer` asks for; the ones after it never run."""
    return vision.layers + 1 + select_layer if select_layer < 0 else select_layer


class _Section:
    """One JSON object of the file, with errors that name the file and the key."""

    def __init__(self, values: Mapping[str, Any], path: Path, prefix: str = "") -> None:
        self.values, self.path, self.prefix = values, path, prefix

    def fail(self, key: str, found: object, expected: str) -> CheckpointError:
        shown = repr(found)
        return CheckpointError(
            f"{self.path}: {self.prefix}{key} is {shown:.500}, expected {expected}. "
            "vlmc reads original OpenGVLab InternVL2 checkpoints; compare the file with the "
            "released one of this size."
        )

    def section(self, key: str) -> _Section:
        found = self.values.get(key)
        if not isinstance(found, dict):
            raise self.fail(key, found, "an object")
        return _Section(found, self.path, f"{self.prefix}{key}.")

    def integer(
        self, key: str, default: int | None = None, *, least: int = 1, most: int = _MOST
    ) -> int:
        found = self.values.get(key, default)
        if found is None and default is not None:
            found = default
        if isinstance(found, bool) or not isinstance(found, int) or found < least:
            raise self.fail(key, found, f"a whole number of at least {least}")
        if found > most:
            raise self.fail(key, found, f"a whole number of at most {most}")
        return found

    def number(self, key: str, default: float | None = None) -> float:
        found = self.values.get(key, default)
        if not _is_positive(found):
            raise self.fail(key, found, "a positive number")
        return float(cast(float, found))

    def boolean(self, key: str, default: bool) -> bool:
        found = self.values.get(key, default)
        if not isinstance(found, bool):
            raise self.fail(key, found, "true or false")
        return found

    def choice(self, key: str, allowed: Sequence[str], default: str | None = None) -> str:
        found = self.values.get(key, default)
        if found not in allowed:
            raise self.fail(key, found, f"one of {', '.join(allowed)}")
        return cast(str, found)

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        found = self.values.get(key)
        if not isinstance(found, list) or len(found) != count or not all(map(_is_positive, found)):
            raise self.fail(key, found, f"a list of {count} positive numbers")
        return tuple(float(item) for item in found)


def _is_positive(value: object) -> bool:
    """Whether it is a number that fp32 holds; JSON as Python reads it has NaN and Infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value < _LARGEST and math.isfinite(value)


def read_config(folder: Path) -> ModelConfig:
    """Read and check `config.json` of an original InternVL2 checkpoint.

    Raises:
        CheckpointError: the file is missing, is not JSON, or describes a model that is not
            InternVL2; the message names the key, what was found and what was expected.
    """
    path = folder / "config.json"
    if not path.exists():
        raise CheckpointError(
            f"{folder} holds no config.json, so it is not a checkpoint. Give the folder of an "
            "original OpenGVLab InternVL2 model."
        )
    return parse_config(read_values(path), path)


def read_language_config(path: Path) -> LanguageConfig:
    """The language model's own `config.json`, as an artifact keeps it.

    Raises:
        CheckpointError: as `read_config`.
    """
    return parse_language_config(read_values(path), path)


def read_values(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: it cannot be read, or holds something else.
    """
    try:
        values = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds {type(values).__name__}, expected an object")
    return values


def parse_config(values: Mapping[str, Any], path: Path) -> ModelConfig:
    """Check the values of a `config.json`; `path` is named in errors."""
    top = _Section(values, path)
    top.choice("model_type", ("internvl_chat",))
    vision = _vision(top.section("vision_config"))
    language = _language(top.section("llm_config"))

    tile = top.integer("force_image_size", vision.image_size)
    if tile != TILE_SIZE or vision.patch_size != 14:
        raise top.fail("force_image_size", tile, f"{TILE_SIZE} with patches of 14 pixels")
    ratio = top.number("downsample_ratio", 0.5)
    if ratio != 0.5:
        raise top.fail("downsample_ratio", ratio, "0.5, that is 256 tokens a tile")
    if top.boolean("pad2square", False):
        raise top.fail("pad2square", True, "false; vlmc stretches images as InternVL2 does")
    select_layer = values.get("select_layer", -1)
    if (
        isinstance(select_layer, bool)
        or not isinstance(select_layer, int)
        or not -vision.layers - 1 <= select_layer <= vision.layers
    ):
        raise top.fail("select_layer", select_layer, f"a layer of the {vision.layers}")
    dynamic = top.boolean("dynamic_image_size", False)
    min_tiles, max_tiles = top.integer("min_dynamic_patch", 1), top.integer("max_dynamic_patch", 6)
    if not min_tiles <= max_tiles <= MAX_TILES:
        expected = f"a whole number from min_dynamic_patch {min_tiles} to {MAX_TILES}"
        raise top.fail("max_dynamic_patch", max_tiles, expected)
    template = values.get("template")
    if not isinstance(template, str):
        raise top.fail("template", template, "the name of a conversation template")
    system_message = values.get("system_message")
    if system_message is not None and not isinstance(system_message, str):
        raise top.fail("system_message", system_message, "a text")
    return ModelConfig(
        vision=vision,
        language=language,
        template=template,
        system_message=system_message,
        dtype=top.choice("torch_dtype", ("bfloat16", "float16", "float32"), "float32"),
        select_layer=select_layer,
        pixel_shuffle="v1" if top.choice("ps_version", ("v1", "v2"), "v1") == "v1" else "v2",
        # Without dynamic tiling the original shows the model the whole image as one tile.
        min_tiles=min_tiles if dynamic else 1,
        max_tiles=max_tiles if dynamic else 1,
        thumbnail=top.boolean("use_thumbnail", False) and dynamic,
        vision_lora_rank=top.integer("use_backbone_lora", 0, least=0),
        language_lora_rank=top.integer("use_llm_lora", 0, least=0),
        quantization=find_quantization(values, path),
    )


def parse_language_config(values: Mapping[str, Any], path: Path) -> LanguageConfig:
    """The language model's own `config.json`, as an artifact keeps it in Hugging Face's layout."""
    return _language(_Section(values, path))


def _vision(section: _Section) -> VisionConfig:
    # The defaults are those of the original InternVisionConfig, which is the 6B tower's.
    hidden, heads = section.integer("hidden_size", 3200), section.integer("num_attention_heads", 25)
    if hidden % heads:
        raise section.fail("num_attention_heads", heads, f"a divisor of hidden_size {hidden}")
    section.choice("hidden_act", ("gelu",), "gelu")
    if section.integer("num_channels", 3) != 3:
        raise section.fail("num_channels", section.values["num_channels"], "3")
    norm = section.choice("norm_type", ("layer_norm", "rms_norm"), "rms_norm")
    return VisionConfig(
        hidden_size=hidden,
        layers=section.integer("num_hidden_layers", 48, most=_MOST_LAYERS),
        heads=heads,
        intermediate_size=section.integer("intermediate_size", 12800),
        image_size=section.integer("image_size", 224),
        patch_size=section.integer("patch_size", 14),
        norm="layer_norm" if norm == "layer_norm" else "rms_norm",
        norm_eps=section.number("layer_norm_eps", 1e-6),
        qk_norm=section.boolean("qk_normalization", True),
        qkv_bias=section.boolean("qkv_bias", False),
    )


def _language(section: _Section) -> LanguageConfig:
    found = section.values.get("architectures")
    name = found[0] if isinstance(found, list) and found else found
    if name not in ARCHITECTURES:
        raise section.fail("architectures", found, f"one of {', '.join(ARCHITECTURES)}")
    architecture = cast(Architecture, name)
    section.choice("hidden_act", ("silu",), "silu")
    hidden, heads = section.integer("hidden_size"), section.integer("num_attention_heads")
    if hidden % heads:
        raise section.fail("num_attention_heads", heads, f"a divisor of hidden_size {hidden}")
    head_dim = hidden // heads
    if head_dim % 2 or head_dim < 4:
        raise section.fail("num_attention_heads", heads, "heads of an even size of at least 4")
    kv_heads = section.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise section.fail("num_key_value_heads", kv_heads, f"a divisor of {heads} heads")
    internlm2 = architecture == "InternLM2ForCausalLM"
    qwen2 = architecture == "Qwen2ForCausalLM"
    if section.boolean("use_sliding_window", False):
        raise section.fail("use_sliding_window", True, "false; the family attends to everything")
    bias = section.boolean("bias" if internlm2 else "attention_bias", internlm2)
    return LanguageConfig(
        architecture=architecture,
        hidden_size=hidden,
        layers=section.integer("num_hidden_layers", most=_MOST_LAYERS),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=section.integer("intermediate_size"),
        vocab_size=section.integer("vocab_size"),
        norm_eps=section.number(
            "rms_norm_eps", 1e-5 if architecture == "Phi3ForCausalLM" else 1e-6
        ),
        rope_theta=section.number("rope_theta", 10000.0),
        max_positions=section.integer("max_position_embeddings", 2048),
        rope_scaling=_rope_scaling(section, head_dim),
        qkv_bias=bias or qwen2,
        output_bias=bias,
    )


def _rope_scaling(section: _Section, head_dim: int) -> RopeScaling:
    if section.values.get("rope_scaling") is None:
        return RopeScaling()
    scaling = section.section("rope_scaling")
    key = "type" if "type" in scaling.values else "rope_type"
    kind = scaling.choice(key, ("linear", "dynamic", "su", "longrope", "default"))
    if kind == "default":
        return RopeScaling()
    if kind in ("su", "longrope"):
        return RopeScaling(
            kind="longrope",
            short_factor=scaling.numbers("short_factor", head_dim // 2),
            long_factor=scaling.numbers("long_factor", head_dim // 2),
            original_positions=section.integer("original_max_position_embeddings", 4096, least=2),
        )
    return RopeScaling(
        kind="linear" if kind == "linear" else "dynamic", factor=scaling.number("factor")
    )
