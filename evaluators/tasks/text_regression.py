"""Task `text-regression`: one number per text or pair of texts, as from cross-encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.common.statistics import rank_correlation
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.data.examples import Examples, Labels, SplitName
from paretoformer.evaluators.data.table import DataError
from paretoformer.evaluators.data.workload import Workload
from paretoformer.evaluators.tasks.classifier import TextClassifier
from paretoformer.evaluators.tasks.labels import numbers_of
from paretoformer.evaluators.tasks.model_files import token_limit
from paretoformer.evaluators.tasks.task import register
from paretoformer.spaces.models.divergence import Numbers
from paretoformer.spaces.models.tokens import Batch

IN_ITS_UNIT = (
    "Without labels, fidelity is exp(-d²/2) of the difference d from the uncompressed model's "
    "number, in the unit of that number: for numbers from 0 to 1 ask for more than the default, "
    'such as search.require = ["fidelity >= 0.999"].'
)
UNRELATED = 0.2
"""Below this Spearman correlation, predictions and labels are probably unrelated."""


LEAST_DEVIATION = 1e-3
"""Of the predictions or labels of a batch; where all are equal they teach nothing."""


class TextRegression(TextClassifier):
    """A classifier of one class, whose logit is the prediction, without an activation.

    An activation would not change ranks, but would change `pearson` and `mean_squared_error`.
    """

    name = "text-regression"
    tag: ClassVar[str] = "text-classification"
    problem = "regression"
    answers = Numbers()
    scores: ClassVar[tuple[str, ...]] = ("spearman",)
    more_scores: ClassVar[tuple[str, ...]] = ("pearson", "mean_squared_error")
    supervised = True

    def cut_at(self, path: str) -> int:
        """Where sentence-transformers cuts the texts of cross-encoders."""
        return token_limit(path)

    def encode(
        self, splits: Mapping[SplitName, Examples], tokenizer: Any, config: Any, target: Target
    ) -> Workload:
        made = super().encode(splits, tokenizer, config, target)
        if splits["train"].labelled:
            return made
        return replace(made, remarks=(*made.remarks, Remark(IN_ITS_UNIT)))

    def read_labels(self, labels: Sequence[Any], config: Any) -> Labels:
        scores = numbers_of(labels, self.name)
        if len(labels) > 1 and len(set(scores.values)) == 1:
            raise DataError(f"every label is {scores.values[0]:g}: a correlation needs others.")
        return scores

    def doubts(self, answers: np.ndarray, labels: np.ndarray, config: Any) -> list[Remark]:
        rho = rank_correlation(labels, answers)
        if rho >= UNRELATED:
            return []
        return [
            Remark(
                f"The answers of the uncompressed model and the scores of {len(labels)} training "
                f"examples have a Spearman correlation of {rho:.2f}. Is it the fine-tuned model, "
                "with its own tokenizer, and are data.text, data.text_pair and data.label the "
                "right columns?",
                doubt=True,
            )
        ]

    def loss(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(output.logits[:, 0].float(), labels.float(), reduction="sum")

    def supervised_loss(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        """1 - Pearson's correlation within the batch: labels may be on another scale."""
        given, wanted = (
            (each - each.mean()) / each.std(correction=0).clamp_min(LEAST_DEVIATION)
            for each in (output.logits[:, 0].float(), labels.float())
        )
        return 1 - (given * wanted).mean()

    def predict(self, output: Any) -> np.ndarray:
        """(rows,)"""
        answers: np.ndarray = output.logits[:, 0].detach().float().cpu().numpy()
        return answers

    def as_labels(self, output: Any, batch: Batch) -> np.ndarray:
        """(rows,): predictions + 1. At the predictions themselves the gradient of the squared error
        is 0, so nothing would seem important."""
        return self.predict(output) + 1

    def likeness(self, output: Any, dense: Any, batch: Batch) -> np.ndarray:
        """(rows,): exp(-d²/2) of the difference d, that is exp(-divergence)."""
        nats = self.answers.divergence(output, dense, batch)
        shares: np.ndarray = (-nats).exp().detach().cpu().numpy()
        return shares


register(TextRegression())
