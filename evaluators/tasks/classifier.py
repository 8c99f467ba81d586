"""Classifiers of texts, and tasks whose answer is one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from torch.nn import functional as F
from transformers.models.auto import modeling_auto

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.data.examples import Labels
from paretoformer.evaluators.tasks.labels import (
    Problem,
    another_problem,
    class_names,
    class_numbers,
    doubts,
    titles,
)
from paretoformer.evaluators.tasks.task import Task
from paretoformer.evaluators.tasks.text import TextTask
from paretoformer.spaces.models.divergence import Distributions


class TextClassifier(TextTask):
    """A sequence classifier of transformers, whose config says what its logits mean."""

    auto = transformers.AutoModelForSequenceClassification
    architectures: ClassVar[Mapping[str, Any]] = (
        modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    )
    problem: ClassVar[Problem]
    """The meaning of the logits of this task's models."""

    def unsuitable(self, config: Any) -> str:
        return another_problem(config, self.problem)


class SingleLabel(Task):
    """The answer to a row is one class, and the loss is the cross entropy."""

    answers = Distributions()
    scores = ("accuracy",)
    more_scores = ("macro_f1", "matthews")

    def read_labels(self, labels: Sequence[Any], config: Any) -> Labels:
        return class_numbers(labels, config)

    def doubts(self, answers: np.ndarray, labels: np.ndarray, config: Any) -> list[Remark]:
        names, _ = class_names(config)
        return doubts(answers, labels, titles(names))

    def loss(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(output.logits.float(), labels, reduction="sum")

    def predict(self, output: Any) -> np.ndarray:
        """(rows,)"""
        answers: np.ndarray = output.logits.argmax(dim=-1).cpu().numpy()
        return answers
