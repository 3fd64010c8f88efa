"""On CUDA, tower and decoder compute what they compute in fp32 on the CPU, as closely as the dtype
allows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from tests import oracle
from tests.miniature import MINIATURES
from tests.models.language.sequences import sequence
from tests.models.loaded import embed_chat, features, load, tiles
from vlmc.models.language.reference_loop import Sampling, generate, prefill, score

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

Folder = Callable[[str], Path]
NEW_TOKENS = 16
NO_STOP = -1
CHATS = [
    pytest.param(name, chat, id=f"{name}-{chat.case}")
    for name in MINIATURES
    for chat in oracle.chats(name)
    if chat.case in ("two", "history", "joined") or chat.case.startswith("crossing")
]


@dataclass(frozen=True, slots=True)
class Bound:
    """Largest differences: of features, relative root mean square; of logits, absolute."""

    features: float
    logits: float


BOUNDS = {
    torch.float32: Bound(1e-5, 1e-4),
    torch.bfloat16: Bound(0.01, 0.15),
    torch.float16: Bound(0.0015, 0.02),
}
every_dtype = pytest.mark.parametrize("dtype", BOUNDS, ids=str)


@every_dtype
@pytest.mark.parametrize("picture", oracle.FEATURE_PICTURES, ids=str)
@pytest.mark.parametrize("name", MINIATURES)
def test_features(
    name: str, picture: tuple[str, int], dtype: torch.dtype, miniatures: Folder
) -> None:
    expected = features(miniatures(name), *picture, torch.float32, "cpu")
    found = features(miniatures(name), *picture, dtype, "cuda")
    assert (found.device.type, found.dtype) == ("cuda", dtype)
    error = float((found.cpu().float() - expected).norm() / expected.norm())
    assert error < BOUNDS[dtype].features


@every_dtype
@pytest.mark.parametrize(("name", "chat"), CHATS)
def test_logits_while_answering(
    name: str, chat: oracle.Chat, dtype: torch.dtype, miniatures: Folder
) -> None:
    """The original's."""
    if not all(tiles_are_recorded(*picture) for picture in chat.pictures):
        pytest.skip("the Pillow of this machine makes other tiles than the original was given")
    found, bound = answering_logits(miniatures(name), chat.case, name, dtype), BOUNDS[dtype].logits
    assert found.dtype == torch.float32
    best = found.gather(1, torch.from_numpy(chat.top_ids).long())
    torch.testing.assert_close(best, torch.from_numpy(chat.top_logits), rtol=0, atol=bound)
    torch.testing.assert_close(found[-1], torch.from_numpy(chat.final_logits), rtol=0, atol=bound)


@every_dtype
@pytest.mark.parametrize(("name", "chat"), CHATS)
def test_logits_are_those_of_the_cpu(
    name: str, chat: oracle.Chat, dtype: torch.dtype, miniatures: Folder
) -> None:
    """All of them, whatever tiles Pillow makes."""
    expected = answering_logits(miniatures(name), chat.case, name, torch.float32, "cpu")
    found = answering_logits(miniatures(name), chat.case, name, dtype)
    torch.testing.assert_close(found, expected, rtol=0, atol=BOUNDS[dtype].logits)


def tiles_are_recorded(image: str, maximum: int) -> bool:
    """Whether a picture's tiles are here what they were when the original's answers were made."""
    recorded = {
        entry.sha256 for entry in oracle.tiles() if (entry.image, entry.max_num) == (image, maximum)
    }
    return hashlib.sha256(tiles(image, maximum).numpy().tobytes()).hexdigest() in recorded


@lru_cache(maxsize=8)
@torch.inference_mode()
def answering_logits(
    folder: Path, case: str, name: str, dtype: torch.dtype, device: str = "cuda"
) -> torch.Tensor:
    """(steps, vocabulary) while the recorded answer is given, whatever would be best."""
    (chat,) = [chat for chat in oracle.chats(name) if chat.case == case]
    loaded = load(folder, dtype, device)
    start = prefill(
        loaded.decoder, [embed_chat(folder, loaded, chat)], 0, reserve_tokens=NEW_TOKENS
    )
    logits = [start.logits]
    for token in chat.new_ids[:-1]:
        embedded = loaded.decoder.embed_tokens(torch.tensor([[token]], device=device))
        logits.append(loaded.decoder.logits(loaded.decoder(embedded, start.cache)[:, -1]))
    return torch.cat(logits).cpu()


@every_dtype
@pytest.mark.parametrize(("name", "chat"), CHATS)
@torch.inference_mode()
def test_greedy_answer(
    name: str, chat: oracle.Chat, dtype: torch.dtype, miniatures: Folder
) -> None:
    folder = miniatures(name)
    loaded = load(folder, dtype, "cuda")
    start = prefill(
        loaded.decoder, [embed_chat(folder, loaded, chat)], 0, reserve_tokens=NEW_TOKENS
    )
    found = generate(loaded.decoder, start, Sampling(NEW_TOKENS), loaded.prompts.stop_id)[0]
    near_tie = max(1e-3, 2 * BOUNDS[dtype].logits)
    clear = next((i for i, gap in enumerate(chat.gaps) if gap < near_tie), len(chat.gaps))
    assert list(found[:clear]) == chat.new_ids[:clear]


@every_dtype
@pytest.mark.parametrize("name", ["qwen2-300m", "phi3-300m", "internlm2-300m-ntk"])
@torch.inference_mode()
def test_shared_ragged_rows_and_their_scores(
    name: str, dtype: torch.dtype, miniatures: Folder
) -> None:
    """The whole of prefill, cache selection and scoring, against single rows on the CPU."""
    there, here = load(miniatures(name), dtype, "cuda").decoder, load(miniatures(name)).decoder
    choices = [(7,), (30, 12, 5, 9), (30, 8)]
    for shared, rests in ((40, (3, 17, 1)), (540, (2, 9)), (490, (30, 10))):
        prefix = sequence(here, shared)
        rows = [torch.cat([prefix, sequence(here, rest, 1 + rest)]) for rest in rests]
        moved = [row.to("cuda", dtype) for row in rows]
        start = prefill(there, moved, shared, reserve_tokens=8)
        scores = score(there, start, choices).cpu()
        for index, row in enumerate(rows):
            alone = prefill(here, [row], 0, reserve_tokens=8)
            expected = score(here, alone, choices)[0]
            bound = BOUNDS[dtype].logits
            torch.testing.assert_close(
                start.logits[index].cpu(), alone.logits[0], rtol=0, atol=bound
            )
            torch.testing.assert_close(scores[index], expected, rtol=0, atol=4 * bound)
        if dtype == torch.float32:
            answers = generate(there, start, Sampling(8), NO_STOP)
            unshared = generate(
                here, prefill(here, rows, 0, reserve_tokens=8), Sampling(8), NO_STOP
            )
            assert answers == unshared


@torch.inference_mode()
def test_draws_do_not_depend_on_the_device(miniature: Path) -> None:
    drawn = []
    for device in ("cpu", "cuda"):
        decoder = load(miniature, torch.float32, device).decoder
        row = sequence(load(miniature).decoder, 9).to(device)
        start = prefill(decoder, [row], 0, reserve_tokens=8)
        drawn.append(generate(decoder, start, Sampling(8, 0.8, 3), NO_STOP))
    assert drawn[0] == drawn[1]
