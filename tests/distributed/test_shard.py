"""Which numbers of devices a language model can be cut for."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.recipes.released import RELEASED
from vlmc.bench.synthetic.shapes import SHAPES
from vlmc.checkpoint.quantization import Quantization
from vlmc.distributed.shard import Shard, check_devices, device_counts, shard_config
from vlmc.errors import UsageError

FP8 = Quantization("fp8", None, True, ("Linear",), ("lm_head",))


def w4a16(group_size: int | None) -> Quantization:
    return Quantization("w4a16", group_size, False, ("Linear",), ("lm_head",))


def test_released_models_fit_these_numbers() -> None:
    fitting = {
        name: device_counts(shape.language, w4a16(128))
        for name, shape in SHAPES.items()
        if name != "miniature"
    }
    assert fitting == {
        "internvl2-1b": (1,),  # half of its 896 inputs are not a multiple of 128
        "internvl2-2b": (1, 2, 4, 8),
        "internvl2-4b": (1, 2, 4, 8),  # a sixteenth of its 3,072 inputs neither
        "internvl2-8b": (1, 2, 4, 8),
        "internvl2-26b": (1, 2, 4, 8),
        "internvl2-40b": (1, 2, 4, 8),
        "internvl2-76b": (1, 2, 4, 8),
    }
    assert device_counts(SHAPES["internvl2-1b"].language, None) == (1, 2)
    assert device_counts(SHAPES["internvl2-4b"].language, FP8) == (1, 2, 4, 8, 16, 32)


def test_a_number_that_divides_no_heads_names_both_sides() -> None:
    config = RELEASED["InternVL2-26B"].config.language
    with pytest.raises(UsageError) as raised:
        check_devices(config, FP8, 3)
    assert str(raised.value) == (
        "devices=3 does not fit this model: it has attention heads 48, key/value heads 8, "
        "intermediate size 16384, and all must be multiples of the number of devices. Numbers of "
        "devices that fit: 1, 2, 4, 8."
    )


def test_groups_that_a_cut_would_split_name_the_sizes_that_fit() -> None:
    config = RELEASED["InternVL2-1B"].config.language
    check_devices(config, FP8, 2)
    with pytest.raises(UsageError, match=r"448 inputs of o_proj.*groups of 128.*: 64, 32, 16, 8\)"):
        check_devices(config, w4a16(128), 2)
    check_devices(config, w4a16(64), 2)
    check_devices(config, w4a16(None), 2)


def test_words_of_zero_points_are_not_cut() -> None:
    config = replace(RELEASED["InternVL2-2B"].config.language, head_dim=12, heads=16, kv_heads=2)
    with pytest.raises(UsageError, match="parts of 12 outputs do not fill words of 8"):
        check_devices(config, w4a16(8), 2)


def test_parts_cover_the_whole_once() -> None:
    config = RELEASED["InternVL2-2B"].config.language
    for count in (1, 2, 4, 8):
        shards = [Shard(rank, count) for rank in range(count)]
        spans = [shard.span(config.vocab_size) for shard in shards]
        assert spans[0][0] == 0
        assert spans[-1][1] == config.vocab_size
        assert all(before[1] == after[0] for before, after in pairwise(spans))
        assert sum(shard_config(config, shard).heads for shard in shards) == config.heads
