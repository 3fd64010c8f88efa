"""Pages: given to one holder, shared with others, and found again until they are needed."""

from __future__ import annotations

import pytest

from vlmc.runtime.cache.page_pool import PagePool


def published(pool: PagePool, *keys: bytes) -> list[int]:
    """Pages of a sequence that holds a page for each key."""
    pages = pool.take(len(keys))
    for page, key in zip(pages, keys, strict=True):
        pool.publish(page, key)
    return pages


def test_pages_without_a_key_are_free_again() -> None:
    pool = PagePool(3)
    pages = pool.take(3)
    assert sorted(pages) == [0, 1, 2] and pool.available == 0
    with pytest.raises(ValueError, match="1 pages were requested, but 0 are left"):
        pool.take(1)
    pool.release(pages)
    assert pool.available == 3


def test_a_released_page_is_found_until_it_is_needed() -> None:
    pool = PagePool(3)
    pages = published(pool, b"a", b"b")
    pool.release(pages)
    assert pool.available == 3
    assert pool.find([b"a", b"b", b"c"]) == pages
    assert pool.find([b"c", b"a"]) == [], "a beginning only"
    pool.take(3)
    assert pool.find([b"a"]) == pool.find([b"b"]) == []


def test_the_end_of_a_sequence_is_needed_before_its_beginning() -> None:
    pool = PagePool(3)
    pages = published(pool, b"a", b"b", b"c")
    pool.release(pages)
    assert pool.take(1) == pages[2:]
    assert pool.find([b"a", b"b"]) == pages[:2]


def test_who_was_released_first_goes_first() -> None:
    pool = PagePool(2)
    one, two = published(pool, b"a"), published(pool, b"b")
    pool.release(two)
    pool.release(one)
    assert pool.take(1) == two
    assert pool.find([b"a"]) == one


def test_a_held_page_is_not_given_away() -> None:
    pool = PagePool(2)
    pages = published(pool, b"a")
    pool.release(pages)
    pool.hold(pool.find([b"a"]))
    assert pool.available == 1
    assert pool.take(1) != pages


def test_a_shared_page_is_held_until_its_last_holder_lets_go() -> None:
    pool = PagePool(1)
    pages = pool.take(1)
    pool.hold(pages)
    pool.release(pages)
    assert pool.available == 0
    pool.release(pages)
    assert pool.available == 1


def test_of_two_pages_of_one_content_the_first_is_found() -> None:
    pool = PagePool(2)
    one, two = published(pool, b"a"), published(pool, b"a")
    pool.release(two)
    assert pool.find([b"a"]) == one
    assert pool.take(1) == two, "the second has no key and is free"


def test_forgotten_pages_are_not_found() -> None:
    pool = PagePool(4)
    held, released = published(pool, b"a"), published(pool, b"b", b"c")
    pool.release(released)
    pool.forget([b"a", b"b", b"x"])
    assert pool.find([b"a"]) == pool.find([b"b"]) == []
    assert pool.find([b"c"]) == released[1:]
    assert pool.available == 3
    pool.release(held)
    assert pool.available == 4
    assert sorted(pool.take(4)) == [0, 1, 2, 3]
