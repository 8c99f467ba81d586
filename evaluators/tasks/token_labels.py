"""Tasks with a label for each token."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from paretoformer.evaluators.data.workload import IGNORED
from paretoformer.evaluators.tasks.text import TextTask
from paretoformer.spaces.models.tokens import Batch, token_mask


class TokenLabels(TextTask):
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

    def same(self, output: Any, dense: Any) -> np.ndarray:
        """(rows, tokens) where the answer is the dense model's."""
        found: np.ndarray = self.predict(output) == self.predict(dense)
        return found

    def likeness(self, output: Any, dense: Any, batch: Batch) -> np.ndarray:
        """(rows,) the share of a row's tokens whose answer is the dense model's."""
        mask = token_mask(batch, output.logits).cpu().numpy()
        same = self.same(output, dense) & mask
        shares: np.ndarray = same.sum(axis=1) / mask.sum(axis=1).clip(min=1)
        return shares


def scored_tokens(answers: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The answers and labels of the tokens that have a label, as two rows of numbers.

    answers, labels: (rows, tokens), which may be of different widths.
    """
    width = min(answers.shape[1], labels.shape[1])
    answers, labels = answers[:, :width], labels[:, :width]
    scored = labels != IGNORED
    return answers[scored], labels[scored]
