"""Task `text-classification`: one label for each text, or pair of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from torch.nn import functional as F
from transformers.models.auto import modeling_auto

from paretoformer.evaluators.data import DataError, Examples, SplitName
from paretoformer.evaluators.target import Target
from paretoformer.evaluators.tasks.task import Task, register
from paretoformer.evaluators.tasks.text import tokenize, unlabelled
from paretoformer.evaluators.workload import Workload


class TextClassification(Task):
    """A single label; its loss is the cross entropy."""

    name = "text-classification"
    auto = transformers.AutoModelForSequenceClassification
    architectures: ClassVar[Mapping[str, Any]] = (
        modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    )
    scores = ("accuracy",)

    def encode(
        self, splits: Mapping[SplitName, Examples], tokenizer: Any, config: Any, target: Target
    ) -> Workload:
        labels = {
            name: class_numbers(each.labels, config) if each.labelled else unlabelled(each)
            for name, each in splits.items()
        }
        return tokenize(splits, labels, tokenizer, target)

    def loss(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(output.logits.float(), labels, reduction="sum")

    def predict(self, output: Any) -> np.ndarray:
        answers: np.ndarray = output.logits.argmax(dim=-1).cpu().numpy()
        return answers

    def divergence(self, output: Any, dense: Any) -> torch.Tensor:
        wanted = F.log_softmax(dense.logits.double(), dim=-1)
        given = F.log_softmax(output.logits.double(), dim=-1)
        return F.kl_div(given, wanted, reduction="none", log_target=True).sum(dim=-1)


def class_numbers(labels: Sequence[Any], config: Any) -> np.ndarray:
    """Class numbers of labels given as numbers, or as the names in the model's `label2id`.

    Raises:
        DataError: a label that the model does not have.
    """
    classes = int(config.num_labels)
    by_name = {str(name): int(number) for name, number in (config.label2id or {}).items()}
    encoded = []
    for label in labels:
        number = _class_number(label, by_name)
        if number is None or not 0 <= number < classes:
            raise DataError(
                f"label {label!r} is unknown to the model, which has {classes} labels: "
                f"0 to {classes - 1}, named {', '.join(by_name)}."
            )
        encoded.append(number)
    return np.asarray(encoded, dtype=np.int64)


def _class_number(label: Any, by_name: Mapping[str, int]) -> int | None:
    """The number that a label stands for; None when it stands for none."""
    number = by_name.get(label) if isinstance(label, str) else label
    if isinstance(number, float) and number.is_integer():  # a column that had an empty cell
        number = int(number)
    if number is None and isinstance(label, str) and label.lstrip("-").isdigit():
        number = int(label)
    if isinstance(number, bool) or not isinstance(number, int | np.integer):
        return None
    return int(number)


register(TextClassification())
