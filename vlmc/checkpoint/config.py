"""The parts of an InternVL2 `config.json` that change what the model computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from vlmc.checkpoint import harmless_keys
from vlmc.checkpoint.config_section import Section
from vlmc.checkpoint.quantization import Quantization, find_quantization
from vlmc.checkpoint.rope_config import RopeScaling, read_rope
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
_DTYPES = ("bfloat16", "float16", "float32")
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
    dtype: str  # `auto` where no key says it, until the weights are opened
    select_layer: int
    pixel_shuffle: Literal["v1", "v2"]
    min_tiles: int
    max_tiles: int
    thumbnail: bool
    vision_lora_rank: int = 0
    language_lora_rank: int = 0
    quantization: Quantization | None = None  # of linears that are quantized already
    tied_head: bool = False  # the language model's head is its embedding

    @property
    def vision_layers(self) -> int:
        """Blocks that `select_layer` needs; later blocks never run."""
        return layers_needed(self.vision, self.select_layer)

    @property
    def hidden_size(self) -> int:
        """Of the language model, which is what image features have."""
        return self.language.hidden_size


def layers_needed(vision: VisionConfig, select_layer: int) -> int:
    """Blocks up to the one whose output `select_layer` takes; later blocks never run."""
    return vision.layers + 1 + select_layer if select_layer < 0 else select_layer


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
    top = Section(values, path)
    if top.get("model_type") == "internvl":
        raise CheckpointError(
            f"{path}: model_type is 'internvl', transformers' own conversion of the model, whose "
            "tensors have other names and shapes. vlmc reads the layout that OpenGVLab publishes "
            "and trains (model_type internvl_chat); give that checkpoint."
        )
    top.choice("model_type", ("internvl_chat",))
    vision = _vision(top.section("vision_config"))
    # transformers' own name for it is text_config.
    llm = top.section(top.one_of("llm_config", "text_config")[0])
    language = _language(llm)

    tile = top.integer("force_image_size", vision.image_size)
    if tile != TILE_SIZE or vision.patch_size != 14:
        raise top.fail("force_image_size", tile, f"{TILE_SIZE} with patches of 14 pixels")
    ratio = top.number("downsample_ratio", 0.5)
    if ratio != 0.5:
        raise top.fail("downsample_ratio", ratio, "0.5, that is 256 tokens a tile")
    if top.boolean("pad2square", False):
        raise top.fail("pad2square", True, "false; vlmc stretches images as InternVL2 does")
    select_layer = top.get("select_layer", -1)
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
    template = top.get("template")
    if not isinstance(template, str):
        raise top.fail("template", template, "the name of a conversation template")
    system_message = top.get("system_message")
    if system_message is not None and not isinstance(system_message, str):
        raise top.fail("system_message", system_message, "a text")
    config = ModelConfig(
        vision=vision,
        language=language,
        template=template,
        system_message=system_message,
        dtype=_dtype(top) or _dtype(llm) or "auto",
        select_layer=select_layer,
        pixel_shuffle="v1" if top.choice("ps_version", ("v1", "v2"), "v1") == "v1" else "v2",
        # Without dynamic tiling the original shows the model the whole image as one tile.
        min_tiles=min_tiles if dynamic else 1,
        max_tiles=max_tiles if dynamic else 1,
        thumbnail=top.boolean("use_thumbnail", False) and dynamic,
        vision_lora_rank=top.integer("use_backbone_lora", 0, least=0),
        language_lora_rank=top.integer("use_llm_lora", 0, least=0),
        quantization=find_quantization(values, path),
        tied_head=any(part.get("tie_word_embeddings") is True for part in (top, llm)),
    )
    top.refuse_unread(harmless_keys.TOP)
    return config


def parse_language_config(values: Mapping[str, Any], path: Path) -> LanguageConfig:
    """The language model's own `config.json`, as an artifact keeps it in Hugging Face's layout."""
    return _language(Section(values, path))


def _dtype(section: Section) -> str | None:
    """What the section says under transformers' old or new key."""
    key, found = section.one_of("torch_dtype", "dtype")
    return None if found is None else section.choice(key, _DTYPES)


def _vision(section: Section) -> VisionConfig:
    # The defaults are those of the original InternVisionConfig, which is the 6B tower's.
    hidden, heads = section.integer("hidden_size", 3200), section.integer("num_attention_heads", 25)
    if hidden % heads:
        raise section.fail("num_attention_heads", heads, f"a divisor of hidden_size {hidden}")
    section.choice("hidden_act", ("gelu",), "gelu")
    if section.integer("num_channels", 3) != 3:
        raise section.fail("num_channels", section.values["num_channels"], "3")
    if section.boolean("use_moe", False):
        raise section.fail("use_moe", True, "false; InternVL2's towers have no experts")
    norm = section.choice("norm_type", ("layer_norm", "rms_norm"), "rms_norm")
    config = VisionConfig(
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
    section.refuse_unread(harmless_keys.VISION)
    return config


def _language(section: Section) -> LanguageConfig:
    """One of the language models.

    Sizes that the tensors' shapes confirm may be left out as in the original class. What shapes
    cannot confirm has to be there: transformers moves and renames these keys between its versions.
    """
    found = section.get("architectures")
    name = found[0] if isinstance(found, list) and found else found
    if name not in ARCHITECTURES:
        raise section.fail("architectures", found, f"one of {', '.join(ARCHITECTURES)}")
    architecture = cast(Architecture, name)
    section.choice("hidden_act", ("silu",))
    hidden, heads = section.integer("hidden_size"), section.integer("num_attention_heads")
    if hidden % heads:
        raise section.fail("num_attention_heads", heads, f"a divisor of hidden_size {hidden}")
    head_dim = hidden // heads
    if head_dim % 2 or head_dim < 4:
        raise section.fail("num_attention_heads", heads, "heads of an even size of at least 4")
    if section.integer("head_dim", head_dim) != head_dim:
        expected = f"{head_dim}, that is hidden_size by num_attention_heads"
        raise section.fail("head_dim", section.get("head_dim"), expected)
    kv_heads = section.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise section.fail("num_key_value_heads", kv_heads, f"a divisor of {heads} heads")
    internlm2 = architecture == "InternLM2ForCausalLM"
    layers = section.integer("num_hidden_layers", most=_MOST_LAYERS)
    positions = section.integer("max_position_embeddings")
    _check_attention(section, architecture, layers, positions)
    bias = section.boolean("bias" if internlm2 else "attention_bias", internlm2)
    if section.boolean("mlp_bias", False):
        raise section.fail("mlp_bias", True, "false; the family has none")
    theta, scaling = read_rope(section, head_dim, positions)
    config = LanguageConfig(
        architecture=architecture,
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=section.integer("intermediate_size"),
        vocab_size=section.integer("vocab_size"),
        norm_eps=section.number("rms_norm_eps"),
        rope_theta=theta,
        max_positions=positions,
        rope_scaling=scaling,
        qkv_bias=bias or architecture == "Qwen2ForCausalLM",
        output_bias=bias,
    )
    section.get("tie_word_embeddings")
    section.refuse_unread(harmless_keys.LANGUAGE)
    return config


def _check_attention(
    section: Section, architecture: Architecture, layers: int, positions: int
) -> None:
    """Refuse attention that does not reach every earlier token."""
    if section.boolean("use_sliding_window", False):
        raise section.fail("use_sliding_window", True, "false; the family attends to everything")
    window = section.get("sliding_window")
    # Qwen2 writes a window that its switch keeps off; Phi-3's has no switch.
    switched = architecture == "Qwen2ForCausalLM"
    reaches = window is None or (
        isinstance(window, int) and not isinstance(window, bool) and window >= positions
    )
    if not reaches and not switched:
        expected = f"null or at least max_position_embeddings {positions}"
        raise section.fail("sliding_window", window, expected)
    kinds = section.get("layer_types")
    allowed = (
        {"full_attention"}
        if switched or window is None
        else {
            "full_attention",
            "sliding_attention",
        }
    )
    if kinds is not None and not (
        isinstance(kinds, list) and len(kinds) == layers and all(k in allowed for k in kinds)
    ):
        raise section.fail("layer_types", kinds, f"{layers} times full_attention, one a layer")
