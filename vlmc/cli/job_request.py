"""What `vlmc run` was asked for, once its options are checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlmc.errors import AccuracyError

if TYPE_CHECKING:
    from vlmc.artifact.integrity import Artifact
    from vlmc.artifact.manifest import EngineRecord
    from vlmc.image.tiles import TileRule
    from vlmc.jobs.input.prompts import Prompt
    from vlmc.jobs.input.rows import Rows
    from vlmc.jobs.settings import JobSettings
    from vlmc.jobs.stop import Stop
    from vlmc.runtime.requests.thresholds import Thresholds


@dataclass(frozen=True, slots=True)
class JobRequest:
    """The options of `vlmc run` that every kind of job needs."""

    artifact: Path
    rows: Rows
    prompts: Sequence[Prompt]
    output: str
    settings: JobSettings
    thresholds: Thresholds | None
    tiles: str | None
    device: str
    devices: int
    engine: str | None
    audit: float | None
    retry_errors: bool
    strict_input: bool
    require_verified: bool
    stop: Stop

    def announce(
        self, opened: Artifact, tiles: TileRule, engine: str, chosen: EngineRecord
    ) -> None:
        """Report what answers, and whether it is verified.

        Raises:
            AccuracyError: it is not, and must be.
        """
        from vlmc.artifact.accuracy_status import read_accuracy
        from vlmc.jobs.verified_questions import unverified_warning
        from vlmc.progress.channel import report
        from vlmc.progress.events import Note

        own_tiles = opened.manifest.image.tiles
        found = read_accuracy(opened.folder, opened.identity)
        if tiles == own_tiles:
            status: str = found.status(chosen)
            reasons = [*found.ignored]
            if found.questions:
                warning = unverified_warning(found.questions, self.rows, self.prompts)
                reasons += [] if warning is None else [warning]
        else:
            status, reasons = f"unverified, since the artifact's tile rule is {own_tiles}", []
        report(Note(f"{self.artifact}: {engine}, tiles {tiles}, accuracy {status}"))
        for reason in reasons:
            report(Note(reason))
        if self.require_verified and status != "passed":
            raise AccuracyError(
                f"the accuracy of {self.artifact} with {engine} and tiles {tiles} is "
                f"{status}, and --require-verified needs it passed. Run `vlmc verify accuracy "
                f"{self.artifact}` on this machine first, or leave the option out."
            )
