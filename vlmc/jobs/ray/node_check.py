"""Every node of a cluster compared with this machine, before the first question."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlmc.errors import UsageError
from vlmc.files.units import shorten

CHECK_SECONDS = 120


@dataclass(frozen=True, slots=True)
class NodeNeeds:
    """What a node must have: this version of vlmc, the artifact in `artifact` with this identity,
    and files that this machine sees: `output`, which is of the job, and `image`, the first one."""

    version: str
    identity: str
    artifact: str | None
    output: str | None
    image: str | None
    parquet: bool


def check_nodes(ray: Any, needs: NodeNeeds) -> None:
    """Compare the nodes with this machine.

    Raises:
        UsageError: names the node, and what is there and here.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=3)(_look())
    nodes = [node for node in ray.nodes() if node["Alive"]]
    found = [
        look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(asdict(needs))
        for node in nodes
    ]
    for node, reference in zip(nodes, found, strict=True):
        name = f"the node {node['NodeManagerHostname']}"
        try:
            facts = ray.get(reference, timeout=CHECK_SECONDS)
        except ray.exceptions.RayError as error:
            raise UsageError(
                f"{name} cannot be asked for its version of vlmc "
                f"({shorten(str(error).strip(), 400)}); remove it from the cluster, or correct it"
            ) from error
        _compare(name, facts, needs)


def _look() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function that a node can run without this version of vlmc: Ray sends it by value."""

    def look(needs: dict[str, Any]) -> dict[str, Any]:
        import os

        facts: dict[str, Any] = {"identity": None}
        try:
            from vlmc.version import __version__

            facts["version"] = __version__
        except ImportError as error:
            facts["version"] = f"none ({error})"
        if needs["parquet"]:
            try:
                import pyarrow.parquet  # noqa: F401

                facts["parquet"] = True
            except ImportError:
                facts["parquet"] = False
        for name in ("output", "image"):
            facts[name] = needs[name] is None or os.path.exists(needs[name])  # noqa: PTH110
        if needs["artifact"] is not None and facts["version"] == needs["version"]:
            from pathlib import Path

            from vlmc.artifact.manifest import read_manifest
            from vlmc.errors import VlmcError

            try:
                facts["identity"] = read_manifest(Path(needs["artifact"])).identity
            except VlmcError as error:
                facts["artifact_error"] = str(error)
        return facts

    return look


def _compare(name: str, facts: dict[str, Any], needs: NodeNeeds) -> None:
    if facts["version"] != needs.version:
        raise UsageError(
            f"{name} has vlmc {facts['version']}, and this machine has {needs.version}; install "
            "the same version on both"
        )
    if needs.artifact is not None:
        if "artifact_error" in facts:
            raise UsageError(
                f"{name} cannot open the artifact {needs.artifact} of this machine "
                f"({facts['artifact_error']}); put it at the same path on every node"
            )
        if facts["identity"] != needs.identity:
            raise UsageError(
                f"{name} has the artifact {facts['identity'][:8]} in {needs.artifact}, and this "
                f"machine has {needs.identity[:8]} there; copy the same one to every node"
            )
    if not facts["output"]:
        folder = Path(needs.output or "").parent
        raise UsageError(
            f"{name} does not see the output {folder} of this machine; choose a folder that all "
            "nodes share, or an address such as s3://bucket/answers.jsonl"
        )
    if not facts["image"]:
        raise UsageError(
            f"{name} does not see the first image {needs.image}, which this machine has; put the "
            "images where all nodes read them at the same path, or at an address such as s3://"
        )
    if not facts.get("parquet", True):
        raise UsageError(
            f"{name} has no pyarrow, which Parquet output needs; install vlmc there with its extra "
            "parquet, or write to .jsonl"
        )
