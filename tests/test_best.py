"""Selection: requirements are read as written, and no answer names the nearest point."""

from __future__ import annotations

from pathlib import Path

import pytest

import paretoformer as pf
from paretoformer.search.best import Requirement, load_best
from paretoformer.search.errors import NoAnswer, RunError, UserError
from paretoformer.search.store import read_front


@pytest.mark.parametrize(
    ("text", "dense", "bound"),
    [
        ("accuracy>=0.84", 0.9, 0.84),
        ("accuracy >= dense - 0.01", 0.9, 0.89),
        ("accuracy>=dense", 0.9, 0.9),
        ("latency_ms<=0.5*dense", 8.0, 4.0),
        ("latency_ms <= dense*0.5", 8.0, 4.0),
        ("memory_mb<dense+1e0", 8.0, None),
        ("latency_ms<1e1", 8.0, 10.0),
    ],
)
def test_requirement_is_read_as_written(text: str, dense: float, bound: float | None) -> None:
    if bound is None:
        with pytest.raises(UserError, match="cannot read the requirement"):
            Requirement.parse(text)
    else:
        assert Requirement.parse(text).bound(dense) == pytest.approx(bound)


@pytest.mark.parametrize(
    "text", ["", "accuracy", "accuracy=0.8", ">=0.8", "accuracy>=high", "a>=1;b"]
)
def test_other_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match="write METRIC OP VALUE, as in accuracy>=0.84"):
        Requirement.parse(text)


def test_bound_itself_satisfies_only_when_it_is_included() -> None:
    assert Requirement.parse("accuracy>=dense-0.01").shortfall(0.846 - 0.01, 0.846) == 0
    assert Requirement.parse("accuracy>dense-0.01").shortfall(0.846 - 0.01, 0.846) > 0
    assert Requirement.parse("latency_ms<2").shortfall(1.9, 5) == 0


def test_default_is_the_fastest_within_a_hundredth_of_dense(example: Path) -> None:
    frame, _ = read_front(example)
    dense = frame[frame["role"] == "dense"].iloc[0]
    eligible = frame[
        frame["role"].isin(["front", "tied", "dense"])
        & (frame["accuracy"] >= dense["accuracy"] - 0.01 - 1e-9)
    ]
    best = load_best(example)
    assert best.metrics["latency_ms"].value == eligible["latency_ms"].min()
    assert best.metrics["latency_ms"].unit == "ms"
    assert best.dense["accuracy"].value == dense["accuracy"]


def test_every_requirement_holds(example: Path) -> None:
    best = load_best(example, "memory_mb", ["accuracy>=dense-0.05", "latency_ms<=0.95*dense"])
    assert best.metrics["accuracy"].value >= best.dense["accuracy"].value - 0.05
    assert best.metrics["latency_ms"].value <= 0.95 * best.dense["latency_ms"].value


def test_no_answer_names_the_nearest_point(example: Path) -> None:
    with pytest.raises(NoAnswer, match=r"Nearest: trial \d+, latency_ms .* asks for <= "):
        load_best(example, require=["latency_ms<=0.01*dense"])


def test_unknown_metric_is_named(example: Path) -> None:
    with pytest.raises(UserError, match="unknown metric 'latency'. Did you mean 'latency_ms'"):
        load_best(example, "latency")


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run folder"):
        load_best(tmp_path / "nothing")
    with pytest.raises(RunError, match="is not a run folder"):
        load_best(tmp_path)


def test_load_front_gives_the_front_rows_alone(example: Path) -> None:
    front = pf.load_front(example)
    assert set(front["role"]) <= {"front", "tied"}
    assert len(front) >= 5
    for name in ("accuracy", "latency_ms", "memory_mb", "parameters", "flops"):
        assert {name, f"{name}_low", f"{name}_high", f"search_{name}"} <= set(front.columns)
