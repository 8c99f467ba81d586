"""Macro F1 and Matthews' correlation: scores for classes of unequal size."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretoformer.evaluators.metrics import metric_of
from paretoformer.evaluators.tasks import task_of
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import load_subject
from paretoformer.testing import check_metric
from tests.conftest import Run
from tests.tiny import SMALL_SPACE, write_study

NAMES = ("macro_f1", "matthews")


def bench_of(labels: list[int], answers: list[int]) -> SimpleNamespace:
    """A candidate that gave these answers."""
    split = SimpleNamespace(labels=np.array(labels))
    task = task_of("text-classification")
    return SimpleNamespace(task=task, split=split, memo={"predictions": np.array(answers)})


def test_most_frequent_class_alone_scores_little() -> None:
    always_0 = bench_of([0] * 19 + [1], [0] * 20)
    assert metric_of("accuracy").measure(always_0).value == 0.95  # type: ignore[arg-type, union-attr]
    assert metric_of("macro_f1").measure(always_0).value == pytest.approx(19 / 39)  # type: ignore[arg-type, union-attr]
    assert metric_of("matthews").measure(always_0).value == 0  # type: ignore[arg-type, union-attr]


@settings(max_examples=10)  # of 800 scores each
@mock.patch("paretoformer.evaluators.common.statistics.RESAMPLES", 19)  # 199 take minutes
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=30))
def test_value_lies_in_its_interval_and_right_answers_are_the_best(
    pairs: list[tuple[int, int]],
) -> None:
    labels, answers = ([pair[side] for pair in pairs] for side in (0, 1))
    for name in NAMES:
        found = check_metric(metric_of(name), bench_of(labels, answers))  # type: ignore[arg-type]
        right = check_metric(metric_of(name), bench_of(labels, labels))  # type: ignore[arg-type]
        assert found is not None
        assert right is not None
        assert found.value <= right.value + 1e-12


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = write_study(tmp_path_factory.mktemp("scores") / "study", extra=SMALL_SPACE)
    found.write_text('objectives = ["macro_f1", "latency_ms"]\n' + found.read_text())
    return found


def test_study_that_asks_for_one_measures_it_and_requires_it_of_an_answer(study: Path) -> None:
    subject = load_subject(load_spec(study))
    assert {"accuracy", "macro_f1"} <= subject.metrics.keys()
    assert "matthews" not in subject.metrics
    assert [each.text for each in subject.requirements] == ["macro_f1>=dense-0.01"]


def test_study_that_asks_for_none_has_the_columns_that_it_had(tmp_path: Path) -> None:
    subject = load_subject(load_spec(write_study(tmp_path / "study")))
    assert subject.metrics.keys().isdisjoint(NAMES)
    assert [each.text for each in subject.requirements] == ["accuracy>=dense-0.01"]


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.usefixtures("inline")
def test_front_of_macro_f1_is_confirmed_and_answered(run: Run, study: Path) -> None:
    assert run("search", study, "--trials", 4, "--out", study.parent / "run")[0] == 0
    status, output, _ = run("best", study.parent / "run")
    assert status == 0
    assert "macro_f1" in output
