"""Accuracy: the share of examples that the rebuilt model labels right."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score

from paretoformer.evaluators.measurement import Measurement
from paretoformer.evaluators.metric import Direction, Metric, Subject


class Accuracy(Metric):
    """Share of right labels, with the Wilson interval at 95% (Wilson 1927).

    Its samples are the examples in order: 1 where the label is right, else 0.
    """

    name = "accuracy"
    unit = "fraction"
    direction: ClassVar[Direction] = "maximize"

    def measure(self, subject: Subject) -> Measurement:
        labels = subject.split.labels
        predicted = np.empty_like(labels)
        with torch.inference_mode():
            for indices, batch in subject.workload.batches(subject.split, subject.target.device):
                logits = subject.model(**batch).logits
                predicted[indices] = logits.argmax(dim=-1).cpu().numpy()
        right = int(accuracy_score(labels, predicted, normalize=False))
        interval = binomtest(right, len(labels)).proportion_ci(method="wilson")
        return Measurement(
            right / len(labels),
            float(interval.low),
            float(interval.high),
            self.unit,
            samples=tuple((predicted == labels).astype(float).tolist()),
        )
