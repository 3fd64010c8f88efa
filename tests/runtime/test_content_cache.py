"""The bounded cache of tiles and features."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from vlmc.runtime.images.cache import ContentCache


def test_the_value_unused_for_longest_is_dropped() -> None:
    cache: ContentCache[str] = ContentCache(2, lambda value: 1)
    cache.put(b"a", "A")
    cache.put(b"b", "B")
    assert cache.get(b"a") == "A"
    cache.put(b"c", "C")
    assert (cache.get(b"a"), cache.get(b"b"), cache.get(b"c")) == ("A", None, "C")


def test_values_are_kept_by_their_bytes_and_the_last_whatever_its_size() -> None:
    cache: ContentCache[str] = ContentCache(4, len)
    cache.put(b"a", "AA")
    cache.put(b"b", "BB")
    cache.put(b"a", "A")
    cache.put(b"c", "C")
    assert [cache.get(key) for key in (b"b", b"a", b"c")] == ["BB", "A", "C"]
    cache.put(b"d", "DDDDDD")
    assert [cache.get(key) for key in (b"a", b"b", b"c", b"d")] == [None, None, None, "DDDDDD"]
    cache.put(b"e", "E")
    assert [cache.get(key) for key in (b"d", b"e")] == [None, "E"]


def test_a_value_is_computed_once_while_it_is_kept() -> None:
    cache: ContentCache[str] = ContentCache(1, lambda value: 1)
    values = iter(["first", "second", "third"])
    found = [cache.get_or_compute(digest, lambda: next(values)) for digest in (b"a", b"a", b"b")]
    assert found == ["first", "first", "second"]
    assert cache.get_or_compute(b"a", lambda: next(values)) == "third"


def test_threads_that_miss_together_compute_once() -> None:
    cache: ContentCache[int] = ContentCache(1, lambda value: 1)
    computed: list[int] = []

    def compute() -> int:
        time.sleep(0.05)
        computed.append(1)
        return len(computed)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: cache.get_or_compute(b"a", compute), range(4)))
    assert found == [1] * 4
    assert len(computed) == 1
