"""Run one decoder layer, as a Hugging Face model, on hidden states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

Watch = Callable[[str, Tensor], None]
"""Called with a linear's name and its input (1, tokens, inputs)."""


class LayerModel:
    """A model with one decoder layer and dummy embeddings and head, in `dtype` on `device`."""

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device)
        self.model.eval()
        self.layer: nn.Module = self.model.model.layers[0]
        self.dtype, self.device = dtype, device

    def linears(self) -> dict[str, nn.Linear]:
        """The layer's linears by relative name, such as `mlp.down_proj`."""
        return {
            name: module
            for name, module in self.layer.named_modules()
            if isinstance(module, nn.Linear)
        }

    @torch.no_grad()
    def run(self, inputs: Iterable[Tensor], watch: Watch | None = None) -> Iterator[Tensor]:
        """Yield the layer's output, on the CPU, for each input (1, tokens, hidden)."""
        found: list[Tensor] = []
        hooks = [self.layer.register_forward_hook(lambda _, __, out: found.append(_first(out)))]
        if watch is not None:
            for name, module in self.linears().items():
                hooks.append(module.register_forward_pre_hook(_watching(name, watch)))
        try:
            for states in inputs:
                self.model.model(inputs_embeds=states.to(self.device, self.dtype), use_cache=False)
                yield found.pop().cpu()
        finally:
            for hook in hooks:
                hook.remove()


def _first(output: Any) -> Tensor:
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result


def _watching(name: str, watch: Watch) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
        watch(name, args[0])

    return hook
