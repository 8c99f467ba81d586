"""Selection: requirements are read as written, and no answer names the nearest point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import paretoformer as pf
from paretoformer.evaluators.common.target import Target, machine_facts
from paretoformer.search.publish.best import load_best
from paretoformer.search.records.errors import NoAnswer, RunError, UserError
from paretoformer.search.records.facts import MetricFacts, RunFacts
from paretoformer.search.records.parquet import read_front, write_table
from paretoformer.search.records.requirement import Requirement
from paretoformer.search.report.evidence import rank_agreement, shrinkage
from paretoformer.search.study.spec import parse_spec
from paretoformer.spaces import Candidate, HeadMask


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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("accuracy>=dense-0.01", "accuracy >= dense - 0.01"),
        ("latency_ms<=0.5*dense", "latency_ms <= 0.5 * dense"),
        ("memory_mb<50", "memory_mb < 50"),
        ("accuracy >= dense", "accuracy >= dense"),
    ],
)
def test_requirement_is_said_with_spaces(text: str, words: str) -> None:
    assert Requirement.parse(text).phrase == words
    assert Requirement.parse(words).bound(0.9) == Requirement.parse(text).bound(0.9)


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


def write_front(run: Path, quality: str, metric: MetricFacts, values: list[float]) -> RunFacts:
    """A run of another task: the dense model, half of it, and the fastest, which is a wreck.

    values: of the quality, in that order.
    """
    masks = [HeadMask.all(1, 4), HeadMask.ranked((2,), np.ones((1, 4))), HeadMask.none(1, 4)]
    candidates = [Candidate(mask) for mask in masks]
    table = {
        "trial": [0, 1, 2],
        "candidate_id": [candidate.id for candidate in candidates],
        "candidate": [candidate.to_json() for candidate in candidates],
        "state": ["complete"] * 3,
        "outcome": ["ok"] * 3,
        "message": [""] * 3,
        "role": ["dense", "front", "front"],
    }
    table |= {f"speedup{end}": [1.0, 2.0, 8.0] for end in ("", "_low", "_high")}
    for name, column in {quality: values, "latency_ms": [8.0, 4.0, 1.0]}.items():
        table |= {f"{name}{end}": column for end in ("", "_low", "_high")}
        table[f"search_{name}"] = column
    facts = RunFacts(
        study=parse_spec(
            '[model]\npath = "m"\n[data]\npath = "d"\n', source=Path("other.toml")
        ).model_dump(),
        machine=machine_facts(Target()) | {"threads": 1},
        objectives=(quality, "latency_ms"),
        metrics={quality: metric, "latency_ms": MetricFacts("ms", "minimize", "cost")},
    )
    write_table(pa.table(table), run / "front.parquet", facts)
    return facts


F1 = MetricFacts("fraction", "maximize", "quality", "f1>=dense-0.01")
PERPLEXITY = MetricFacts("1", "minimize", "quality", "perplexity<=1.05*dense")


@pytest.mark.parametrize(
    ("name", "metric", "values"),
    [("f1", F1, [0.9, 0.895, 0.5]), ("perplexity", PERPLEXITY, [20.0, 20.5, 900.0])],
)
def test_run_of_any_quality_has_its_requirement_by_default(
    tmp_path: Path, name: str, metric: MetricFacts, values: list[float]
) -> None:
    write_front(tmp_path, name, metric, values)
    assert load_best(tmp_path).trial == 1
    assert load_best(tmp_path, name).trial == 0  # best by its own direction
    assert load_best(tmp_path, require=[]).trial == 2  # only who asks for it gets the wreck


def test_facts_come_back_from_the_file(tmp_path: Path) -> None:
    facts = write_front(tmp_path, "f1", F1, [0.9, 0.895, 0.5])
    again = read_front(tmp_path)[1]
    assert again.metrics == facts.metrics
    assert again.requirements == ("f1>=dense-0.01",)
    assert again.objectives == ("f1", "latency_ms")


def test_quality_that_is_minimised_is_no_cost(tmp_path: Path) -> None:
    facts = write_front(tmp_path, "perplexity", PERPLEXITY, [20.0, 20.5, 900.0])
    assert facts.qualities == ["perplexity"]
    assert facts.costs == ["latency_ms"]
    front, again = read_front(tmp_path)
    assert again.costs == ["latency_ms"]
    assert list(rank_agreement(front, facts)) == ["latency_ms"]
    front["search_perplexity"] = front["perplexity"] - 0.5  # it looked better in the search
    assert shrinkage(front, facts)["perplexity"] == pytest.approx(0.5)  # in its unit, not a share
