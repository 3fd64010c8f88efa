"""The source model as published, which an artifact's answers and features are compared with."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmc.artifact.manifest import ImageRules, Profile, PromptRules, RuntimeRules
from vlmc.checkpoint.config import ModelConfig
from vlmc.checkpoint.huggingface import language_tensors, stored_quantization, tower_tensors
from vlmc.checkpoint.layout import quantized_bytes, quantized_linears
from vlmc.checkpoint.quantized import part_names
from vlmc.checkpoint.source import Checkpoint, open_checkpoint
from vlmc.errors import AccuracyError, HardwareError, NotFiniteError, UsageError
from vlmc.files.hashing import files_sha256
from vlmc.image.tiles import TOKENS_PER_TILE, TileRule
from vlmc.machine.memory import available_bytes
from vlmc.models.disable_tf32 import disable_tf32
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.load import load_decoder
from vlmc.models.vision.load import load_tower
from vlmc.models.vision.tower import VisionTower, normalize_tiles
from vlmc.runtime.dispatcher import Dispatcher
from vlmc.runtime.images.encoder import ImageEncoder
from vlmc.runtime.images.prepare import ImagePreparer, PreparedRequest, Preparer
from vlmc.runtime.memory_plan import cache_tokens
from vlmc.runtime.requests.outcome import in_order, raising
from vlmc.runtime.scheduler.sequence import Generated, Result, Sampling, Spent, TopTokens
from vlmc.runtime.scheduler.service import serve
from vlmc.text.prompt import PromptBuilder
from vlmc.text.template import TEMPLATES
from vlmc.verify.dataset import Question
from vlmc.verify.source_check import check_tokenizer, check_weights

MAX_NEW_TOKENS = 5
"""Tokens of an answer, on both sides; the default of `vlmc run`."""
TOP_TOKENS = 64
"""Tokens whose log-probabilities are compared at each position of an answer."""
PLAIN = RuntimeRules(cuda_graphs=False, prefix_cache="off")
"""Nothing of a request is reused for another."""
_BATCH_TILES = 4
# Beside the weights: activations of a batch of tiles, keys and values, the allocator's slack.
_WORKING_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class SourceAnswer:
    """The source's answer, and the log-probability of its first token: how sure it was.

    `top` has the `TOP_TOKENS` likeliest tokens at each position of `token_ids`, with their
    log-probabilities; both are empty in references of earlier versions.
    """

    text: str
    first_logprob: float
    token_ids: tuple[int, ...] = ()
    top: tuple[TopTokens, ...] = ()


class SourceTower:
    """The checkpoint's tower in fp32, as a vision engine: uint8 tiles to features."""

    name, precision = "source", "fp32"
    profiles = (Profile(1, _BATCH_TILES, _BATCH_TILES),)
    device_memory_bytes = 0

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self.device = device
        tensors = tower_tensors(checkpoint.weights, checkpoint.config)
        tower = load_tower(checkpoint.config, tensors, dtype=torch.float32, device=device)
        check_weights("vision tower", tower)
        self._tower: VisionTower | None = tower

    @torch.inference_mode()
    def infer(
        self, tiles: Tensor, out: Tensor | None = None, stream: torch.cuda.Stream | None = None
    ) -> Tensor:
        """See `VisionEngine`; in true fp32."""
        if self._tower is None:
            raise UsageError("the source's tower is closed")
        with disable_tf32(), torch.cuda.stream(stream):
            parts = [
                self._tower(normalize_tiles(part, torch.float32))
                for part in torch.split(tiles, _BATCH_TILES)
            ]
            features = torch.cat(parts)
            return features if out is None else out.copy_(features)

    def features(self, tiles: npt.NDArray[np.uint8]) -> Tensor:
        """uint8 (N, 448, 448, 3) → fp32 (N, 256, hidden) on the device."""
        return self.infer(torch.from_numpy(tiles).to(self.device))

    def close(self) -> None:
        """Free the weights."""
        self._tower = None


class Source:
    """A checkpoint with its own tile rule, Pillow, the fp32 tower, and its language model.

    Its questions run in batches, through the same scheduler as an artifact's.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        prompt: PromptRules,
        dtype: str,
        device: torch.device,
        *,
        reuse: bool = True,
    ) -> None:
        """With `reuse`, questions on the same images share the beginnings of their prompts."""
        rules = RuntimeRules(cuda_graphs=False) if reuse else PLAIN
        self.prompt, self.dtype = prompt, dtype
        self.rule = published_rule(checkpoint.config)
        self.tower = SourceTower(checkpoint, device)
        self.answer_seconds = math.nan  # until all were asked
        self._tokenizer = checkpoint.tokenizer
        self._prompts = self.prompts()
        weights, config = checkpoint.weights, checkpoint.config.language
        computed: torch.dtype = getattr(torch, dtype)
        decoder = load_decoder(
            config,
            language_tensors(weights, config, quantization=checkpoint.config.quantization),
            dtype=computed,
            device=device,
            quantization=stored_quantization(weights, checkpoint.config),
            tokens=self._tokenizer.vocab_size,
        )
        check_weights("language model", decoder)
        self._decoder: Decoder | None = decoder
        loop = serve(
            decoder,
            ImageEncoder(self.tower, hidden_size=config.hidden_size, dtype=computed, device=device),
            stop_id=self._prompts.stop_id,
            rules=rules,
            cache_tokens=cache_tokens(decoder, rules.max_batch_tokens),
        )
        self._dispatcher: Dispatcher | None = Dispatcher(
            Preparer(ImagePreparer(self.image_rules, self.rule), self._prompts),
            loop,
            config,
            prefix_cache=rules.prefix_cache,
            salt=_image_salt,
        )

    @property
    def decoder(self) -> Decoder:
        """The language model, for models that are assembled with it."""
        if self._decoder is None:
            raise UsageError("the source model is closed")
        return self._decoder

    @property
    def image_rules(self) -> ImageRules:
        """The published rule, with Pillow."""
        return ImageRules("pillow", "ignore", self.rule, self.rule)

    def prompts(self, tokens_per_tile: int = TOKENS_PER_TILE) -> PromptBuilder:
        """Prompts by the source's tokenizer."""
        template = TEMPLATES[self.prompt.template]
        return PromptBuilder(self._tokenizer, template, self.prompt.system_message, tokens_per_tile)

    def check_prompts(self, questions: Iterable[Question]) -> None:
        """Raise AccuracyError if the tokenizer does not keep a question's text."""
        check_tokenizer(self._tokenizer, (question.prompt for question in questions))

    def answers(self, questions: Iterable[Question]) -> Iterator[SourceAnswer]:
        """Greedy answers in order.

        Raises:
            VlmcError: an image or a prompt is not usable.
            AccuracyError: the model's scores are NaN or infinite.
        """
        dispatcher, start = self._dispatcher, time.perf_counter()
        if dispatcher is None:
            raise UsageError("the source model is closed")
        sampling = Sampling(MAX_NEW_TOKENS, top_logprobs=TOP_TOKENS)
        found = in_order(
            (question.request for question in questions),
            lambda request: dispatcher.run(request, sampling, self._answer),
            lambda: dispatcher.ahead,
        )
        try:
            yield from raising(found)
            self.answer_seconds = time.perf_counter() - start
        except NotFiniteError as error:
            raise AccuracyError(
                f"the source model cannot be compared with: {error} (Here the dtype is "
                f"accuracy.reference_dtype, and the source's is {self.dtype}.)"
            ) from error

    def stop(self) -> None:
        """Free threads, keys and values, and keep the weights."""
        if self._dispatcher is not None:
            self._dispatcher.close()
            self._dispatcher = None

    def close(self) -> None:
        """Free weights and threads."""
        self.stop()
        self.tower.close()
        self._decoder = None

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _answer(self, prepared: PreparedRequest, result: Result, spent: Spent) -> SourceAnswer:
        if not isinstance(result, Generated):
            raise TypeError(f"the loop gave {result!r} for an answer")
        return SourceAnswer(
            text=self._prompts.answer_text(result.token_ids),
            first_logprob=result.logprobs[0],
            token_ids=result.token_ids,
            top=result.top,
        )


def _image_salt(request: PreparedRequest) -> bytes:
    """Keeps prompts of different images apart even if their keys do not, so that an error there
    shows as a difference between source and artifact."""
    return b"source" + b"".join(image.digest for image in request.images)


def published_rule(config: ModelConfig) -> TileRule:
    """The tile rule that the checkpoint was published with."""
    return TileRule(
        "original", min=config.min_tiles, max=config.max_tiles, thumbnail=config.thumbnail
    )


def source_digests(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 by name of a checkpoint's files; those that are not there are left out."""
    sizes = {path: path.stat().st_size for path in files if path.is_file()}
    return {path.name: digest for path, digest in files_sha256(sizes).items()}


def open_source(folder: Path, prompt: PromptRules, dtype: str, *, reuse: bool = True) -> Source:
    """Load the source model on the GPU where it fits, else on the CPU.

    `dtype` is the language model's, `auto` for the checkpoint's; the tower runs in fp32. See
    `Source` for `reuse`.

    Raises:
        CheckpointError: the checkpoint is damaged.
        HardwareError: it fits neither; says where to go.
    """
    with open_checkpoint(folder) as checkpoint:
        settled = checkpoint.config.dtype if dtype == "auto" else dtype
        device = fitting_device(checkpoint, getattr(torch, settled))
        return Source(checkpoint, prompt, settled, device, reuse=reuse)


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
