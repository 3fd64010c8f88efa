"""Where the context of each language model ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.recipes.released import RELEASED
from vlmc.checkpoint.rope_config import RopeScaling
from vlmc.runtime.memory_plan import context_limit

CONFIG = replace(RELEASED["InternVL2-2B"].config.language, max_positions=1000)


@pytest.mark.parametrize(
    ("scaling", "limit"),
    [
        (RopeScaling(), 1000),
        (RopeScaling("dynamic", factor=2.5), 2500),
        (RopeScaling("linear", factor=2.0), 1000),
        (RopeScaling("longrope", original_positions=100), 1000),
    ],
)
def test_dynamic_rope_alone_stretches_the_context(scaling: RopeScaling, limit: int) -> None:
    assert context_limit(replace(CONFIG, rope_scaling=scaling)) == limit
