"""What the user sees: live progress, and the front as a table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE_HEAD
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

from paretoformer.search.front import nondominated
from paretoformer.spaces.candidate import FULL, Candidate

if TYPE_CHECKING:
    import pandas as pd

    from paretoformer.evaluators.metric import Metric
    from paretoformer.search.record import TrialRecord

PIPE_WIDTH = 110
PLAIN_SECONDS = 15
"""How often a line is printed where the output is no terminal."""


class Display:
    """Progress of a study: bars and a table on a terminal, lines now and then elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            speed_estimate_period=300,
        )
        self._tasks: dict[str, TaskID] = {}
        self._printed: dict[str, float] = {}
        self._best: Table | None = None
        live = self.console.is_terminal and not quiet
        self._live = Live(console=self.console, refresh_per_second=4) if live else None

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
        self.console.print(text, highlight=False)

    def progress(self, what: str, done: int, total: int) -> None:
        """`done` of `total` steps of what is going on."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)
        if self._live:
            self._refresh()
        elif done == total or time.monotonic() - self._printed.get(what, 0) > PLAIN_SECONDS:
            self._printed[what] = time.monotonic()
            self.note(f"{what}: {done} of {total}")

    def trials(
        self, records: Sequence[TrialRecord], total: int, objectives: Sequence[Metric]
    ) -> None:
        """The search stands at these records; `total` are wanted."""
        failed = sum(not record.ok for record in records)
        if self._live:
            self._best = _tradeoffs(records, objectives)
        self.progress("Searching" + (f" ({failed} failed)" if failed else ""), len(records), total)

    def _refresh(self) -> None:
        if self._live:
            parts = [self._progress] if self._best is None else [self._progress, self._best]
            self._live.update(Group(*parts))


def _tradeoffs(records: Sequence[TrialRecord], objectives: Sequence[Metric]) -> Table:
    """The best trade-offs so far, the first objective's best first, at most 8 of them."""
    table = Table(title="best trade-offs so far", title_justify="left", box=None)
    for column in ("trial", "heads", *(f"{metric.name}" for metric in objectives)):
        table.add_column(column, justify="right")
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
            str(record.candidate.heads.total),
            *(number(record.measurements[m.name].value) for m in objectives),
        )
    return table


def print_table(table: Table) -> None:
    """On standard output; a pipe or a file has no width to keep to."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, PIPE_WIDTH)
    console.print(table)


def front_table(frame: pd.DataFrame, facts: Mapping[str, Any]) -> Table:
    """The published front: dense first, then each point, the first objective's best first."""
    metrics = _columns(facts)
    study, machine = facts["study"], facts["machine"]
    table = Table(
        title=f"{study['name']}: the front, confirmed on {study['data']['confirm_examples']} "
        f"examples that the search did not see ({machine['hardware']['cpu']}, "
        f"{machine['threads']} threads)",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in ("trial", "heads"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("attention")
    for name in (*metrics, "speed-up"):
        table.add_column(name, justify="right", no_wrap=True)
    for _, row in frame[frame["role"] != "dominated"].iterrows():
        candidate = Candidate.from_json(row["candidate"])
        table.add_row(
            _label(row),
            f"{candidate.heads.total}/{candidate.heads.layers * candidate.heads.heads}",
            mechanisms(candidate),
            *(number(row[name]) for name in metrics),
            f"{row['speedup']:.2f}x",
        )
    if (frame["role"] == "tied").any():
        table.caption = "~ tied: within its intervals as good as a point that is better by value"
        table.caption_justify = "left"
    return table


def _label(row: pd.Series[Any]) -> str:
    if row["role"] == "dense":
        return "dense"
    return f"{row['trial']} ~" if row["role"] == "tied" else str(row["trial"])


def optimism(shrinkage: Mapping[str, float], facts: Mapping[str, Any]) -> str:
    """`accuracy 0.0040, latency_ms 1.2%`: by how much the search saw its points too good.

    Of the objectives; what was counted, and so did not change, is left out.
    """
    parts = []
    for name in facts["objectives"]:
        amount = shrinkage[name]
        if np.isnan(amount) or amount == 0:
            continue
        share = facts["metrics"][name]["direction"] == "minimize"
        parts.append(f"{name} {amount:+.1%}" if share else f"{name} {amount:+.4f}")
    return ", ".join(parts) or "nothing"


def _columns(facts: Mapping[str, Any]) -> list[str]:
    """The metrics worth a column: the objectives, then the other usual ones."""
    usual = (*facts["objectives"], "latency_ms", "memory_mb", "parameters")
    return [name for name in dict.fromkeys(usual) if name in facts["metrics"]]


def mechanisms(candidate: Candidate) -> str:
    """`full`, or how many of the layers with heads use which mechanism: `full x2, window x4`."""
    counts: dict[str, int] = {}
    for choice, heads in zip(candidate.attention, candidate.heads.counts, strict=True):
        label = choice.name if heads else "none"
        counts[label] = counts.get(label, 0) + 1
    if counts == {FULL.name: candidate.heads.layers}:
        return FULL.name
    return ", ".join(f"{name} x{count}" for name, count in sorted(counts.items()))


def speedup(row: pd.Series[Any]) -> str:
    """`1.31x (1.29 to 1.33)`."""
    if row["speedup"] is None or np.isnan(row["speedup"]):
        return "not measured"
    return f"{row['speedup']:.2f}x ({row['speedup_low']:.2f} to {row['speedup_high']:.2f})"


def number(value: float | None) -> str:
    """Four significant digits; counts in thousands, millions, billions."""
    if value is None or np.isnan(value):
        return "-"
    for size, suffix in ((1e9, " G"), (1e6, " M")):
        if abs(value) >= size:
            return f"{value / size:.2f}{suffix}"
    return f"{value:.4g}"
