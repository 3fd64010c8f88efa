"""Load an artifact: check it, choose an engine that fits the machine, read the weights once."""

from __future__ import annotations

from pathlib import Path

from vlmc.artifact.integrity import Artifact, open_artifact
from vlmc.artifact.manifest import RuntimeRules
from vlmc.errors import UsageError
from vlmc.image.tiles import TileRule, parse_tiles
from vlmc.runtime.assemble import assemble
from vlmc.runtime.engines.selection import choose, find_device, open_engine
from vlmc.runtime.engines.self_test import check_golden
from vlmc.runtime.language import open_language
from vlmc.runtime.model import Model
from vlmc.runtime.team import open_team


def load(
    artifact: str | Path | Artifact,
    *,
    device: str = "auto",
    devices: int = 1,
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
        devices: how many devices share the model, for models that one cannot hold: GPUs from
            `device` on, each a process that holds its part of the weights, or processes on the CPU.
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
        UsageError: an argument is of the wrong type, `device` or `tiles` cannot be read, or
            `devices` does not divide the model's heads.

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
    serving = opened.manifest.runtime if runtime is None else runtime
    with open_team(
        opened, target, devices, rules=serving, engine=engine, self_test=self_test
    ) as team:
        decoder, prompts = open_language(opened, target, team.group)
        vision = open_engine(opened, chosen, target)
        if self_test:
            check_golden(opened, chosen, vision)
        team.wait()
        return assemble(
            opened, decoder, prompts, vision, chosen, tiles=rule, rules=serving, lead=team.lead
        )
