"""What every step of one build is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vlmc.checkpoint.source import Checkpoint
from vlmc.compile.calibration.dataset import CalibrationSet
from vlmc.recipe.resolve import Resolved
from vlmc.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class BuildContext:
    """A resolved recipe, its checkpoint, and the recipe's calibration samples.

    `digests` has a SHA-256 by file name for each of `source_files`; a plan that does not know one
    may give another text, which no key in a cache was made of.
    """

    resolved: Resolved
    checkpoint: Checkpoint
    digests: Mapping[str, str]
    samples: CalibrationSet | None

    @property
    def recipe(self) -> Recipe:
        """The recipe with every default written out and no path."""
        return self.resolved.recipe

    def weight_files(self, *prefixes: str) -> dict[str, str]:
        """Digests of the weight files that hold tensors under the prefixes, by file name."""
        weights = self.checkpoint.weights
        names = [name for name in weights if name.startswith(prefixes)]
        # A low-rank pair may lie in another file than its base, which is the one `file` names.
        merged = any(weights.lora_ranks(prefix) for prefix in prefixes)
        files = weights.files if merged else sorted({weights.file(name) for name in names})
        return {file.name: self.digests[file.name] for file in files}
