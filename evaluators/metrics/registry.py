"""The registry of metrics, and the metrics of a task."""

from __future__ import annotations

from collections.abc import Collection

from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.metrics.metric import Metric
from paretoformer.evaluators.tasks.task import Task
from paretoformer.spaces.common.registry import Registry

_REGISTRY: Registry[Metric] = Registry("metric")
register = _REGISTRY.register


def metric_of(name: str) -> Metric:
    """The registered metric; ValueError, with the known names, if there is none."""
    return _REGISTRY[name]


def metrics_of(task: Task, *, labelled: bool = True) -> dict[str, Metric]:
    """Metrics of a task by name: its own scores if examples are labelled, then similarity to the
    dense model's outputs, then costs."""
    costs = [
        metric
        for metric in _REGISTRY
        if metric.role == "cost"
        and (task.generates or not metric.of_generation)
        and (task.has_lengths or not metric.of_texts)
    ]
    own = [_REGISTRY[name] for name in (*task.scores, *task.more_scores) if labelled]
    like = [metric for metric in _REGISTRY if metric.likeness]
    like += [metric for metric in _REGISTRY if metric.of_vectors and task.embeds]
    return {metric.name: metric for metric in (*own, *like, *costs)}


def available(
    task: Task, target: Target, *, labelled: bool = True, asked: Collection[str] = ()
) -> dict[str, Metric]:
    """Metrics that this machine can measure; those of `Task.more_scores`, and slow ones, only if
    asked for."""
    known = metrics_of(task, labelled=labelled)
    extra = {*task.more_scores, *(name for name, metric in known.items() if metric.slow)}
    left_out = extra - set(asked)
    return {n: m for n, m in known.items() if n not in left_out and not m.unavailable(target)}
