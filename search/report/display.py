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

from paretoformer.search.records.dominance import nondominated
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.report.cells import described, number

if TYPE_CHECKING:
    from paretoformer.evaluators.metrics import Metric

WATCH_SECONDS = 2
WAITING_SECONDS = 60
"""Interval of the log's lines about a timing that still waits."""


class Tenths:
    """Limits a log to one line per tenth of a step's progress."""

    def __init__(self) -> None:
        self._reached: dict[str, int] = {}

    def passed(self, what: str, done: int, total: int) -> bool:
        """Whether the step has just reached another tenth."""
        tenth = 10 * done // max(total, 1)
        before = self._reached.get(what, 0)
        self._reached[what] = tenth
        return tenth > before


REFRESHES = 1
"""Redraws per second: four took 3% of a core from the timings."""


class Display:
    """Progress of a study: bars and a table on a terminal; elsewhere a line per tenth."""

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
        self._tenths = Tenths()
        self._best: Table | None = None
        self._waiting = ""
        self._waiting_since = self._last_notice = 0.0
        live = self.console.is_terminal and not quiet
        self._live = Live(console=self.console, refresh_per_second=REFRESHES) if live else None

    def __enter__(self) -> Display:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._live:
            self._best = None
            self._refresh()
            self._live.stop()

    def note(self, text: str) -> None:
        """A message; wrapped on a terminal, one line in a log."""
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
            self._tasks[what] = self._progress.add_task(what, total=total)
        shown = f"{what} ({remark})" if remark else what
        self._progress.update(self._tasks[what], completed=done, total=total, description=shown)
        if self._live:
            self._refresh()
        elif self._tenths.passed(what, done, total):
            self.note(f"{shown}: {done} of {total}")

    def waiting(self, text: str) -> None:
        """The reason a timing waits; empty once it continues."""
        before, self._waiting = self._waiting, text
        if text and not before:
            self._waiting_since = time.monotonic()
            self._last_notice = -math.inf
        if before and not text:
            self.note(f"Waited {time.monotonic() - self._waiting_since:.0f} s for a quiet machine.")
        if self._live:
            self._refresh()
        elif text and time.monotonic() - self._last_notice > WAITING_SECONDS:
            self._last_notice = time.monotonic()
            self.note(text[:1].upper() + text[1:])

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
        failed, unsuitable = (sum(not r.ok for r in counted), len(records) - len(counted))
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
