"""What tasks with a label for each token have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from paretoformer.evaluators.data.workload import IGNORED
from paretoformer.evaluators.tasks.task import Task


class TokenLabels(Task):
    """The answer is one class for each token; tokens labelled `IGNORED` are not scored."""

    def loss(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        """labels: (rows, tokens), or longer than the rows of this batch."""
        logits = output.logits.float()
        wanted = labels[:, : logits.shape[1]].flatten()
        return F.cross_entropy(logits.flatten(0, 1), wanted, ignore_index=IGNORED, reduction="sum")

    def predict(self, output: Any) -> np.ndarray:
        """(rows, tokens)"""
        answers: np.ndarray = output.logits.argmax(dim=-1).cpu().numpy()
        return answers
