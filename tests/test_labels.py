"""What the labels of a file mean to a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretoformer.evaluators.data.table import ClassLabel, DataError
from paretoformer.evaluators.tasks import task_of
from paretoformer.evaluators.tasks.labels import class_numbers, doubts


def config(*names: str, label2id: Any = None, **more: Any) -> Any:
    return SimpleNamespace(
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id=dict(zip(names, range(len(names)), strict=True)) if label2id is None else label2id,
        **more,
    )


def numbers(labels: list[Any], of: Any) -> list[int | None]:
    return list(class_numbers(labels, of).values)


def said(labels: list[Any], of: Any) -> str:
    return "\n".join(each.text for each in class_numbers(labels, of).remarks)


STARS = config("1", "2", "3", "4", "5")


@pytest.mark.parametrize(
    ("labels", "of", "expected"),
    [
        ([0, 1, 10, 2], config("0", "1", "10", "2"), [0, 1, 2, 3]),
        ([0, 1, 1], config("1", "0"), [1, 0, 0]),
        ([1, 4, 2], STARS, [0, 3, 1]),
        (["1", "4"], STARS, [0, 3]),
        ([1.0, 4.0], STARS, [0, 3]),
        (["Bad", " GOOD "], config("bad", "good"), [0, 1]),
        (["not-spam", "not spam"], config("spam", "not_spam"), [1, 1]),
        ([True, False], config("no", "yes"), [1, 0]),
        (["True", "false"], config("no", "yes"), [1, 0]),
        ([True, False], config("True", "False"), [0, 1]),
        (["0", "1", "1.0"], config("bad", "good"), [0, 1, 1]),
        ([0, -1, 1], config("bad", "good"), [0, None, 1]),
        (["0", "-1", "1"], config("bad", "good"), [0, None, 1]),
        ([-1, 0, 1], config("-1", "0", "1"), [0, 1, 2]),
        ([ClassLabel(0, "yes"), ClassLabel(1, "no")], config("no", "yes"), [1, 0]),
        ([ClassLabel(0, "a"), ClassLabel(1, "b")], config("LABEL_0", "LABEL_1"), [0, 1]),
        (["neg", "pos"], config("LABEL_0", "LABEL_1", label2id={"neg": 0, "pos": 1}), [0, 1]),
        (["bad", "good"], config("bad", "good", label2id={"bad": 1, "good": 0}), [0, 1]),
    ],
)
def test_labels_mean_what_the_model_calls_its_answers(
    labels: list[Any], of: Any, expected: list[int | None]
) -> None:
    assert numbers(labels, of) == expected


@pytest.mark.parametrize(
    ("labels", "of", "message"),
    [
        (["²", "0"], config("bad", "good"), "label '²' is unknown to the model"),
        ([2], config("bad", "good"), "label 2 is unknown to the model, which has 2 labels"),
        ([0.5], config("bad", "good"), r"label 0\.5 is unknown"),
        (["bad", 1], config("bad", "good"), "some labels are names of the model, such as 'bad'"),
        ([["bad"]], config("bad", "good"), "is no single label"),
        (["x"], config("a", "b", label2id={"a": "zero"}), "something else than numbers"),
    ],
)
def test_labels_that_mean_nothing_are_refused(labels: list[Any], of: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        task_of("text-classification").read_labels(labels, of)


@pytest.mark.parametrize(
    ("of", "reason"),
    [
        (config("score"), "a regression"),
        (config("a", "b", problem_type="multi_label_classification"), "several labels"),
        (config("bad", "good"), ""),
    ],
)
def test_model_of_another_problem_is_told_by_its_config(of: Any, reason: str) -> None:
    found = task_of("text-classification").unsuitable(of)
    assert reason in found
    assert bool(reason) == bool(found)


def test_the_mapping_is_shown_with_its_counts() -> None:
    text = said([1, 1, 4, -1], STARS)
    assert "Labels: 1 is class 0 (2 rows); 4 is class 3 (1 row)." in text
    assert "No example is of class '2', '3', '5'." in text
    assert "Left out: 1 row with the label -1, which means no label." in text


def test_names_of_classes_that_the_model_lacks_are_refused() -> None:
    wrong = SimpleNamespace(num_labels=2, id2label={1: "neg", 2: "pos"}, label2id={})
    with pytest.raises(DataError, match="`id2label` names a class 2, but its classes are 0 to 1"):
        class_numbers(["neg", "pos"], wrong)


def test_check_of_many_classes_takes_the_memory_of_those_that_occur() -> None:
    answers = np.arange(256) * 10**9  # a table of all classes would not fit any memory
    assert not doubts(answers, answers, {})
    (doubt,) = doubts(answers, np.roll(answers, 1), {0: "cat"})
    assert "would be on 100% if its classes were in another order" in doubt.text
    assert "it answers 1000000000 for 'cat'" in doubt.text


def test_a_class_that_is_nearly_all_is_said() -> None:
    assert "95% of the labels are 'bad'" in said(["bad"] * 95 + ["good"] * 5, config("bad", "good"))


def test_contradicting_names_of_the_model_are_said() -> None:
    contradicting = config("bad", "good", label2id={"bad": 1, "good": 0})
    assert "`label2id` contradicts its `id2label`" in said(["bad"], contradicting)


@given(st.lists(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text())))
def test_any_label_is_mapped_or_refused(labels: list[Any]) -> None:
    try:
        found = numbers(labels, config("bad", "good", "2"))
    except DataError:
        return
    assert len(found) == len(labels)
    assert all(number is None or 0 <= number < 3 for number in found)


NAMES = {0: "bad", 1: "good", 2: "odd"}


def test_a_model_that_is_right_raises_no_doubt() -> None:
    labels = np.array([0, 1, 2] * 20)
    assert doubts(labels, labels, NAMES) == []


def test_classes_in_another_order_are_noticed() -> None:
    labels = np.array([0, 1, 2] * 20)
    [doubt] = doubts(np.array([1, 0, 2] * 20), labels, NAMES)
    assert doubt.doubt
    assert "right on 33% of 60" in doubt.text
    assert "would be on 100%" in doubt.text
    assert "'bad' for 'good'" in doubt.text


def test_no_better_than_the_most_frequent_class_is_noticed() -> None:
    labels = np.array([0] * 30 + [1] * 10)
    [doubt] = doubts(np.zeros(40, dtype=int), labels, NAMES)
    assert "75% of them are 'bad': always answering that would be as good" in doubt.text
