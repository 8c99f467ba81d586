"""Tables of a finished run for the terminal, and the format of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from paretoformer.search.records import disturbance
from paretoformer.search.records.facts import RunFacts
from paretoformer.spaces.axes import axes
from paretoformer.spaces.axes.axis import Axis
from paretoformer.spaces.candidate import Candidate

if TYPE_CHECKING:
    import pandas as pd

PIPE_WIDTH = 10_000
"""Characters of a line in a pipe or a file: more than any table has."""


def print_front(frame: pd.DataFrame, facts: RunFacts) -> None:
    """The front, with a column per axis if the terminal is wide enough."""
    console = _console()
    wide = front_table(frame, facts)
    unbounded = console.options.update(width=PIPE_WIDTH)
    room = Measurement.get(console, unbounded, wide).minimum <= console.width
    console.print(wide if room else front_table(frame, facts, narrow=True))


def print_table(table: Table) -> None:
    _console().print(table)


def _console() -> Console:
    """Standard output; a pipe or a file has no width limit."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_WIDTH)


def front_table(frame: pd.DataFrame, facts: RunFacts, *, narrow: bool = False) -> Table:
    """The published front: dense first, then by the first objective, the best first.

    narrow: one column for everything a point keeps, and objectives only.
    """
    shown = frame[frame["role"] != "dominated"]
    candidates = [Candidate.from_json(text) for text in shown["candidate"]]
    used = [] if narrow else varying_axes(candidates)
    metrics = list(facts.objectives) if narrow else _columns(facts)
    table = Table(title=_title(facts), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("trial", justify="right", no_wrap=True)
    for column in ["keeps"] if narrow else [axis.name for axis in used]:
        table.add_column(column)
    for name in (*metrics, "speed-up"):
        table.add_column(name, justify="right", no_wrap=True)
    for candidate, (_, row) in zip(candidates, shown.iterrows(), strict=True):
        kept = [described(candidate)] if narrow else [candidate.cell(axis.name) for axis in used]
        numbers = (number(row[name]) + disturbance.mark(row, name) for name in metrics)
        gained = f"{row['speedup']:.2f}x{disturbance.mark(row, facts.timing)}"
        table.add_row(_label(row), *kept, *numbers, gained)
    table.caption = _caption(set(shown["role"]), disturbance.of_rows(shown)) or None
    table.caption_justify = "left"
    return table


def _title(facts: RunFacts) -> str:
    from paretoformer.evaluators.common.target import describe_cpu  # slow to import

    study, machine = facts.study, facts.machine
    return (
        f"{study['name']}: the front, confirmed on {study['data']['confirm_examples']} "
        f"examples that the search did not see ({describe_cpu(machine['hardware'])}, "
        f"{machine['threads']} threads)"
    )


def _caption(roles: set[str], warning: str) -> str:
    tied = "~ tied: within its intervals as good as a point that is better by value"
    other = "= alternative: the uncompressed model in another runtime or precision"
    lines = [text for role, text in (("tied", tied), ("alternative", other)) if role in roles]
    return "\n".join([*lines, f"{disturbance.MARK} {warning}"] if warning else lines)


def varying_axes(candidates: list[Candidate]) -> list[Axis[Any]]:
    """The axes in which any of these differs from the uncompressed model."""
    changed = {name for candidate in candidates for name in candidate.changes()}
    return [axis for axis in axes() if axis.name in changed]


def _label(row: pd.Series[Any]) -> str:
    marks = {"tied": " ~", "alternative": " ="}
    return "dense" if row["role"] == "dense" else f"{row['trial']}{marks.get(row['role'], '')}"


def _columns(facts: RunFacts) -> list[str]:
    """Metrics that get a column: the objectives, then the other usual ones."""
    costs = ("latency_ms", "decode_ms", "cache_mb", "disk_mb", "memory_mb", "parameters")
    usual = (*facts.objectives, *costs)
    return [name for name in dict.fromkeys(usual) if name in facts.metrics]


def optimism(shrinkage: Mapping[str, float], facts: RunFacts) -> str:
    """`accuracy 0.0040, latency_ms 1.2%`: how much better the search saw its points.

    Only objectives; exact counts, which did not change, are left out.
    """
    parts = []
    for name in facts.objectives:
        amount = shrinkage[name]
        if np.isnan(amount) or amount == 0:
            continue
        share = facts.metrics[name].role == "cost"
        parts.append(f"{name} {amount:+.1%}" if share else f"{name} {amount:+.4f}")
    return ", ".join(parts) or "nothing"


def described(candidate: Candidate) -> str:
    """`heads 27/72, feed_forward 0.50`, or a phrase for the uncompressed model."""
    parts = [f"{name} {cell}" for name, cell in cells(candidate).items()]
    return ", ".join(parts) or "the uncompressed model"


def cells(candidate: Candidate) -> dict[str, str]:
    """Axis -> cell, for axes that differ from the uncompressed model."""
    return {name: candidate.cell(name) for name in candidate.changes()}


def build_notes(candidate: Candidate, folder: Path) -> list[str]:
    """A sentence of each axis that has one on the build. folder: the candidate's, in the run."""
    return list(filter(None, (axis.build_note(candidate[axis.name], folder) for axis in axes())))


def catalogue_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, no_wrap=column == "name")
    for row in rows:
        table.add_row(*map(_catalogue_cell, row.values()))
    return table


def _catalogue_cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        parts = (f"{key} {_catalogue_cell(item)}" for key, item in value.items())
        return ", ".join(parts) or "-"
    text = "/".join(map(str, value)) if isinstance(value, list) else str(value)
    return escape(text)  # `paretoformer[onnx]` is not markup


def verified_table(measured: Mapping[str, Any], here: Mapping[str, Any]) -> Table:
    """An exported model's published numbers and those of this machine."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("metric")
    for column in ("published", "95% interval", "here"):
        table.add_column(column, justify="right")
    table.add_column("unit")
    for name, then in measured["metrics"].items():
        now = number(here[name].value) if name in here else "-"
        interval = f"{number(then['low'])} to {number(then['high'])}"
        table.add_row(name, number(then["value"]), interval, now, then["unit"])
    return table


def speedup(row: pd.Series[Any], facts: RunFacts) -> str:
    """`1.31x (1.29 to 1.33)`, marked if other work ran during the timing."""
    if row["speedup"] is None or np.isnan(row["speedup"]):
        return "not measured"
    mark = disturbance.mark(row, facts.timing)
    return f"{row['speedup']:.2f}x ({row['speedup_low']:.2f} to {row['speedup_high']:.2f}){mark}"


def number(value: float | None) -> str:
    """Four significant digits; counts in thousands, millions, billions."""
    if value is None or np.isnan(value):
        return "-"
    for size, suffix in ((1e9, " G"), (1e6, " M")):
        if abs(value) >= size:
            return f"{value / size:.2f}{suffix}"
    return f"{value:.4g}"
