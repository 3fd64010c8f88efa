"""The steps that make the artifact's language folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from vlmc.builder.steps.context import BuildContext
from vlmc.builder.steps.engines import package_targets
from vlmc.builder.steps.keyed import LANGUAGE_WEIGHTS, TOWER, keyed
from vlmc.builder.steps.language_kernels import kernels_step
from vlmc.builder.steps.step import REPORT, Step
from vlmc.builder.steps.step_key import tool_versions
from vlmc.checkpoint.huggingface import language_config_json, stored_quantization
from vlmc.compile.calibration.dataset import CalibrationSet
from vlmc.compile.language.hf_config import copy_tokenizer, write_hf_config
from vlmc.compile.language.quantization.settings import Settings
from vlmc.compile.language.quantization_config import fp8_config, stored_config, w4a16_config
from vlmc.recipe.fit import linear_layers
from vlmc.text.prompt import PromptBuilder
from vlmc.text.template import TEMPLATES
from vlmc.text.tokenizer import TOKENIZER_FILES

CALIBRATION = "language.calibration"


def language_steps(context: BuildContext) -> list[Step]:
    """Settings, tokenizer and weights of the language model."""
    resolved, checkpoint, digests = context.resolved, context.checkpoint, context.digests
    tokenizer = checkpoint.tokenizer
    prompts = PromptBuilder(
        tokenizer,
        TEMPLATES[resolved.template],
        resolved.system_message,
        resolved.image_rules.tokens_per_tile,
    )
    config = language_config_json(
        checkpoint.config.language,
        dtype=resolved.language_dtype,
        bos_id=tokenizer.bos_id,
        eos_id=prompts.stop_id,
        pad_id=tokenizer.pad_id,
    )
    files = {name: digests[name] for name in TOKENIZER_FILES if name in digests}
    match context.recipe.language.scheme:
        case "none":
            weights = _plain_weights(context)
            stored = stored_quantization(checkpoint.weights, checkpoint.config)
            if stored is not None:
                config |= {"quantization_config": stored_config(stored)}
            settings = _settings(config)
        case "fp8":
            kept = _kept(context)
            weights = _fp8_weights(context, kept)
            settings = _settings(config | {"quantization_config": fp8_config(kept)})
        case "w4a16":
            needs: tuple[Step, ...] = ()
            if context.samples is not None:
                needs = (_calibration(context, context.samples, prompts, files),)
            weights = _w4a16_weights(context, config, needs)
            settings = _w4a16_settings(context, config, weights)
    return [
        settings,
        Step(
            name="language.tokenizer",
            version=1,
            inputs=files,
            parameters={},
            tools={},
            work=partial(copy_tokenizer, checkpoint.folder),
        ),
        weights,
        *(
            kernels_step(
                target,
                checkpoint.config.language,
                resolved.language_scheme,
                resolved.language_dtype,
            )
            for target in package_targets(context.recipe.vision.engines)
        ),
    ]


def _settings(config: Mapping[str, object]) -> Step:
    return Step(
        name="language.settings",
        version=1,
        inputs={},
        parameters=config,
        tools={},
        work=partial(write_hf_config, config),
    )


def _w4a16_settings(context: BuildContext, config: Mapping[str, object], weights: Step) -> Step:
    """What could not be quantized is known only when the weights are there."""
    part = context.recipe.language
    group_size, symmetric = part.group_size, part.symmetric

    def settings(folder: Path, made: Path) -> None:
        from vlmc.compile.language.quantization.report import NAME
        from vlmc.compile.language.quantization.result import kept_names

        report = json.loads((made / REPORT / f"{NAME}.json").read_bytes())
        quantization = w4a16_config(group_size, symmetric, kept_names(report))
        write_hf_config({**config, "quantization_config": quantization}, folder)

    parameters = {**config, "group_size": group_size, "symmetric": symmetric}
    return replace(_settings(config), parameters=parameters, work=settings, needs=(weights,))


def _plain_weights(context: BuildContext) -> Step:
    dtype = context.resolved.language_dtype
    source, layout = keyed(context.checkpoint, LANGUAGE_WEIGHTS)

    def weights(folder: Path) -> None:
        from vlmc.compile.language.weights import write_weights

        write_weights(source, folder, dtype)

    return Step(
        name="language.weights",
        version=1,
        inputs=context.weight_files("language_model."),
        parameters=layout | {"dtype": dtype},
        tools=tool_versions("torch", "safetensors"),
        work=weights,
    )


def _fp8_weights(context: BuildContext, kept: list[str]) -> Step:
    plain = _plain_weights(context)
    dtype = context.resolved.language_dtype
    source, _ = keyed(context.checkpoint, LANGUAGE_WEIGHTS)

    def weights(folder: Path) -> None:
        from vlmc.compile.language.weights import write_fp8

        quantized = linear_layers(source.config.language).keys() - set(kept)
        write_fp8(source, folder, dtype, quantized)

    parameters = {**plain.parameters, "scheme": "fp8", "keep": kept}
    return replace(plain, parameters=parameters, work=weights)


def _w4a16_weights(
    context: BuildContext, config: Mapping[str, object], needs: tuple[Step, ...]
) -> Step:
    part = context.recipe.language
    source, layout = keyed(context.checkpoint, LANGUAGE_WEIGHTS)
    settings = Settings(
        method=part.method,
        group_size=part.group_size,
        symmetric=part.symmetric,
        dtype=context.resolved.language_dtype,
        layers=source.config.language.layers,
        keep=tuple(_kept(context)),
    )

    def weights(folder: Path, embeddings: Path | None = None) -> None:
        from vlmc.compile.language.weights import write_quantized

        samples = None if embeddings is None else str(embeddings.absolute())
        write_quantized(source, folder, replace(settings, samples=samples), config)

    return Step(
        name="language.weights",
        version=1,
        inputs=context.weight_files("language_model."),
        # Calibration runs through the rotary embedding, which the configuration describes.
        parameters={**layout, **asdict(settings), "config": config, "scheme": "w4a16"},
        tools=tool_versions(
            "torch", "safetensors", "transformers", "llmcompressor", "compressed-tensors"
        ),
        work=weights,
        needs=needs,
        # Sums of floats go by the machine's threads.
        reproducible=part.method == "rtn",
    )


def _calibration(
    context: BuildContext,
    samples: CalibrationSet,
    prompts: PromptBuilder,
    tokenizer_files: Mapping[str, str],
) -> Step:
    """The samples embedded; the artifact holds nothing of it."""
    resolved = context.resolved
    dtype = resolved.language_dtype
    image = resolved.image_rules if samples.images else None
    names: tuple[str, ...] = LANGUAGE_WEIGHTS
    prefixes: tuple[str, ...] = ("language_model.",)
    parameters: dict[str, object] = {
        "template": resolved.template,
        "system_message": resolved.system_message,
        "dtype": dtype,
    }
    if image is not None:
        names, prefixes = (*names, *TOWER), (*prefixes, "vision_model.", "mlp1.")
        parameters |= asdict(image)
    source, configuration = keyed(context.checkpoint, names)

    def embeddings(folder: Path) -> None:
        import torch

        from vlmc.compile.language.quantization.embeddings import write_embeddings

        write_embeddings(source, samples, prompts, image, getattr(torch, dtype), folder)

    return Step(
        name=CALIBRATION,
        version=1,
        inputs={
            "calibration": samples.digest,
            **tokenizer_files,
            **context.weight_files(*prefixes),
        },
        parameters=configuration | parameters,
        tools=tool_versions("torch", "pillow", "opencv-python-headless"),
        work=embeddings,
        reproducible=False,
    )


def _kept(context: BuildContext) -> list[str]:
    """The linears that `language.keep` leaves in 16 bits."""
    patterns = context.recipe.language.keep
    return [
        name
        for name in linear_layers(context.checkpoint.config.language)
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    ]
