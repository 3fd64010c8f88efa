"""Low-rank pairs that fine-tuning left unmerged.

The original wraps the tower and the language model with PEFT at rank `use_backbone_lora` and
`use_llm_lora` and `lora_alpha = 2 · rank`, so a pair adds 2 · (up @ down) to its base weight.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vlmc.errors import CheckpointError

ALPHA_PER_RANK = 2.0
_DOWN = re.compile(r"^(?P<module>.+)\.lora_A(?:\.(?P<adapter>[^.]+))?\.weight$")
_UNMERGEABLE = re.compile(
    r"\.(lora_magnitude_vector|lora_embedding_[AB]|ia3_|hada_|modules_to_save)"
)
_WRAPPED = re.compile(r"^(vision_model|language_model)\.base_model\.model\.")


@dataclass(frozen=True, slots=True)
class LoraPair:
    """Names of a base weight and of its low-rank pair; `rank` is the pair's inner size."""

    base: str
    down: str
    up: str
    rank: int
    scale: float = ALPHA_PER_RANK

    @property
    def parts(self) -> tuple[str, str, str]:
        """Names in the file that the merged tensor stands for."""
        return self.base, self.down, self.up


def plain_name(name: str) -> str:
    """A tensor's name without PEFT's wrapping."""
    return _WRAPPED.sub(r"\1.", name).replace(".base_layer.", ".")


def resolve(shapes: Mapping[str, tuple[int, ...]], folder: Path) -> dict[str, str | LoraPair]:
    """Where each plain name comes from: a tensor of the files, or a pair merged into its base.

    Raises:
        CheckpointError: a pair is incomplete, has no base, or its shapes do not fit; or the file
            holds another kind of adapter, which cannot be merged.
    """
    pairs: dict[str, LoraPair] = {}
    for name in shapes:
        if _UNMERGEABLE.search(name):
            raise CheckpointError(
                f"{folder} holds {name}, an adapter that vlmc cannot merge (plain LoRA only). "
                "Merge it with the tool that trained it, and save the merged model."
            )
        match = _DOWN.match(name)
        if match is None:
            continue
        module, adapter = match["module"], match["adapter"]
        up = f"{module}.lora_B{'.' + adapter if adapter else ''}.weight"
        base = next(
            (b for b in (f"{module}.base_layer.weight", f"{module}.weight") if b in shapes), None
        )
        merged = plain_name(f"{module}.weight")
        if base is None or up not in shapes:
            raise CheckpointError(
                f"{folder} holds {name} without its {'base weight' if base is None else up}. "
                "The LoRA checkpoint is incomplete; save it again, or merge it first."
            )
        if merged in pairs:
            raise CheckpointError(
                f"{folder} holds two adapters for {merged} ({adapter} and another). Merge them "
                "with the tool that trained them; which one applies cannot be known."
            )
        inner, outer = shapes[name][:1], shapes[base][:1]
        fits = shapes[name] == inner + shapes[base][1:] and shapes[up] == outer + inner
        if len(shapes[base]) != 2 or not fits:
            raise CheckpointError(
                f"{folder}: {name} {shapes[name]} and {up} {shapes[up]} do not fit their base "
                f"weight {shapes[base]}"
            )
        pairs[merged] = LoraPair(base=base, down=name, up=up, rank=inner[0])
    used = {part for pair in pairs.values() for part in pair.parts}
    sources: dict[str, str | LoraPair] = {
        plain_name(name): name for name in shapes if name not in used
    }
    return sources | pairs
