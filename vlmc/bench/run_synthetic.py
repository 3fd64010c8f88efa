"""Measure random models of a shape, case by case, or one lever after another."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from vlmc.artifact.manifest import RuntimeRules
from vlmc.bench.climb import climb, make_rung, missing_on
from vlmc.bench.ladder import Rung, rungs
from vlmc.bench.measure import measure
from vlmc.bench.memory import free_memory
from vlmc.bench.report import BenchReport
from vlmc.bench.subject import Subject, make_subject
from vlmc.bench.synthetic.cases import Case, find_case
from vlmc.bench.synthetic.precisions import EAGER, EngineKind, Precisions
from vlmc.bench.synthetic_models import SyntheticModels
from vlmc.bench.tower_packages import TowerPackages
from vlmc.bench.workload import Workload
from vlmc.errors import UsageError
from vlmc.image.tiles import TileRule
from vlmc.progress.channel import report as report_event
from vlmc.progress.events import Note
from vlmc.runtime.engines.lent import Lent

_LADDER_CASE = 7


@dataclass(frozen=True, slots=True)
class Questions:
    """What is asked about synthetic pictures."""

    texts: tuple[str, ...]
    max_new_tokens: int
    choices: tuple[str, ...] | None

    def about(self, case: Case, count: int) -> Workload:
        """The workload of a case with so many pictures."""
        return Workload(case.images(count), self.texts, self.max_new_tokens, self.choices)


def bench_synthetic(
    models: SyntheticModels,
    kind: EngineKind,
    precisions: Sequence[Precisions],
    cases: Sequence[tuple[Case, int]],
    questions: Questions,
    rules: RuntimeRules,
    runs: int,
    report: BenchReport,
) -> dict[str, Any]:
    """Every case, with its number of requests, in every pair of precisions.

    Raises:
        VlmcError: memory is too small, the tower cannot be compiled, or a request has no answer.
    """
    workloads = {case.tiles: questions.about(case, count) for case, count in cases}
    with ExitStack() as stack:
        _compile(stack, models, kind, precisions)
        for pair in precisions:
            engine = models.engine(pair.vision, kind)
            parts = models.parts(pair.language, engine)
            for case, _ in cases:
                subject = make_subject(
                    f"{pair.language}, tower {pair.vision}, {_tiles(case.tiles)}",
                    parts,
                    Lent(engine),
                    tiles=case.rule,
                    rules=rules,
                )
                try:
                    (measured,) = measure([subject], workloads[case.tiles], runs)
                finally:
                    subject.close()
                    free_memory(models.device)
                report.add(measured)
    return report.finish()


def climb_synthetic(
    models: SyntheticModels,
    kind: EngineKind,
    quantized: Precisions,
    count: int | None,
    questions: Questions,
    rules: RuntimeRules,
    runs: int,
    report: BenchReport,
) -> dict[str, Any]:
    """The ladder on pictures of 480×320, from bf16 and 7 tiles to `quantized` and 2.

    Raises:
        UsageError: `quantized` is what the ladder begins with.
        VlmcError: as `bench_synthetic`.
    """
    before = Precisions("bf16", "bf16")
    if quantized == before:
        raise UsageError(
            "the ladder begins in bf16 and ends quantized; give --language fp8 or w4a16, or "
            "--vision fp8"
        )
    case = find_case(_LADDER_CASE)
    last = TileRule("native")
    missing = missing_on(models.device)
    if kind == "eager":
        missing["engine"] = "--engine eager compiles none"
    ladder = rungs(case.rule, last, missing)
    usual = count or case.usual_requests(models.device)
    workload = questions.about(case, usual)

    def make(rung: Rung) -> Subject:
        setting = rung.setting
        pair = quantized if setting.quantized else before
        engine = models.engine(pair.vision, EAGER if setting.eager else kind)
        changed = RuntimeRules(setting.cuda_graphs, rules.prefix_cache, rules.max_batch_tokens)
        return make_rung(models.parts(pair.language, engine), engine, rung, changed)

    with ExitStack() as stack:
        _compile(stack, models, kind, [before, quantized])
        return climb(ladder, make, workload, runs, report)


def _compile(
    stack: ExitStack, models: SyntheticModels, kind: EngineKind, precisions: Sequence[Precisions]
) -> None:
    """Compile the towers; they are removed at the end. The first language model is made meanwhile,
    since its kernels may have to be compiled too."""
    stack.callback(models.close)
    if kind == "eager":
        return
    names = list(dict.fromkeys(pair.vision for pair in precisions))
    report_event(Note(f"compiling the tower in {' and '.join(names)}"))
    packages = stack.enter_context(TowerPackages(models.name, names, models.device))
    models.language(precisions[0].language)
    models.packages = packages.wait()


def _tiles(count: int) -> str:
    return f"{count} tile{'' if count == 1 else 's'}"
