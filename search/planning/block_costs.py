"""Costs: milliseconds of the parts of a forward, and of every option of a block, on the target.

They decide where a search begins; reported numbers are measured on whole models.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from transformers import Cache

from paretoformer.evaluators.common.progress import Progress, silent
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.data.workload import Workload
from paretoformer.evaluators.timing.clocks import synchronizer
from paretoformer.evaluators.timing.intervals import USUAL
from paretoformer.spaces.axes.block_options import BlockKind, Costs
from paretoformer.spaces.build import build
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.models.families import blocks_of, shape_of

SECONDS = 4.0
"""Default duration of the timing of all variants together."""
ROUNDS = (8, 60)
"""Fewest and most rounds."""
LEAST_LAYER = 0.03
"""Minimum share of a layer's time outside its blocks, so that noise cannot make it zero."""
BLOCK_SECONDS = 0.01
"""Duration of one variant's timed calls in a round, which follow one untimed call."""

REST, LAST, LAST_FREE = ("rest", 0), ("last", 0), ("last", 1)
"""Additional timed variants: the model without layers; the last layer, dense and free."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class ForwardCosts:
    """Milliseconds of the parts of a forward.

    blocks: name -> (options,). layer: a layer without its blocks. rest: the model without layers.
    last: not milliseconds, but the share of the last layer's time that remains with the changes
    that every candidate of the study has, such as a readout of one token.
    """

    blocks: dict[str, Costs]
    layer: float
    rest: float
    last: float


def block_costs(
    model: nn.Module,
    workload: Workload,
    target: Target,
    blocks: Mapping[str, BlockKind],
    free: Candidate | None = None,
    progress: Progress = silent,
    seconds: float = SECONDS,
) -> ForwardCosts:
    """Time the first layer of the most frequent kind with every option that is to be timed.

    In a round every variant runs briefly. The cost is the 30% quantile over the rounds, so that a
    disturbance of one or two seconds has no effect.

    model: not changed. free: the uncompressed model with the changes that every candidate has.
    seconds: approximate duration.
    """
    model = copy.deepcopy(model).to(device=target.device, dtype=target.torch_dtype).eval()
    dense = Candidate.dense(*shape_of(model.config))
    batch = workload.timing_batch(target)
    kinds = [block.kind for block in blocks_of(model)]
    usual = kinds.index(Counter(kinds).most_common(1)[0][0])
    calls = {
        (name, option): _layer(usual, model, dense.replaced(**values), batch)
        for name, block in blocks.items()
        for option, values in block.timed().items()
    }
    calls[REST] = _without_layers(model, batch)
    if free is not None and free != dense:
        calls[LAST] = _layer(-1, model, dense, batch)
        calls[LAST_FREE] = _layer(-1, model, free, batch)
    times = _usual_times(calls, target, progress, seconds)
    costs = {
        name: block.costs({option: ms for (of, option), ms in times.items() if of == name})
        for name, block in blocks.items()
    }
    whole = np.median([times[name, block.uncut] for name, block in blocks.items()])
    full = sum(costs[name][block.uncut] for name, block in blocks.items())
    last = min(1.0, times[LAST_FREE] / times[LAST]) if LAST in times else 1.0
    layer = max(LEAST_LAYER * whole, whole - full)
    return ForwardCosts(costs, float(layer), times[REST], last)


def _usual_times(
    calls: Mapping[Key, Callable[[], Any]],
    target: Target,
    progress: Progress,
    seconds: float,
) -> dict[Key, float]:
    """Milliseconds per call."""
    synchronize = synchronizer(target.device)

    def run(call: Callable[[], Any]) -> float:
        start = time.perf_counter()
        call()
        synchronize()
        return time.perf_counter() - start

    samples: dict[Key, list[float]] = {key: [] for key in calls}
    with torch.inference_mode():
        for call in calls.values():
            run(call)
        counts = {key: max(1, round(BLOCK_SECONDS / run(call))) for key, call in calls.items()}
        begun, done, wanted = time.perf_counter(), 0, ROUNDS[0]
        while done < wanted:
            for key, call in calls.items():
                run(call)
                times = [run(call) for _ in range(counts[key])]
                samples[key].append(sum(times) / len(times) * 1e3)
            done += 1
            took = (time.perf_counter() - begun) / done
            wanted = int(np.clip(seconds / took, *ROUNDS))
            progress("Timing one layer", done, max(done, wanted))
    return {key: float(np.quantile(times, USUAL)) for key, times in samples.items()}


class _Reached(Exception):
    """The layer was reached; the rest of the model need not run."""


def _layer(
    place: int, model: nn.Module, candidate: Candidate, batch: dict[str, torch.Tensor]
) -> Callable[[], Any]:
    """A layer of the rebuilt model, to be called with its inputs from a forward."""
    rebuilt = build(candidate, model).model
    layer = blocks_of(rebuilt)[place].layer
    found: list[tuple[Any, Any]] = []

    def hook(module: nn.Module, inputs: Any, named: Any) -> None:
        # Without a cache, which repeated calls would lengthen; GPT-2 passes it by position.
        alone = {key: _uncached(value) for key, value in named.items()}
        found.append((tuple(map(_uncached, inputs)), alone))
        raise _Reached

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    with handle, torch.inference_mode(), suppress(_Reached):
        rebuilt(**batch)
    ((inputs, named),) = found
    return lambda: layer(*inputs, **named)


def _uncached(value: Any) -> Any:
    return None if isinstance(value, Cache) else value


def _without_layers(model: nn.Module, batch: dict[str, torch.Tensor]) -> Callable[[], Any]:
    """The model with layers that compute nothing, but return a stored output of the last one."""
    layers = [block.layer for block in blocks_of(model)]
    found: list[Any] = []

    def keep(module: nn.Module, inputs: Any, answer: Any) -> None:
        found.append(answer)

    with layers[-1].register_forward_hook(keep), torch.inference_mode():
        model(**batch)
    (answer,) = found

    def call() -> None:
        for layer in layers:
            vars(layer)["forward"] = partial(_answer, answer)
        try:
            model(**batch)
        finally:
            for layer in layers:
                del vars(layer)["forward"]

    return call


def _answer(answer: Any, *inputs: Any, **named: Any) -> Any:
    return answer
