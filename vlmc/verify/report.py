"""The result of a verification, as lines, as JSON and as a report in the artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlmc.artifact.accuracy_status import (
    AccuracyStatus,
    read_report,
    report_path,
    write_page,
    write_report,
)
from vlmc.artifact.integrity import Artifact
from vlmc.artifact.manifest import EngineRecord
from vlmc.report.numbers import interval_text, share_text
from vlmc.verify.answers import AnswerCheck
from vlmc.verify.confusion import confusion
from vlmc.verify.dataset import Dataset
from vlmc.verify.divergence import DivergenceCheck
from vlmc.verify.explanation import Explanation
from vlmc.verify.gate import Checked
from vlmc.verify.histograms import histograms
from vlmc.verify.ladder import Rung, ladder_json, ladder_lines
from vlmc.verify.page.disagreements import image_paths
from vlmc.verify.page.grid_images import grid_images
from vlmc.verify.page.page import draw_page
from vlmc.verify.page.worst_questions import worst_first
from vlmc.verify.reference import Reference
from vlmc.verify.sweep import MeasuredPoint, sweep_lines
from vlmc.version import __version__

_WORST = 20
_WORST_QUESTIONS = 50


@dataclass(frozen=True, slots=True)
class Verified:
    """The result for one engine of an artifact on one dataset."""

    artifact: Artifact
    engine: EngineRecord
    reference: Reference
    reference_path: Path
    dataset: Dataset
    checked: Checked
    explanations: tuple[Explanation, ...]
    ladder: tuple[Rung, ...] = ()
    sweep: tuple[MeasuredPoint, ...] = ()

    @property
    def status(self) -> AccuracyStatus:
        """The status of the engine. A limited run can fail but never pass."""
        if self.checked.failed:
            return "failed"
        return "passed" if self.dataset.limit is None else "not_run"

    @property
    def same_source(self) -> bool:
        """Whether the reference comes from the checkpoint that the artifact was built from."""
        source = self.artifact.manifest.source
        return all(self.reference.source.get(name) == digest for name, digest in source.items())

    def keep(self) -> tuple[Path, Path]:
        """Write the report and its page into the artifact and return their paths.

        Results of other engines on the same questions are kept. The page shows this one.

        Raises:
            UsageError: the artifact's folder cannot be written to.
        """
        artifact, digest = self.artifact, self.dataset.digest
        before = read_report(report_path(artifact.folder, digest), artifact.identity)
        others = before["engines"] if isinstance(before, dict) else []
        values = self.to_json(others)
        report = write_report(artifact.folder, digest, values)
        images = grid_images(image_paths(values["engines"][0]), artifact.manifest.image)
        page = draw_page(values, images, ladder=self.ladder, sweep=self.sweep)
        return report, write_page(artifact.folder, digest, page)

    def to_json(self, others: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """The JSON form; `others` are the entries of an earlier report."""
        return {
            "identity": self.artifact.identity,
            "artifact": self.artifact.manifest.name,
            "vlmc": __version__,
            "dataset": self.dataset.to_json(),
            "tiles": str(self.artifact.manifest.image.tiles),
            "engines": [*self._entries(others)],
        }

    def _entries(self, others: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        yield self._entry()
        mine = (self.engine.engine, self.engine.target)
        kept = {(str(entry["engine"]), str(entry["target"])): entry for entry in others}
        for engine in self.artifact.manifest.engines:
            key = (engine.engine, engine.target)
            before = kept.pop(key, None)
            if key == mine:
                continue
            if before is not None and "verdicts" in before:
                yield before
            elif self.engine.engine == "onnxruntime" and engine.precision == self.engine.precision:
                # Only the graph that this engine was compiled from has been checked.
                status = "onnx_only" if self.status == "passed" else self.status
                yield {"engine": engine.engine, "target": engine.target, "status": status}
        kept.pop(mine, None)
        yield from kept.values()

    def _entry(self) -> dict[str, Any]:
        checked, answers = self.checked, self.checked.answers.to_json()
        thresholds = checked.thresholds
        worst = worst_first(
            answers["questions"], thresholds.min_answer_agreement, thresholds.max_recall_drop
        )
        shown = [question.name for question in worst[:_WORST_QUESTIONS]]
        return {
            "engine": self.engine.engine,
            "target": self.engine.target,
            "precision": self.engine.precision,
            "status": self.status,
            "underpowered": [verdict.name for verdict in checked.underpowered],
            "reference": {
                "kind": "file" if self.reference.from_file else "source",
                "name": self.reference_path.name,
                "same_source": self.same_source,
                "tower_dtype": "float32",
                "language_dtype": self.reference.dtype,
                "device": self.reference.device,
            },
            "verdicts": [verdict.to_json() for verdict in checked.verdicts()],
            "pixels": checked.pixels.to_json(),
            "features": checked.features.to_json()
            | {
                "below": checked.features.worst_tiles(thresholds.min_feature_cosine),
            },
            "answers": answers,
            "divergence": None if checked.divergence is None else checked.divergence.to_json(),
            "histograms": histograms(checked),
            "confusion": confusion(checked.answers.pairs, checked.answers.steps, shown),
            "ladder": ladder_json(self.ladder),
            "sweep": [asdict(point) for point in self.sweep],
            "disagreements": [pair.to_json() for pair in checked.answers.disagreements[:_WORST]],
            "explanations": [explanation.to_json() for explanation in self.explanations],
        }

    def lines(self) -> Iterator[str]:
        """The text form."""
        dataset, checked, reference = self.dataset, self.checked, self.reference
        manifest = self.artifact.manifest
        first = "" if dataset.limit is None else f", the first {dataset.limit} of the file"
        yield f"artifact    {self.artifact.folder}, identity {self.artifact.identity[:8]}"
        yield (
            f"engine      {self.engine.engine} for {self.engine.target}, {self.engine.precision}; "
            f"tiles {manifest.image.tiles}"
        )
        yield (
            f"reference   {self.reference_path}, tower fp32, language model {reference.dtype}, on "
            f"{reference.device}"
        )
        if not self.same_source:
            yield "            not the checkpoint that the artifact was built from"
        yield (
            f"dataset     {dataset.path}, {len(dataset.questions)} questions on "
            f"{len(dataset.images)} images{first}"
        )
        pixels = checked.pixels
        yield (
            f"pixels      {manifest.image.resampler} against Pillow: mean {pixels.mean:.3f}, 99 % "
            f"within {pixels.p99}, at most {pixels.maximum} levels, {pixels.tiles} tiles"
        )
        if pixels.decoded_otherwise:
            yield (
                f"            {pixels.decoded_otherwise} images decode to other pixels here than "
                "in the reference, because another version of Pillow decodes them"
            )
        worst = ", ".join(
            f"{values.min():.6f} in batches of {count}"
            for count, values in checked.features.cosines.items()
        )
        yield f"features    worst cosine of {len(checked.features.tiles)} tiles: {worst}"
        yield from answer_lines(checked.answers)
        if checked.divergence is not None:
            yield from _divergence_lines(checked.divergence)
        yield from (explanation.line() for explanation in self.explanations)
        yield from ladder_lines(self.ladder)
        yield from sweep_lines(self.sweep)
        yield from (verdict.line() for verdict in checked.verdicts())


def answer_lines(answers: AnswerCheck, reference: str = "reference") -> Iterator[str]:
    """Agreement, and the scores of both sides; `reference` names what is compared with."""
    values, sides = answers.to_json(), {"reference": reference, "artifact": "artifact"}
    yield f"answers     agreement {interval_text(values['agreement'])}"
    yield f"            exact match {interval_text(values['exact_match'])}"
    if "reference" not in values:
        return
    for side, name in sides.items():
        yield f"            {name}: {_scores(values[side])}"
    for name in ("recall_drop", "match_drop"):
        drop = values[name]
        yield (
            f"            {name.replace('_', ' ')} {interval_text(drop)}, {drop['lost']} lost and "
            f"{drop['gained']} gained, McNemar p {drop['mcnemar_p']:.4f}"
        )
    for question, part in values["questions"].items():
        agreement = interval_text(part["agreement"])
        yield f"            {question or 'no question id'}: agreement {agreement}"
        for side, name in sides.items():
            if side in part:
                yield f"              {name}: {_scores(part[side])}"


def _divergence_lines(divergence: DivergenceCheck) -> Iterator[str]:
    for name, values in divergence.to_json().items():
        yield (
            f"divergence  {name.replace('_', ' ')}: mean {values['mean']:.5f} nats, 99 % within "
            f"{values['p99']:.5f}, at most {values['max']:.5f}, n {values['n']}"
        )


def _scores(values: Mapping[str, Any]) -> str:
    text = f"exact match {interval_text(values['exact'])}"
    if values["recall"]["n"] or values["precision"]["n"]:
        recall, precision = interval_text(values["recall"]), interval_text(values["precision"])
        text += f", recall {recall}, precision {precision}, F1 {share_text(values['f1'])}"
    return text
