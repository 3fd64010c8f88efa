"""Two GPUs, connected by NCCL, answer as one: with the collectives in CUDA graphs and without."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from tests.models.loaded import load
from tests.runtime.scheduler.serving import drawn, start
from tests.runtime.scheduler.shared_miniature import share
from vlmc import load as load_artifact
from vlmc.errors import HardwareError
from vlmc.models.language.kv_cache import KVCache
from vlmc.models.language.reference_loop import embed
from vlmc.runtime.sampling_options import make_sampling
from vlmc.runtime.scheduler.sequence import Generated

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")

CUDA = torch.device("cuda", 0)
NAMES = ("internlm2-300m", "qwen2-300m", "phi3-300m", "llama-yi-6b")
# bf16 keeps 8 bits of logits of a few units: a smaller lead of one token over another is noise.
BF16_MARGIN = 0.1


@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "no graphs"])
@pytest.mark.parametrize("name", NAMES)
def test_fp32_answers_are_the_references(name: str, graphs: bool, miniatures: object) -> None:
    folder: Path = miniatures(name)  # type: ignore[operator]
    alone = start(load(folder, torch.float32, "cuda").decoder, cuda_graphs=False)
    alone.loop.close()  # what follows asks its reference loop alone
    asked = drawn(1, 40)
    with share(folder, "float32", CUDA, policy="content", cuda_graphs=graphs) as service:
        results = service.ask(asked)
    for (prepared, work), (result, _) in zip(asked, results, strict=True):
        alone.check(prepared, work, result)


@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "no graphs"])
def test_bf16_differs_from_one_gpu_only_in_near_ties(graphs: bool, miniature: Path) -> None:
    decoder = load(miniature, torch.bfloat16, "cuda").decoder
    alone = start(decoder, cuda_graphs=graphs)
    asked = drawn(2, 40)
    try:
        expected = alone.ask(asked)
    finally:
        alone.loop.close()
    with share(miniature, "bfloat16", CUDA, policy="content", cuda_graphs=graphs) as service:
        found = service.ask(asked)
    for (prepared, _), (one, _), (two, _) in zip(asked, expected, found, strict=True):
        if not isinstance(one, Generated) or not isinstance(two, Generated):
            continue
        pairs = zip(one.token_ids, two.token_ids, strict=True)
        place = next((index for index, (a, b) in enumerate(pairs) if a != b), None)
        if place is None:
            continue
        features = [alone.encoder.features(image) for image in prepared.images]
        with torch.inference_mode():
            ids = [*prepared.prompt_ids, *one.token_ids[:place]]
            row = embed(decoder, ids, prepared.image_token_id, features)[None]
            cache = KVCache(decoder.config, 1, len(ids), dtype=torch.bfloat16, device=CUDA)
            logits = decoder.logits(decoder(row, cache)[0, -1])
        lead = logits[one.token_ids[place]] - logits[two.token_ids[place]]
        assert abs(float(lead)) < BF16_MARGIN


def test_an_artifact_on_two_gpus(artifact: Path, images: Path) -> None:
    """Tiles shared out over two engines, and the reference path over both GPUs."""
    options = {"device": "cuda", "engine": "onnxruntime", "tiles": "native:max=4"}
    requests = [(path, "Is there a door?") for path in sorted(images.glob("*.jpg"))[:4]]
    with load_artifact(artifact, **options) as one:  # type: ignore[arg-type]
        expected = one.generate(requests, max_new_tokens=5)
        features = one.encode([requests[0][0]])
    with load_artifact(artifact, devices=2, **options) as two:  # type: ignore[arg-type]
        found = two.generate(requests, max_new_tokens=5)
        torch.testing.assert_close(two.encode([requests[0][0]]), features, atol=1e-3, rtol=0)
        work = make_sampling(max_new_tokens=5)
        references = [two.reference_answer(request, work) for request in requests]
    assert [answer.token_ids for answer in found] == [answer.token_ids for answer in expected]
    assert [answer.text for answer in references] == [answer.text for answer in found]  # type: ignore[union-attr]


def test_a_killed_follower_fails_all_requests(artifact: Path) -> None:
    with load_artifact(artifact, device="cuda", devices=2, engine="onnxruntime") as model:
        followers = model._dispatcher.loop._runner.lead._followers
        assert followers is not None
        futures = [model.submit((None, f"Count to {n}"), max_new_tokens=500) for n in range(8)]
        os.kill(followers.process_ids[0], signal.SIGKILL)
        for future in futures:
            with pytest.raises(HardwareError, match="rank 1 on cuda:1 was ended by SIGKILL"):
                future.result(timeout=60)
