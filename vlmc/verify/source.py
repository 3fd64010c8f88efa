"""The source model as it was published: what an artifact's answers and features are held to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmc.artifact.manifest import ImageRules, PromptRules
from vlmc.checkpoint.config import ModelConfig
from vlmc.checkpoint.huggingface import language_tensors, stored_quantization, tower_tensors
from vlmc.checkpoint.layout import quantized_bytes, quantized_linears
from vlmc.checkpoint.quantized import part_names
from vlmc.checkpoint.source import Checkpoint, open_checkpoint
from vlmc.errors import AccuracyError, HardwareError, VlmcError
from vlmc.files.hashing import files_sha256
from vlmc.image.tiles import TileRule
from vlmc.machine.memory import available_bytes
from vlmc.models.disable_tf32 import disable_tf32
from vlmc.models.language import reference_loop
from vlmc.models.language.load import load_decoder
from vlmc.models.language.reference_loop import Sampling
from vlmc.models.vision.load import load_tower
from vlmc.models.vision.tower import VisionTower, normalize_tiles
from vlmc.runtime.images.cache import KEPT_FEATURE_BYTES, ContentCache
from vlmc.runtime.images.prefetch import group_by_images, prefetch
from vlmc.runtime.images.prepare import PreparedRequest, Preparer
from vlmc.runtime.requests.request import PreparedImage
from vlmc.text.prompt import PromptBuilder
from vlmc.text.template import TEMPLATES
from vlmc.verify.dataset import Question

MAX_NEW_TOKENS = 5
"""Tokens of an answer, on both sides; the default of `vlmc run`."""
_BATCH_TILES = 4
# Beside the weights: activations of a batch of tiles, keys and values, the allocator's slack.
_WORKING_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class SourceAnswer:
    """The source's answer, and the log-probability of its first token: how sure it was."""

    text: str
    first_logprob: float


class SourceTower:
    """The checkpoint's tower in fp32, from uint8 tiles to features."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self.device = device
        tensors = tower_tensors(checkpoint.weights, checkpoint.config)
        self._tower: VisionTower = load_tower(
            checkpoint.config, tensors, dtype=torch.float32, device=device
        )

    @torch.inference_mode()
    def features(self, tiles: npt.NDArray[np.uint8]) -> Tensor:
        """uint8 (N, 448, 448, 3) → fp32 (N, 256, hidden) on the device, in true fp32."""
        with disable_tf32():
            parts = [
                self._tower(normalize_tiles(part.to(self.device), torch.float32))
                for part in torch.split(torch.from_numpy(tiles), _BATCH_TILES)
            ]
        return torch.cat(parts)


class Source:
    """A checkpoint with its own tile rule, Pillow, the fp32 tower, and its language model."""

    def __init__(
        self, checkpoint: Checkpoint, prompt: PromptRules, dtype: str, device: torch.device
    ) -> None:
        self.prompt, self.dtype = prompt, dtype
        self.rule = published_rule(checkpoint.config)
        self.tower = SourceTower(checkpoint, device)
        tokenizer = checkpoint.tokenizer
        template = TEMPLATES[prompt.template]
        self._prompts = PromptBuilder(tokenizer, template, prompt.system_message)
        rules = ImageRules("pillow", "ignore", self.rule, self.rule)
        self._preparer = Preparer(rules, self.rule, self._prompts)
        weights, config = checkpoint.weights, checkpoint.config
        self._decoder = load_decoder(
            config.language,
            language_tensors(weights, config.language, quantization=config.quantization),
            dtype=getattr(torch, dtype),
            device=device,
            quantization=stored_quantization(weights, config),
            tokens=tokenizer.vocab_size,
        )
        self._encoded: ContentCache[Tensor] = ContentCache(
            KEPT_FEATURE_BYTES, lambda features: features.nbytes
        )

    def answers(self, questions: Iterable[Question]) -> Iterator[SourceAnswer]:
        """Greedy answers in order.

        Raises:
            VlmcError: an image or a prompt is not usable.
            AccuracyError: the model's scores are NaN or infinite.
        """
        requests = (question.request for question in questions)
        with closing(prefetch(requests, self._preparer.request)) as prepared:
            for group in group_by_images(prepared):
                if isinstance(group, VlmcError):
                    raise group
                yield from self._answer(group)

    @torch.inference_mode()
    def _answer(self, group: list[PreparedRequest]) -> list[SourceAnswer]:
        features = [self._features(image) for image in group[0].images]
        rows = [
            reference_loop.embed(
                self._decoder, request.prompt_ids, request.image_token_id, features
            )
            for request in group
        ]
        start = reference_loop.prefill(
            self._decoder, rows, group[0].prefix_length, reserve_tokens=MAX_NEW_TOKENS
        )
        logprobs = start.logits.log_softmax(-1).amax(-1).tolist()
        tokens = reference_loop.generate(
            self._decoder, start, Sampling(MAX_NEW_TOKENS), self._prompts.stop_id
        )
        if not all(tokens):
            error = reference_loop.not_finite_error(self._decoder.embed_tokens.weight.dtype)
            raise AccuracyError(
                f"the source model cannot be compared with: {error} (Here the dtype is "
                f"accuracy.reference_dtype, and the source's is {self.dtype}.)"
            )
        return [
            SourceAnswer(self._prompts.answer_text(ids), logprob)
            for ids, logprob in zip(tokens, logprobs, strict=True)
        ]

    def _features(self, image: PreparedImage) -> Tensor:
        return self._encoded.get_or_compute(
            image.digest, lambda: self.tower.features(image.tiles).flatten(0, 1)
        )


def published_rule(config: ModelConfig) -> TileRule:
    """The tile rule that the checkpoint was published with."""
    return TileRule(
        "original", min=config.min_tiles, max=config.max_tiles, thumbnail=config.thumbnail
    )


def source_digests(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 by name of a checkpoint's files; those that are not there are left out."""
    sizes = {path: path.stat().st_size for path in files if path.is_file()}
    return {path.name: digest for path, digest in files_sha256(sizes).items()}


def open_source(folder: Path, prompt: PromptRules, dtype: str) -> Source:
    """Load the source model on the GPU where it fits, else on the CPU.

    `dtype` is the language model's, `auto` for the checkpoint's; the tower runs in fp32.

    Raises:
        CheckpointError: the checkpoint is damaged.
        HardwareError: it fits neither; says where to go.
    """
    with open_checkpoint(folder) as checkpoint:
        settled = checkpoint.config.dtype if dtype == "auto" else dtype
        device = fitting_device(checkpoint, getattr(torch, settled))
        return Source(checkpoint, prompt, settled, device)


def open_tower(folder: Path) -> tuple[SourceTower, TileRule]:
    """Load the source's tower alone, with the tile rule that it was published with.

    Raises:
        CheckpointError: the checkpoint is damaged.
        HardwareError: it fits neither on the GPU nor on the CPU.
    """
    with open_checkpoint(folder) as checkpoint:
        tower = SourceTower(checkpoint, fitting_device(checkpoint, None))
        return tower, published_rule(checkpoint.config)


def fitting_device(checkpoint: Checkpoint, dtype: torch.dtype | None) -> torch.device:
    """Where the fp32 tower fits, with the language model in `dtype` unless that is None.

    Raises:
        HardwareError: neither the GPU nor the CPU has the memory.
    """
    weights, needed = checkpoint.weights, _WORKING_BYTES
    for name in weights:
        if not name.startswith("language_model."):
            needed += 4 * math.prod(weights.shape(name))
    on_gpu = needed
    if dtype is not None:
        on_gpu += language_bytes(checkpoint, dtype, unpacked=False)
        needed += language_bytes(checkpoint, dtype, unpacked=True)
    if torch.cuda.is_available() and torch.cuda.mem_get_info()[0] >= on_gpu:
        return torch.device("cuda", torch.cuda.current_device())
    free = available_bytes()
    if free >= needed:
        return torch.device("cpu")
    raise HardwareError(
        f"the source model {checkpoint.folder} takes about {needed / 1e9:.1f} GB and this machine "
        f"has {free / 1e9:.1f} GB free. Run `vlmc verify reference RECIPE -o REF` on a machine "
        "where it fits, and give the file here with --reference."
    )


def language_bytes(checkpoint: Checkpoint, dtype: torch.dtype, *, unpacked: bool) -> int:
    """The language model in `dtype`, with its quantized linears as they are stored or `unpacked`,
    as a CPU multiplies them."""
    weights, config = checkpoint.weights, checkpoint.config
    quantized = quantized_linears(weights, config)
    parts = {name for linear in quantized for name in part_names(weights, linear)}
    others = (n for n in weights if n.startswith("language_model.") and n not in parts)
    dense = sum(math.prod(weights.shape(name)) for name in others)
    if unpacked:
        return dtype.itemsize * (dense + sum(map(math.prod, quantized.values())))
    return dtype.itemsize * dense + quantized_bytes(weights, config)
