"""What a comparison of layers found: for people and for programs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlmc.artifact.integrity import Artifact
from vlmc.artifact.manifest import EngineRecord

_LISTED = 10


@dataclass(frozen=True, slots=True)
class TensorError:
    """How far one tensor is from the fp32 one, on its worst tile.

    Attributes:
        name: module and operator, or a parameter's name.
        layer: the module.
        cosine: -1 where a value is not finite.
        relative_error: L2 norm of the difference by that of the fp32 tensor; may be infinite.
        limit: the largest relative error that is accepted.
        tile: index of the golden tile; None for parameters.
    """

    name: str
    layer: str
    cosine: float
    relative_error: float
    limit: float
    tile: int | None

    @property
    def diverges(self) -> bool:
        """Whether the error is above the limit."""
        return not self.relative_error <= self.limit

    def to_json(self) -> dict[str, Any]:
        """The JSON form; errors that are not finite are null."""
        error = self.relative_error
        return {
            "name": self.name,
            "layer": self.layer,
            "cosine": self.cosine,
            "relative_error": error if math.isfinite(error) else None,
            "limit": self.limit,
            "tile": self.tile,
            "diverges": self.diverges,
        }

    def line(self) -> str:
        """For people."""
        where = "" if self.tile is None else f", tile {self.tile}"
        return (
            f"{self.name}: cosine {self.cosine:.6f}, relative error {self.relative_error:.2e} "
            f"(limit {self.limit:.2e}){where}"
        )


@dataclass(frozen=True, slots=True)
class LayerComparison:
    """The tensors of an artifact's graph, by engine, in the order of computation."""

    artifact: Artifact
    record: EngineRecord  # of the graph
    reference: str
    tiles: int
    errors: Mapping[str, Sequence[TensorError]]
    skipped: Mapping[str, str]
    unmatched: tuple[str, ...]

    @property
    def first_diverging(self) -> dict[str, TensorError]:
        """Engine → its first tensor that diverges, of those engines that have one."""
        return {
            engine: next(error for error in errors if error.diverges)
            for engine, errors in self.errors.items()
            if any(error.diverges for error in errors)
        }

    @property
    def failure(self) -> str | None:
        """Where the graph diverges, on each engine; None if nowhere."""
        places = [
            f"on {engine} first at layer {error.layer}, in {error.line()}"
            for engine, error in self.first_diverging.items()
        ]
        if not places:
            return None
        return (
            f"the graph of {self.artifact.folder} diverges from the fp32 graph "
            f"{'; '.join(places)}. Build the artifact again; if the layer is quantized, keep it in "
            "16 bits with more calibration images or a higher accuracy.min_feature_cosine."
        )

    @property
    def _limit(self) -> float:
        return computed_limit(self.record.min_feature_cosine)

    def _is_emulated(self, engine: str) -> bool:
        """Whether fp32 stands in for bf16, for which the engine has no kernels."""
        return engine == "onnxruntime" and self.record.precision == "bf16"

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        first = self.first_diverging
        return {
            "artifact": str(self.artifact.folder),
            "identity": self.artifact.identity,
            "precision": self.record.precision,
            "reference": self.reference,
            "tiles": self.tiles,
            "min_feature_cosine": self.record.min_feature_cosine,
            "limit": self._limit,
            "unmatched": list(self.unmatched),
            "engines": [
                {
                    "engine": engine,
                    "emulated": self._is_emulated(engine),
                    "tensors": len(errors),
                    "diverging": sum(error.diverges for error in errors),
                    "first_diverging": first[engine].to_json() if engine in first else None,
                    "worst": [error.to_json() for error in worst(errors)],
                }
                for engine, errors in self.errors.items()
            ],
            "skipped": dict(self.skipped),
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"artifact    {self.artifact.folder}, identity {self.artifact.identity[:8]}"
        yield (
            f"compared    the {self.record.precision} graph with the fp32 graph of "
            f"{self.reference}, on {self.tiles} golden tiles"
        )
        yield (
            f"threshold   relative error {self._limit:.2e}, from the features' cosine "
            f"{self.record.min_feature_cosine:g}; parameters: what rounding can do"
        )
        if self.unmatched:
            yield f"not found   {len(self.unmatched)} tensors, such as {self.unmatched[0]}"
        first = self.first_diverging
        for engine, errors in self.errors.items():
            emulated = ", in fp32 rounded to bf16" if self._is_emulated(engine) else ""
            yield f"engine      {engine}{emulated}"
            if engine in first:
                count = sum(error.diverges for error in errors)
                yield f"DIVERGES    first at layer {first[engine].layer}: {first[engine].line()}"
                yield f"            {count} of {len(errors)} tensors diverge"
            else:
                yield f"agrees      {len(errors)} tensors"
            for index, error in enumerate(worst(errors)):
                yield f"{'worst' if index == 0 else '':<12}{error.line()}"
        for engine, reason in self.skipped.items():
            yield f"skipped     {engine}: {reason}"


def computed_limit(min_cosine: float) -> float:
    """The largest relative error of a computed tensor, from the features' threshold.

    The angle of the cosine as a relative error, which a wrong scale raises too; doubled, because
    inside attention and MLP nothing of the residual stream dilutes an error.
    """
    return 2 * math.sqrt(2 * (1 - min_cosine))


def worst(errors: Sequence[TensorError]) -> list[TensorError]:
    """The ten tensors whose errors are the largest multiples of their limits, worst first.

    Parameters are among them only if they diverge: rounding alone takes them half way to the limit.
    """

    def excess(error: TensorError) -> float:
        value = error.relative_error / error.limit if error.limit else math.inf
        return math.inf if math.isnan(value) else value

    listed = [error for error in errors if error.tile is not None or error.diverges]
    return sorted(listed, key=excess, reverse=True)[:_LISTED]
