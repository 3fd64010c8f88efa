"""config.json and names of tensors against what each engine documents or reads.

vLLM, SGLang and LMDeploy need a GPU and are not installed; the fields are those that their sources
read (SOURCES).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.export.conftest import Exported
from tests.export.reference import logits
from vlmc.checkpoint.config import parse_language_config
from vlmc.checkpoint.layout import original_shapes
from vlmc.checkpoint.source import open_checkpoint
from vlmc.export.limits import ENGINES, Engine
from vlmc.export.weights import language_files, read_tensor
from vlmc.image.tiles import TILE_SIZE
from vlmc.models.language.load import load_decoder

pytestmark = pytest.mark.xdist_group("export")
# transformers 5.17: models/internvl/configuration_internvl.py, processing_internvl.py.
# vLLM, main branch, commit not recorded: model_executor/models/{registry,interns1,interns1_vit}.py.
# LMDeploy, main branch, August 2026: pytorch/models/internvl3_hf.py, turbomind/models/internvl.py,
#   turbomind/converter.py, vl/model/internvl3_hf.py.
# SGLang, main branch, commit not recorded: srt/models/internvl.py, srt/configs/internvl.py,
#   srt/multimodal/processors/internvl.py.
HF_TOP = {
    "architectures": ["InternVLForConditionalGeneration"],
    "model_type": "internvl",
    "downsample_ratio": 0.5,
    "projector_hidden_act": "gelu",
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "default",
    "image_seq_length": 256,
    "tie_word_embeddings": False,
}
HF_VISION = {
    # vLLM and LMDeploy index both; SGLang's and the original's are numbers.
    "image_size": [448, 448],
    "patch_size": [14, 14],
    "num_channels": 3,
    "hidden_act": "gelu",
    "use_mean_pooling": True,
    "use_mask_token": False,
    "use_absolute_position_embeddings": True,
}
HF_VISION_KEYS = {
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("norm_type", "layer_norm_eps", "attention_bias", "use_qk_norm", "layer_scale_init_value"),
}
# LMDeploy's TurboMind takes names from here without mapping; vLLM and transformers map them.
HF_NAMES = re.compile(
    r"language_model\.(model\.(embed_tokens|norm)|lm_head)\.weight"
    r"|language_model\.model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj\."
    r"(weight|bias|weight_packed|weight_scale|weight_shape|weight_zero_point)"
    r"|language_model\.model\.layers\.\d+\.(input|post_attention)_layernorm\.weight"
    r"|multi_modal_projector\.(layer_norm|linear_[12])\.(weight|bias)"
    r"|vision_tower\.embeddings\.(cls_token|position_embeddings)"
    r"|vision_tower\.embeddings\.patch_embeddings\.projection\.(weight|bias)"
    r"|vision_tower\.encoder\.layer\.\d+\.lambda_[12]"
    r"|vision_tower\.encoder\.layer\.\d+\.layernorm_(before|after)\.(weight|bias)"
    r"|vision_tower\.encoder\.layer\.\d+\.mlp\.fc[12]\.(weight|bias)"
    r"|vision_tower\.encoder\.layer\.\d+\.attention\."
    r"(([qkv]_proj|projection_layer)\.(weight|bias)|[qk]_norm\.weight)"
)
CHAT_TOP = {
    "architectures": ["InternVLChatModel"],
    "model_type": "internvl_chat",
    "select_layer": -1,
    "ps_version": "v2",
    "downsample_ratio": 0.5,
    "force_image_size": 448,
}
CHAT_VISION_KEYS = {
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("image_size", "patch_size", "num_channels", "norm_type", "layer_norm_eps", "hidden_act"),
    *("qkv_bias", "qk_normalization", "initializer_factor", "dropout", "drop_path_rate"),
}


def config_of(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    return values


@pytest.mark.parametrize("engine", ["hf", "vllm", "lmdeploy"])
@pytest.mark.parametrize("name", ["internlm2-300m", "llama-yi-6b"])
def test_hf_layout(name: str, engine: Engine, exported: Callable[..., Exported]) -> None:
    folder = exported(name, engine).folder
    config = config_of(folder)
    assert {key: config[key] for key in HF_TOP} == HF_TOP
    assert {key: config["vision_config"][key] for key in HF_VISION} == HF_VISION
    assert config["vision_config"].keys() >= HF_VISION_KEYS
    assert config["text_config"]["architectures"] == ["LlamaForCausalLM"]
    names = language_files(folder)
    assert all(HF_NAMES.fullmatch(found) for found in names)
    assert "language_model.lm_head.weight" in names
    pixels = json.loads((folder / "preprocessor_config.json").read_bytes())
    assert pixels["image_processor_type"] == "GotOcr2ImageProcessorFast"
    assert pixels["size"] == {"height": TILE_SIZE, "width": TILE_SIZE}
    # vLLM counts an image's tokens with this, not with the processor's own default.
    assert pixels["crop_to_patches"] is True
    tokens = json.loads((folder / "tokenizer_config.json").read_bytes())
    assert tokens["extra_special_tokens"].keys() == {
        *("start_image_token", "end_image_token", "context_image_token", "video_token")
    }
    assert tokens["eos_token"] == "<|im_end|>"
    generation = json.loads((folder / "generation_config.json").read_bytes())
    assert generation["eos_token_id"] == config["text_config"]["eos_token_id"]
    # vLLM, SGLang and LMDeploy ignore do_sample. transformers warns of a top_k that it ignores.
    assert generation["do_sample"] is False
    assert generation.get("top_k") == (None if engine == "hf" else 1)


@pytest.mark.parametrize("engine", ENGINES)
def test_positions_are_scaled_by_engines_that_scale_long_prompts_alone(
    engine: Engine, exported: Callable[..., Exported]
) -> None:
    """vLLM (dynamic_ntk_scaling_rope.py before pull request 41277) and SGLang (rope_variant.py)
    compute one base for all prompts from the factor."""
    made = exported("internlm2-300m", engine)
    language = config_of(made.artifact / "language")
    assert language["rope_scaling"]["type"] == "dynamic"
    config = config_of(made.folder)
    found = config["llm_config" if engine == "sglang" else "text_config"]
    kept = language["rope_scaling"] if engine in ("hf", "lmdeploy") else None
    assert found["rope_scaling"] == kept
    assert found["rope_theta"] == language["rope_theta"]
    assert found["max_position_embeddings"] == language["max_position_embeddings"]


def test_long_rope_has_the_keys_that_transformers_4_demands(
    exported: Callable[..., Exported],
) -> None:
    """configuration_phi3.py of transformers 4.57: exactly these three."""
    text = config_of(exported("phi3-300m", "vllm").folder)["text_config"]
    assert text["rope_scaling"].keys() == {"type", "short_factor", "long_factor"}
    assert text["rope_scaling"]["type"] == "longrope"


@pytest.mark.parametrize(("variant", "layout"), [("w4a16", "pack"), ("fp8", "float")])
def test_quantized_linears_are_those_that_the_config_names(
    variant: str, layout: str, exported: Callable[..., Exported]
) -> None:
    folder = exported("internlm2-300m", "hf", variant).folder
    config = config_of(folder)
    # vLLM, SGLang and LMDeploy look at the top first.
    assert "quantization_config" not in config["text_config"]
    settings = config["quantization_config"]
    assert settings["quant_method"] == "compressed-tensors"
    assert settings["format"] == f"{layout}-quantized"
    assert settings["config_groups"]["group_0"]["targets"] == ["Linear"]
    names = language_files(folder)
    weights = {name.removesuffix("_scale") for name in names if name.endswith("weight_scale")}
    quantized = {name.removesuffix(".weight") for name in weights}
    linears = {
        name.rpartition(".")[0]
        for name in names
        if name.endswith((".weight", ".weight_packed"))
        and re.search("proj|fc|linear|lm_head", name)
    } - {"vision_tower.embeddings.patch_embeddings.projection"}
    patterns = [pattern.removeprefix("re:") for pattern in settings["ignore"]]
    ignored = {name for name in linears if any(re.match(p, name) for p in patterns)}
    assert quantized == linears - ignored and quantized
    # Modules have other names in transformers (model.language_model.layers) and in vLLM.
    renamed = {name.replace("language_model.model.", "model.language_model.") for name in quantized}
    assert not {name for name in renamed if any(re.match(p, name) for p in patterns)}


@pytest.mark.parametrize("name", ["internlm2-300m", "llama-yi-6b", "qwen2-300m"])
def test_sglang_layout(name: str, exported: Callable[..., Exported]) -> None:
    made = exported(name, "sglang")
    config = config_of(made.folder)
    assert {key: config[key] for key in CHAT_TOP} == CHAT_TOP
    assert config["vision_config"].keys() >= CHAT_VISION_KEYS
    # Its InternVL has no Llama, which is a Qwen2 with biases of zeros.
    assert config["llm_config"]["architectures"] == ["Qwen2ForCausalLM"]
    assert config["template"] and "auto_map" not in config
    # It counts these, and adds one for each image where they are missing.
    template = (made.folder / "chat_template.jinja").read_text(encoding="utf-8")
    assert "<image>\\n" in template and "<IMG_CONTEXT>" not in template
    names = language_files(made.folder)
    assert "vision_model.encoder.layers.0.attn.qkv.weight" in names
    assert "language_model.model.layers.0.self_attn.k_proj.bias" in names
    assert not (made.folder / "preprocessor_config.json").exists()


@pytest.mark.parametrize("name", ["internlm2-300m", "llama-yi-6b"])
def test_sglang_weights_compute_the_same(name: str, exported: Callable[..., Exported]) -> None:
    """The original layout with a Qwen2 is one that vlmc reads itself."""
    made = exported(name, "sglang")
    ids = list(range(3, 40))
    expected = logits(made.artifact, ids)
    with open_checkpoint(made.folder) as checkpoint:
        assert set(checkpoint.weights) == set(original_shapes(checkpoint.config))
        values = config_of(made.folder)["llm_config"]
        decoder = load_decoder(
            parse_language_config(values, made.folder / "config.json"),
            (
                (tensor.removeprefix("language_model."), checkpoint.weights.tensor(tensor))
                for tensor in checkpoint.weights
                if tensor.startswith("language_model.")
            ),
            dtype=torch.float32,
            device="cpu",
        )
    with torch.inference_mode():
        found = decoder.logits(decoder(decoder.embed_tokens(torch.tensor([ids]))))[0]
    torch.testing.assert_close(found, expected)


def test_sglang_biases_of_quantized_linears(exported: Callable[..., Exported]) -> None:
    names = language_files(exported("internlm2-300m", "sglang", "fp8").folder)
    bias = "language_model.model.layers.1.self_attn.q_proj.bias"
    assert read_tensor(names[bias], bias).dtype == torch.float32
    assert not read_tensor(names[bias], bias).any()


@pytest.mark.parametrize("engine", ["sglang", "lmdeploy"])
def test_bos_comes_from_the_template_alone(
    engine: Engine, exported: Callable[..., Exported]
) -> None:
    """Both tokenize the rendered template as any text, which would add a second BOS."""
    from tokenizers import Tokenizer

    for name in ("internlm2-300m", "llama-llama3-6b"):
        folder = exported(name, engine).folder
        text = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        settings = json.loads((folder / "tokenizer_config.json").read_bytes())
        made = Tokenizer.from_file(str(folder / "tokenizer.json"))
        assert f'"{settings["bos_token"]}"' in text
        assert made.encode("a").ids == made.encode("a", add_special_tokens=False).ids
