"""Which sequences run in a step: first come, first served, within budget, pages and lanes."""

from __future__ import annotations

from collections.abc import Sequence

from vlmc.models.language.paged_cache import PAGE_TOKENS
from vlmc.runtime.cache.page_pool import PagePool
from vlmc.runtime.scheduler.scheduler import Scheduler
from vlmc.runtime.scheduler.sequence import LiveSequence, Sampling


def sequence(tokens: int, *, new: int = 4, keys: Sequence[bytes] = ()) -> LiveSequence:
    return LiveSequence(
        ids=tuple(range(tokens)),
        images=(),
        work=Sampling(new),
        on_done=lambda result, spent: None,
        keys=keys,
    )


def scheduler(
    *added: LiveSequence, pages: int = 100, budget: int = 1000, lanes: int = 8
) -> Scheduler:
    made = Scheduler(PagePool(pages), budget, lanes)
    for one in added:
        made.add(one)
    return made


def planned(made: Scheduler) -> list[tuple[LiveSequence, int, int]]:
    return [(share.sequence, share.start, share.count) for share in made.plan()]


def test_a_step_keeps_to_its_budget() -> None:
    long, small = sequence(150), sequence(20)
    made = scheduler(long, small, budget=64)
    assert planned(made) == [(long, 0, 64)]
    assert planned(made) == [(long, 64, 64)]
    assert planned(made) == [(long, 128, 22), (small, 0, 20)]
    assert planned(made) == [(long, 150, 1), (small, 20, 1)]


def test_a_prompt_that_fits_into_a_step_is_not_split() -> None:
    one, two = sequence(40), sequence(40)
    made = scheduler(one, two, budget=64)
    assert planned(made) == [(one, 0, 40)]
    assert planned(made) == [(one, 40, 1), (two, 0, 40)]


def test_no_more_tokens_are_planned_than_are_asked_for() -> None:
    one = sequence(5, new=2)
    made = scheduler(one)
    assert planned(made) == [(one, 0, 5)]
    assert planned(made) == [(one, 5, 1)]
    assert planned(made) == []


def test_the_same_beginning_is_computed_once() -> None:
    keys = [b"a", b"b"]
    one, two = (sequence(2 * PAGE_TOKENS + 3, keys=keys) for _ in range(2))
    other = sequence(9)
    made = scheduler(one, two, other)
    assert planned(made) == [(one, 0, 35), (other, 0, 9)], "the second waits for the first's pages"
    assert (two, 2 * PAGE_TOKENS, 3) in planned(made)
    assert two.pages[:2] == one.pages[:2] and two.pages[2] != one.pages[2]


def test_the_last_token_of_a_prompt_is_always_computed() -> None:
    keys = [b"a", b"b"]
    one, two = (sequence(2 * PAGE_TOKENS, keys=keys) for _ in range(2))
    made = scheduler(one)
    made.plan()
    made.add(two)
    assert (two, PAGE_TOKENS, PAGE_TOKENS) in planned(made)


def test_a_restart_begins_again_with_no_page_kept() -> None:
    """A step that failed may have left pages unwritten that count as computed."""
    keys = [b"a", b"b"]
    one, two = sequence(2 * PAGE_TOKENS + 3, keys=keys), sequence(9)
    made = scheduler(one, two)
    made.plan()
    made.plan()
    one.tokens = [5]
    made.restart()
    assert made.pool.available == 100 and made.pool.find(keys) == []
    assert (one.tokens, one.pages, one.lane) == ([], [], -1)
    assert planned(made) == [(one, 0, 35), (two, 0, 9)]


def test_nothing_overtakes_a_request_that_waits_for_memory() -> None:
    one, two, small = sequence(40, new=8), sequence(40, new=8), sequence(3)
    made = scheduler(one, two, small, pages=5)
    assert planned(made) == [(one, 0, 40)]
    made.forget(one)
    assert planned(made) == [(two, 0, 40), (small, 0, 3)]


def test_an_answered_request_runs_no_more_and_leaves_its_pages_and_lane() -> None:
    asked = [sequence(40) for _ in range(3)]
    made = scheduler(*asked, lanes=1)
    for one in asked:
        assert planned(made) == [(one, 0, 40)]
        assert planned(made) == [(one, 40, 1)]
        made.forget(one)
        assert (one.lane, one.pages, made.pool.available) == (-1, [], 100)
    assert planned(made) == [] and made.is_idle
