"""Features, logits and answers of the original model on the miniatures."""

from __future__ import annotations

import hashlib
import itertools
import re
import tempfile
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from tests.data.oracle.cases import BATCH, CASES, PICTURES, Case, Picture
from tests.miniature import MINIATURES, write_miniature
from tests.miniature.configuration import Tokenizer

NEW_TOKENS = 16
TOP = 5
TOKENIZER_OF: dict[str, Tokenizer] = {
    "InternLM2ForCausalLM": "internlm2",
    "Qwen2ForCausalLM": "qwen2",
    "Phi3ForCausalLM": "phi3",
}


@dataclass(slots=True)
class Recorder:
    """Stands in for the tokenizer and the language model's `generate`, and notes both calls."""

    tokenizer: Any
    language: Any
    texts: list[str] = field(default_factory=list)
    ids: list[Any] = field(default_factory=list)
    embeddings: list[torch.Tensor] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    padding_side: str = "left"  # batch_chat sets it, always to this

    def __call__(self, text: Any, **settings: Any) -> Any:
        encoded = self.tokenizer(text, **settings)
        self.texts.append(text)
        self.ids.append(encoded["input_ids"])
        return encoded

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def generate(self, **settings: Any) -> torch.Tensor:
        """Calls the class's own `generate` for its scores too, and returns the sequences."""
        output = type(self.language).generate(
            self.language, **settings, return_dict_in_generate=True, output_scores=True
        )
        self.embeddings.append(settings["inputs_embeds"])
        self.outputs.append(output)
        sequences: torch.Tensor = output.sequences
        return sequences


def write_models(
    original: types.SimpleNamespace, folder: Path, images: Path
) -> dict[str, list[Any]]:
    """Writes `<miniature>.npz` into `folder`; returns the chats by the miniature's name."""
    chats: dict[str, list[Any]] = {}
    for name in MINIATURES:
        with tempfile.TemporaryDirectory() as place:
            checkpoint = write_miniature(Path(place) / name, name)
            chats[name], arrays = record(original, name, checkpoint, images)
        save: Any = np.savez_compressed
        save(folder / f"{name}.npz", **arrays)
        print(name, [(row["case"], row["prompt_tokens"], row["answer"]) for row in chats[name]])
    return chats


def record(
    original: types.SimpleNamespace, name: str, checkpoint: Path, images: Path
) -> tuple[list[Any], dict[str, NDArray[Any]]]:
    """The chats and arrays of one miniature."""
    miniature = MINIATURES[name]
    kind = miniature.tokenizer or TOKENIZER_OF[miniature.architecture]
    tokenizer = original.tokenizers[kind].from_pretrained(str(checkpoint))
    arrays: dict[str, NDArray[Any]] = {}
    for picture in PICTURES:
        stack = pixels(original, images, (picture,))[0]
        arrays |= features(load(original, checkpoint), picture, stack)
    rows = []
    for case in CASES:
        if (case.only and name not in case.only) or name in case.without:
            continue
        row, values = chat(original, checkpoint, tokenizer, case, images)
        rows.append(row)
        arrays |= values
    if name in BATCH.only:
        rows.append(batch(original, load(original, checkpoint), tokenizer, images))
    return rows, arrays


def load(original: types.SimpleNamespace, checkpoint: Path) -> Any:
    """The original model in fp32 on the CPU with eager attention.

    Loaded anew for every call, for InternLM2's dynamic rotation keeps the longest length that any
    earlier call has reached.
    """
    config = original.config.from_pretrained(str(checkpoint))
    model = original.model(config, use_flash_attn=False)
    state: dict[str, torch.Tensor] = {}
    for file in sorted(checkpoint.glob("*.safetensors")):
        state |= load_file(file)
    model.load_state_dict({key: value.float() for key, value in state.items()})
    return model.float().eval()


def pixels(
    original: types.SimpleNamespace, images: Path, pictures: tuple[Picture, ...]
) -> list[torch.Tensor]:
    """The normalized tiles of each picture, (tiles, 3, 448, 448) float32."""
    stacks = []
    for picture in pictures:
        image = Image.open(images / picture.image).convert("RGB")
        parts = original.dynamic_preprocess(
            image, min_num=1, max_num=picture.max_num, image_size=448, use_thumbnail=True
        )
        stacks.append(torch.stack([original.transform(part) for part in parts]))
    return stacks


@torch.no_grad()
def features(model: Any, picture: Picture, tiles: torch.Tensor) -> dict[str, NDArray[Any]]:
    """Parts of the tower's output and of the features, small enough to be committed."""
    hidden = model.vision_model(pixel_values=tiles, return_dict=True).last_hidden_state
    values = model.extract_feature(tiles)
    key = f"features/{picture.image}@{picture.max_num}"
    return {
        f"{key}/tower_rows": hidden[:, [0, 1, 500, 1024]].numpy(),
        f"{key}/rows": values[:, [0, 17, 255]].numpy(),
        f"{key}/token_means": values.double().mean(dim=2).float().numpy(),
        f"{key}/channel_means": values.double().mean(dim=1).float().numpy(),
        f"{key}/sums": values.double().sum(dim=(1, 2)).numpy(),
        f"{key}/square_sums": values.double().square().sum(dim=(1, 2)).numpy(),
    }


@torch.no_grad()
def chat(
    original: types.SimpleNamespace,
    checkpoint: Path,
    tokenizer: Any,
    case: Case,
    images: Path,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """One `chat()` call: what went in and came out, and its logits."""
    stacks = pixels(original, images, case.pictures)
    model = load(original, checkpoint)
    recorder = Recorder(tokenizer, model.language_model)
    model.language_model.generate = recorder.generate
    counts = [len(stack) for stack in stacks]
    answer = model.chat(
        recorder,
        torch.cat(stacks) if stacks else None,
        case.question,
        {"max_new_tokens": NEW_TOKENS, "do_sample": False},
        history=[tuple(turn) for turn in case.history] or None,
        num_patches_list=None if case.joined else counts,
    )
    ids = recorder.ids[0][0].tolist()
    scores = torch.stack(recorder.outputs[0].scores)[:, 0]  # (steps, vocabulary)
    new_ids = recorder.outputs[0].sequences[0, -len(scores) :].tolist()
    top = scores.topk(TOP, dim=1)
    prompt_logits = (
        load(original, checkpoint)
        .language_model(inputs_embeds=recorder.embeddings[0], use_cache=False, return_dict=True)
        .logits[0]
    )
    positions = [0, len(ids) // 3, 2 * len(ids) // 3, len(ids) - 1]
    row = {
        "case": case.name,
        "pictures": [[picture.image, picture.max_num] for picture in case.pictures],
        "question": case.question,
        "history": [list(turn) for turn in case.history],
        "joined": case.joined,
        "tiles": [sum(counts)] if case.joined and counts else counts,
        "prompt": re.sub("<img>(<IMG_CONTEXT>)*</img>", "<image>", recorder.texts[0]),
        "prompt_sha256": hashlib.sha256(recorder.texts[0].encode()).hexdigest(),
        "prompt_tokens": len(ids),
        "runs": runs(ids),
        "new_ids": new_ids,
        "gaps": [round(float(gap), 6) for gap in top.values[:, 0] - top.values[:, 1]],
        "answer": answer,
    }
    key = f"chats/{case.name}"
    values = {
        f"{key}/positions": np.array(positions, dtype=np.int32),
        f"{key}/logits": prompt_logits[positions].numpy(),
        f"{key}/top_ids": top.indices.numpy().astype(np.int32),
        f"{key}/top_logits": top.values.numpy(),
        f"{key}/final_logits": scores[-1].numpy(),
    }
    return row, values


def batch(
    original: types.SimpleNamespace, model: Any, tokenizer: Any, images: Path
) -> dict[str, Any]:
    """One `batch_chat()` call with left padding."""
    stacks = pixels(original, images, BATCH.pictures)
    tokenizer.padding_side = "left"
    recorder = Recorder(tokenizer, model.language_model)
    model.language_model.generate = recorder.generate
    answers = model.batch_chat(
        recorder,
        torch.cat(stacks),
        list(BATCH.questions),
        {"max_new_tokens": NEW_TOKENS, "do_sample": False},
        num_patches_list=[len(stack) for stack in stacks],
    )
    output = recorder.outputs[0]
    return {
        "case": "batch",
        "pictures": [[picture.image, picture.max_num] for picture in BATCH.pictures],
        "questions": list(BATCH.questions),
        "tiles": [len(stack) for stack in stacks],
        "prompt_tokens": recorder.ids[0].shape[1],
        "new_ids": output.sequences[:, -len(output.scores) :].tolist(),
        "answer": answers,
    }


def runs(ids: list[int]) -> list[list[int]]:
    """Run lengths [[id, count], …] of ids."""
    return [[number, len(list(group))] for number, group in itertools.groupby(ids)]
