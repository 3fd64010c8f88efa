"""An original InternVL2 checkpoint, opened and checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from vlmc.checkpoint.config import ModelConfig, read_config
from vlmc.checkpoint.layout import check_layout
from vlmc.checkpoint.weight_files import check_adapter
from vlmc.checkpoint.weights import Weights
from vlmc.errors import CheckpointError
from vlmc.text.tokenizer import Tokenizer, load_tokenizer

# As safetensors names them, and as config.json does.
DTYPE_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Configuration, tokenizer and memory-mapped weights that agree with each other."""

    folder: Path
    config: ModelConfig
    tokenizer: Tokenizer
    weights: Weights

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.weights.__exit__(kind, error, trace)


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open a checkpoint folder in the original OpenGVLab layout; reads headers only.

    Raises:
        CheckpointError: something is missing, damaged or does not fit together; the message says
            what was found, what was expected, and in which file.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is not a folder. model.checkpoint names the local folder of an original "
            "InternVL2 model; vlmc downloads nothing."
        )
    check_adapter(folder)
    config = read_config(folder)
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size > config.language.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, but llm_config.vocab_size "
            f"in config.json is {config.language.vocab_size}, so ids from "
            f"{config.language.vocab_size} up have no embedding. Tokenizer and model do not belong "
            "together."
        )
    weights = Weights(folder)
    try:
        check_layout(weights, config)
        if config.dtype == "auto":
            config = replace(config, dtype=_own_dtype(weights))
    except BaseException:
        weights.__exit__(None, None, None)
        raise
    return Checkpoint(folder, config, tokenizer, weights)


def _own_dtype(weights: Weights) -> str:
    """What the language model's dense weights are stored in, where config.json does not say it.

    Raises:
        CheckpointError: they are stored in several.
    """
    found: dict[str, str] = {}
    for name in weights:
        dtype = weights.dtype(name)
        if name.startswith("language_model.") and dtype in DTYPE_NAMES:
            found.setdefault(dtype, name)
    if len(found) > 1:
        (first, one), (second, other), *_ = sorted(found.items())
        raise CheckpointError(
            f"{weights.folder}: config.json has no torch_dtype (or dtype), and the weights are "
            f"stored in several: {one} is {first}, {other} is {second}. Write the one that the "
            'model is to compute in into config.json, such as "torch_dtype": "bfloat16".'
        )
    return DTYPE_NAMES[next(iter(found))]
