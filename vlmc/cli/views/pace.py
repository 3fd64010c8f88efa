"""How fast counted work goes, and how long the rest of it takes at that rate."""

from __future__ import annotations

import time

from vlmc.files.units import duration_text
from vlmc.progress.events import Progress

_MOST_SHARES = 8


class Pace:
    """The newest progress of some work, and its rate since the first.

    What was done before the first event counts for nothing: a resumed job begins far along.
    """

    def __init__(self, first: Progress) -> None:
        self._started, self._first_done = time.monotonic(), first.done or 0
        self._first_shares = first.shares
        self.latest = first

    @classmethod
    def following(cls, before: Pace | None, event: Progress) -> Pace:
        """The pace with the event taken in; a new one where other work begins."""
        if before is None or before.latest.text != event.text:
            return cls(event)
        before.latest = event
        return before

    @property
    def is_finished(self) -> bool:
        """Whether all that is counted is done."""
        return self.latest.done is not None and self.latest.done == self.latest.total

    @property
    def count(self) -> str:
        """`12 of 4,000`, or nothing where nothing is counted."""
        if self.latest.done is None or self.latest.total is None:
            return ""
        return f"{self.latest.done:,} of {self.latest.total:,}"

    @property
    def rate(self) -> str:
        """`340 a minute`, and the errors; empty at first."""
        per_minute = 60 * self._per_second
        # Slow work needs its decimal.
        parts = [f"{per_minute:,.{0 if per_minute >= 10 else 1}f} a minute"] if per_minute else []
        errors = self.latest.errors
        return ", ".join(parts + ([f"{errors:,} error{'s' * (errors != 1)}"] if errors else []))

    @property
    def time_left(self) -> str:
        """`2 min 10 s left`; empty where it is unknown, or nothing is left."""
        done, total = self.latest.done, self.latest.total
        if done is None or total is None or done >= total or not self._per_second:
            return ""
        return f"{duration_text((total - done) / self._per_second)} left"

    @property
    def shares(self) -> str:
        """`by worker: 170, 168 a minute`, the slowest and the fastest of many; empty at first."""
        minutes = (time.monotonic() - self._started) / 60
        both = zip(self.latest.shares, self._first_shares, strict=False)
        gained = [now - before for now, before in both]
        if len(gained) < 2 or not any(gained) or not minutes:
            return ""
        rates = [f"{count / minutes:,.0f}" for count in gained]
        if len(rates) > _MOST_SHARES:
            ordered = sorted(gained)
            rates = [f"{ordered[0] / minutes:,.0f} to {ordered[-1] / minutes:,.0f}"]
        return f"by worker: {', '.join(rates)} a minute"

    @property
    def line(self) -> str:
        """One line, such as `tiles: 12 of 40, 60 a minute, 28.0 s left`; of a step without rate."""
        rate = "" if self.latest.step else self.rate
        facts = ", ".join(filter(None, (self.count, rate, self.time_left)))
        whole = ": ".join(filter(None, (self.latest.text, facts)))
        return "; ".join(filter(None, (whole, self.shares)))

    @property
    def _per_second(self) -> float:
        done = (self.latest.done or 0) - self._first_done
        return done / max(time.monotonic() - self._started, 1e-9)
