"""The steps that make the artifact's language folder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from vlmc.build.ingredients import tool_versions, weight_files
from vlmc.build.resolve import Resolved
from vlmc.build.step import Step
from vlmc.checkpoint.huggingface import language_config_json
from vlmc.checkpoint.source import Checkpoint
from vlmc.compile.calibration_set import CalibrationSet
from vlmc.compile.settings import copy_tokenizer, write_settings
from vlmc.text.prompt import PromptBuilder
from vlmc.text.template import TEMPLATES
from vlmc.text.tokenizer import TOKENIZER_FILES


def language_steps(
    resolved: Resolved,
    checkpoint: Checkpoint,
    digests: Mapping[str, str],
    samples: CalibrationSet | None,
) -> list[Step]:
    """Settings, tokenizer and weights of the language model."""
    config, tokenizer = checkpoint.config.language, checkpoint.tokenizer
    prompts = PromptBuilder(tokenizer, TEMPLATES[resolved.template], resolved.system_message)
    dtype = resolved.language_dtype
    settings = language_config_json(
        config,
        dtype=dtype,
        bos_id=tokenizer.bos_id,
        eos_id=prompts.stop_id,
        pad_id=tokenizer.pad_id,
    )
    layout = {
        "architecture": config.architecture,
        "kv_heads": config.kv_heads,
        "head_dim": config.head_dim,
    }
    inputs = weight_files(checkpoint, ("language_model.",), digests)
    files = {name: digests[name] for name in TOKENIZER_FILES if name in digests}

    def weights(folder: Path) -> None:

        from vlmc.compile.language import write_weights

        write_weights(checkpoint, folder, dtype)

    return [
        Step(
            name="language.settings",
            version=1,
            inputs={},
            parameters=settings,
            tools={},
            work=partial(write_settings, settings),
        ),
        Step(
            name="language.tokenizer",
            version=1,
            inputs=files,
            parameters={},
            tools={},
            work=partial(copy_tokenizer, checkpoint.folder),
        ),
        Step(
            name="language.weights",
            version=1,
            inputs=inputs,
            parameters=layout | {"dtype": dtype},
            tools=tool_versions("torch", "safetensors"),
            work=weights,
        ),
    ]
