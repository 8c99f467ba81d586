"""Conformance suites: the laws of each extension point, as checks for your own extensions.

    from paretoformer.testing import check_axis, check_domain

    def test_my_axis_follows_the_laws():
        check_axis(MyAxis(), Shape(layers=2, heads=4), values=[...])

Each check raises AssertionError with the violated law.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import Any, cast

import numpy as np
import optuna
import torch

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.metrics import Bench, Metric
from paretoformer.evaluators.tasks import Task
from paretoformer.spaces.axes.axis import Axis
from paretoformer.spaces.axes.domain import Domain, Fixed
from paretoformer.spaces.axes.evidence import Shape
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.runtimes import Runtime, Tools
from paretoformer.spaces.space import RandomTrial

Inputs = Mapping[str, torch.Tensor]


def check_axis(axis: Axis[Any], shape: Shape, values: Iterable[Any]) -> None:
    """Check the laws of `Axis` on these values, for a model of that shape."""
    default = axis.default(shape)
    others = dict(Candidate.dense(shape.layers, shape.heads).values)
    assert axis.canonical(axis.check(default, shape), others) == default, "the default is canonical"
    for value in (default, *values):
        checked = axis.check(value, shape)
        written = json.loads(json.dumps(axis.encode(checked)))
        assert axis.decode(written) == checked, "`decode` undoes `encode`"
        once = axis.canonical(checked, others)
        assert axis.canonical(once, others) == once, "`canonical` is idempotent"
        assert axis.cell(checked), "a value has a cell in tables"
        every = axis.of_layers(checked, range(shape.layers))
        assert every == checked, "of all its layers a value is itself"
        assert len(axis.layer_cells(checked)) in (0, shape.layers), "one cell for each layer"
        assert hash(checked) == hash(axis.decode(written)), "equal values have equal hashes"


def peak_bytes(call: Callable[[], Any]) -> int:
    """The most bytes that torch's CPU allocator held in a second call, beyond those before it."""
    call()
    with torch.profiler.profile(profile_memory=True) as trace:
        call()
    results: Any = cast(Any, trace.profiler).kineto_results
    events = [(e.start_ns(), e.nbytes()) for e in results.events() if e.name() == "[memory]"]
    return max(accumulate(int(size) for _, size in sorted(events, key=lambda event: event[0])))


def check_domain(domain: Domain[Any], default: Any, samples: int = 30) -> None:
    """Check the laws of `Domain`. default: the value of the uncompressed model."""
    starts = list(domain.starts())
    if not isinstance(domain, Fixed):
        assert starts[0] == default, "the first start is the uncompressed model"
    drawn = [domain.suggest(RandomTrial(np.random.default_rng(seed))) for seed in range(samples)]
    for value in (*starts, *drawn):
        again = domain.suggest(optuna.trial.FixedTrial(domain.params(value)))
        assert again == value, "`params` of a value suggest that value"
    if domain.size <= 2000:
        assert len(set(domain.values())) == domain.size, "`values` yields `size` different values"


def check_runtime(
    runtime: Runtime, precision: str, model: torch.nn.Module, inputs: Inputs, tolerance: float
) -> None:
    """Check the laws of `Runnable`: the torch model's outputs for any batch, ignoring padding.

    inputs: at least two rows with an `attention_mask`; the first one is padded.
    """
    runnable = runtime.convert(model, precision, Tools(threads=torch.get_num_threads()))
    assert runnable.threads == torch.get_num_threads(), "threads are what was asked for"
    assert runnable.weight_bytes > 0, "a model has weights"
    with torch.inference_mode():
        for rows in (slice(None), slice(0, 1)):
            some = {name: tensor[rows] for name, tensor in inputs.items()}
            _same(runnable(**some), model(**some), tolerance)
        real = int(inputs["attention_mask"][0].sum())
        unpadded = {name: tensor[:1, :real] for name, tensor in inputs.items()}
        first = {name: tensor[:1] for name, tensor in inputs.items()}
        _same(runnable(**unpadded), runnable(**first), tolerance)


def _same(given: Any, wanted: Any, tolerance: float) -> None:
    torch.testing.assert_close(
        given.logits.float(), wanted.logits.float(), atol=tolerance, rtol=tolerance
    )


def check_task(task: Task, output: Any, labels: torch.Tensor, batch: Inputs | None = None) -> None:
    """Check the laws of `Task` on a model's output for a batch. batch: its inputs; None: no
    padding."""
    batch = batch or {}
    assert len(task.predict(output)) == len(labels), "one answer for each row"
    assert task.loss(output, labels).ndim == 0, "the loss is one number"
    divergence = task.answers.divergence(output, output, batch)
    assert divergence.shape == (len(labels),), "one divergence for each row"
    torch.testing.assert_close(divergence, torch.zeros_like(divergence), atol=1e-6, rtol=0)
    assert np.allclose(task.likeness(output, output, batch), 1.0), "an answer is like itself"


def check_metric(metric: Metric, bench: Bench) -> Measurement | None:
    """Check the laws of `Metric`; returns the measurement."""
    assert metric.role in ("quality", "cost"), "a metric is a quality or a cost"
    assert metric.direction in ("maximize", "minimize"), "a metric has a direction"
    assert bool(metric.requirement) <= (metric.role == "quality"), "only a quality is required"
    measured = metric.measure(bench)
    if measured is not None:
        assert measured.low <= measured.value <= measured.high, "a value lies in its interval"
        assert measured.unit == metric.unit, "it is in the metric's unit"
    return measured
