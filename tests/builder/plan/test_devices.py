"""The GPUs that a plan names are those on which the runtime loads the model, and not one more."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch

from tests.recipes.released import RELEASED
from vlmc.bench.synthetic.shapes import SHAPES, Shape
from vlmc.builder.plan.cost import Counts
from vlmc.builder.plan.devices import PROCESS_BYTES, DevicesNeeded, devices_needed
from vlmc.builder.plan.memory import plan_memory
from vlmc.checkpoint.config import LanguageConfig
from vlmc.checkpoint.layout import original_shapes
from vlmc.checkpoint.quantization import Quantization
from vlmc.distributed.group import Group
from vlmc.distributed.shard import Shard, device_counts
from vlmc.errors import HardwareError
from vlmc.machine.gpu import Gpu
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.memory import LEAST_TOKENS
from vlmc.recipe.schema import LanguagePart
from vlmc.runtime.memory_plan import cache_tokens

Scheme = Literal["none", "fp8", "w4a16"]

PAGE = Path(__file__).parents[3] / "docs" / "multi-gpu.md"
BATCH_TOKENS = 16384
# Of a weight of a linear; w4a16 in groups of 128, each with a scale and a zero point.
LINEAR_BYTES = {"none": 2, "fp8": 1, "w4a16": 0.5 + 2.5 / 128}


class OneOfSeveral(Group):
    """A process of a group that has the least memory of all."""

    def minimum(self, number: int, device: torch.device) -> int:
        return number


def quantization(scheme: Scheme) -> Quantization | None:
    if scheme == "none":
        return None
    return Quantization(scheme, 128 if scheme == "w4a16" else None, False, ("Linear",))


def tower_bytes(shape: Shape) -> int:
    """The tower and projector in fp16."""
    return 2 * sum(count for name, count in parameters(shape) if not name.startswith("language"))


def parameters(shape: Shape) -> list[tuple[str, int]]:
    some = RELEASED["InternVL2-8B"].config
    config = replace(some, vision=shape.vision, language=shape.language)
    return [(name, math.prod(sizes)) for name, sizes in original_shapes(config).items()]


def planned(
    shape: Shape, scheme: Scheme, card_bytes: int, batch_tokens: int = BATCH_TOKENS
) -> DevicesNeeded:
    language = sum(count for name, count in parameters(shape) if name.startswith("language"))
    counts = Counts(tower_bytes(shape) // 2, 0, 0, 0, language, 0, 0, 0, 0)
    memory = plan_memory(
        counts,
        shape.language,
        "bfloat16",
        precision="fp16",
        language=LanguagePart(scheme=scheme),
        batch_tokens=batch_tokens,
    )
    card = Gpu("a card", "sm89", card_bytes)
    (found,) = devices_needed(
        memory, shape.language, "bfloat16", quantization(scheme), ["sm89"], [card]
    )
    return found


@cache
def part_of_a_language_model(name: str, devices: int) -> tuple[int, int, LanguageConfig]:
    """Weights of the linears on the first of `devices`, its other weights, and its sizes."""
    with torch.device("meta"):
        decoder = Decoder(SHAPES[name].language, OneOfSeveral(Shard(0, devices)))
    linears = others = 0
    for weight, values in decoder.named_parameters():
        is_linear = re.fullmatch(r"layers\..*_proj\.weight", weight) is not None
        linears += is_linear * values.numel()
        others += (not is_linear) * values.numel()
    return linears, others, decoder.config


def fits(
    name: str,
    scheme: Scheme,
    card_bytes: int,
    devices: int,
    batch_tokens: int,
    monkeypatch: pytest.MonkeyPatch,
) -> bool:
    """Whether the runtime loads the model on a simulated card, the first of `devices`."""
    linears, others, config = part_of_a_language_model(name, devices)
    loaded = tower_bytes(SHAPES[name]) + LINEAR_BYTES[scheme] * linears + 2 * others
    free = max(0, int(card_bytes - PROCESS_BYTES - loaded))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, card_bytes))
    for counter in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, counter, lambda _: 0)
    weight = SimpleNamespace(device=torch.device("cuda"), element_size=lambda: 2)
    on_gpu: Any = SimpleNamespace(
        embed_tokens=SimpleNamespace(weight=weight),
        config=config,
        group=OneOfSeveral(Shard(0, devices)),
    )
    try:
        tokens = cache_tokens(on_gpu, batch_tokens)
    except HardwareError:
        return False
    assert tokens >= LEAST_TOKENS
    return True


@pytest.mark.parametrize("gigabytes", [15.64, 25.39, 47.7])
@pytest.mark.parametrize("scheme", ["none", "fp8", "w4a16"])
@pytest.mark.parametrize("name", ["internvl2-4b", "internvl2-8b", "internvl2-26b", "internvl2-40b"])
def test_the_runtime_loads_on_the_planned_number_and_on_none_smaller(
    name: str, scheme: Scheme, gigabytes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, card_bytes = SHAPES[name], round(gigabytes * 1e9)
    for batch_tokens in (4096, 65536):
        found = planned(shape, scheme, card_bytes, batch_tokens)
        numbers = device_counts(shape.language, quantization(scheme))
        fitting = [
            number
            for number in numbers
            if fits(name, scheme, card_bytes, number, batch_tokens, monkeypatch)
        ]
        assert found.devices == next(iter(fitting), None)


@pytest.mark.parametrize("name", ["internvl2-8b", "internvl2-76b"])
def test_the_memory_that_a_card_must_have_is_the_least(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a few MB: a plan divides the norms too, which each GPU holds as a whole."""
    shape = SHAPES[name]
    found = planned(shape, "none", 85 * 10**9)
    assert found.devices is not None and found.fullest_bytes is not None
    for change, expected in ((-1_000_000, False), (5_000_000, True)):
        card_bytes = found.fullest_bytes + change
        fitting = fits(name, "none", card_bytes, found.devices, BATCH_TOKENS, monkeypatch)
        assert fitting == expected


def test_larger_steps_need_more_gpus() -> None:
    """Cards of 25.39 GB, where the weights alone would fit."""
    shape, card_bytes = SHAPES["internvl2-8b"], 25_393_692_672
    needed = [planned(shape, "none", card_bytes, tokens).devices for tokens in (16384, 65536)]
    assert needed == [1, 2]
    assert planned(SHAPES["internvl2-26b"], "fp8", card_bytes).devices == 4
    assert planned(SHAPES["internvl2-40b"], "w4a16", card_bytes).devices == 4


def test_the_page_shows_what_is_planned() -> None:
    rows = re.findall(
        r"^\| (\d+B), (\w+) +\| (\d+|none) \| (\d+|none) \| (\d+|none) \|$",
        PAGE.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(rows) == 9
    schemes: dict[str, Scheme] = {"bf16": "none", "fp8": "fp8", "w4a16": "w4a16"}
    for size, scheme, *numbers in rows:
        shape = SHAPES[f"internvl2-{size.lower()}"]
        found = [planned(shape, schemes[scheme], g * 10**9).devices for g in (24, 48, 80)]
        assert [str(one or "none") for one in found] == numbers, (size, scheme)
