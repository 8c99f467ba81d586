"""Task `text-classification`: one label for each text, or pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from torch.nn import functional as F
from transformers.models.auto import modeling_auto

from paretoformer.evaluators.data import Examples, Labels, SplitName
from paretoformer.evaluators.remark import Remark
from paretoformer.evaluators.target import Target
from paretoformer.evaluators.tasks.labels import (
    check_problem,
    class_names,
    class_numbers,
    doubts,
    problem_of,
    titles,
)
from paretoformer.evaluators.tasks.task import Task, register
from paretoformer.evaluators.tasks.text import tokenize
from paretoformer.evaluators.workload import Workload
from paretoformer.spaces.answers import Distributions

SINGLE = "single_label_classification"


class TextClassification(Task):
    """A single label; its loss is the cross entropy."""

    name = "text-classification"
    auto = transformers.AutoModelForSequenceClassification
    architectures: ClassVar[Mapping[str, Any]] = (
        modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    )
    answers = Distributions()
    scores = ("accuracy",)
    more_scores = ("macro_f1", "matthews")

    def suits(self, config: Any) -> bool:
        return problem_of(config) == SINGLE

    def encode(
        self, splits: Mapping[SplitName, Examples], tokenizer: Any, config: Any, target: Target
    ) -> Workload:
        check_problem(config, SINGLE)  # also where there are no labels to read
        return tokenize(splits, tokenizer, config, target)

    def read_labels(self, labels: Sequence[Any], config: Any) -> Labels:
        check_problem(config, SINGLE)
        return class_numbers(labels, config)

    def doubts(self, answers: np.ndarray, labels: np.ndarray, config: Any) -> list[Remark]:
        names, _ = class_names(config)
        return doubts(answers, labels, titles(names))

    def loss(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(output.logits.float(), labels, reduction="sum")

    def predict(self, output: Any) -> np.ndarray:
        answers: np.ndarray = output.logits.argmax(dim=-1).cpu().numpy()
        return answers


register(TextClassification())
