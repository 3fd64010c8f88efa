"""What each engine cannot express of an artifact: refused where answers would be wrong, else said.

What the engines read is described, with sources, in docs/export.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

from vlmc.errors import UsageError
from vlmc.export.config import Sources, has_dynamic_rope, kept_linears
from vlmc.image.tiles import TileRule

Engine = Literal["hf", "vllm", "sglang", "lmdeploy"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
NAMES: dict[Engine, str] = {
    "hf": "transformers",
    "vllm": "vLLM",
    "sglang": "SGLang",
    "lmdeploy": "LMDeploy",
}
# What SGLang applies to a request that does not say otherwise, whatever config.json says.
_SGLANG_MAX_TILES = 12
_QK_NORM_EPS = 1e-6
# Inputs of a group of 4-bit weights that Marlin and TurboMind read; None is one group.
_GROUPS: dict[Engine, tuple[int | None, ...]] = {
    "vllm": (32, 64, 128, None),
    "sglang": (32, 64, 128, None),
    "lmdeploy": (32, 128),
}
READ_DYNAMIC_ROPE: tuple[Engine, ...] = ("hf", "lmdeploy")
"""Engines that scale positions of long prompts alone, as the original does."""
# Linears that vLLM and SGLang join to one.
_JOINED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def engine_tiles(rule: TileRule) -> TileRule:
    """The artifact's tile rule as the engines have it: the published rule, with its thumbnail."""
    if rule.name == "single" or rule.max == 1:
        return TileRule("original", min=1, max=1)
    return TileRule("original", min=rule.min, max=rule.max, thumbnail=True)


def refuse(sources: Sources, engine: Engine) -> None:
    """Refuse what an engine would load and answer wrongly, or not load.

    Raises:
        UsageError: says what, why, and what to do instead.
    """
    for reason in _refusals(sources, engine):
        raise UsageError(f"this artifact has no export for {NAMES[engine]}: {reason}")


def notes(sources: Sources, engine: Engine) -> list[str]:
    """What differs there from this artifact, one sentence each."""
    return [*_image_notes(sources, engine), *_model_notes(sources, engine)]


def _refusals(sources: Sources, engine: Engine) -> Iterator[str]:
    tower, language = sources.tower, sources.language
    phi3 = language["model_type"] == "phi3"
    scheme = sources.manifest.language_scheme
    if engine != "sglang" and tower.pixel_shuffle == "v1":
        yield (
            "it orders image tokens by rows, and ps_version v1 orders them by columns. "
            "Released InternVL2 models have v2."
        )
    fixed = engine in ("hf", "sglang")
    if fixed and tower.vision.qk_norm and tower.vision.norm_eps != _QK_NORM_EPS:
        yield (
            f"its norms of queries and keys have the epsilon {_QK_NORM_EPS}, and this tower "
            f"has {tower.vision.norm_eps}. Use --to vllm, which reads it."
        )
    if engine == "sglang":
        if phi3:
            yield "its InternVL has no Phi-3. Use --to vllm."
        if language.get("attention_bias") and language["model_type"] == "llama":
            yield (
                "the language model has a bias in o_proj, which none of its language models has. "
                "Use --to vllm."
            )
    if engine == "lmdeploy":
        if scheme == "fp8":
            yield (
                "it reads fp8 weights with a scale for each block of 128 x 128, and an artifact "
                "has one for each output. Build with language.scheme none or w4a16."
            )
        if scheme == "w4a16" and phi3:
            yield (
                "only its TurboMind engine reads these 4-bit weights, and it has no Phi-3. "
                "Build with language.scheme none."
            )
    if scheme == "w4a16" and engine in _GROUPS:
        size, sizes = _weights(sources)["group_size"], _GROUPS[engine]
        if size not in sizes:
            held = "one group for each output" if size is None else f"groups of {size}"
            yield (
                f"its kernels read groups of {', '.join(str(one) for one in sizes if one)} inputs, "
                f"and this artifact has {held}. Build with language.group_size 128, or use --to hf."
            )
    if engine in ("vllm", "sglang"):
        for reason in split_groups(sources.language):
            yield f"it joins {reason}. Name all of them in language.keep, or use --to hf."


def split_groups(language: Mapping[str, Any]) -> Iterator[str]:
    """Linears that engines join to one, of which only some are in 16 bits."""
    kept = set(kept_linears(language))
    for name in sorted(kept):
        block, _, last = name.rpartition(".")
        for group in _JOINED:
            others = {f"{block}.{part}" for part in group} if last in group else set()
            if missing := sorted(others - kept):
                yield (
                    f"{', '.join(group)} to one linear, and {name} is in 16 bits but "
                    f"{missing[0]} is not"
                )


def rope_note(language: Mapping[str, Any]) -> str:
    """That dynamic scaling of positions is left out for engines that would apply it always."""
    return (
        f"rope: prompts end at {language['max_position_embeddings']:,} tokens there. Beyond them "
        "vlmc scales positions; this engine would scale those of every prompt, so config.json "
        "does not ask for it."
    )


def _image_notes(sources: Sources, engine: Engine) -> Iterator[str]:
    image, rule = sources.manifest.image, sources.manifest.image.tiles
    applied, name = engine_tiles(rule), NAMES[engine]
    if rule.name == "native" and applied.max > 1:
        yield (
            f"tiles: {name} has no rule {str(rule)!r} and applies {str(applied)!r}, which takes "
            "more tiles for most images (480x320: 7 and not 2 at max 12). Answers change."
        )
    elif rule.name == "original" and not rule.thumbnail and applied.max > 1:
        yield (
            f"tiles: {name} adds a thumbnail to every image of several tiles, which this artifact "
            "leaves out. Answers change."
        )
    if engine == "sglang":
        if applied.max != _SGLANG_MAX_TILES:
            yield (
                f"tiles: send max_dynamic_patch={applied.max} with every request; without it "
                f"SGLang makes up to {_SGLANG_MAX_TILES} tiles of an image."
            )
        if applied.min > 1:
            yield f"tiles: SGLang has no least number of tiles, which is {applied.min} here."
        if applied.max > 3:  # the least for which a square has two grids
            yield (
                "tiles: of grids that are equally near, SGLang takes the largest: a square image "
                "of any size makes 10 tiles at max 12. Answers to such images change."
            )
    yield (
        "pixels: the engine resizes with bicubic interpolation of its own; this artifact's "
        f"resampler is {image.resampler}. Values differ by the resampler's error."
    )
    if image.exif == "ignore":
        yield (
            "exif: this artifact ignores EXIF orientation; transformers turns such photos upright, "
            "and other engines may. Remove the tag from photos that have one."
        )
    else:
        yield (
            "exif: this artifact turns photos upright by their EXIF orientation. Turn them before "
            "you send them, since not every engine does."
        )
    if engine == "vllm":
        yield (
            "pixels: vLLM lays images with transparency on white; this artifact drops the "
            "transparency, as the original does."
        )
    if image.high_bit_depth == "scale":
        yield "pixels: engines clip 16-bit and float images to 8 bits; this artifact scales them."
    if image.keep < 1:
        yield (
            f"prune: this artifact keeps {image.keep:g} of the image tokens, and the engine keeps "
            "all. Answers change."
        )


def _model_notes(sources: Sources, engine: Engine) -> Iterator[str]:
    manifest, language = sources.manifest, sources.language
    precision = manifest.engines[0].precision if manifest.engines else "fp32"
    short = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[manifest.language_dtype]
    if precision != short:
        yield (
            f"vision: the tower runs in {short} there, from its unquantized weights, and in "
            f"{precision} in this artifact. Its engines are not exported."
        )
    if has_dynamic_rope(language) and engine not in READ_DYNAMIC_ROPE:
        yield rope_note(language)
    if (spare := language["vocab_size"] - sources.tokens) > 0:
        yield (
            f"vocabulary: the model has {spare:,} ids more than the tokenizer. vlmc never chooses "
            f"them; {NAMES[engine]} may."
        )
    if engine != "hf":
        yield (
            f"sampling: {NAMES[engine]} samples unless it is told otherwise. "
            "generation_config.json has top_k 1, so that it takes the likeliest token as vlmc "
            "does; what a request says goes first, so send temperature 0."
        )
    if sources.tower.pixel_shuffle == "v2" and language["model_type"] == "phi3":
        if engine == "vllm":
            yield (
                "rope: vLLM takes LongRoPE's long factors for all requests if --max-model-len is "
                "above the original window, and vlmc decides for each request. Set it to "
                f"{language['original_max_position_embeddings']} if prompts fit."
            )
        else:
            yield (
                "rope: in a batch the longest request decides which of LongRoPE's factors all "
                "get, and vlmc decides for each request."
            )
        if engine == "lmdeploy":
            yield "engine: TurboMind has no Phi-3; start LMDeploy with --backend pytorch."
    if engine == "lmdeploy":
        if manifest.language_scheme == "w4a16":
            yield "dtype: TurboMind computes models with 4-bit weights in fp16."
        elif manifest.language_dtype == "float32":
            yield "dtype: LMDeploy computes fp32 models in bf16."
    if engine == "sglang":
        if manifest.language_scheme == "w4a16" and not _weights(sources)["symmetric"]:
            yield (
                "weights: SGLang reads 4-bit weights with zero points since its change 25292 of "
                "May 2026. For older versions build with language.symmetric true."
            )
        yield (
            "template: SGLang picks a conversation template by the folder's name. Start it with "
            "--chat-template FOLDER/chat_template.jinja."
        )


def _weights(sources: Sources) -> dict[str, Any]:
    found: dict[str, Any] = sources.language["quantization_config"]["config_groups"]["group_0"][
        "weights"
    ]
    return found
