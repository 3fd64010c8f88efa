"""Load an artifact: check it, choose an engine that fits the machine, read the weights once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from vlmc.artifact.integrity import Artifact, open_artifact
from vlmc.artifact.manifest import RuntimeRules
from vlmc.checkpoint.config import read_language_config, read_values
from vlmc.checkpoint.quantization import find_quantization
from vlmc.checkpoint.safetensors_file import open_safetensors
from vlmc.errors import CheckpointError, IntegrityError, UsageError
from vlmc.image.tiles import TileRule, parse_tiles
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.load import load_decoder
from vlmc.progress.channel import notes_on_stderr
from vlmc.runtime.assemble import assemble
from vlmc.runtime.engines.language_kernels import install_kernels
from vlmc.runtime.engines.selection import choose, find_device, open_engine
from vlmc.runtime.engines.self_test import check_golden
from vlmc.runtime.model import Model
from vlmc.text.prompt import PromptBuilder
from vlmc.text.template import TEMPLATES
from vlmc.text.tokenizer import Tokenizer, load_tokenizer


def load(
    artifact: str | Path | Artifact,
    *,
    device: str = "auto",
    tiles: str | TileRule | None = None,
    engine: str | None = None,
    runtime: RuntimeRules | None = None,
    self_test: bool = True,
) -> Model:
    """Load an artifact folder.

    Args:
        artifact: the folder that `vlmc build` wrote, or the link to it. Where several processes
            load one artifact, `vlmc.open_artifact(folder)` in the first checks the hashes for all:
            give its result to the others and load that.
        device: `cpu`, `cuda`, `cuda:1`, or `auto`: the GPU where there is one, else the CPU.
        tiles: another tile rule than the artifact's, such as `native:max=4`.
        engine: the vision engine by name; without, the first of the artifact that runs on the
            device. `onnxruntime` runs the artifact's graph on the CPU, beside a language model
            on the GPU too.
        runtime: other rules for CUDA graphs, reuse and batches than the artifact's.
        self_test: whether the engine must reproduce the golden features before its first use on
            a machine; without, for who measures how far off it is.

    Raises:
        IntegrityError: a file is not what the manifest says, or no build of vlmc wrote it so.
        HardwareError: no engine of the artifact runs on the device, or its features are wrong.
        UsageError: an argument is of the wrong type, or `device` or `tiles` cannot be read.

    >>> from vlmc import load
    >>> with load("artifacts/quickstart", device="cpu", tiles="single") as model:
    ...     (answer,) = model.generate([("room.jpg", "Is a hard hat visible?")])
    >>> answer.image_tokens, len(answer.token_ids) <= 5
    (256, True)
    """
    for name, value in (("device", device), ("tiles", tiles), ("engine", engine)):
        if not isinstance(value, str | TileRule | None):
            raise UsageError(f"{name} is {value!r:.100}; it must be a text")
    if not isinstance(runtime, RuntimeRules | None):
        raise UsageError(f"runtime is {runtime!r:.100}; it must be RuntimeRules")
    opened = artifact.confirmed() if isinstance(artifact, Artifact) else open_artifact(artifact)
    rules = opened.manifest.image
    rule = parse_tiles(tiles, rules.published) if isinstance(tiles, str) else tiles or rules.tiles
    target = find_device(device)
    chosen = choose(opened.manifest, opened.folder, target, engine)
    decoder, prompts = open_language(opened, target)
    vision = open_engine(opened, chosen, target)
    if self_test:
        check_golden(opened, chosen, vision)
    serving = opened.manifest.runtime if runtime is None else runtime
    return assemble(opened, decoder, prompts, vision, chosen, tiles=rule, rules=serving)


def open_language(artifact: Artifact, device: torch.device) -> tuple[Decoder, PromptBuilder]:
    """The language model of an artifact on the device, with its kernels, and its prompts.

    Raises:
        IntegrityError: its files are not as a build leaves them.
    """
    manifest = artifact.manifest
    dtype: torch.dtype = getattr(torch, manifest.language_dtype)
    template = TEMPLATES[manifest.prompt.template]
    with _as_built(artifact):
        tokenizer, decoder = _language(artifact, dtype, device)
        prompts = PromptBuilder(
            tokenizer, template, manifest.prompt.system_message, manifest.image.tokens_per_tile
        )
    install_kernels(artifact, device)
    return decoder, prompts


@contextmanager
def _as_built(artifact: Artifact) -> Iterator[None]:
    """Take what would be a bad checkpoint for a bad artifact: its files are as its maker left
    them, and no build leaves such."""
    try:
        yield
    except CheckpointError as error:
        raise IntegrityError(
            f"{artifact.folder} is not what vlmc builds, though its files are what its manifest "
            f"says: it was made or changed by other means. Build it again. {error}"
        ) from error


def _language(
    artifact: Artifact, dtype: torch.dtype, device: torch.device
) -> tuple[Tokenizer, Decoder]:
    """Tokenizer and language model, which must belong together."""
    folder = artifact.folder / "language"
    tokenizer = load_tokenizer(folder)
    config = read_language_config(folder / "config.json")
    expected = artifact.manifest.hidden_size
    if tokenizer.vocab_size > config.vocab_size or config.hidden_size != expected:
        raise CheckpointError(
            f"{folder}: config.json has vocab_size {config.vocab_size} and hidden_size "
            f"{config.hidden_size}, the tokenizer has {tokenizer.vocab_size} tokens, and the "
            f"manifest's hidden_size is {expected}"
        )
    return tokenizer, load_language(folder, dtype, device, tokens=tokenizer.vocab_size)


def load_language(
    folder: Path, dtype: torch.dtype, device: torch.device, *, tokens: int | None = None
) -> Decoder:
    """The language model of an artifact's folder, quantized as its config.json says.

    `tokens` is the size of the tokenizer's vocabulary.

    Raises:
        CheckpointError: the weights and config.json disagree, or values are not finite; the
            message names tensor and file.
        HardwareError: the device cannot run the layout.
    """
    path = folder / "config.json"
    tensors = _Tensors(folder)
    try:
        with notes_on_stderr():
            return load_decoder(
                read_language_config(path),
                tensors,
                dtype=dtype,
                device=device,
                quantization=find_quantization(read_values(path), path),
                tokens=tokens,
            )
    except CheckpointError as error:
        if tensors.file is None:
            raise
        raise CheckpointError(f"{tensors.file}: {error}") from error


class _Tensors:
    """Every tensor of a folder's safetensors files, mapped, one at a time.

    `file` is the one that is read at the time, after the last the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file: Path | None = None

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for path in sorted(self.folder.glob("*.safetensors")):
            self.file = path
            with open_safetensors(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 - it is no mapping and has no iterator
                    yield name, file.get_tensor(name)
        self.file = self.folder
