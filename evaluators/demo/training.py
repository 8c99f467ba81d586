"""Fine-tuning on the CPU within minutes, for demonstrations and benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import transformers

from paretoformer.evaluators.common.progress import Progress, silent
from paretoformer.evaluators.data.workload import Split, Workload
from paretoformer.evaluators.tasks import Task


def fine_tune(
    model: Any,
    task: Task,
    workload: Workload,
    *,
    epochs: int,
    learning_rate: float = 2e-4,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = silent,
    what: str = "Fine-tuning",
) -> None:
    """Train a model on the split `train` with the task's loss, and leave it in evaluation mode.

    AdamW, linear decay after a warm-up of a tenth of the steps, gradients clipped at 1.
    """
    train = workload.splits["train"]
    steps = epochs * -(-len(train) // batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    rng = np.random.default_rng(seed)
    model.train()
    done = 0
    for _ in range(epochs):
        for inputs, labels in _shuffled_batches(workload, train, batch_size, rng):
            loss = task.loss(model(**inputs), labels) / len(labels)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            done += 1
            progress(what, done, steps)
    model.eval()


def _shuffled_batches(
    workload: Workload, split: Split, size: int, rng: np.random.Generator
) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    """Batches of similar length, in random order."""
    batches = list(workload.batches(split, "cpu", size))
    for index in rng.permutation(len(batches)):
        indices, inputs = batches[index]
        yield inputs, torch.from_numpy(split.labels[indices])
