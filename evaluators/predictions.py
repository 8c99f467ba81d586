"""Predictions: the candidate's answer to each example of its split."""

from __future__ import annotations

import numpy as np
import torch

from paretoformer.evaluators.metrics.metric import Bench
from paretoformer.evaluators.workload import SCORING_BATCH


def predictions(bench: Bench) -> np.ndarray:
    """(examples,) as the split's labels are written.

    Where a row's answer depends on the rest of its batch, as with dynamic quantisation, batches are
    those of the target: so the model answers as it will when it serves.
    """
    answers = np.empty_like(bench.split.labels)
    size = bench.target.batch_size if bench.runnable.couples_rows else SCORING_BATCH
    with torch.inference_mode():
        for indices, batch in bench.workload.batches(bench.split, bench.target.device, size):
            answers[indices] = bench.task.predict(bench.runnable(**batch))
    return answers
