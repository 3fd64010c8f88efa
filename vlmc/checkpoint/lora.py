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
# Left by DistributedDataParallel, torch.compile, and by PEFT around the whole model.
_PREFIX = re.compile(r"^(?:module\.|_orig_mod\.|base_model\.model\.)+")
_WHOLE = "base_model.model."
_NESTED = re.compile(r"\.base_layer\.(?:base_layer|lora_[AB])\.|base_model\.model\.base_model\.")


@dataclass(frozen=True, slots=True)
class LoraPair:
    """Names of a base weight and of its low-rank pair. `rank` is the pair's inner size."""

    base: str
    down: str
    up: str
    rank: int
    scale: float = ALPHA_PER_RANK

    @property
    def parts(self) -> tuple[str, str, str]:
        """Names of the tensors that are merged into one."""
        return self.base, self.down, self.up


def plain_name(name: str) -> str:
    """A tensor's name without the prefixes and the wrapping of trainers."""
    return _WRAPPED.sub(r"\1.", _PREFIX.sub("", name)).replace(".base_layer.", ".")


def resolve(shapes: Mapping[str, tuple[int, ...]], folder: Path) -> dict[str, str | LoraPair]:
    """Where each plain name comes from: a tensor of the files, or a pair merged into its base.

    Raises:
        CheckpointError: a pair is incomplete, has no base, or its shapes do not fit; two tensors
            have one plain name; or the files hold another kind of adapter, which cannot be merged.
    """
    pairs: dict[str, LoraPair] = {}
    for name in shapes:
        if _NESTED.search(name):
            raise CheckpointError(
                f"{folder} holds {name}: LoRA was wrapped around a model with LoRA in it, and the "
                "files do not say how each adapter is scaled. Merge both with the tool that "
                "trained them, the inner one first, and save the merged model."
            )
        if _UNMERGEABLE.search(name):
            raise CheckpointError(
                f"{folder} holds {name}, an adapter that vlmc cannot merge (plain LoRA only). "
                "Merge it with the tool that trained it, and save the merged model."
            )
        match = _DOWN.match(name)
        if match is None:
            continue
        if _WHOLE in name[: _prefix_length(name)]:
            raise CheckpointError(
                f"{folder} holds {name}, of a PEFT adapter around the whole model. Its scale "
                "(lora_alpha) is not in the weights. Save the model after merge_and_unload()."
            )
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
    sources: dict[str, str | LoraPair] = dict(pairs)
    for name in shapes:
        if name in used:
            continue
        plain = plain_name(name)
        if plain in sources:
            other = sources[plain]
            first = other if isinstance(other, str) else other.base
            raise CheckpointError(
                f"{folder} holds {first} and {name}, which are the same tensor {plain} without "
                "their prefixes. Which one is meant cannot be known; remove the stale one."
            )
        sources[plain] = name
    return sources


def _prefix_length(name: str) -> int:
    match = _PREFIX.match(name)
    return match.end() if match else 0
