"""The steps that a recipe and a checkpoint ask for. Imports nothing heavy before one runs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vlmc.build.resolve import Resolved
from vlmc.build.step import Step
from vlmc.checkpoint.huggingface import language_config_json
from vlmc.checkpoint.source import Checkpoint
from vlmc.compile.settings import copy_tokenizer, write_settings
from vlmc.errors import UsageError
from vlmc.text.prompt import PromptBuilder
from vlmc.text.template import TEMPLATES
from vlmc.text.tokenizer import TOKENIZER_FILES

# Files of a checkpoint that decide what is built; Python and documentation do not.
_SOURCE_SUFFIXES = (".json", ".safetensors", ".model", ".txt")


def source_files(folder: Path) -> list[Path]:
    """Files of a checkpoint whose digests a build needs, sorted."""
    return sorted(
        path for path in folder.iterdir() if path.is_file() and path.suffix in _SOURCE_SUFFIXES
    )


def make_steps(
    resolved: Resolved, checkpoint: Checkpoint, digests: Mapping[str, str]
) -> list[Step]:
    """Every step of the build, in the order of work; reads headers only.

    `digests` has a SHA-256 by file name for each of `source_files`; a plan that does not know one
    may give another text, which no key in a cache was made of.

    Raises:
        TokenizerError: the tokenizer lacks what the template needs.
        UsageError: a package that the steps need is not installed.
    """
    return [
        *_vision_steps(resolved, checkpoint, digests),
        *_language(resolved, checkpoint, digests),
    ]


def select(steps: Sequence[Step], names: Iterable[str], option: str) -> list[Step]:
    """Those steps of the names given: a step's, or the part before the dot for all of a wing.

    Raises:
        UsageError: a name is no step's.
    """
    chosen: set[str] = set()
    for name in names:
        found = {step.name for step in steps if name in (step.name, wing(step))}
        if not found:
            known = list(dict.fromkeys(n for step in steps for n in (wing(step), step.name)))
            close = difflib.get_close_matches(name, known, 1)
            hint = f", did you mean {close[0]}?" if close else ""
            raise UsageError(f"{option} {name}: no such step{hint} (known: {', '.join(known)})")
        chosen |= found
    return [step for step in steps if step.name in chosen]


def wing(step: Step) -> str:
    """The artifact's folder that the step's files belong in."""
    return step.name.partition(".")[0]


def _vision_steps(
    resolved: Resolved, checkpoint: Checkpoint, digests: Mapping[str, str]
) -> list[Step]:
    # Not config.json as a whole: most of what it says does not touch the tower.
    config = checkpoint.config
    tower: dict[str, object] = {
        "vision": asdict(config.vision),
        "select_layer": config.select_layer,
        "pixel_shuffle": config.pixel_shuffle,
        "hidden_size": config.language.hidden_size,
    }
    precision: dict[str, object] = {"precision": resolved.recipe.vision.precision}
    inputs = _weights(checkpoint, ("vision_model.", "mlp1."), digests)

    def weights(folder: Path) -> None:
        from vlmc.compile.vision import write_weights

        write_weights(checkpoint, folder)

    def graph(folder: Path) -> None:
        from vlmc.compile.vision import write_graph

        write_graph(checkpoint, folder)

    def golden(folder: Path) -> None:
        from vlmc.compile.vision import write_golden

        write_golden(checkpoint, folder)

    exporter = tool_versions("torch", "onnx", "onnx-ir", "onnxscript")
    return [
        Step(
            name="vision.weights",
            version=1,
            inputs=inputs,
            parameters=tower,
            tools=tool_versions("torch", "safetensors"),
            work=weights,
        ),
        Step(
            name="vision.golden",
            version=1,
            inputs=inputs,
            parameters=tower,
            tools=tool_versions("torch", "numpy"),
            work=golden,
        ),
        Step(
            name="vision.graph",
            version=1,
            inputs=inputs,
            parameters=tower | precision,
            tools=exporter,
            work=graph,
        ),
    ]


def _language(resolved: Resolved, checkpoint: Checkpoint, digests: Mapping[str, str]) -> list[Step]:
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
    inputs = _weights(checkpoint, ("language_model.",), digests)
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


def _weights(
    checkpoint: Checkpoint, prefixes: tuple[str, ...], digests: Mapping[str, str]
) -> dict[str, str]:
    """Digests of the weight files that hold tensors under the prefixes."""
    weights = checkpoint.weights
    names = [name for name in weights if name.startswith(prefixes)]
    # A low-rank pair may lie in another file than its base, which is the one `file` names.
    merged = any(weights.lora_ranks(prefix) for prefix in prefixes)
    files = weights.files if merged else sorted({weights.file(name) for name in names})
    return {file.name: digests[file.name] for file in files}


def tool_versions(*packages: str) -> dict[str, str]:
    """Installed versions by package.

    Raises:
        UsageError: one is not installed.
    """
    try:
        return {package: version(package) for package in packages}
    except PackageNotFoundError as error:
        raise UsageError(
            f"building needs the package {error.name}, which is not installed. Install vlmc with "
            "its build extra: pip install 'vlmc[build]'"
        ) from error
