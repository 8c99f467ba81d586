"""The report: one self-contained page with the front and a card per point."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

import jinja2
import vl_convert

from paretoformer.evaluators.tasks import task_of
from paretoformer.search.records import disturbance
from paretoformer.search.records.disk import room_on
from paretoformer.search.records.facts import RunFacts
from paretoformer.search.records.parquet import read_front, read_trials
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.report.cells import (
    build_notes,
    cells,
    number,
    optimism,
    speedup,
    varying_axes,
)
from paretoformer.search.report.evidence import (
    contributions,
    misled_by_flops,
    rank_agreement,
    shrinkage,
)
from paretoformer.search.report.front_chart import (
    MOST_DRAWN,
    front_charts,
    indicator_charts,
)
from paretoformer.search.report.layers import colours_of, layer_rows
from paretoformer.search.report.length_chart import by_length, length_chart, length_sentence
from paretoformer.search.report.svg import DARK, LIGHT, css_variables, draw, in_light_colours
from paretoformer.search.report.timeline import jobs, spent, timeline_chart
from paretoformer.search.report.trade import trade
from paretoformer.spaces.axes import axes, axis_of
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.atomic import atomic_file, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


def write_report(folder: RunFolder) -> Path:
    """Write `report.html`, `front.svg` and `front.png` from the tables of a finished run.

    Raises:
        RunError: the run is not finished, or its files are damaged.
        DiskFull: there is no room for them.
    """
    with room_on(folder.path):
        return _write(folder)


def _write(folder: RunFolder) -> Path:
    frame, facts = read_front(folder.path)
    searched = read_trials(folder, facts)
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        files("paretoformer.search.report").joinpath("report.html.jinja").read_text("utf-8")
    )
    shown = frame[frame["role"] != "dominated"]
    dense = frame[frame["role"] == "dense"].iloc[0]
    points = [_point(row, dense, facts, folder) for _, row in shown.iterrows()]
    charts = [draw(chart) for chart in front_charts(frame, searched, facts)]
    ran = jobs(searched, frame)
    timed = by_length(frame, facts)
    colours = colours_of(row for point in points for row in point["layers"])
    page = template.render(
        facts=facts,
        study=facts.study,
        size=task_of(facts.study["model"]["task"]).shown(facts.timed_lengths),
        machine=facts.machine,
        columns=varying_axes([Candidate.from_json(text) for text in shown["candidate"]]),
        light=css_variables(LIGHT),
        dark=css_variables(DARK),
        charts=charts,
        headline=facts.objectives,
        others=[name for name in facts.metrics if name not in facts.objectives],
        lengths="" if timed.empty else draw(length_chart(timed)),
        length_sentence="" if timed.empty else length_sentence(timed),
        timeline="" if ran.empty else draw(timeline_chart(ran)),
        spent=[] if ran.empty else spent(ran),
        points=points,
        colours=colours,
        failed=searched[searched["state"] == "failed"].to_dict("records"),
        searched=len(searched),
        dominated=int((frame["role"] == "dominated").sum()),
        number=number,
        indicators=[draw(chart) for chart in indicator_charts(searched, facts)],
        drawn=MOST_DRAWN,
        agreement=rank_agreement(searched, facts),
        misled=misled_by_flops(searched),
        contributions=contributions(searched, facts),
        optimism=optimism(shrinkage(frame, facts), facts),
        unstable=_unstable(searched, facts),
        warning=disturbance.of_rows(shown),
        mark=disturbance.MARK,
        disturbed=_disturbed(searched, facts),
    )
    front = in_light_colours(charts[0])
    write_atomically(folder.report, page)
    write_atomically(folder.path / "front.svg", front)
    with atomic_file(folder.path / "front.png") as part:
        part.write_bytes(vl_convert.svg_to_png(front, scale=2))
    return folder.report


def _point(row: pd.Series, dense: pd.Series, facts: RunFacts, folder: RunFolder) -> dict[str, Any]:
    candidate = Candidate.from_json(row["candidate"])
    kept = folder.models / candidate.id
    times, _, interval = speedup(row, facts).partition(" ")
    is_dense = row["role"] == "dense"
    return {
        "build_notes": build_notes(candidate, kept),
        "trial": row["trial"],
        "role": row["role"],
        "id": row["candidate_id"],
        "values": {axis.name: candidate.cell(axis.name) for axis in axes()},
        "keeps": cells(candidate),
        "words": candidate.phrase,
        "trade": trade(row, dense, facts),
        "techniques": candidate.techniques,
        "times": times,
        "interval": interval,
        "carbon": carbon(row, facts),
        "metrics": {
            name: {
                "value": number(row[name]) + disturbance.mark(row, name),
                "low": number(row[f"{name}_low"]),
                "high": number(row[f"{name}_high"]),
                "search": number(row[f"search_{name}"]),
            }
            for name in facts.metrics
        },
        "layers": layer_rows(candidate) if _differs_by_layer(candidate) or is_dense else [],
    }


def _differs_by_layer(candidate: Candidate) -> bool:
    """Whether its layers are drawn differently from the dense model's."""
    return any(axis_of(name).layer_cells(candidate[name]) for name in candidate.changes())


def carbon(row: pd.Series[Any], facts: RunFacts) -> str:
    """Kilograms of CO2 per million forwards; empty if energy or grid intensity is unknown."""
    intensity = facts.study["target"].get("grid_intensity", 0)
    if not intensity or "energy_mj" not in facts.metrics:
        return ""
    kilowatt_hours = row["energy_mj"] * 1e6 / 1e3 / 3.6e6
    return f"{number(kilowatt_hours * intensity / 1e3)} kg CO2 a million forwards"


def _unstable(searched: pd.DataFrame, facts: RunFacts) -> list[int]:
    """Trials with a timing that did not become stable."""
    columns = [f"{name}_stable" for name in facts.metrics if f"{name}_stable" in searched]
    if not columns:
        return []
    bad = (searched[columns] == False).any(axis=1)  # noqa: E712  # null is not False
    return [int(trial) for trial in searched["trial"][bad]]


def _disturbed(searched: pd.DataFrame, facts: RunFacts) -> list[int]:
    """Trials with a timing during which other work ran."""
    sure = disturbance.undisturbed(searched, facts.metrics).index
    return [int(trial) for trial in searched["trial"].drop(sure)]
