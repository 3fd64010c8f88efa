"""The bounded cache of tiles and features."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from vlmc.runtime.images.cache import ContentCache


def test_the_value_unused_for_longest_is_dropped() -> None:
    cache: ContentCache[str] = ContentCache(2)
    cache.put(b"a", "A")
    cache.put(b"b", "B")
    assert cache.get(b"a") == "A"
    cache.put(b"c", "C")
    assert (cache.get(b"a"), cache.get(b"b"), cache.get(b"c")) == ("A", None, "C")


def test_a_value_is_computed_once_while_it_is_kept() -> None:
    cache: ContentCache[str] = ContentCache(1)
    values = iter(["first", "second", "third"])
    found = [cache.get_or_compute(digest, lambda: next(values)) for digest in (b"a", b"a", b"b")]
    assert found == ["first", "first", "second"]
    assert cache.get_or_compute(b"a", lambda: next(values)) == "third"


def test_threads_that_miss_together_compute_once() -> None:
    cache: ContentCache[int] = ContentCache(1)
    computed: list[int] = []

    def compute() -> int:
        time.sleep(0.05)
        computed.append(1)
        return len(computed)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: cache.get_or_compute(b"a", compute), range(4)))
    assert found == [1] * 4
    assert len(computed) == 1
