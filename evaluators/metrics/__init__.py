"""Metrics, one file each; importing this package registers them all."""

from paretoformer.evaluators.common.directions import Direction, Role
from paretoformer.evaluators.metrics import (
    accuracy,
    class_scores,
    corpus,
    counts,
    disk,
    end_to_end,
    energy,
    f1,
    generation,
    latency,
    likeness,
    memory,
    neighbours,
    perplexity,
    ranking,
    regression,
)
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.elsewhere import Elsewhere
from paretoformer.evaluators.metrics.metric import Cost, Metric, Quality
from paretoformer.evaluators.metrics.registry import available, metric_of, metrics_of, register

__all__ = [
    "Bench",
    "Cost",
    "Direction",
    "Elsewhere",
    "Metric",
    "Quality",
    "Role",
    "accuracy",
    "available",
    "class_scores",
    "corpus",
    "counts",
    "disk",
    "end_to_end",
    "energy",
    "f1",
    "generation",
    "latency",
    "likeness",
    "memory",
    "metric_of",
    "metrics_of",
    "neighbours",
    "perplexity",
    "ranking",
    "register",
    "regression",
]
