"""Build an artifact from a recipe."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import yaml
from safetensors import SafetensorError

import vlmc
from vlmc.artifact.integrity import REPORTS, file_sha256
from vlmc.artifact.manifest import MANIFEST, Engine, ImageRules, Manifest, PromptRules
from vlmc.artifact.write import check_link, point_link, publish, seal
from vlmc.build.partial import partial_folder
from vlmc.build.resolve import Resolved, resolve
from vlmc.checkpoint.source import Checkpoint, open_checkpoint
from vlmc.compile.language import compile_language
from vlmc.compile.vision import GRAPH, compile_vision
from vlmc.errors import BuildError, UsageError
from vlmc.recipe.buildable import check_buildable
from vlmc.recipe.schema import Recipe
from vlmc.text.prompt import PromptBuilder
from vlmc.text.template import TEMPLATES

Progress = Callable[[str], None]
ARTIFACTS = Path("artifacts")
_TOOLS = ("numpy", "onnx", "onnxscript", "safetensors", "torch")
# Files of a checkpoint that decide what is built; Python and documentation do not.
_SOURCE_SUFFIXES = (".json", ".safetensors", ".model", ".txt")


def build(recipe: Recipe, output: Path | None, progress: Progress) -> Path:
    """Build the artifact and return its folder.

    Without `output` it becomes `artifacts/<name>-<id8>/`, and the link `artifacts/<name>` is moved
    to it last. The folder appears whole or not at all.

    Raises:
        VlmcError: the checkpoint or the recipe cannot be built, or the place not be written to;
            nothing is left behind.
    """
    check_buildable(recipe)
    parent = ARTIFACTS if output is None else output.parent
    # What would be refused at the end is refused before the work.
    if output is None:
        check_link(parent / recipe.name)
    elif os.path.lexists(output) and not (output / MANIFEST).is_file():
        raise UsageError(f"{output} exists and is not an artifact; name another folder with -o")
    try:
        with open_checkpoint(Path(recipe.model.checkpoint)) as checkpoint:
            parent.mkdir(parents=True, exist_ok=True)
            name = recipe.name if output is None else output.name
            with partial_folder(parent, name) as partial:
                identity = _build_into(partial, recipe, checkpoint, progress)
                target = parent / f"{recipe.name}-{identity[:8]}" if output is None else output
                publish(partial, target)
        if output is None:
            point_link(parent / recipe.name, target)
    except (OSError, SafetensorError) as error:
        raise BuildError(f"{output or parent} cannot be built: {error}") from error
    progress(f"built {target}")
    return target


def _build_into(folder: Path, recipe: Recipe, checkpoint: Checkpoint, progress: Progress) -> str:
    resolved = resolve(recipe, checkpoint.config)
    prompts = PromptBuilder(
        checkpoint.tokenizer, TEMPLATES[resolved.template], resolved.system_message
    )
    (folder / REPORTS).mkdir()
    seconds: dict[str, float] = {}

    def step(name: str, work: Callable[[], object], what: str) -> None:
        progress(f"{name}: {what}")
        start = time.perf_counter()
        work()
        seconds[name] = round(time.perf_counter() - start, 3)
        progress(f"{name}: done in {seconds[name]:.1f} s")

    step(
        "vision",
        lambda: compile_vision(checkpoint, folder / "vision"),
        f"tower of {checkpoint.config.vision_layers} blocks to ONNX, fp32",
    )
    step(
        "language",
        lambda: compile_language(
            checkpoint,
            folder / "language",
            dtype=resolved.language_dtype,
            stop_id=prompts.stop_id,
        ),
        f"{checkpoint.config.language.architecture} in {resolved.language_dtype}",
    )
    text = yaml.safe_dump(resolved.recipe.plain(), sort_keys=False, allow_unicode=True)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    progress("manifest: hashing source and payload")
    manifest = seal(folder, _manifest(resolved, checkpoint))
    report = {"identity": manifest.identity, "seconds": seconds}
    (folder / REPORTS / "build.json").write_text(json.dumps(report, indent=1) + "\n")
    return manifest.identity


def _manifest(resolved: Resolved, checkpoint: Checkpoint) -> Manifest:
    tools = {name: version(name) for name in _TOOLS}
    sources = sorted(
        path
        for path in checkpoint.folder.iterdir()
        if path.is_file() and path.suffix in _SOURCE_SUFFIXES
    )
    image = resolved.recipe.image
    return Manifest(
        name=resolved.recipe.name,
        vlmc=vlmc.__version__,
        tools=tools,
        source={path.name: file_sha256(path) for path in sources},
        hidden_size=checkpoint.config.language.hidden_size,
        image=ImageRules(image.resampler, image.exif, resolved.tiles, resolved.published_tiles),
        prompt=PromptRules(resolved.template, resolved.system_message),
        language_scheme=resolved.recipe.language.scheme,
        language_dtype=resolved.language_dtype,
        engines=tuple(
            Engine(
                engine=part.engine,
                target="cpu",
                precision=resolved.recipe.vision.precision,
                file=f"vision/{GRAPH}",
                versions={name: tools[name] for name in ("onnx", "onnxscript", "torch")},
            )
            for part in resolved.recipe.vision.engines
        ),
        payload={},
    )
