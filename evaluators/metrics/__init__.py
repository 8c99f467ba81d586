"""Metrics, one file each; importing this package registers them all."""

from paretoformer.evaluators.common.directions import Direction, Role
from paretoformer.evaluators.metrics import (
    accuracy,
    counts,
    disk,
    energy,
    f1,
    generation,
    latency,
    likeness,
    macro_f1,
    matthews,
    memory,
    micro_f1,
    perplexity,
    ranking,
    regression,
    spearman,
)
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.metric import Metric
from paretoformer.evaluators.metrics.registry import available, metric_of, metrics_of, register

__all__ = [
    "Bench",
    "Direction",
    "Metric",
    "Role",
    "accuracy",
    "available",
    "counts",
    "disk",
    "energy",
    "f1",
    "generation",
    "latency",
    "likeness",
    "macro_f1",
    "matthews",
    "memory",
    "metric_of",
    "metrics_of",
    "micro_f1",
    "perplexity",
    "ranking",
    "register",
    "regression",
    "spearman",
]
