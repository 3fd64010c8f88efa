"""From a trainer's output to the prompts and answers of the original model.

Every layout of one model gives the prompt ids and greedy tokens that the original code computed
for it (fp32, CPU), or says what to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests import oracle
from tests.checkpoint import edit
from tests.checkpoint.trained import LAYOUTS
from tests.models.loaded import embed_chat, load, prompt_of
from vlmc.checkpoint.source import open_checkpoint
from vlmc.errors import CheckpointError
from vlmc.models.language.reference_loop import Sampling, generate, prefill

Folder = Callable[[str], Path]
KINDS = {
    "internlm2-300m": "internlm2",
    "qwen2-300m": "qwen2",
    "phi3-300m": "phi3",
    "llama-llama3-6b": "llama3",
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", KINDS)
@torch.inference_mode()
def test_prompts_and_answers_are_the_originals(
    name: str, layout: str, miniatures: Folder, tmp_path: Path
) -> None:
    folder = LAYOUTS[layout](miniatures(name), tmp_path / "made", KINDS[name])
    loaded, chat = load(folder), oracle.chat(name, "one")
    assert list(prompt_of(loaded, chat).ids) == chat.ids
    embedded = embed_chat(folder, loaded, chat)
    start = prefill(loaded.decoder, [embedded], 0, reserve_tokens=16)
    (found,) = generate(loaded.decoder, start, Sampling(16), loaded.prompts.stop_id)
    # Where the two best logits are nearer than rounding, the order of sums decides.
    clear = next((i for i, gap in enumerate(chat.gaps) if gap < 1e-3), len(chat.gaps))
    assert clear >= 8
    assert list(found[:clear]) == chat.new_ids[:clear]


def test_plain_prefixes_are_read_where_no_name_is_taken(editable: Path) -> None:
    values = edit.tensors(editable)
    names = set(values)
    for prefix in ("base_model.model.", "_orig_mod.", "module._orig_mod."):
        edit.write_tensors(editable, {prefix + name: value for name, value in values.items()})
        with open_checkpoint(editable) as checkpoint:
            assert set(checkpoint.weights) == names
    norm = "language_model.model.norm.weight"
    edit.write_tensors(editable, values | {f"module.{norm}": values[norm].clone()})
    assert f"{norm} and module.{norm}, which are the same tensor" in refused(editable)


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


ADAPTER = {"base_model_name_or_path": "OpenGVLab/InternVL2-8B", "r": 8, "lora_alpha": 16}


def test_an_unmerged_peft_adapter_says_how_to_merge_it(editable: Path, tmp_path: Path) -> None:
    alone = tmp_path / "adapter"
    alone.mkdir()
    for folder in (alone, editable):
        (folder / "adapter_config.json").write_text(json.dumps(ADAPTER))
        (folder / "adapter_model.safetensors").write_bytes(b"")
    message = refused(alone)
    assert "holds a PEFT adapter (adapter_config.json) and not the model" in message
    assert "'OpenGVLab/InternVL2-8B'" in message and "merge_and_unload()" in message
    message = refused(editable)
    assert "holds a model (model.safetensors) and a PEFT adapter" in message
    assert "merged in already" in message and "move adapter_config.json" in message


WQKV = "language_model.model.layers.0.attention.wqkv"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (f"{WQKV}.base_layer.base_layer.weight", "wrapped around a model with LoRA"),
        (f"{WQKV}.base_layer.lora_A.default.weight", "wrapped around a model with LoRA"),
        (
            WQKV.replace("model.", "model.base_model.model.base_model.model.", 1)
            + ".lora_A.default.weight",
            "wrapped around a model with LoRA",
        ),
        (f"base_model.model.{WQKV}.lora_A.default.weight", "lora_alpha"),
    ],
)
def test_lora_that_cannot_be_scaled_has_its_true_reason(
    name: str, reason: str, editable: Path
) -> None:
    edit.edit_tensors(editable, {name: torch.zeros(4, 64)})
    message = refused(editable)
    assert name in message and reason in message
    assert "incomplete" not in message


HEAD, TABLE = "language_model.output.weight", "language_model.model.tok_embeddings.weight"


def test_a_tied_head_is_the_embedding(editable: Path) -> None:
    edit.edit_tensors(editable, {HEAD: None})
    message = refused(editable)
    assert f"lacks {HEAD}" in message and "tie_word_embeddings" in message
    assert "incomplete" not in message
    edit.edit_config(editable, {"llm_config.tie_word_embeddings": True})
    with open_checkpoint(editable) as checkpoint:
        weights = checkpoint.weights
        assert torch.equal(weights.tensor(HEAD), weights.tensor(TABLE))
        assert HEAD in list(weights)


def test_a_tied_head_that_differs_is_refused_with_both_readings(editable: Path) -> None:
    edit.edit_config(editable, {"llm_config.tie_word_embeddings": True})
    message = refused(editable)
    assert f"but {HEAD} and {TABLE} differ" in message
    edit.edit_tensors(editable, {HEAD: edit.tensors(editable)[TABLE]})
    open_checkpoint(editable).weights.__exit__(None, None, None)


def test_two_sets_of_weights_are_both_named(sharded: Path) -> None:
    (sharded / edit.SINGLE).write_bytes(b"")
    message = refused(sharded)
    assert (
        f"holds {edit.SINGLE} and {edit.INDEX}, which names 3 other files, first model-0" in message
    )


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.model"])
def test_a_git_lfs_pointer_is_called_one(name: str, editable: Path) -> None:
    (editable / name).write_bytes(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4411571040\n"
    )
    message = refused(editable)
    assert name in message and "Git LFS pointer" in message and "git lfs pull" in message


def test_without_a_dtype_key_the_weights_own_decides(editable: Path) -> None:
    keys = ("torch_dtype", "llm_config.torch_dtype", "vision_config.torch_dtype")
    edit.edit_config(editable, dict.fromkeys(keys, ...))
    with open_checkpoint(editable) as checkpoint:
        assert checkpoint.config.dtype == "bfloat16"
    values = edit.tensors(editable)
    edit.write_tensors(editable, {name: value.half() for name, value in values.items()})
    with open_checkpoint(editable) as checkpoint:
        assert checkpoint.config.dtype == "float16"
    edit.edit_tensors(editable, {HEAD: values[HEAD]})
    message = refused(editable)
    assert f"stored in several: {HEAD} is BF16" in message and "is F16" in message
