"""The registry of metrics; which of them a study has."""

from __future__ import annotations

from collections.abc import Collection

from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.metrics.metric import Metric
from paretoformer.evaluators.tasks.task import Task
from paretoformer.spaces.common.registry import Registry

_REGISTRY: Registry[Metric] = Registry("metric")
register = _REGISTRY.register


def metric_of(name: str) -> Metric:
    """The metric of that name.

    Raises:
        ValueError: there is none; the message names those there are.
    """
    return _REGISTRY[name]


def metrics_of(task: Task, *, labelled: bool = True) -> dict[str, Metric]:
    """Every metric that a study of this task knows, by name: its own scores, where its examples
    are labelled; likeness to the dense model's answers; then all costs."""
    costs = [
        metric
        for metric in _REGISTRY
        if metric.role == "cost" and (task.generates or not metric.of_generation)
    ]
    own = [_REGISTRY[name] for name in (*task.scores, *task.more_scores) if labelled]
    like = [metric for metric in _REGISTRY if metric.likeness]
    return {metric.name: metric for metric in (*own, *like, *costs)}


def available(
    task: Task, target: Target, *, labelled: bool = True, asked: Collection[str] = ()
) -> dict[str, Metric]:
    """Those that this machine can measure; of `Task.more_scores` those that are asked for."""
    left_out = set(task.more_scores) - set(asked)
    known = metrics_of(task, labelled=labelled).items()
    return {n: m for n, m in known if n not in left_out and not m.unavailable(target)}
