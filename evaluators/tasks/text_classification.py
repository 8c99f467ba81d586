"""Task `text-classification`: one label per text or pair of texts."""

from __future__ import annotations

from paretoformer.evaluators.tasks.classifier import SingleLabel, TextClassifier
from paretoformer.evaluators.tasks.task import register


class TextClassification(SingleLabel, TextClassifier):
    """One label per text; the loss is the cross entropy."""

    name = "text-classification"
    problem = "single_label_classification"


register(TextClassification())
