"""Tasks: what a model is asked, how its answers are scored.

Supporting another task is one more entry in `TASKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from torch.nn import functional as F
from transformers.models.auto import modeling_auto

from paretoformer.evaluators.accuracy import Accuracy
from paretoformer.evaluators.data import DataError
from paretoformer.evaluators.metric import Metric
from paretoformer.spaces.families import FAMILIES, Family, family_of
from paretoformer.spaces.suggestions import did_you_mean


@dataclass(frozen=True)
class Task:
    """One kind of model and data.

    auto: the transformers class that loads such a model.
    architectures: model family -> the class that `auto` would make.
    loss: (model output, labels) -> the sum of the examples' losses.
    encode_labels: (labels of the data set, model config) -> what `loss` and the score take.
    """

    name: str
    auto: Any
    architectures: Mapping[str, Any]
    score: Metric
    loss: Callable[[Any, torch.Tensor], torch.Tensor]
    encode_labels: Callable[[Sequence[Any], Any], np.ndarray]


def _cross_entropy(output: Any, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output.logits.float(), labels, reduction="sum")


def _class_labels(labels: Sequence[Any], config: Any) -> np.ndarray:
    """Class numbers of labels given as numbers, or as the names in the model's `label2id`."""
    classes = int(config.num_labels)
    by_name = {str(name): int(number) for name, number in (config.label2id or {}).items()}
    encoded = []
    for label in labels:
        number = by_name.get(label) if isinstance(label, str) else label
        if isinstance(number, float) and number.is_integer():  # a column that had an empty cell
            number = int(number)
        if number is None and isinstance(label, str) and label.lstrip("-").isdigit():
            number = int(label)
        if (
            isinstance(number, bool)
            or not isinstance(number, int | np.integer)
            or not 0 <= number < classes
        ):
            raise DataError(
                f"label {label!r} is unknown to the model, which has {classes} labels: "
                f"0 to {classes - 1}, named {', '.join(by_name)}."
            )
        encoded.append(int(number))
    return np.asarray(encoded, dtype=np.int64)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="text-classification",
            auto=transformers.AutoModelForSequenceClassification,
            architectures=modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
            score=Accuracy(),
            loss=_cross_entropy,
            encode_labels=_class_labels,
        ),
    )
}


def task_of(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: there is none; the message names those there are.
    """
    if name not in TASKS:
        raise ValueError(
            f"Unsupported task {name!r}.{did_you_mean(name, TASKS)} Supported: {', '.join(TASKS)}."
        )
    return TASKS[name]


def check_family(task: Task, config: Any) -> Family:
    """The family of a config, if this task knows it.

    Raises:
        ValueError: it does not; the message names those it does.
    """
    family = family_of(config)
    if config.model_type not in task.architectures:
        known = ", ".join(name for name in FAMILIES if name in task.architectures)
        raise ValueError(
            f"A {config.model_type!r} model does no {task.name}. Families that do: {known}."
        )
    return family


def load_model(task: Task, path: str, *, trust_remote_code: bool = False) -> nn.Module:
    """The model of a folder or Hub id as a user would run it: `sdpa`, evaluation mode.

    Raises:
        ValueError: some of its weights are not there, such as those of a classifier that was never
            trained.
        OSError: it cannot be loaded, or has no weights as safetensors: other formats are pickles.
    """
    model: nn.Module
    model, info = task.auto.from_pretrained(
        path,
        attn_implementation="sdpa",
        trust_remote_code=trust_remote_code,
        use_safetensors=True,
        output_loading_info=True,
    )
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(
            f"it has no weights for {', '.join(missing[:3])}"
            f"{' and others' if missing[3:] else ''}: fine-tune it for {task.name} first."
        )
    return model.eval()
