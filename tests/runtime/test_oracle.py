"""From a checkpoint by way of an artifact to the answers of the original's `chat()`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import oracle
from tests.artifacts import QUICK
from tests.miniature import MINIATURES
from vlmc import Model, load
from vlmc.checkpoint.config import read_language_config
from vlmc.errors import PromptError
from vlmc.runtime.memory_plan import context_limit
from vlmc.runtime.requests.request import Request

# Of logits; beyond it the order of fp32 sums cannot change the best token.
NEAR_TIE = 1e-3


def rule_of(chat: oracle.Chat) -> str:
    """One rule for all pictures of a conversation; a square picture stays one tile under each."""
    return f"original:max={max((maximum for _, maximum in chat.pictures), default=1)}"


def certain(chat: oracle.Chat) -> int:
    """Steps before the first near tie."""
    return next((step for step, gap in enumerate(chat.gaps) if gap < NEAR_TIE), len(chat.gaps))


def check(model: Model, chat: oracle.Chat, limit: int) -> int:
    images = [oracle.IMAGES / name for name, _ in chat.pictures]
    request: Request = (images, chat.question)
    if len(chat.ids) > limit:
        # The original stretches dynamic rope without end; vlmc stops where the factor says.
        with pytest.raises(PromptError, match=f"context ends at {limit}"):
            model.generate([request])
        return len(chat.new_ids)
    (answer,) = model.generate([request], max_new_tokens=16)
    assert list(answer.prompt_token_ids) == chat.ids
    assert answer.image_tokens == 256 * sum(chat.tiles)
    steps = certain(chat)
    assert list(answer.token_ids[:steps]) == chat.new_ids[:steps]
    if steps == len(chat.new_ids):
        assert list(answer.token_ids) == chat.new_ids
        assert answer.text == chat.answer
        stopped = len(chat.new_ids) < 16
        assert answer.finish_reason == ("stop" if stopped else "length")
    return steps


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MINIATURES],
)
def test_answers_are_the_originals(name: str, artifacts: Callable[[str], Path]) -> None:
    chats = [chat for chat in oracle.chats(name) if not chat.history]
    assert len(chats) >= 2
    steps = 0
    limit = context_limit(read_language_config(artifacts(name) / "language" / "config.json"))
    for rule in sorted({rule_of(chat) for chat in chats}):
        with load(artifacts(name), device="cpu", tiles=rule) as model:
            steps += sum(check(model, chat, limit) for chat in chats if rule_of(chat) == rule)
    assert steps > 0.8 * sum(len(chat.new_ids) for chat in chats), "near ties hide too much"
