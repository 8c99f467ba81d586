"""Checks the uncompressed model's predictions before a long search starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from paretoformer.evaluators.common.progress import Progress, silent
from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.data.table import DataError
from paretoformer.evaluators.data.workload import Split, Workload, in_order
from paretoformer.evaluators.tasks.task import Task
from paretoformer.spaces.common.malformed import one_line


def check_dense(
    model: nn.Module, task: Task, workload: Workload, *, labelled: bool, progress: Progress = silent
) -> list[Remark]:
    """Check model and data on training examples; DataError if it fails or outputs are not
    finite."""
    train = workload.splits["train"]
    predictions: dict[int, np.ndarray] = {}
    done = 0
    for indices, inputs in workload.batches(train, "cpu"):
        output = _output(model, inputs)
        predicted = task.predict(output) if labelled else task.as_labels(output, inputs)
        predictions |= dict(zip(indices.tolist(), predicted, strict=True))
        done += len(indices)
        progress("Checking the uncompressed model", done, len(train))
    answers = in_order(predictions)
    if labelled:
        return task.doubts(answers, train.labels, model.config)
    return [] if task.varies(answers) else [_constant(len(train))]


SEEN, LEARNED = 0.5, 0.1
"""The loss of a model on what it was trained on: less than this share of that on other texts, or
less than this."""
ENOUGH = 256
"""Texts of a split that tell its loss."""


def labels_are_new(model: nn.Module, task: Task, workload: Workload) -> bool:
    """Whether the labels that distillation learns from are new to the uncompressed model: by them,
    it is about as wrong as by those of the search."""
    train, search = (
        _supervised_loss(model, task, workload, workload.splits[name])
        for name in ("train", "search")
    )
    return train > max(SEEN * search, LEARNED)


def _supervised_loss(model: nn.Module, task: Task, workload: Workload, split: Split) -> float:
    some = Split(split.examples[:ENOUGH], split.labels[:ENOUGH])
    total = 0.0
    for indices, inputs in workload.batches(some, "cpu"):
        labels = torch.from_numpy(some.labels[indices])
        total += len(indices) * float(task.supervised_loss(_output(model, inputs), labels))
    return total / len(some)


def _constant(examples: int) -> Remark:
    return Remark(
        f"The uncompressed model gives the same answer to all of {examples} training examples, so "
        "likeness to its answers means nothing. Is it the fine-tuned model, with its own "
        "tokenizer?",
        doubt=True,
    )


def _output(model: nn.Module, inputs: dict[str, torch.Tensor]) -> Any:
    shape = tuple(inputs["input_ids"].shape) if "input_ids" in inputs else "(batch)"
    try:
        with torch.inference_mode():
            output = model(**inputs)
    except Exception as error:  # architectures raise various errors on inputs that do not fit
        reason = one_line(error, with_type=True)
        if "pixel_values" in inputs:
            raise DataError(
                f"the model cannot run on its images: {reason}. Do the image processor's size and "
                "`image_size` in config.json agree?"
            ) from None
        raise DataError(
            f"the model cannot run on its data, of shape {shape}: {reason}. Look at "
            "pad_token_id, type_vocab_size and max_position_embeddings in its config.json, and at "
            "target.sequence_length."
        ) from None
    numbers = [tensor for tensor in output.values() if isinstance(tensor, torch.Tensor)]
    if not all(torch.isfinite(tensor).all() for tensor in numbers):
        raise DataError(
            "the model's answers are not finite: its weights are damaged, or too large for "
            f"{next(model.parameters()).dtype}."
        )
    return output
