"""The report: one self-contained page with the front and what each of its points keeps."""

from __future__ import annotations

import itertools
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from paretoformer.search.errors import RunError
from paretoformer.search.results import disturbance
from paretoformer.search.results.evidence import (
    contributions,
    misled_by_flops,
    rank_agreement,
    shrinkage,
    techniques,
)
from paretoformer.search.results.facts import RunFacts
from paretoformer.search.results.parquet import read_front, read_table
from paretoformer.search.results.run_folder import RunFolder
from paretoformer.search.results.tables import cells, number, optimism, speedup, varying_axes
from paretoformer.search.results.whole import write_whole
from paretoformer.spaces.axes import axes
from paretoformer.spaces.candidate import Candidate

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

PALETTE = (
    "#4c78a8",
    "#f58518",
    "#54a24b",
    "#e45756",
    "#72b7b2",
    "#b279a2",
    "#9d755d",
    "#eeca3b",
    "#ff9da6",
    "#2f4b7c",
    "#8cb369",
    "#5e5e5e",
)
"""Colours of what fills the squares of a layer, in the order in which it is met."""
DISTURBED = {"color": "#b8860b", "size": 11, "symbol": "circle-open"}
"""How a point is drawn whose numbers were timed beside other work."""


def write_report(folder: RunFolder) -> Path:
    """Write `report.html` from the Parquet files of a finished run.

    Raises:
        RunError: the run is not finished, or its files are damaged.
    """
    frame, facts = read_front(folder.path)
    trials, _ = read_table(folder.trials)
    searched = trials.to_pandas()
    if searched.empty:
        raise RunError(f"{folder.trials} holds no trial.")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        files("paretoformer.search.results").joinpath("report.html.jinja").read_text("utf-8")
    )
    shown = frame[frame["role"] != "dominated"]
    points = [_point(row, facts, folder) for _, row in shown.iterrows()]
    used = dict.fromkeys(row["colour"] for point in points for row in point["layers"])
    colours = dict(zip(used, itertools.cycle(PALETTE)))
    page = template.render(
        facts=facts,
        study=facts.study,
        machine=facts.machine,
        columns=varying_axes([Candidate.from_json(text) for text in shown["candidate"]]),
        plot=_plot(frame, searched, facts),
        points=points,
        colours=colours,
        failed=searched[searched["state"] == "failed"].to_dict("records"),
        searched=len(searched),
        dominated=int((frame["role"] == "dominated").sum()),
        number=number,
        indicators=_indicator_plots(searched, facts),
        agreement=rank_agreement(searched, facts),
        misled=misled_by_flops(searched),
        contributions=contributions(searched, facts),
        optimism=optimism(shrinkage(frame, facts), facts),
        unstable=_unstable(searched, facts),
        warning=disturbance.of_rows(shown),
        mark=disturbance.MARK,
        disturbed=_disturbed(searched, facts),
    )
    write_whole(folder.report, page)
    return folder.report


def _point(row: pd.Series, facts: RunFacts, folder: RunFolder) -> dict[str, Any]:
    """One row of the front, as the page shows it."""
    candidate = Candidate.from_json(row["candidate"])
    kept = folder.models / candidate.id
    told = (axis.told(candidate[axis.name], kept) for axis in axes())
    return {
        "told": [each for each in told if each],
        "trial": row["trial"],
        "role": row["role"],
        "id": row["candidate_id"],
        "values": {axis.name: axis.cell(candidate[axis.name]) for axis in axes()},
        "keeps": cells(candidate),
        "techniques": techniques(candidate),
        "speedup": speedup(row),
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
        "layers": _layers(candidate),
    }


def _layers(candidate: Candidate) -> list[dict[str, Any]]:
    """One row a layer: its squares, what colours them, and what each axis says of it."""
    told = [axis.layer_cells(candidate[axis.name]) for axis in axes()]
    rows = []
    for row in zip(*(each for each in told if each), strict=True):
        rows.append(
            {
                "marks": next((cell.marks for cell in row if cell.marks), ()),
                "colour": next((cell.colour for cell in row if cell.colour), ""),
                "labels": [cell.label for cell in row if cell.label],
                "removed": any(cell.removed for cell in row),
                "shares": [cell.share for cell in row if cell.share is not None],
            }
        )
    return rows


def carbon(row: pd.Series[Any], facts: RunFacts) -> str:
    """Kilograms of CO2 of a million forwards; empty where energy or the grid is not known."""
    intensity = facts.study["target"].get("grid_intensity", 0)
    if not intensity or "energy_mj" not in facts.metrics:
        return ""
    kilowatt_hours = row["energy_mj"] * 1e6 / 1e3 / 3.6e6
    return f"{number(kilowatt_hours * intensity / 1e3)} kg CO2 a million forwards"


def _plot(frame: pd.DataFrame, searched: pd.DataFrame, facts: RunFacts) -> str:
    """The first objective against each other one; the front before the searched trials."""
    from plotly.subplots import make_subplots

    quality, *costs = facts.objectives
    figure = make_subplots(rows=1, cols=len(costs), shared_yaxes=True, horizontal_spacing=0.04)
    done = _beside(searched[searched["state"] == "complete"], frame, facts)
    sure = disturbance.undisturbed(frame, facts.objectives)
    unsure = frame.drop(index=sure.index)
    layers = {
        "searched": (done, {"color": "#c8ccd2", "size": 7}, False),
        "dominated when confirmed": (
            frame[frame["role"] == "dominated"],
            {"color": "#e8a0a0", "size": 8, "symbol": "x"},
            True,
        ),
        "front": (
            sure[sure["role"].isin(["front", "tied"])],
            {"color": "#d62728", "size": 10},
            True,
        ),
        **({"timed beside other work": (unsure, DISTURBED, True)} if len(unsure) else {}),
        "alternative: the uncut model": (
            sure[sure["role"] == "alternative"],
            {"color": "#2ca02c", "size": 11, "symbol": "square"},
            True,
        ),
        "dense": (
            frame[frame["role"] == "dense"],
            {"color": "#1f77b4", "size": 13, "symbol": "diamond"},
            True,
        ),
    }
    for column, cost in enumerate(costs, start=1):
        for name, (rows, marker, interval) in layers.items():
            trace = _scatter(rows, cost, quality, name, marker, interval, legend=column == 1)
            figure.add_trace(trace, row=1, col=column)
        figure.update_xaxes(title=_axis(cost, facts), row=1, col=column)
    figure.update_yaxes(title=_axis(quality, facts), row=1, col=1)
    figure.update_layout(
        template="plotly_white",
        height=480,
        margin={"l": 60, "r": 20, "t": 40, "b": 60},
        legend={"orientation": "h", "y": 1.1},
    )
    html: str = figure.to_html(include_plotlyjs=True, full_html=False, div_id="front")
    return html


def _indicator_plots(searched: pd.DataFrame, facts: RunFacts) -> str:
    """One small plot for each cost indicator: what it would have one believe of the trials."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    quality, names = facts.objectives[0], facts.costs
    done = searched[searched["state"] == "complete"]
    figure = make_subplots(rows=1, cols=len(names), shared_yaxes=True, horizontal_spacing=0.02)
    for column, name in enumerate(names, start=1):
        trace = go.Scatter(
            x=done[name],
            y=done[quality],
            mode="markers",
            marker={"size": 5, "color": done["latency_ms"], "colorscale": "Viridis"},
            text=[f"trial {trial}" for trial in done["trial"]],
            hovertemplate=f"%{{text}}<br>{quality} %{{y:.4f}}<br>{name} %{{x:.4g}}",
            showlegend=False,
        )
        figure.add_trace(trace, row=1, col=column)
        figure.update_xaxes(title=_axis(name, facts), row=1, col=column)
    figure.update_yaxes(title=_axis(quality, facts), row=1, col=1)
    figure.update_layout(
        template="plotly_white", height=300, margin={"l": 60, "r": 20, "t": 20, "b": 60}
    )
    html: str = figure.to_html(include_plotlyjs=False, full_html=False, div_id="indicators")
    return html


def _unstable(searched: pd.DataFrame, facts: RunFacts) -> list[int]:
    """Trials of which a timing scattered."""
    columns = [f"{name}_stable" for name in facts.metrics if f"{name}_stable" in searched]
    if not columns:
        return []
    bad = (searched[columns] == False).any(axis=1)  # noqa: E712  # null is not False
    return [int(trial) for trial in searched["trial"][bad]]


def _disturbed(searched: pd.DataFrame, facts: RunFacts) -> list[int]:
    """Trials of which a timing ran beside other work."""
    sure = disturbance.undisturbed(searched, facts.metrics)["trial"]
    return [int(trial) for trial in searched["trial"] if trial not in set(sure)]


def _beside(searched: pd.DataFrame, frame: pd.DataFrame, facts: RunFacts) -> pd.DataFrame:
    """The searched trials with their timings as multiples of the confirmed dense one.

    A machine can be slower in the hour of the confirmation than in that of the search; the ratios
    to the dense model, measured beside each candidate, stay.
    """
    scaled = searched.copy()
    dense = frame[frame["role"] == "dense"].iloc[0]
    for name in facts.metrics:
        if f"{name}_samples" in searched.columns:
            scaled[name] *= dense[name] / dense[f"search_{name}"]
    return scaled


def _scatter(
    rows: pd.DataFrame,
    cost: str,
    quality: str,
    name: str,
    marker: dict[str, Any],
    interval: bool,
    legend: bool,
) -> go.Scatter:
    import plotly.graph_objects as go

    def bars(metric: str) -> dict[str, Any]:
        return {
            "type": "data",
            "symmetric": False,
            "array": rows[f"{metric}_high"] - rows[metric],
            "arrayminus": rows[metric] - rows[f"{metric}_low"],
            "thickness": 1,
            "width": 0,
            "visible": interval,
        }

    return go.Scatter(
        x=rows[cost],
        y=rows[quality],
        error_x=bars(cost),
        error_y=bars(quality),
        mode="markers",
        name=name,
        legendgroup=name,
        showlegend=legend,
        marker=marker,
        text=[f"trial {trial}" for trial in rows["trial"]],
        hovertemplate=f"%{{text}}<br>{quality} %{{y:.4f}}<br>{cost} %{{x:.3f}}",
    )


def _axis(name: str, facts: RunFacts) -> str:
    return f"{name} ({facts.metrics[name].unit})"
