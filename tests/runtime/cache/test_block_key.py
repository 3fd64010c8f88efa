"""Keys of pages: equal where keys and values are equal, and different wherever they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from vlmc.checkpoint.config import LanguageConfig
from vlmc.checkpoint.rope_config import RopeScaling
from vlmc.models.language.paged_cache import PAGE_TOKENS
from vlmc.runtime.cache.block_key import ImageRun, PrefixCachePolicy, block_keys

CONFIG = LanguageConfig("InternLM2ForCausalLM", 8, 1, 2, 1, 4, 16, 100, 1e-5, 1e6, 512)
ONE, TWO = b"1" * 32, b"2" * 32


def keys(
    ids: Sequence[int],
    *images: ImageRun,
    policy: PrefixCachePolicy = "content",
    salt: bytes = b"artifact",
    config: LanguageConfig = CONFIG,
) -> list[bytes]:
    return block_keys(ids, images, policy, salt, config)


def pages(count: int) -> list[int]:
    return list(range(count * PAGE_TOKENS))


def test_full_pages_alone_have_keys() -> None:
    assert len(keys(pages(3))) == len(keys([*pages(3), 5])) == 3
    assert keys(pages(3)[:-1]) == keys(pages(2))
    assert keys(pages(3), policy="off") == []


def test_a_key_covers_everything_before_it() -> None:
    first, other = keys(pages(3)), keys([99, *pages(3)[1:]])
    assert not set(first) & set(other), "the tokens of the second and third page are the same"
    repeated = keys([7] * (2 * PAGE_TOKENS))
    assert repeated[0] != repeated[1]


def test_another_artifact_has_other_keys() -> None:
    assert not set(keys(pages(2))) & set(keys(pages(2), salt=b"other"))


def test_every_image_of_a_page_is_in_its_key() -> None:
    ids = [5] * (2 * PAGE_TOKENS)
    first, second = ImageRun(2, 5, ONE), ImageRun(9, 5, ONE)
    found = {
        keys(ids, replace(first, digest=one), replace(second, digest=two))[0]
        for one in (ONE, TWO)
        for two in (ONE, TWO)
    }
    assert len(found) == 4
    late = ImageRun(PAGE_TOKENS + 1, 5, ONE)
    same, other = keys(ids, late), keys(ids, replace(late, digest=TWO))
    assert same[0] == other[0] and same[1] != other[1], "only from the image on"


def test_text_reuses_nothing_from_the_first_image_on() -> None:
    ids = pages(6)
    images = ImageRun(2 * PAGE_TOKENS + 1, 5, ONE), ImageRun(4 * PAGE_TOKENS, 5, ONE)
    assert keys(ids, *images, policy="text") == keys(ids)[:2]
    assert keys(ids, policy="text") == keys(ids)


def test_nothing_is_reused_from_an_image_on_that_nobody_vouches_for() -> None:
    images = ImageRun(PAGE_TOKENS, 5, ONE), ImageRun(3 * PAGE_TOKENS, 5, b"")
    assert len(keys(pages(6), *images)) == 3
    assert len(keys(pages(6), replace(images[0], digest=b""), images[1])) == 1


@pytest.mark.parametrize(
    ("kind", "equal", "unequal"),
    [
        ("none", [(32, 4000)], []),
        ("longrope", [(32, 64), (65, 4000)], [(64, 65)]),
        ("dynamic", [(32, 512)], [(512, 513), (513, 514)]),
    ],
)
def test_lengths_that_rope_scales_differently_share_nothing(
    kind: str, equal: list[tuple[int, int]], unequal: list[tuple[int, int]]
) -> None:
    scaling = RopeScaling(kind, factor=2.0, original_positions=64)  # type: ignore[arg-type]
    config = replace(CONFIG, rope_scaling=scaling)

    def first(length: int) -> bytes:
        return keys([7] * length, config=config)[0]

    assert all(first(one) == first(other) for one, other in equal)
    assert all(first(one) != first(other) for one, other in unequal)
