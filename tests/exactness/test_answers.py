"""Prompts, logits and greedy answers are the original's, for every miniature and conversation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import oracle
from tests.miniature import MINIATURES
from tests.models.loaded import embed_chat, features, load, prompt_of, tile_counts
from vlmc.models.language.reference_loop import Sampling, embed, generate, prefill

# Logits reach 10; what differs is the order of fp32 sums, seen up to 6e-6.
TOLERANCE = 1e-4
# Two tokens closer than this may change places on another machine.
NEAR_TIE = 1e-3
NEW_TOKENS = 16

Folder = Callable[[str], Path]
CHATS = [
    pytest.param(name, chat, id=f"{name}-{chat.case}")
    for name in MINIATURES
    for chat in oracle.chats(name)
]
WINDOW = 512
CROSSING = (("phi3-300m", "crossing-phi3"), ("internlm2-300m-ntk", "crossing-ntk"))
BATCHED = [name for name in MINIATURES if not name.startswith("internlm2-300m-")]


@pytest.mark.parametrize(("name", "chat"), CHATS)
def test_prompt(name: str, chat: oracle.Chat, miniatures: Folder) -> None:
    counts = tile_counts(chat)
    assert ([sum(counts)] if chat.joined else counts) == chat.tiles
    prompt = prompt_of(load(miniatures(name)), chat)
    assert list(prompt.ids) == chat.ids
    assert hashlib.sha256(prompt.text.encode()).hexdigest() == chat.prompt_sha256


@pytest.mark.parametrize(("name", "chat"), CHATS)
@torch.inference_mode()
def test_logits_of_the_prompt(name: str, chat: oracle.Chat, miniatures: Folder) -> None:
    folder = miniatures(name)
    loaded = load(folder)
    states = loaded.decoder(embed_chat(folder, loaded, chat)[None])[0]
    found = loaded.decoder.logits(states[chat.positions.tolist()])
    np.testing.assert_allclose(found.numpy(), chat.logits, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("name", "chat"), CHATS)
@torch.inference_mode()
def test_logits_while_answering(name: str, chat: oracle.Chat, miniatures: Folder) -> None:
    folder = miniatures(name)
    loaded = load(folder)
    start = prefill(
        loaded.decoder, [embed_chat(folder, loaded, chat)], 0, reserve_tokens=NEW_TOKENS
    )
    logits = [start.logits]
    for token in chat.new_ids[:-1]:
        states = loaded.decoder(loaded.decoder.embed_tokens(torch.tensor([[token]])), start.cache)
        logits.append(loaded.decoder.logits(states[:, -1]))
    found = torch.cat(logits).numpy()  # (steps, vocabulary)
    best = np.take_along_axis(found, chat.top_ids.astype(np.int64), axis=1)
    np.testing.assert_allclose(best, chat.top_logits, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(found[-1], chat.final_logits, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("name", "chat"), CHATS)
@torch.inference_mode()
def test_greedy_answer(name: str, chat: oracle.Chat, miniatures: Folder) -> None:
    folder = miniatures(name)
    loaded = load(folder)
    start = prefill(
        loaded.decoder, [embed_chat(folder, loaded, chat)], 0, reserve_tokens=NEW_TOKENS
    )
    found = generate(loaded.decoder, start, Sampling(NEW_TOKENS), loaded.prompts.stop_id)[0]
    clear = next((i for i, gap in enumerate(chat.gaps) if gap < NEAR_TIE), len(chat.gaps))
    assert list(found[:clear]) == chat.new_ids[:clear]
    if clear == len(chat.gaps):
        assert len(found) == len(chat.new_ids)
        assert loaded.prompts.answer_text(found) == chat.answer


def test_few_answers_are_cut_by_near_ties() -> None:
    cut = [
        (name, chat.case)
        for name in MINIATURES
        for chat in oracle.chats(name)
        if min(chat.gaps) < NEAR_TIE
    ]
    assert len(cut) <= 2, cut


@pytest.mark.parametrize("name", BATCHED)
@torch.inference_mode()
def test_batch_answers_as_the_originals_left_padded_batch(name: str, miniatures: Folder) -> None:
    folder, expected = miniatures(name), oracle.batch(name)
    loaded = load(folder)
    rows = []
    for picture, question, count in zip(
        expected.pictures, expected.questions, expected.tiles, strict=True
    ):
        prompt = loaded.prompts.build(question, [count])
        found = features(folder, *picture, torch.float32, "cpu")
        rows.append(embed(loaded.decoder, prompt.ids, prompt.image_token_id, [found]))
    assert len(rows[0]) < len(rows[1]) == expected.prompt_tokens
    stop = loaded.prompts.stop_id
    start = prefill(loaded.decoder, rows, 0, reserve_tokens=NEW_TOKENS)
    answers = generate(loaded.decoder, start, Sampling(NEW_TOKENS), stop)
    for answer, ids, text in zip(answers, expected.new_ids, expected.answers, strict=True):
        assert list(answer) == (ids[: ids.index(stop) + 1] if stop in ids else ids)
        assert loaded.prompts.answer_text(answer) == text


@pytest.mark.parametrize(("name", "case"), CROSSING)
@torch.inference_mode()
def test_crossing_the_window_keeps_the_keys_as_they_were_written(
    name: str, case: str, miniatures: Folder
) -> None:
    """Computing the whole sequence anew gives other logits, so the test above has teeth."""
    folder, chat = miniatures(name), oracle.chat(name, case)
    assert len(chat.ids) < WINDOW < len(chat.ids) + len(chat.new_ids) - 1
    loaded = load(folder)
    answer = loaded.decoder.embed_tokens(torch.tensor(chat.new_ids[:-1]))
    whole = torch.cat([embed_chat(folder, loaded, chat), answer])
    anew = loaded.decoder.logits(loaded.decoder(whole[None])[0, -1]).numpy()
    assert np.abs(anew - chat.final_logits).max() > 100 * TOLERANCE
