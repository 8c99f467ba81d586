"""The report: what it says of each point, how its charts are drawn, what lies beside it."""

from __future__ import annotations

import math
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretoformer.search.records.facts import MetricFacts, RunFacts
from paretoformer.search.records.parquet import read_front, read_table
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.report.chart import CSS, LIGHT, Layer, Mark, scatter, standalone
from paretoformer.search.report.front_chart import front_charts
from paretoformer.search.report.page import write_report
from paretoformer.search.report.scale import Scale
from paretoformer.search.report.terminal_plot import HEIGHT, terminal_plot
from paretoformer.search.report.timeline import jobs, spent, timeline_chart
from paretoformer.search.report.trade import trade
from tests.conftest import Run

SVG = "{http://www.w3.org/2000/svg}"
MEGABYTE = 1_000_000
FACTS = RunFacts(
    study={},
    machine={},
    objectives=("accuracy", "latency_ms"),
    metrics={
        "accuracy": MetricFacts("fraction", "maximize", "quality", "accuracy>=dense-0.01"),
        "latency_ms": MetricFacts("ms", "minimize", "cost"),
        "disk_mb": MetricFacts("MB", "minimize", "cost"),
        "memory_mb": MetricFacts("MB", "minimize", "cost"),
    },
)
DENSE = {"accuracy": 0.9, "latency_ms": 10.0, "disk_mb": 90.0, "memory_mb": 50.0}


@pytest.fixture
def copy(example: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(example, tmp_path / "run"))


def row(**values: float | None) -> pd.Series:
    return pd.Series(DENSE | {"speedup": 2.0, "speedup_low": 1.9, "speedup_high": 2.1} | values)


def test_report_is_small_runs_nothing_and_knows_dark_screens(copy: Path) -> None:
    page = write_report(RunFolder(copy)).read_text("utf-8")
    assert len(page.encode()) < 2 * MEGABYTE / 4
    assert "<script" not in page
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page
    used = set(re.findall(r"var\(--(\w+)\)", page))
    assert used <= set(LIGHT)
    assert "Gains: " in page
    assert "Where the time went" in page


def test_every_point_of_a_chart_leads_to_its_card(copy: Path) -> None:
    page = write_report(RunFolder(copy)).read_text("utf-8")
    led_to = set(re.findall(r'href="#(point-\d+)"', page))
    assert led_to == set(re.findall(r'id="(point-\d+)"', page))


def test_front_lies_beside_the_report_as_svg(copy: Path) -> None:
    write_report(RunFolder(copy))
    tree = ElementTree.parse(copy / "front.svg")
    frame, _ = read_front(copy)
    titles = [each.text or "" for each in tree.iter(f"{SVG}title")]
    for trial in frame["trial"][frame["role"] == "front"]:
        assert any(text.startswith(f"trial {trial}:") for text in titles)
    assert "var(" not in (copy / "front.svg").read_text()


def test_front_lies_beside_the_report_as_png_where_matplotlib_is_installed(copy: Path) -> None:
    pytest.importorskip("matplotlib")
    write_report(RunFolder(copy))
    assert (copy / "front.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_there_is_a_report_and_no_png(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paretoformer.search.report.front_chart.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert write_report(RunFolder(copy)).exists()
    assert not (copy / "front.png").exists()


def test_gains_and_costs_are_said_in_words() -> None:
    point = row(
        accuracy=0.893,
        accuracy_difference_low=-0.012,
        accuracy_difference_high=-0.002,
        latency_ms=5.0,
        disk_mb=54.0,
        memory_mb=120.0,
    )
    found = trade(point, row(), FACTS)
    assert found.gains == ("2.00x (1.90 to 2.10) as fast", "disk_mb 40% less")
    assert found.costs == ("accuracy 0.007 lower (-0.012 to -0.002)", "memory_mb 2.4 times")
    assert found.text == (
        "Gains: 2.00x (1.90 to 2.10) as fast, disk_mb 40% less. "
        "Costs: accuracy 0.007 lower (-0.012 to -0.002), memory_mb 2.4 times."
    )


def test_difference_whose_interval_holds_zero_may_be_chance() -> None:
    point = row(accuracy=0.91, accuracy_difference_low=-0.01, accuracy_difference_high=0.03)
    assert trade(point, row(), FACTS).gains == (
        "accuracy 0.01 higher (-0.010 to +0.030, which may be chance)",
    )


def test_what_is_unknown_or_unchanged_is_not_said() -> None:
    point = row(memory_mb=math.nan, disk_mb=90.1)
    assert trade(point, row(), FACTS).text == "As the dense model."


finite = st.floats(-1e9, 1e9).filter(lambda value: value == 0 or abs(value) > 1e-9)


@given(st.lists(finite, min_size=1, max_size=20), st.booleans())
def test_scale_holds_every_value_and_few_ticks(values: list[float], ratios: bool) -> None:
    scale = Scale.of([*values, math.nan], ratios=ratios)
    assert all(0 <= scale.share(value) <= 1 for value in values)
    assert all(scale.holds(tick) for tick in scale.ticks())
    assert 1 <= len(scale.ticks()) <= 9


def test_costs_that_differ_by_a_factor_are_shown_as_ratios() -> None:
    scale = Scale.of([1.0, 100.0], ratios=True)
    assert scale.log
    assert scale.share(10.0) == pytest.approx(0.5)
    assert {1.0, 10.0, 100.0} <= set(scale.ticks())
    assert not Scale.of([1.0, 4.0], ratios=True).log
    assert not Scale.of([0.0, 100.0], ratios=True).log


def test_text_in_a_chart_is_escaped_and_what_is_outside_is_left_out() -> None:
    marks = [Mark(1, 1, "<script>"), Mark(5, 1, "outside")]
    unit = Scale(0.0, 2.0)
    drawn = scatter([Layer("a & b", "front", "circle", marks)], unit, unit, ("x<", "y"))
    ElementTree.fromstring(drawn)
    assert "&lt;script&gt;" in drawn
    assert "outside" not in drawn


def test_many_points_cost_a_dozen_bytes_each() -> None:
    marks = [Mark(i / 1000, i / 1000) for i in range(1000)]
    unit = Scale(0.0, 1.0)
    drawn = scatter([Layer("many", "searched", "", marks)], unit, unit, ("x", "y"))
    assert len(drawn) < 20_000


def test_chart_alone_has_colours_that_every_viewer_understands() -> None:
    unit = Scale(0.0, 1.0)
    alone = standalone(scatter([], unit, unit, ("x", "y")))
    ElementTree.fromstring(alone)
    assert LIGHT["front"] in alone
    assert "var(" in CSS
    assert "var(" not in alone


def test_chart_shows_the_front_and_what_was_searched(example: Path) -> None:
    frame, facts = read_front(example)
    trials = read_table(example / "trials.parquet")[0].to_pandas()
    charts = front_charts(frame, trials, facts)
    assert len(charts) == len(facts.objectives) - 1
    for chart in charts:
        assert 'class="dense mark"' in chart
        assert 'class="searched mark"' in chart


def spans(starts: list[float], length: float) -> pd.DataFrame:
    found: dict[str, object] = {"trial": range(len(starts))}
    for phase, later in (("shared", 0.0), ("timing", length)):
        found[f"{phase}_host"] = "a"
        found[f"{phase}_process"] = 1
        found[f"{phase}_started"] = [start + later for start in starts]
        found[f"{phase}_ended"] = [start + later + length for start in starts]
    return pd.DataFrame(found)


def test_time_is_told_without_the_pauses_between_two_runs() -> None:
    searched = spans([0, 60, 90_000], 30)  # interrupted for a day
    ran = jobs(searched, spans([90_060], 60))
    assert ran["end"].max() == pytest.approx(5)
    search, confirmation = spent(ran)
    assert (search.part, search.minutes) == ("search", pytest.approx(3))
    assert search.phases == {"build": 0, "score": pytest.approx(1.5), "time": pytest.approx(1.5)}
    assert (confirmation.part, confirmation.minutes) == ("confirmation", pytest.approx(2))
    drawn = timeline_chart(ran)
    ElementTree.fromstring(drawn)
    assert "trial 2, search: time, 30 s" in drawn


def test_run_without_times_has_no_timeline() -> None:
    rows = pd.DataFrame({"trial": [0]})
    assert jobs(rows, rows).empty


def test_front_is_drawn_in_a_terminal(run: Run, example: Path) -> None:
    status, output, _ = run("front", example, "--plot")
    assert status == 0
    frame, facts = read_front(example)
    drawn = terminal_plot(frame, facts, 80)
    assert drawn in output or terminal_plot(frame, facts, 80).splitlines()[-1] in output
    lines = drawn.splitlines()
    assert len(lines) == HEIGHT + 5
    assert max(map(len, lines)) <= 80
    picture = "\n".join(line.partition("|")[2] for line in lines[1 : HEIGHT + 1])
    assert picture.count("D") == 1
    assert 1 <= picture.count("o") <= (frame["role"] == "front").sum()
    assert "D dense" in lines[-1]


def test_quality_without_an_upper_end_is_drawn_by_ratios() -> None:
    """A ruined language model has a perplexity of millions; the others would lie on one line."""
    values = zip((20.0, 60.0, 1e4), (30.0, 20.0, 10.0), strict=True)
    rows = [DENSE | {"accuracy": p, "latency_ms": ms, "role": "front"} for p, ms in values]
    frame = pd.DataFrame(rows)
    lowest = replace(FACTS.metrics["accuracy"], direction="minimize")
    facts = replace(FACTS, metrics=FACTS.metrics | {"accuracy": lowest})
    heights = [
        sum("o" in line.partition("|")[2] for line in terminal_plot(frame, each, 60).splitlines())
        for each in (FACTS, facts)
    ]
    assert heights == [2, 3]
