"""Block costs: what one attention block adds to a forward, timed on the target.

They steer a search to where it should begin; what is reported is measured on whole models.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import Cache

from paretoformer.evaluators.latency import synchronizer
from paretoformer.evaluators.target import Target
from paretoformer.evaluators.workload import Workload
from paretoformer.spaces.candidate import AttentionChoice, Candidate
from paretoformer.spaces.families import blocks_of, shape_of
from paretoformer.spaces.forecast import BlockCosts
from paretoformer.spaces.heads import HeadMask
from paretoformer.spaces.surgery import apply

REPEATS = 7


def block_costs(
    model: nn.Module,
    workload: Workload,
    target: Target,
    choices: Sequence[AttentionChoice],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BlockCosts:
    """Time the model's first layer with each mechanism and a quarter, half and all of its heads.

    Between these, and down to no heads, the time is taken as linear in the heads. Each figure is
    the median over rounds in which every variant runs once.

    model: left as it was. progress: told (done, total).
    """
    model = copy.deepcopy(model).to(device=target.device, dtype=target.torch_dtype).eval()
    layers, heads = shape_of(model.config)
    batch = workload.timing_batch(target)
    counts = sorted({max(1, heads // 4), max(1, heads // 2), heads})
    calls = {(-1, 0): _first_layer(model, Candidate(HeadMask.none(layers, heads)), batch)}
    for index, choice in enumerate(choices):
        for count in counts:
            kept = tuple(head < count for head in range(heads))
            candidate = Candidate(HeadMask((kept,) * layers), (choice,) * layers)
            calls[index, count] = _first_layer(model, candidate, batch)
    synchronize = synchronizer(target.device)
    samples: dict[tuple[int, int], list[float]] = {key: [] for key in calls}
    with torch.inference_mode():
        for repeat in range(REPEATS + 1):
            for key, call in calls.items():
                start = time.perf_counter()
                call()
                synchronize()
                if repeat:  # the first round warms up
                    samples[key].append((time.perf_counter() - start) * 1e3)
            progress(repeat + 1, REPEATS + 1)
    medians = {key: float(np.median(times)) for key, times in samples.items()}
    nothing = medians.pop((-1, 0))
    milliseconds = np.array(
        [
            np.interp(
                np.arange(heads + 1),
                [0, *counts],
                [0.0, *(max(medians[index, count] - nothing, 0.0) for count in counts)],
            )
            for index in range(len(choices))
        ]
    )
    return BlockCosts(tuple(choices), milliseconds)


class _Reached(Exception):
    """The layer was reached; the rest of the model need not run."""


def _first_layer(
    model: nn.Module, candidate: Candidate, batch: dict[str, torch.Tensor]
) -> Callable[[], Any]:
    """The rebuilt model's first layer, to be called with what it gets in a forward."""
    rebuilt = apply(candidate, model).model
    layer = blocks_of(rebuilt)[0].layer
    found: list[tuple[Any, Any]] = []

    def hook(module: nn.Module, inputs: Any, named: Any) -> None:
        # Called again and again, it must not lengthen a cache.
        alone = {key: None if isinstance(each, Cache) else each for key, each in named.items()}
        found.append((inputs, alone))
        raise _Reached

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        with torch.inference_mode():
            rebuilt(**batch)
    except _Reached:
        pass
    finally:
        handle.remove()
    ((inputs, named),) = found
    return lambda: layer(*inputs, **named)
