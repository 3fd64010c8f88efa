"""How well the model answers, by tile rule and kind of question."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial

import cv2
import torch
from torch import Tensor

from recipes.quickstart.training.branches import branch_logits, embed_prefix
from recipes.quickstart.training.parts import Question, Scene
from recipes.quickstart.training.prompts import Prompts
from recipes.quickstart.training.samples import RULES, Sample, grid_sample
from recipes.quickstart.training.scenes import draw
from recipes.quickstart.training.words import THERE
from vlmc.image.decode import decode
from vlmc.image.resize import Resampler
from vlmc.models.language.decoder import Decoder
from vlmc.models.vision.tower import VisionTower, normalize_tiles

MOST_NEW_TOKENS = 5
Precision = Callable[[], AbstractContextManager[object]]


def draw_scenes(seeds: Sequence[int], questions: int, processes: int) -> list[Scene]:
    """Scenes in the order of their seeds. Call it before the first use of CUDA: it forks."""
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        return list(pool.map(partial(draw, questions=questions), seeds, chunksize=4))


def cut_scenes(
    scenes: Sequence[Scene], rule: str, kind: Resampler, prompts: Prompts, threads: int
) -> Iterator[tuple[Scene, Sample]]:
    """Every scene with its sample by a tile rule, at most a few held at a time."""

    def cut(scene: Scene) -> Sample:
        return grid_sample(scene, decode(scene.jpeg), RULES[rule], prompts, kind)

    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(scenes), 4 * threads):
            part = scenes[start : start + 4 * threads]
            yield from zip(part, pool.map(cut, part), strict=True)


@torch.no_grad()
def answers_to(
    tower: VisionTower,
    decoder: Decoder,
    prompts: Prompts,
    sample: Sample,
    questions: Sequence[str],
    precision: Precision,
) -> list[str]:
    """Greedy answers to questions about one image, each as if it had been asked alone."""
    device = decoder.lm_head.weight.device
    with precision():
        pixels = normalize_tiles(torch.from_numpy(sample.tiles).to(device), torch.float32)
        features = tower(pixels)
        prefix = embed_prefix(decoder, prompts, features.flatten(0, 1)[None])
        given = [prompts.question(question) for question in questions]
        longest = max(len(ids) for ids in given) + MOST_NEW_TOKENS
        branches = torch.zeros(1, len(given), longest, dtype=torch.int64)
        for row, ids in enumerate(given):
            branches[0, row, : len(ids)] = torch.tensor(ids)
        ends = torch.tensor([len(ids) for ids in given], device=device)
        branches = branches.to(device)
        rows = torch.arange(len(given), device=device)
        for step in range(MOST_NEW_TOKENS):
            logits = branch_logits(decoder, prefix, branches)[0]
            chosen = logits[rows, ends + step - 1].argmax(dim=-1)
            branches[0, rows, ends + step] = chosen
            if bool((branches[0] == prompts.end).sum(dim=1).ge(2).all()):
                break
    found: Tensor = branches[0].cpu()
    return [
        prompts.text(found[row, len(ids) : len(ids) + MOST_NEW_TOKENS].tolist())
        for row, ids in enumerate(given)
    ]


LabelledAnswer = tuple[Scene, Question, str]


def figures(judged: Sequence[LabelledAnswer]) -> dict[str, float | None]:
    """Exact match overall and by kind, presence recall and precision, all with their counts."""

    def share(chosen: list[bool]) -> float | None:
        return round(sum(chosen) / len(chosen), 4) if chosen else None

    result: dict[str, float | None] = {"questions": float(len(judged))}
    result["exact"] = share([answer == question.answer for _, question, answer in judged])
    for kind in dict.fromkeys(question.kind for _, question, _ in judged):
        for name, wanted in (("", (True, False)), ("_large", (True,)), ("_small", (False,))):
            result[f"exact_{kind}{name}"] = share(
                [a == q.answer for s, q, a in judged if q.kind == kind and s.large in wanted]
            )
    presence = [(q.positive, a == THERE[q.language]) for _, q, a in judged if q.kind == "presence"]
    result["recall"] = share([said for true, said in presence if true])
    result["precision"] = share([true for true, said in presence if said])
    return result


def measure(
    tower: VisionTower,
    decoder: Decoder,
    prompts: Prompts,
    scenes: Sequence[Scene],
    rule: str,
    kind: Resampler,
    precision: Precision,
    threads: int,
) -> dict[str, float | None]:
    """`figures` of all questions of the scenes under a tile rule."""
    judged: list[LabelledAnswer] = []
    for scene, sample in cut_scenes(scenes, rule, kind, prompts, threads):
        asked = [question.prompt for question in scene.questions]
        said = answers_to(tower, decoder, prompts, sample, asked, precision)
        judged += [
            (scene, question, answer)
            for question, answer in zip(scene.questions, said, strict=True)
        ]
    return figures(judged)
