"""Task `text-classification`: one label for each text, or pair of texts."""

from __future__ import annotations

from paretoformer.evaluators.tasks.classifier import SingleLabel, TextClassifier
from paretoformer.evaluators.tasks.task import register


class TextClassification(SingleLabel, TextClassifier):
    """A single label; its loss is the cross entropy."""

    name = "text-classification"
    problem = "single_label_classification"


register(TextClassification())
