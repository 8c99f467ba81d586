"""The report: what it says of each point, how its charts are drawn, what lies beside it."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import altair as alt
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretoformer.search.records.facts import MetricFacts, RunFacts
from paretoformer.search.records.parquet import read_front, read_table, write_table
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.report.cells import number
from paretoformer.search.report.front_chart import front_charts, indicator_charts
from paretoformer.search.report.layers import layer_rows
from paretoformer.search.report.length_chart import by_length
from paretoformer.search.report.page import write_report
from paretoformer.search.report.scale import Scale
from paretoformer.search.report.svg import DARK, LIGHT, draw
from paretoformer.search.report.terminal_plot import HEIGHT, terminal_plot
from paretoformer.search.report.timeline import jobs, spent, timeline_chart
from paretoformer.search.report.trade import trade
from paretoformer.spaces import AttentionChoice, Candidate, HeadMask
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


def row(**values: float | None) -> pd.Series:
    return pd.Series(DENSE | {"speedup": 2.0, "speedup_low": 1.9, "speedup_high": 2.1} | values)


def titles(svg: str) -> list[str]:
    """What the marks of a chart show while the pointer rests on them."""
    return [title.text or "" for title in ElementTree.fromstring(svg).iter(f"{SVG}title")]


@pytest.fixture(scope="module")
def page(example: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copied = shutil.copytree(example, tmp_path_factory.mktemp("report") / "run")
    return write_report(RunFolder(copied))


def test_report_is_small_runs_nothing_and_knows_dark_screens(page: Path) -> None:
    text = page.read_text("utf-8")
    assert len(text.encode()) < 2 * MEGABYTE / 4
    assert "<script" not in text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    used = set(re.findall(r"var\(--(\w+)\)", text))
    assert used <= set(LIGHT) == set(DARK)
    assert "Gains: " in text
    assert "Where the time went" in text


def test_every_point_of_a_chart_leads_to_its_card(page: Path) -> None:
    text = page.read_text("utf-8")
    links = re.findall(r'href="([^"]*)"', "".join(re.findall(r"<svg.*?</svg>", text)))
    cards = re.findall(r'id="(point-\d+)"', text)
    assert len(links) >= 2 * len(cards)
    assert set(links) == {f"#{card}" for card in cards}


def test_front_is_a_table_of_values_and_intervals_where_charts_cannot_be_seen(page: Path) -> None:
    text = re.sub(r"<svg.*?</svg>", "", page.read_text("utf-8"))
    frame, facts = read_front(page.parent)
    for _, point in frame[frame["role"] != "dominated"].iterrows():
        for name in facts.metrics:
            low, high = (number(point[f"{name}_{end}"]) for end in ("low", "high"))
            assert f'title="{low} to {high}; the search saw ' in text
            assert f">{number(point[name])}</td>" in text


def test_front_is_an_image_in_two_formats_for_every_viewer(page: Path) -> None:
    svg = (page.parent / "front.svg").read_text("utf-8")
    frame, _ = read_front(page.parent)
    for trial in frame["trial"][frame["role"] == "front"]:
        assert any(text.startswith(f"trial {trial}: ") for text in titles(svg))
    assert LIGHT["front"] in svg
    assert "var(" not in svg
    assert (page.parent / "front.png").read_bytes().startswith(b"\x89PNG")


def test_row_of_a_layer_says_which_heads_stay_and_how_they_attend() -> None:
    window = AttentionChoice.of("window", window=8)
    first, second = layer_rows(Candidate(HeadMask(((True, False), (False, False))), (window,) * 2))
    assert (first.marks, second.marks) == ((True, False), (False, False))
    assert first.colour == "window"
    assert any("window" in label for label in first.labels)


def test_removed_layer_is_a_row_that_says_so() -> None:
    without = Candidate.dense(2, 4).replaced(layers=(True, False))
    assert [row.removed for row in layer_rows(without)] == [False, True]


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
def test_scale_holds_every_value(values: list[float], ratios: bool) -> None:
    scale = Scale.of([*values, math.nan], ratios=ratios)
    assert all(0 <= scale.share(value) <= 1 for value in values)
    middle = scale.value(0.5)
    assert scale.low < middle < scale.high
    assert scale.share(middle) == pytest.approx(0.5)


def test_costs_that_differ_by_a_factor_are_shown_as_ratios() -> None:
    scale = Scale.of([1.0, 100.0], ratios=True)
    assert scale.log
    assert scale.share(10.0) == pytest.approx(0.5)
    assert not Scale.of([1.0, 4.0], ratios=True).log
    assert not Scale.of([0.0, 100.0], ratios=True).log


def tables(example: Path) -> tuple[pd.DataFrame, pd.DataFrame, RunFacts]:
    frame, facts = read_front(example)
    return frame, read_table(example / "trials.parquet")[0].to_pandas(), facts


def test_text_in_a_chart_is_escaped() -> None:
    rows = pd.DataFrame({"x": [1], "y": [1], "text": ["<script> & co"]})
    chart = alt.Chart(rows).mark_point().encode(x="x:Q", y="y:Q", description="text")
    assert titles(draw(chart)) == ["<script> & co"]


def test_front_has_its_intervals_and_lies_among_what_was_searched(example: Path) -> None:
    frame, trials, facts = tables(example)
    charts = [chart.to_dict() for chart in front_charts(frame, trials, facts)]
    assert len(charts) == len(facts.objectives) - 1
    for chart, cost in zip(charts, facts.objectives[1:], strict=True):
        searched, across, along, cards, labels = (
            chart["datasets"][layer["data"]["name"]] for layer in chart["layer"]
        )
        drawn = pd.DataFrame([*searched, *cards]).groupby("kind")["trial"].apply(set)
        for role, rows in frame.groupby("role"):
            assert drawn[role] <= set(rows["trial"])
        assert drawn["front"] == set(frame["trial"][frame["role"] == "front"])
        assert len(drawn["dense"]) == 1
        assert len(drawn["searched"]) > 20
        assert across == along
        ends = {(bar["x_low"], bar["x_high"]) for bar in across}
        shown = frame[frame["role"] != "dominated"]
        assert ends == set(zip(shown[f"{cost}_low"], shown[f"{cost}_high"], strict=True))
        assert {label["trial"] for label in labels} <= drawn["front"]


def test_searched_trials_far_from_the_front_are_left_out(example: Path) -> None:
    frame, trials, facts = tables(example)
    trials.loc[trials["trial"] == 2, "accuracy"] = -5.0
    (svg, *_) = [draw(chart) for chart in front_charts(frame, trials, facts)]
    assert not any(text.startswith("trial 2:") for text in titles(svg))


def test_disturbed_point_is_marked_as_such(example: Path) -> None:
    frame, trials, facts = tables(example)
    first = frame.index[frame["role"] == "front"][0]
    svgs = []
    for disturbed in (False, True):
        frame["latency_ms_disturbed"] = (frame.index == first) & disturbed
        svgs.append(draw(front_charts(frame, trials, facts)[0]))
    assert ["timed beside other work" in svg for svg in svgs] == [False, True]


def test_page_stays_small_however_many_trials_there_were(example: Path) -> None:
    frame, trials, facts = tables(example)
    many = pd.concat([trials] * 100, ignore_index=True)
    charts = [*front_charts(frame, many, facts), *indicator_charts(many, facts)]
    bars = timeline_chart(jobs(many, frame))
    assert sum(len(draw(chart)) for chart in (*charts, bars)) < MEGABYTE


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
    assert "trial 2, search: time, 30 s" in titles(draw(timeline_chart(ran)))


def test_run_without_times_has_no_timeline() -> None:
    rows = pd.DataFrame({"trial": [0]})
    assert jobs(rows, rows).empty


def with_lengths(example: Path, *lengths: int) -> tuple[pd.DataFrame, RunFacts]:
    """The example's front, timed at these lengths; trial 5 becomes the only alternative."""
    frame, facts = read_front(example)
    other = Candidate.from_json(frame["candidate"][0]).replaced(runtime="onnxruntime:int8")
    row = frame["trial"] == 5
    frame.loc[row, ["role", "candidate", "candidate_id"]] = "alternative", other.to_json(), other.id
    frame["latency_ms_conditions"] = [
        json.dumps({f"ms_at_{n}": ms * n / 32 for n in reversed(lengths)} | {"slowdown": 1.0})
        for ms in frame["latency_ms"]
    ]
    return frame, facts


def test_latency_by_length_is_a_line_for_each_choice(example: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(example, tmp_path / "run"))
    frame, facts = with_lengths(example, 8, 64)
    write_table(pa.Table.from_pandas(frame, preserve_index=False), run / "front.parquet", facts)
    text = write_report(RunFolder(run)).read_text("utf-8").partition("Latency by length")[2]
    assert (
        "From 8 to 64 tokens, a forward pass takes 3.752 to 30.01 ms (uncompressed, torch float32),"
        " 3.148 to 25.19 ms (best alternative, onnxruntime:int8), 2.963 to 23.71 ms (answer, trial"
        " 6)." in text
    )
    svg = text[text.index("<svg") : text.index("</svg>")]
    lines = re.findall(r'stroke="var\(--(\w+)\)" stroke-width="2"', svg)
    assert lines == ["dense", "alternative", "front"]
    assert "answer, trial 6, 64 tokens: 23.71 ms" in svg


def test_alternative_that_is_the_answer_is_one_line(example: Path) -> None:
    frame, facts = with_lengths(example, 8, 64)
    frame.loc[frame["role"] == "alternative", "latency_ms"] = 1.0
    assert list(by_length(frame, facts)["kind"].unique()) == ["dense", "alternative"]


def test_run_of_one_length_or_without_an_answer_has_no_chart_of_lengths(
    page: Path, example: Path
) -> None:
    assert "Latency by length" not in page.read_text("utf-8")
    assert by_length(*with_lengths(example, 64)).empty
    frame, facts = with_lengths(example, 8, 64)
    assert by_length(frame, replace(facts, required=("latency_ms<=0.01*dense",))).empty


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
