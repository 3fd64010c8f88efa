"""What an engine cannot express: refused, or said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.artifacts import copy_with
from vlmc import open_artifact
from vlmc.artifact.manifest import read_manifest
from vlmc.artifact.vision_files import TOWER
from vlmc.checkpoint.huggingface import HEAD
from vlmc.errors import UsageError
from vlmc.export.checkpoint import export_checkpoint
from vlmc.export.config import Sources
from vlmc.export.limits import ENGINES, Engine, engine_tiles, notes, refuse, split_groups
from vlmc.image.tiles import TileRule
from vlmc.models.vision.tower_file import read_tower_config

ORIGINAL = TileRule("original")


@pytest.fixture
def sources(artifact: Path) -> Sources:
    language = json.loads((artifact / "language" / "config.json").read_bytes())
    tower = read_tower_config(artifact / "vision" / TOWER)
    return Sources(read_manifest(artifact), tower, language, 609, language["vocab_size"], ORIGINAL)


def with_language(sources: Sources, **values: Any) -> Sources:
    return replace(sources, language={**sources.language, **values})


def quantized(sources: Sources, scheme: str, group_size: int | None = 128, *kept: str) -> Sources:
    weights = {"group_size": group_size, "symmetric": False}
    settings = {"ignore": [HEAD, *kept], "config_groups": {"group_0": {"weights": weights}}}
    held = replace(sources, manifest=replace(sources.manifest, language_scheme=scheme))
    return with_language(held, quantization_config=settings)


def test_refusals_say_what_to_do(sources: Sources) -> None:
    tower = sources.tower
    phi3 = with_language(sources, model_type="phi3")
    other_eps = replace(tower, vision=replace(tower.vision, qk_norm=True, norm_eps=1e-5))
    cases: list[tuple[Engine, Sources, str]] = [
        ("hf", replace(sources, tower=replace(tower, pixel_shuffle="v1")), "ps_version v1"),
        ("hf", replace(sources, tower=other_eps), "Use --to vllm, which reads it"),
        ("sglang", replace(sources, tower=other_eps), "Use --to vllm, which reads it"),
        ("sglang", phi3, "SGLang: its InternVL has no Phi-3"),
        ("sglang", with_language(sources, attention_bias=True), "bias in o_proj"),
        ("lmdeploy", quantized(sources, "fp8"), "a scale for each block of 128 x 128"),
        ("lmdeploy", quantized(phi3, "w4a16"), "it has no Phi-3"),
        ("lmdeploy", quantized(sources, "w4a16", 64), "this artifact has groups of 64"),
        ("lmdeploy", quantized(sources, "w4a16", None), "has one group for each output"),
        ("vllm", quantized(sources, "w4a16", 16), "groups of 32, 64, 128 inputs"),
        ("sglang", quantized(sources, "w4a16", 8), "this artifact has groups of 8"),
        (
            "vllm",
            quantized(sources, "w4a16", 128, "model.layers.0.self_attn.q_proj"),
            "q_proj is in 16 bits but model.layers.0.self_attn.k_proj is not",
        ),
    ]
    for engine, held, message in cases:
        with pytest.raises(UsageError, match=message):
            refuse(held, engine)


def test_linears_that_engines_join_are_named_for_the_language_model_alone(sources: Sources) -> None:
    held = quantized(sources, "w4a16", 128, "model.layers.1.mlp.gate_proj")
    (found,) = split_groups(held.language)
    assert "gate_proj, up_proj to one linear" in found and "up_proj is not" in found
    assert not list(split_groups(quantized(sources, "w4a16").language))


def test_what_can_be_exported_is_not_refused(sources: Sources) -> None:
    for engine in ENGINES:
        refuse(sources, engine)
    refuse(replace(sources, tower=replace(sources.tower, pixel_shuffle="v1")), "sglang")
    refuse(quantized(sources, "w4a16", 32), "lmdeploy")
    refuse(quantized(sources, "w4a16", None), "vllm")
    refuse(quantized(sources, "w4a16", 16), "hf")
    whole = [f"model.layers.0.self_attn.{part}_proj" for part in "qkv"]
    refuse(quantized(sources, "fp8", 128, *whole), "vllm")
    refuse(quantized(sources, "w4a16", 128, whole[0]), "hf")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (TileRule("original", min=2, max=6), TileRule("original", min=2, max=6)),
        (TileRule("native", max=4), TileRule("original", min=1, max=4)),
        (TileRule("single"), TileRule("original", min=1, max=1)),
    ],
)
def test_tile_rules(rule: TileRule, expected: TileRule) -> None:
    assert engine_tiles(rule) == expected


@pytest.mark.parametrize(
    ("engine", "changes", "words"),
    [
        ("hf", {"tiles": TileRule("native", max=4)}, "has no rule 'native:max=4"),
        ("hf", {"tiles": TileRule("original", thumbnail=False)}, "adds a thumbnail"),
        ("sglang", {"tiles": TileRule("single")}, "send max_dynamic_patch=1 with every request"),
        ("sglang", {"tiles": TileRule("original", min=2)}, "no least number of tiles, which is 2"),
        ("sglang", {}, "a square image of any size makes 10 tiles"),
        ("vllm", {"resampler": "opencv"}, "resampler is opencv"),
        ("vllm", {"exif": "apply"}, "turns photos upright"),
        ("vllm", {"exif": "ignore"}, "Remove the tag"),
        ("vllm", {}, "transparency on white"),
        ("lmdeploy", {"high_bit_depth": "scale"}, "engines clip 16-bit"),
        ("hf", {"keep": 0.5}, "keeps 0.5 of the image tokens"),
    ],
)
def test_notes_on_images(
    engine: Engine, changes: dict[str, Any], words: str, sources: Sources
) -> None:
    image = replace(sources.manifest.image, **changes)
    found = notes(replace(sources, manifest=replace(sources.manifest, image=image)), engine)
    assert any(words in note for note in found), found


def test_rules_that_an_engine_has_are_not_mentioned(sources: Sources) -> None:
    for rule in (ORIGINAL, TileRule("original", max=6), TileRule("single")):
        image = replace(sources.manifest.image, tiles=rule)
        held = replace(sources, manifest=replace(sources.manifest, image=image))
        assert not [note for note in notes(held, "hf") if note.startswith("tiles")]


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("hf", "the longest request decides"),
        ("vllm", "Set it to 512 if prompts fit"),
        ("lmdeploy", "--backend pytorch"),
    ],
)
def test_notes_on_phi3(engine: Engine, words: str, sources: Sources) -> None:
    phi3 = with_language(sources, model_type="phi3", original_max_position_embeddings=512)
    assert any(words in note for note in notes(phi3, engine))
    assert not any(words in note for note in notes(sources, engine))


def test_notes_on_the_language_model(sources: Sources) -> None:
    """`dynamic` is InternLM2's own, and other engines than two read it as the original does."""
    dynamic = {"type": "dynamic", "rope_type": "dynamic", "factor": 2.0}
    held = with_language(sources, rope_scaling=dynamic, max_position_embeddings=32_768)
    plain = with_language(held, rope_scaling=None)
    padded = with_language(plain, vocab_size=sources.tokens + 7)
    for engine in ENGINES:
        said = [note for note in notes(held, engine) if "prompts end at 32,768 tokens" in note]
        assert bool(said) == (engine in ("vllm", "sglang"))
        assert not any("prompts end" in note for note in notes(plain, engine))
        assert any("7 ids more than the tokenizer" in note for note in notes(padded, engine))
        assert not any("ids more than" in note for note in notes(plain, engine))
        assert any("send temperature 0" in note for note in notes(plain, engine)) == (
            engine != "hf"
        )
    asymmetric = quantized(plain, "w4a16")
    assert any("zero points" in note for note in notes(asymmetric, "sglang"))
    assert not any("zero points" in note for note in notes(asymmetric, "vllm"))


def test_an_8_bit_tower_is_exported_in_the_models_dtype(sources: Sources) -> None:
    assert not any("tower runs" in note for note in notes(sources, "hf"))
    int8 = (replace(sources.manifest.engines[0], precision="int8"),)
    held = replace(sources, manifest=replace(sources.manifest, engines=int8))
    assert any("in fp32 there" in note and "int8 in this" in note for note in notes(held, "hf"))


def test_lmdeploy_says_its_dtype(sources: Sources) -> None:
    assert any("fp32 models in bf16" in note for note in notes(sources, "lmdeploy"))
    four_bits = quantized(sources, "w4a16")
    assert any("4-bit weights in fp16" in note for note in notes(four_bits, "lmdeploy"))


def test_a_refused_export_writes_nothing(artifact: Path, tmp_path: Path) -> None:
    held = copy_with(artifact, tmp_path / "artifact", language_scheme="fp8")
    with pytest.raises(UsageError, match="no export for LMDeploy"):
        export_checkpoint(open_artifact(held), "lmdeploy", tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_the_rule_travels(artifact: Path, tmp_path: Path) -> None:
    tiles = {"name": "original", "min": 1, "max": 6, "thumbnail": True, "tolerance": 0.05}
    held = copy_with(artifact, tmp_path / "artifact", image__tiles=tiles)
    export_checkpoint(open_artifact(held), "vllm", tmp_path / "exported")
    values = json.loads((tmp_path / "exported" / "preprocessor_config.json").read_bytes())
    assert (values["min_patches"], values["max_patches"]) == (1, 6)


def test_shards_and_their_index(
    artifacts: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    import transformers

    from vlmc.compile.language import weights

    monkeypatch.setattr(weights, "SHARD_BYTES", 100_000)
    output = tmp_path / "exported"
    export_checkpoint(open_artifact(artifacts("internlm2-300m")), "hf", output)
    index = json.loads((output / "model.safetensors.index.json").read_bytes())
    shards = set(cast(dict[str, str], index["weight_map"]).values())
    assert len(shards) > 3 and shards == {path.name for path in output.glob("*.safetensors")}
    model, info = transformers.AutoModelForImageTextToText.from_pretrained(
        output, output_loading_info=True
    )
    assert not info["missing_keys"] and model.dtype == torch.float32


def test_an_interrupted_export_leaves_nothing(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vlmc.export.checkpoint.write_shards", fail)
    with pytest.raises(OSError, match="No space"):
        export_checkpoint(open_artifact(artifact), "hf", tmp_path / "exported")
    assert list(tmp_path.iterdir()) == []
