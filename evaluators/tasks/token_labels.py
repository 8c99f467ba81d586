"""Tasks with one label per token."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from paretoformer.evaluators.data.workload import IGNORED
from paretoformer.evaluators.tasks.text import TextTask
from paretoformer.spaces.models.tokens import Batch, token_mask


class TokenLabels(TextTask):
    """One class per token; tokens labelled `IGNORED` are not scored."""

    def loss(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        """labels: (rows, tokens), or wider than this batch."""
        logits = output.logits.float()
        wanted = labels[:, : logits.shape[1]].flatten()
        return F.cross_entropy(logits.flatten(0, 1), wanted, ignore_index=IGNORED, reduction="sum")

    def predict(self, output: Any) -> np.ndarray:
        """(rows, tokens)"""
        answers: np.ndarray = output.logits.argmax(dim=-1).cpu().numpy()
        return answers

    def same(self, output: Any, dense: Any) -> np.ndarray:
        """(rows, tokens): whether the prediction equals the dense model's."""
        same: np.ndarray = self.predict(output) == self.predict(dense)
        return same

    def likeness(self, output: Any, dense: Any, batch: Batch) -> np.ndarray:
        """(rows,): share of a row's tokens with the dense model's prediction."""
        mask = token_mask(batch, output.logits).cpu().numpy()
        same = self.same(output, dense) & mask
        shares: np.ndarray = same.sum(axis=1) / mask.sum(axis=1).clip(min=1)
        return shares


def scored_tokens(answers: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels of the labelled tokens, flattened.

    answers, labels: (rows, tokens), possibly of different widths.
    """
    width = min(answers.shape[1], labels.shape[1])
    answers, labels = answers[:, :width], labels[:, :width]
    scored = labels != IGNORED
    return answers[scored], labels[scored]
