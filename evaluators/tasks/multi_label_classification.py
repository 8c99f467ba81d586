"""Task `multi-label-classification`: zero or more labels per text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.data.examples import Labels
from paretoformer.evaluators.data.table import DataError
from paretoformer.evaluators.tasks.classifier import TextClassifier
from paretoformer.evaluators.tasks.labels import (
    class_names,
    class_numbers,
)
from paretoformer.evaluators.tasks.task import register
from paretoformer.spaces.models.divergence import MultiLabel
from paretoformer.spaces.models.tokens import Batch


class MultiLabelClassification(TextClassifier):
    """A classifier with `problem_type` "multi_label_classification".

    A class is predicted if its logit is above 0, so its probability above one half. A row without
    classes has an empty list; a row with an empty cell is unlabelled and left out.
    """

    name = "multi-label-classification"
    tag = "text-classification"
    problem = "multi_label_classification"
    answers = MultiLabel()
    scores = ("micro_f1",)
    more_scores = ("macro_f1",)
    supervised = True

    def read_labels(self, labels: Sequence[Any], config: Any) -> Labels:
        """(rows, classes) of 0 and 1. Labels are lists of names or numbers, a text of names
        separated by commas, semicolons or bars, or lists of 0 or 1 per class."""
        names, _ = class_names(config)
        lists = [None if _is_unknown(label) else _listed(label, names) for label in labels]
        known = [row for row in lists if row is not None]
        classes = int(config.num_labels)
        if all(_is_multi_hot(row, classes) for row in known):
            marks = [tuple(int(mark) for mark in row) for row in known]
            notes: tuple[Remark, ...] = (_counted(marks, names),)
        else:
            read = class_numbers([label for row in known for label in row], config, "label")
            numbers = iter(read.values)
            marks = [_marks(row, [next(numbers) for _ in row], classes) for row in known]
            notes = read.remarks
        if without := len(lists) - len(known):
            notes = (*notes, Remark(f"Left out: {without} rows of -1, which means no label known."))
        rest = iter(marks)
        return Labels(tuple(None if row is None else next(rest) for row in lists), notes)

    def doubts(self, answers: np.ndarray, labels: np.ndarray, config: Any) -> list[Remark]:
        if ((answers == 1) & (labels == 1)).any():
            return []
        return [
            Remark(
                f"The uncompressed model gives none of the labels of {len(labels)} training "
                "examples. Is it the fine-tuned model, with its own tokenizer, and are data.text "
                "and data.label the right columns?",
                doubt=True,
            )
        ]

    def loss(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        logits = output.logits.float()
        return F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="sum")

    def predict(self, output: Any) -> np.ndarray:
        """(rows, classes) of 0 and 1"""
        answers: np.ndarray = (output.logits > 0).long().cpu().numpy()
        return answers

    def likeness(self, output: Any, dense: Any, batch: Batch) -> np.ndarray:
        """(rows,): 1 if all labels equal the dense model's, else 0."""
        same: np.ndarray = (self.predict(output) == self.predict(dense)).all(axis=1)
        return same.astype(np.float64)


def _listed(label: Any, names: Mapping[str, int]) -> Sequence[Any]:
    """The label as a list. Raises DataError if it is neither a list nor a text of one."""
    if isinstance(label, list | tuple):
        return label
    if isinstance(label, str) and label not in names:
        return [part.strip() for part in re.split(r"[,;|]", label) if part.strip()]
    if isinstance(label, dict):
        raise DataError(f"label {label!r} is no list of labels.")
    return [label]


def _is_unknown(label: Any) -> bool:
    """Whether all values are -1, which some data sets use for unlabelled rows."""
    return isinstance(label, list | tuple) and bool(label) and all(value == -1 for value in label)


def _marks(given: Sequence[Any], numbers: Sequence[int | None], classes: int) -> tuple[int, ...]:
    """Raises DataError for a repeated class, as in a list of 0 and 1 of wrong length."""
    named = [number for number in numbers if number is not None]
    if len(set(named)) < len(named):
        raise DataError(
            f"label {list(given)!r} names a class twice. A list of a 0 or 1 for each class has "
            f"{classes} of them here, in every row."
        )
    return tuple(int(number in named) for number in range(classes))


def _is_multi_hot(labels: Sequence[Any], classes: int) -> bool:
    return len(labels) == classes and all(
        isinstance(label, int | float) and label in (0, 1) for label in labels
    )


def _counted(marks: Sequence[Sequence[int]], names: Mapping[str, int]) -> Remark:
    counts = np.array(marks).sum(axis=0)
    shown = ", ".join(f"{name} {counts[number]}" for name, number in list(names.items())[:6])
    return Remark(f"Labels are lists of 0 and 1, one for each class; texts that have it: {shown}.")


register(MultiLabelClassification())
