"""Trains the quickstart model in two stages; see README.md beside this file.

    python -m recipes.quickstart.training.train --state STATE --out OUT --minutes 9

may be called again and again with the same state until the schedule's end; each call
writes the averaged weights as `model.safetensors`. Stage 1 teaches the tower alone to know what
each image token shows; stage 2 trains everything on questions.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections import Counter, defaultdict, deque
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from recipes.quickstart.training.branches import branch_logits, embed_prefix
from recipes.quickstart.training.dense import dense_loss, dense_targets
from recipes.quickstart.training.feed import DENSE, LANGUAGE, Batch, Feed, FeedSettings
from recipes.quickstart.training.layout import write_weights
from recipes.quickstart.training.learner import Learner, Model
from recipes.quickstart.training.measure import draw_scenes, measure
from recipes.quickstart.training.prompts import IGNORED, Prompts
from recipes.quickstart.training.samples import QUESTION_KINDS
from vlmc.models.vision.tower import normalize_tiles

TRAINING_SEEDS = 1_000_000_000
WATCHED_SEEDS = 900_000_000
WATCHED_RULES = ("original-12", "native-12", "single")
KIND_WEIGHTS = (1.5, 1.0, 1.0, 1.5, 1.0)
"""Weights of a question in the loss, in the order of `QUESTION_KINDS`."""
RESERVE_SECONDS = 20.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--state", type=Path, required=True, help="folder to go on from")
    parser.add_argument("--out", type=Path, required=True, help="folder for log and checkpoint")
    parser.add_argument("--minutes", type=float, default=9.0, help="length of this call")
    parser.add_argument("--dense-minutes", type=float, default=6.0)
    parser.add_argument("--language-minutes", type=float, default=24.0)
    parser.add_argument("--dense-rate", type=float, default=2e-3)
    parser.add_argument("--language-rate", type=float, default=1e-3)
    parser.add_argument(
        "--tower-share",
        type=float,
        default=0.0,
        help="of the language stage's rate, 0 freezes the tower: a language model that knows "
        "nothing yet spoils in a minute what the tower has learned, and features that move under "
        "it are far slower to learn from",
    )
    parser.add_argument("--warmup-steps", type=int, default=200)
    parser.add_argument("--dense-weight", type=float, default=1.0, help="in the language stage")
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--average-decay", type=float, default=0.998)
    parser.add_argument("--tiles", type=int, default=256, help="tiles in a batch")
    parser.add_argument("--rows", type=int, default=64, help="most images in a batch")
    parser.add_argument("--questions", type=int, default=12, help="most questions of a scene")
    parser.add_argument("--visits", type=int, default=2, help="tile rules tried on a scene")
    parser.add_argument("--recent", type=int, default=24, help="batches kept for another use")
    parser.add_argument("--uses", type=int, default=3, help="most uses of a batch")
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--watched", type=int, default=48, help="scenes of the running evaluation")
    parser.add_argument("--watch-seconds", type=float, default=120.0)
    parser.add_argument("--log-seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=20240717)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--pin", action="store_true", help="page-lock the tiles' shared memory")
    parser.add_argument("--compile", action="store_true", help="compile the tower")
    parser.add_argument("--compile-language", action="store_true", help="compile the decoder")
    return parser.parse_args()


def jitter(tiles: Tensor) -> Tensor:
    """Small changes of light, contrast, tint and noise, tile by tile; uint8 (N, 448, 448, 3)."""
    shape, device = (tiles.shape[0], 1, 1, 1), tiles.device
    gain = 1 + 0.12 * (2 * torch.rand(shape, device=device) - 1)
    gain = gain + 0.03 * (2 * torch.rand(tiles.shape[0], 1, 1, 3, device=device) - 1)
    shift = 0.05 * 255 * (2 * torch.rand(shape, device=device) - 1)
    noise = 4.0 * torch.rand(shape, device=device) * torch.randn(tiles.shape, device=device)
    changed = (tiles.float() - 128) * gain + 128 + shift + noise
    return changed.round().clamp(0, 255).to(torch.uint8)


class Trainer:
    """One call of the script."""

    def __init__(self, options: argparse.Namespace, learner: Learner, feed: Feed) -> None:
        self.options, self.learner, self.feed = options, learner, feed
        self.device = torch.device(options.device)
        self.prompts = Prompts()
        tower: Any = learner.model.tower
        self.tower = torch.compile(tower) if options.compile else tower
        self.prepare = torch.compile(self._pixels) if options.compile else self._pixels
        self.branch_logits: Any = (
            torch.compile(branch_logits, dynamic=True)
            if options.compile_language
            else branch_logits
        )
        self.recent: deque[Batch] = deque(maxlen=options.recent)
        self.uses: deque[int] = deque(maxlen=options.recent)
        self.random = random.Random(options.seed)
        self.stage = DENSE
        self.fresh = 0
        self.sums: dict[str, list[Tensor]] = defaultdict(list)
        self.kind_weights = torch.tensor(KIND_WEIGHTS, device=self.device)

    @staticmethod
    def _pixels(tiles: Tensor) -> Tensor:
        return normalize_tiles(jitter(tiles), torch.bfloat16)

    def losses(self, batch: Batch, stage: int) -> Tensor:
        """The loss of a batch; figures for the log are put aside on the device."""
        model = self.learner.model
        seeing = stage == DENSE or self.options.tower_share > 0
        loss = torch.zeros((), device=self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            with torch.set_grad_enabled(seeing):
                features = self.tower(self.prepare(batch.tiles))[: batch.rows * batch.count]
            features = features.unflatten(0, (batch.rows, batch.count)).flatten(1, 2)
            if seeing:
                targets, middle = dense_targets(batch.windows, batch.boxes, batch.classes)
                loss, accuracy = dense_loss(model.head(features), targets, middle)
                self.sums["dense_loss"].append(loss.detach())
                for name, value in accuracy.items():
                    self.sums[f"dense_{name}"].append(value)
            if stage == DENSE:
                return loss
            prefix = embed_prefix(model.decoder, self.prompts, features)
            logits = self.branch_logits(model.decoder, prefix, batch.branches)
        weight: float = self.options.dense_weight
        return weight * loss + self._answer_loss(logits, batch)

    def _answer_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        tokens = functional.cross_entropy(
            logits.flatten(0, 2), batch.targets.flatten(), ignore_index=IGNORED, reduction="none"
        ).view(batch.targets.shape)
        asked = batch.kinds >= 0
        weights = self.kind_weights[batch.kinds.clamp(min=0)] * asked
        known = (batch.targets != IGNORED).sum(dim=2).clamp(min=1)
        loss = (tokens.sum(dim=2) / known * weights).sum() / weights.sum().clamp(min=1)
        self.sums["answer_loss"].append(loss.detach())
        right = (logits.argmax(dim=-1) == batch.targets) | (batch.targets == IGNORED)
        exact = right.all(dim=2)
        for number, name in enumerate(QUESTION_KINDS):
            chosen = batch.kinds == number
            self.sums[f"exact_{name}"].append((exact & chosen).sum() / chosen.sum().clamp(min=1))
        return loss

    def rate(self, stage: int) -> float:
        """Learning rate now: warm-up by steps, then a cosine by seconds of the stage's budget."""
        options, progress = self.options, self.learner.progress
        peak = options.dense_rate if stage == DENSE else options.language_rate
        minutes = options.dense_minutes if stage == DENSE else options.language_minutes
        done = min(1.0, progress.seconds[stage] / (60 * minutes))
        warm = min(1.0, (1 + progress.steps[stage]) / options.warmup_steps)
        return float(peak * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))))

    def next(self, stage: int) -> Batch:
        """A new batch, or a recent one again when drawing cannot keep up."""
        if self.stage != stage:
            self.recent.clear()
            self.uses.clear()
            self.stage = stage
        if self.feed.waiting() == 0:
            usable = [index for index, uses in enumerate(self.uses) if uses < self.options.uses]
            if len(usable) >= self.options.recent // 2:
                index = self.random.choice(usable)
                self.uses[index] += 1
                return self.recent[index]
        batch = self.feed.next(stage)
        self.fresh += 1
        self.recent.append(batch)
        self.uses.append(1)
        return batch

    def step(self, stage: int) -> None:
        batch = self.next(stage)
        self.losses(batch, stage).backward()  # type: ignore[no-untyped-call]
        norm = self.learner.step(
            self.rate(stage), 1.0 if stage == DENSE else self.options.tower_share, self.options.clip
        )
        self.sums["norm"].append(norm.detach())
        self.learner.progress.steps[stage] += 1
        self.learner.progress.images += batch.rows

    def figures(self) -> dict[str, float]:
        """Means since the last call; waits for the device."""
        result = {
            name: round(float(torch.stack(values).float().mean()), 4)
            for name, values in self.sums.items()
        }
        self.sums.clear()
        return result


def precision(device: torch.device) -> Any:
    return torch.autocast(device.type, torch.bfloat16) if device.type == "cuda" else nullcontext()


class Log:
    """JSON lines in a file and on stdout."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("a", encoding="utf-8")

    def write(self, **values: object) -> None:
        line = json.dumps(values)
        self.file.write(line + "\n")
        self.file.flush()
        print(line, flush=True)


def main() -> None:
    options = arguments()
    started = time.monotonic()
    device = torch.device(options.device)
    log = Log(options.state / "log.jsonl")
    state_file = options.state / "progress.json"
    resumed = json.loads(state_file.read_text())["progress"] if state_file.exists() else None
    watched = draw_scenes(
        range(WATCHED_SEEDS, WATCHED_SEEDS + options.watched), 10, options.workers
    )
    settings = FeedSettings(
        workers=options.workers,
        tiles=options.tiles,
        rows=options.rows,
        questions=options.questions,
        visits=options.visits,
        first_seed=resumed["next_seed"] if resumed else TRAINING_SEEDS,
    )
    feed = Feed(settings)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    learner = Learner(device, options.average_decay)
    if resumed:
        learner.restore(options.state)
    else:
        learner.begin(options.seed)
    log.write(event="start", resumed=resumed, options={k: str(v) for k, v in vars(options).items()})
    try:
        train(options, learner, feed, log, started, watched)
        learner.progress.next_seed = feed.next_seed()
    finally:
        feed.close()
    learner.save(options.state)
    finish(options, learner.average, log)


def train(
    options: argparse.Namespace,
    learner: Learner,
    feed: Feed,
    log: Log,
    started: float,
    watched: Any,
) -> None:
    """Steps until the schedule or this call's time is over."""
    trainer = Trainer(options, learner, feed)
    progress = learner.progress
    budgets = (60 * options.dense_minutes, 60 * options.language_minutes)
    stage = DENSE if progress.seconds[DENSE] < budgets[DENSE] else LANGUAGE
    feed.stage.value = stage
    feed.progress.value = progress.seconds[LANGUAGE] / budgets[LANGUAGE]
    feed.start(trainer.device, pin=options.pin)
    deadline = started + 60 * options.minutes - RESERVE_SECONDS
    last_log = last_watch = last = time.monotonic()
    steps, images = progress.steps[stage], progress.images
    warm = False
    while progress.seconds[stage] < budgets[stage] and time.monotonic() < deadline:
        trainer.step(stage)
        if not warm:
            # The first step compiles; its time is not the schedule's.
            trainer.figures()
            last, warm = time.monotonic(), True
        now = time.monotonic()
        progress.seconds[stage] += now - last
        last = now
        if stage == LANGUAGE:
            feed.progress.value = progress.seconds[stage] / budgets[stage]
        if now - last_log > options.log_seconds:
            found = trainer.figures()
            spent = time.monotonic() - last_log
            log.write(
                stage=stage,
                steps=progress.steps[stage],
                seconds=round(progress.seconds[stage], 1),
                rate=round(trainer.rate(stage), 6),
                minutes=round((time.monotonic() - started) / 60, 2),
                steps_per_second=round((progress.steps[stage] - steps) / spent, 2),
                images_per_second=round((progress.images - images) / spent, 1),
                drawn=feed.drawn.value,
                fresh=trainer.fresh,
                waiting=feed.waiting(),
                **found,
            )
            last_log, steps, images = time.monotonic(), progress.steps[stage], progress.images
        if stage == LANGUAGE and now - last_watch > options.watch_seconds:
            watch(options, learner.average, trainer.prompts, watched, log)
            learner.progress.next_seed = feed.next_seed()
            learner.save(options.state)
            last = last_watch = last_log = time.monotonic()
        if stage == DENSE and progress.seconds[stage] >= budgets[stage]:
            log.write(event="dense stage done", **trainer.figures())
            learner.begin_stage()
            stage = LANGUAGE
            feed.stage.value = stage
            steps = 0
    if stage == LANGUAGE:
        watch(options, learner.average, trainer.prompts, watched, log)


def watch(
    options: argparse.Namespace, model: Model, prompts: Prompts, scenes: Any, log: Log
) -> None:
    """Log the running evaluation: the averaged weights on scenes of no other split."""
    device = torch.device(options.device)
    for rule in WATCHED_RULES:
        found = measure(
            model.tower,
            model.decoder,
            prompts,
            scenes,
            rule,
            "pillow",
            lambda: precision(device),
            options.workers,
        )
        log.write(event="watch", rule=rule, **found)


def finish(options: argparse.Namespace, model: Model, log: Log) -> None:
    """Write the averaged weights as model.safetensors of the checkpoint."""
    write_weights(model.tower, model.decoder, options.out)
    parameters = Counter(
        {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    )
    log.write(event="saved", parameters=dict(parameters))
    log.file.close()


if __name__ == "__main__":
    main()
