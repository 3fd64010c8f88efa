"""Measure artifacts side by side, or one lever after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vlmc.artifact.integrity import Artifact, open_artifact
from vlmc.artifact.manifest import PrefixCachePolicy, RuntimeRules
from vlmc.artifact.vision_files import TOWER, payload_name
from vlmc.bench.climb import climb, make_rung, missing_on
from vlmc.bench.engines import BATCH, eager_engine
from vlmc.bench.ladder import Rung, rungs
from vlmc.bench.measure import measure
from vlmc.bench.memory import free_memory
from vlmc.bench.report import BenchReport
from vlmc.bench.subject import Parts, Subject, make_subject
from vlmc.bench.workload import Workload
from vlmc.errors import UsageError
from vlmc.image.tiles import TileRule, parse_tiles
from vlmc.models.vision.tower_file import read_tower, read_tower_config
from vlmc.runtime.engines.engine import VisionEngine
from vlmc.runtime.engines.lent import Lent
from vlmc.runtime.engines.selection import choose, find_device, open_engine
from vlmc.runtime.engines.self_test import check_golden
from vlmc.runtime.language import open_language
from vlmc.runtime.team import open_team

EAGER = "eager"


@dataclass(frozen=True, slots=True)
class Serving:
    """How artifacts are served; None leaves what the artifact says."""

    device: str = "auto"
    devices: int = 1
    engine: str | None = None
    tiles: str | None = None
    prefix_cache: PrefixCachePolicy = "off"
    max_batch_tokens: int | None = None

    def rules(self, artifact: Artifact) -> RuntimeRules:
        """The runtime's rules for an artifact."""
        rules = replace(artifact.manifest.runtime, prefix_cache=self.prefix_cache)
        if self.max_batch_tokens is None:
            return rules
        return replace(rules, max_batch_tokens=self.max_batch_tokens)

    def tile_rule(self, artifact: Artifact) -> TileRule:
        """The tile rule for an artifact."""
        rules = artifact.manifest.image
        return rules.tiles if self.tiles is None else parse_tiles(self.tiles, rules.published)


def bench_artifacts(
    paths: Sequence[Path], workload: Workload, serving: Serving, runs: int, report: BenchReport
) -> dict[str, Any]:
    """Load all artifacts, and run them in turns.

    Raises:
        VlmcError: an artifact is damaged or does not run here, or a request has no answer.
    """
    with ExitStack() as stack:
        subjects = []
        for name, path in _named(paths).items():
            parts, engine = stack.enter_context(_opened(path, serving))
            subject = make_subject(
                name,
                parts,
                engine,
                tiles=serving.tile_rule(parts.artifact),
                rules=serving.rules(parts.artifact),
            )
            stack.callback(subject.close)
            subjects.append(subject)
        for measured in measure(subjects, workload, runs):
            report.add(measured)
    return report.finish()


def climb_artifacts(
    paths: Sequence[Path], workload: Workload, serving: Serving, runs: int, report: BenchReport
) -> dict[str, Any]:
    """The ladder on one artifact; a second one is the same model quantized.

    Raises:
        UsageError: there are more than two artifacts, or an engine of no use here is named.
        VlmcError: as `bench_artifacts`.
    """
    if len(paths) > 2 or serving.engine == EAGER:
        raise UsageError(
            "--ladder takes one artifact, or two of which the second is the first one quantized, "
            "and an engine to compare with the eager tower. Leave the others, or --engine, out."
        )
    with ExitStack() as stack:
        opened = [stack.enter_context(_opened(path, serving)) for path in paths]
        (parts, _), *_ = opened
        manifest = parts.artifact.manifest
        first = manifest.image.published
        last = TileRule("native") if serving.tiles is None else serving.tile_rule(parts.artifact)
        missing = missing_on(parts.device)
        if len(opened) == 1:
            missing["quantization"] = (
                f"this artifact's language model is {manifest.language_scheme}; give a second one "
                "of the same model, quantized, behind it"
            )
        ladder = rungs(first, last, missing)
        eager = [_eager(one.artifact, one.device, engine.precision) for one, engine in opened]
        stack.callback(free_memory, parts.device)
        for engine in eager:
            stack.callback(engine.close)

        def make(rung: Rung) -> Subject:
            setting = rung.setting
            index = int(setting.quantized)
            own, engine = opened[index]
            taken = eager[index] if setting.eager else engine
            rules = replace(serving.rules(own.artifact), cuda_graphs=setting.cuda_graphs)
            return make_rung(own, taken, rung, rules)

        return climb(ladder, make, workload, runs, report)


@contextmanager
def _opened(path: Path, serving: Serving) -> Iterator[tuple[Parts, VisionEngine]]:
    """An artifact's parts and engine, checked as `load` does."""
    artifact = open_artifact(path)
    manifest = artifact.manifest
    device = find_device(serving.device)
    eager = serving.engine == EAGER
    chosen = choose(manifest, artifact.folder, device, None if eager else serving.engine)
    rules, config = serving.rules(artifact), read_tower_config(artifact.path(payload_name(TOWER)))
    with open_team(
        artifact, device, serving.devices, rules=rules, engine=serving.engine, self_test=True
    ) as team:
        decoder, prompts = open_language(artifact, device, team.group)
        if eager:
            engine: VisionEngine = _eager(artifact, device, chosen.precision)
        else:
            engine = open_engine(artifact, chosen, device)
            check_golden(artifact, chosen, engine)
        team.wait()
        parts = Parts(
            artifact, decoder, prompts, chosen, config.vision, config.vision_layers, team.lead
        )
        try:
            yield parts, Lent(engine)
        finally:
            engine.close()


def _eager(artifact: Artifact, device: torch.device, precision: str) -> VisionEngine:
    """The artifact's tower in plain torch; 8 bits in fp16, and 16 bits on a CPU in fp32."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    if precision == "fp32" or device.type == "cpu":
        dtype = torch.float32
    names = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
    tower = read_tower(artifact.path(payload_name(TOWER)), dtype=dtype, device=device)
    return eager_engine(tower, dtype, names[dtype], BATCH)


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """Names that tell the artifacts apart.

    Raises:
        UsageError: one is given twice.
    """
    names: dict[str, Path] = {}
    for path in paths:
        name = path.name if path.name and path.name not in names else str(path)
        if name in names:
            raise UsageError(f"{path} is given twice; an artifact is measured once in a call")
        names[name] = path
    return names
