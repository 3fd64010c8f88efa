"""The models in training: weights, their running average, optimizer, and all of it on disk."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recipes.quickstart.training.dense import DenseHead
from recipes.quickstart.training.layout import model_config
from vlmc.models.language.decoder import Decoder
from vlmc.models.vision.tower import VisionTower

WEIGHT_DECAY = 0.05
BETAS = (0.9, 0.98)


@dataclass(slots=True)
class Progress:
    """How far training is: seconds spent and steps made in the two stages, and the next seed."""

    seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])
    steps: list[int] = field(default_factory=lambda: [0, 0])
    next_seed: int = 0
    images: int = 0


class Model(nn.Module):
    """Tower, decoder and the head that is used in training alone."""

    def __init__(self) -> None:
        super().__init__()
        config = model_config()
        self.tower = VisionTower(config)
        self.decoder = Decoder(config.language)
        self.head = DenseHead(config.language.hidden_size)

    @torch.no_grad()
    def initialize(self) -> None:
        """Weights to begin with; the linears of the tower keep PyTorch's own."""
        embeddings = self.tower.vision_model.embeddings
        embeddings.class_embedding.normal_(std=0.02)
        grid, width = embeddings.grid, embeddings.position_embedding.shape[-1]
        embeddings.position_embedding[0, 1:] = waves(grid, width) / 2
        self.decoder.embed_tokens.weight.normal_(std=0.1)
        for name, parameter in self.decoder.named_parameters():
            if parameter.dim() == 2 and not name.startswith("embed_tokens"):
                into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                depth = 2 * len(self.decoder.layers) if into_residual else 1
                parameter.normal_(std=(1 / (parameter.shape[1] * depth)) ** 0.5)
        self.decoder.lm_head.weight.normal_(std=0.02)


def waves(side: int, width: int) -> Tensor:
    """Sines and cosines of row and column, (side², width), from which attention learns to look at
    a neighbour far sooner than from noise."""
    quarter = width // 4
    frequencies = 100 ** -(torch.arange(quarter) / quarter)
    angles = torch.arange(side)[:, None] * frequencies  # (side, quarter)
    line = torch.cat((angles.sin(), angles.cos()), dim=1)
    rows, columns = line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)
    return torch.cat((rows, columns), dim=2).flatten(0, 1)


class Learner:
    """A model with its optimizer and the running average of its weights."""

    def __init__(self, device: torch.device, average_decay: float) -> None:
        self.model = Model().to(device)
        self.average = Model().to(device).requires_grad_(False).eval()
        self.average_decay = average_decay
        self.progress = Progress()
        groups: dict[tuple[bool, float], list[nn.Parameter]] = defaultdict(list)
        for name, parameter in self.model.named_parameters():
            plain = parameter.dim() < 2 or ("embed" in name and "patch" not in name)
            decay = 0.0 if plain else WEIGHT_DECAY
            groups[name.startswith("decoder."), decay].append(parameter)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": parameters, "weight_decay": decay, "seeing": not language}
                for (language, decay), parameters in groups.items()
            ],
            betas=BETAS,
            fused=device.type == "cuda",
        )

    def begin(self, seed: int) -> None:
        """Fresh weights."""
        torch.manual_seed(seed)
        self.model.initialize()
        self.average.load_state_dict(self.model.state_dict())

    def begin_stage(self) -> None:
        """Forget the optimizer's moments, which belong to another loss."""
        self.optimizer.state.clear()

    def step(self, rate: float, tower_share: float, clip: float) -> Tensor:
        """Clip, update weights and average; returns the gradient's norm.

        Tower, projector and head learn at `tower_share` of the rate.
        """
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * (tower_share if group["seeing"] else 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        steps = sum(self.progress.steps)
        decay = min(self.average_decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(
            list(self.average.parameters()), list(self.model.parameters()), 1 - decay
        )
        return norm

    def save(self, folder: Path) -> None:
        """Write everything that goes on from here, in four files below 16 MiB each."""
        folder.mkdir(parents=True, exist_ok=True)
        moments: dict[str, dict[str, Tensor]] = {"exp_avg": {}, "exp_avg_sq": {}}
        steps: dict[str, float] = {}
        for name, parameter in self.model.named_parameters():
            state = self.optimizer.state.get(parameter, {})
            for key, tensors in moments.items():
                if key in state:
                    tensors[name] = state[key]
            if "step" in state:
                steps[name] = float(state["step"])
        _write(folder / "weights.safetensors", dict(self.model.state_dict()))
        _write(folder / "average.safetensors", dict(self.average.state_dict()))
        _write(folder / "first_moment.safetensors", moments["exp_avg"])
        _write(folder / "second_moment.safetensors", moments["exp_avg_sq"])
        values = {"progress": asdict(self.progress), "optimizer_steps": steps}
        (folder / "progress.json").write_text(json.dumps(values))

    def restore(self, folder: Path) -> None:
        """Read what `save` wrote."""
        values = json.loads((folder / "progress.json").read_text())
        self.progress = Progress(**values["progress"])
        self.model.load_state_dict(load_file(folder / "weights.safetensors"))
        self.average.load_state_dict(load_file(folder / "average.safetensors"))
        first = load_file(folder / "first_moment.safetensors")
        second = load_file(folder / "second_moment.safetensors")
        steps = values["optimizer_steps"]
        for name, parameter in self.model.named_parameters():
            if name in first:
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(steps[name], device=parameter.device),
                    "exp_avg": first[name].to(parameter.device),
                    "exp_avg_sq": second[name].to(parameter.device),
                }


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    partial = path.with_suffix(".partial")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
    partial.replace(path)
