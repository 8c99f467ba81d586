"""Text classifiers, and tasks that predict one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import transformers
from torch.nn import functional as F
from transformers.models.auto import modeling_auto

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.data.examples import Labels
from paretoformer.evaluators.tasks.labels import class_numbers, doubts, titles
from paretoformer.evaluators.tasks.task import Task
from paretoformer.evaluators.tasks.text import TextTask
from paretoformer.spaces.models.divergence import Distributions

Problem = Literal["single_label_classification", "multi_label_classification", "regression"]
"""transformers' `problem_type`: the meaning of a classifier's logits."""
KINDS: Mapping[Problem, tuple[str, str]] = {
    "single_label_classification": ("text-classification", "chooses one class"),
    "multi_label_classification": ("multi-label-classification", "gives several labels a text"),
    "regression": ("text-regression", "gives one number, a regression"),
}
"""Problem -> its text task, and what the model does."""


def problem_of(config: Any) -> Problem:
    """The config's `problem_type`, or the one implied by its number of classes."""
    if int(config.num_labels) == 1:
        return "regression"
    own = getattr(config, "problem_type", None)
    return next((known for known in KINDS if known == own), "single_label_classification")


def another_problem(config: Any, wanted: Problem) -> str:
    """Why a text classifier belongs to another task, and which; empty if it does not.

    A model of several classes without a `problem_type` may do either task with classes: in
    transformers, the form of the labels decides.
    """
    several = int(config.num_labels) > 1 and getattr(config, "problem_type", None) is None
    if several and wanted != "regression":
        return ""
    if (problem := problem_of(config)) != wanted:
        task, does = KINDS[problem]
        return f'the model {does}: set model.task = "{task}"'
    if wanted == "regression" and int(config.num_labels) > 1:
        return f"the model gives {config.num_labels} numbers a text, and one can be scored"
    return ""


def not_single_label(config: Any) -> str:
    """Why a model without text input does not predict one class; empty if it does."""
    if (problem := problem_of(config)) != "single_label_classification":
        return f"the model {KINDS[problem][1]} (`problem_type`), which no task scores yet"
    return ""


class TextClassifier(TextTask):
    """A sequence classifier of transformers; its config defines the meaning of its logits."""

    auto = transformers.AutoModelForSequenceClassification
    architectures: ClassVar[Mapping[str, Any]] = (
        modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    )
    problem: ClassVar[Problem]

    def unsuitable(self, config: Any) -> str:
        return another_problem(config, self.problem)


class SingleLabel(Task):
    """One class per row; the loss is the cross entropy."""

    answers = Distributions()
    scores = ("accuracy",)
    more_scores = ("macro_f1", "matthews")
    supervised = True

    def read_labels(self, labels: Sequence[Any], config: Any) -> Labels:
        return class_numbers(labels, config)

    def doubts(self, answers: np.ndarray, labels: np.ndarray, config: Any) -> list[Remark]:
        return doubts(answers, labels, titles(config))

    def loss(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(output.logits.float(), labels, reduction="sum")

    def predict(self, output: Any) -> np.ndarray:
        """(rows,)"""
        answers: np.ndarray = output.logits.argmax(dim=-1).cpu().numpy()
        return answers
