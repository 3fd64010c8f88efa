"""Choices as a trie: what they share is one node, and the end counts where it has to."""

from __future__ import annotations

from itertools import permutations

import pytest

from vlmc.runtime.scheduler.choice_trie import ChoiceTrie

STOP = 2


@pytest.mark.parametrize("choices", [*permutations([(9,), (12, 13), (9, 10), (30,)])])
def test_the_end_counts_where_a_choice_begins_another(choices: list[tuple[int, ...]]) -> None:
    trie = ChoiceTrie(choices, STOP)
    assert trie.with_end
    assert trie.choices == tuple((*choice, STOP) for choice in choices)


def test_the_end_does_not_count_where_no_choice_begins_another() -> None:
    choices = [(9, 11), (12, 13), (9, 10)]
    trie = ChoiceTrie(choices, STOP)
    assert not trie.with_end and trie.choices == tuple(choices)


def test_a_shared_beginning_is_one_node() -> None:
    trie = ChoiceTrie([(9, 11), (12,), (9, 10, 4)], STOP)
    assert trie.edges == 5
    assert [node.tokens for node in trie.inner_nodes()] == [(9,), (9, 10)]
