"""The language model of an artifact: its weights, its kernels, its prompts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from vlmc.artifact.integrity import Artifact
from vlmc.checkpoint.config import LanguageConfig, read_language_config, read_values
from vlmc.checkpoint.quantization import Quantization, find_quantization
from vlmc.checkpoint.safetensors_file import open_safetensors
from vlmc.distributed.group import ALONE, Group
from vlmc.errors import CheckpointError, IntegrityError
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.load import load_decoder
from vlmc.progress.channel import notes_on_stderr
from vlmc.runtime.engines.language_kernels import install_kernels
from vlmc.text.prompt import PromptBuilder
from vlmc.text.template import TEMPLATES
from vlmc.text.tokenizer import Tokenizer, load_tokenizer


def open_language(
    artifact: Artifact, device: torch.device, group: Group = ALONE
) -> tuple[Decoder, PromptBuilder]:
    """The language model of an artifact on the device, or this rank's shard of it, with its
    kernels, and its prompts.

    Raises:
        IntegrityError: its files are not as a build leaves them.
    """
    manifest = artifact.manifest
    dtype: torch.dtype = getattr(torch, manifest.language_dtype)
    template = TEMPLATES[manifest.prompt.template]
    with _as_built(artifact):
        tokenizer, decoder = _language(artifact, dtype, device, group)
        prompts = PromptBuilder(
            tokenizer, template, manifest.prompt.system_message, manifest.image.tokens_per_tile
        )
    install_kernels(artifact, device)
    return decoder, prompts


def read_sizes(artifact: Artifact) -> tuple[LanguageConfig, Quantization | None]:
    """Sizes of an artifact's language model, and how its linears are stored.

    Raises:
        IntegrityError: its files are not as a build leaves them.
    """
    path = artifact.folder / "language" / "config.json"
    with _as_built(artifact):
        return read_language_config(path), find_quantization(read_values(path), path)


@contextmanager
def _as_built(artifact: Artifact) -> Iterator[None]:
    """Report a bad checkpoint as a bad artifact: its files are unchanged, but not from a build."""
    try:
        yield
    except CheckpointError as error:
        raise IntegrityError(
            f"{artifact.folder} is not what vlmc builds, though its files are what its manifest "
            f"says: it was made or changed by other means. Build it again. {error}"
        ) from error


def _language(
    artifact: Artifact, dtype: torch.dtype, device: torch.device, group: Group
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
    tokens = tokenizer.vocab_size
    return tokenizer, load_language(folder, dtype, device, tokens=tokens, group=group)


def load_language(
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    *,
    tokens: int | None = None,
    group: Group = ALONE,
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
                group=group,
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
