"""The metrics of a study: the task's own score, then what the model costs.

Another metric is one more entry in `COSTS`.
"""

from __future__ import annotations

from paretoformer.evaluators.cost import Flops, Parameters
from paretoformer.evaluators.energy import Energy
from paretoformer.evaluators.latency import Latency
from paretoformer.evaluators.memory import Memory
from paretoformer.evaluators.metric import Metric
from paretoformer.evaluators.target import Target
from paretoformer.evaluators.tasks import Task

COSTS: tuple[Metric, ...] = (Latency(), Memory(), Energy(), Parameters(), Flops())


def metrics_of(task: Task) -> dict[str, Metric]:
    """Every metric that a study of this task knows, by name."""
    return {metric.name: metric for metric in (task.score, *COSTS)}


def available(task: Task, target: Target) -> dict[str, Metric]:
    """Those that this machine can measure."""
    known = metrics_of(task)
    return {name: metric for name, metric in known.items() if not metric.unavailable(target)}
