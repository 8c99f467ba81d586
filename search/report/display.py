"""The display of a running study: live progress, and the best trade-offs so far."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from paretoformer.evaluators.outcome import Outcome
from paretoformer.search.records.dominance import nondominated
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.report.cells import described, number

if TYPE_CHECKING:
    from paretoformer.evaluators.metrics import Metric

WATCH_SECONDS = 2
LOG_SECONDS = 60
"""Least time between two lines of a log about what is under way."""


class LogPace:
    """Limits a log to a line per minute, and one at the end of each step."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._next = clock, -math.inf
        self._ended: set[str] = set()

    def is_due(self) -> bool:
        """Whether the last line is a minute old; if so, a new one is counted."""
        due = self._clock() >= self._next
        if due:
            self._next = self._clock() + LOG_SECONDS
        return due

    def shows(self, what: str, done: int, total: int) -> bool:
        """Whether this progress of the step `what` gets a line."""
        if done < total:
            self._ended.discard(what)
            return self.is_due()
        if what in self._ended:
            return False
        self._ended.add(what)
        self._next = self._clock() + LOG_SECONDS
        return True


REFRESHES = 1
"""Redraws per second: four took 3% of a core from the timings."""


class Display:
    """Progress of a study: bars and a table on a terminal; elsewhere a line per minute."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            speed_estimate_period=300,
        )
        self._tasks: dict[str, TaskID] = {}
        self._pace, self._last = LogPace(), ""
        self._best: Table | None = None
        self._waiting, self._waiting_since = "", 0.0
        self._waited: float | None = None
        live = self.console.is_terminal and not quiet
        self._live = Live(console=self.console, refresh_per_second=REFRESHES) if live else None

    def __enter__(self) -> Display:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._log_last()
        self.waiting("")
        if self._waited is not None:
            self.note(f"Waited {self._waited:.0f} s for a quiet machine.")
        if self._live:
            self._best = None
            self._refresh()
            self._live.stop()

    def note(self, text: str) -> None:
        """A message; wrapped on a terminal, one line in a log."""
        self._log_last()
        self._print(text)

    def _print(self, text: str) -> None:
        wrapped = self.console.is_terminal
        self.console.print(text, highlight=False, markup=False, soft_wrap=not wrapped)

    def facts(self, facts: Mapping[str, str]) -> None:
        """The first lines of a study, with the names in a column."""
        if not self.console.is_terminal:
            for name, text in facts.items():
                self.note(f"{name:<9} {text}")
            return
        grid = Table.grid(padding=(0, 1))
        grid.add_column(min_width=9)
        for name, text in facts.items():
            grid.add_row(Text(name, style="bold"), Text(text))
        self.console.print(grid)

    def progress(self, what: str, done: int, total: int, remark: str = "") -> None:
        """Step `what` has done `done` of `total`."""
        if what not in self._tasks:
            self._log_last()
            self._tasks[what] = self._progress.add_task(what, total=total)
        shown = f"{what} ({remark})" if remark else what
        self._progress.update(self._tasks[what], completed=done, total=total, description=shown)
        if self._live:
            self._refresh()
            return
        self._last = f"{shown}: {done} of {total}"
        if self._pace.shows(what, done, total):
            self._log_last()
        elif done >= total:
            self._last = ""

    def _log_last(self) -> None:
        """The last progress, unless it is in the log: of a step that stopped before its end."""
        if self._last:
            self._print(self._last)
        self._last = ""

    def waiting(self, text: str) -> None:
        """The reason a timing waits; empty once it continues."""
        before, self._waiting = self._waiting, text
        if text and not before:
            self._waiting_since = time.monotonic()
        if before and not text:
            self._waited = (self._waited or 0.0) + time.monotonic() - self._waiting_since
        if self._live:
            self._refresh()
        elif text and self._pace.is_due():
            self._print(text[:1].upper() + text[1:])

    @contextmanager
    def watching(self, what: str, look: Callable[[], tuple[int, int, str]]) -> Iterator[None]:
        """During the block, poll (done, total, remark) of work elsewhere and show it."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(WATCH_SECONDS):
                done, total, remark = look()
                if total:
                    self.progress(what, done, total, remark)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def trials(
        self,
        records: Sequence[TrialRecord],
        total: int,
        objectives: Sequence[Metric],
        seconds: tuple[float, float] | None = None,
    ) -> None:
        """Progress of the search: `total` trials are wanted, or there is a time limit.

        seconds: (spent, in total).
        """
        counted = [record for record in records if record.counts]
        unsuitable = sum(record.result.outcome is Outcome.UNSUITABLE for record in records)
        failed = sum(not record.ok for record in records) - unsuitable
        if self._live:
            self._best = _tradeoffs(records, objectives)
        remarks = {"failed": failed, "not possible": unsuitable}
        remark = ", ".join(f"{count} {what}" for what, count in remarks.items() if count)
        if seconds is None:
            self.progress("Searching", len(counted), total, remark)
            return
        remark = ", ".join(
            filter(None, (f"{len(counted)} candidate{'s' * (len(counted) != 1)}", remark))
        )
        spent, limit = map(round, seconds)
        self.progress("Searching, seconds", min(spent, limit), limit, remark)

    def _refresh(self) -> None:
        if self._live:
            waiting = Text(self._waiting) if self._waiting else None
            parts = (self._progress, waiting, self._best)
            self._live.update(Group(*(part for part in parts if part is not None)))


def _tradeoffs(records: Sequence[TrialRecord], objectives: Sequence[Metric]) -> Table:
    """The best trade-offs so far, by the first objective, at most 8."""
    table = Table(title="best trade-offs so far", title_justify="left", box=None)
    table.add_column("trial", justify="right")
    table.add_column("keeps")
    for metric in objectives:
        table.add_column(metric.name, justify="right")
    done = [record for record in records if record.ok]
    values = np.array([record.values([m.name for m in objectives]) for record in done])
    keep = nondominated(values, [metric.direction for metric in objectives])
    front = [record for record, kept in zip(done, keep, strict=True) if kept]
    first = objectives[0]
    sign = -1 if first.direction == "maximize" else 1
    front.sort(key=lambda record: sign * record.measurements[first.name].value)
    shown = [
        front[i] for i in np.unique(np.linspace(0, len(front) - 1, min(8, len(front)), dtype=int))
    ]
    for record in shown:
        table.add_row(
            str(record.trial),
            described(record.candidate),
            *(number(record.measurements[m.name].value) for m in objectives),
        )
    return table
