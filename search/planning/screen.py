"""Screening one candidate: the distance of its outputs from the dense model's.

It takes one forward pass over some texts in torch, from the first layer that differs from the dense
model's on; a trial also repairs, converts and times.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.evaluator import failure
from paretoformer.evaluators.job import Job
from paretoformer.evaluators.outcome import Outcome, Result
from paretoformer.evaluators.timing.threads import set_threads
from paretoformer.search.planning.block_repair import KEPT_BYTES, BlockRepairs
from paretoformer.spaces.build import build
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.models.families import layers_of
from paretoformer.spaces.models.tokens import Batch
from paretoformer.spaces.recovery.dense_outputs import answer_of
from paretoformer.spaces.recovery.least_squares import solve
from paretoformer.spaces.recovery.teacher import Teacher

PROCESS_BYTES = 2**29
"""Approximate memory of a process that has imported torch."""
SCREENED = 2
"""Layers that are solved from each cut one on, in place of a trial's `REACH`."""
NATS = "divergence"


class Screen:
    """Mean nats between the outputs of a candidate's structure and the dense model's, in torch.

    What a removed layer did is spread over the layers that stay, so a candidate without some layers
    is repaired layer by layer: without one layer of six, MiniLM was 0.4 to 0.9 nats
    from dense with repaired blocks, and 0.03 with repaired layers.

    repairs: repair every block; None: leave blocks as they were cut.
    """

    def __init__(self, teacher: Teacher, repairs: BlockRepairs | None) -> None:
        self._model, self._repairs = teacher.model, repairs
        self._teacher = None if repairs is None else teacher
        self._dense = teacher.held_sample
        self._outputs = [layer_outputs(self._model, batch) for batch, _ in self._dense.known]

    def of(self, candidate: Candidate) -> float:
        """Infinite if a block cannot be repaired or the outputs are not finite."""
        try:
            nats = self._nats(candidate)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            return float("inf")
        return nats if np.isfinite(nats) else float("inf")

    def _nats(self, candidate: Candidate) -> float:
        with torch.no_grad():
            model = build(candidate, self._model).model.eval()
            if self._repairs is not None and all(candidate.stays):
                self._repairs.repair(model, candidate)
            elif self._teacher is not None:
                cut = candidate.cut_layers
                solve(model, candidate.kept_layers, self._teacher, cut, SCREENED)
        same = layers_of(model)[: _unchanged_layers(candidate)]

        def begin(batch: int) -> None:
            for layer, output in zip(same, self._outputs[batch], strict=False):
                vars(layer)["forward"] = partial(_return, output)

        return self._dense.divergence(model, begin)

    @property
    def nbytes(self) -> int:
        """Size of the moments and residual streams, which workers of one machine share."""
        return sum(each.nbytes for each in (self._repairs, self._teacher) if each is not None)

    @property
    def worker_bytes(self) -> int:
        """Approximate additional memory per worker: torch, the model twice, what its layers return,
        and solutions."""
        model = sum(weight.numel() * weight.element_size() for weight in self._model.parameters())
        kept = sum(_bytes(output) for outputs in self._outputs for output in outputs)
        solutions = KEPT_BYTES if self._repairs is not None else 0
        return PROCESS_BYTES + 2 * model + kept + solutions


def _unchanged_layers(candidate: Candidate) -> int:
    """Number of leading layers whose outputs are the dense model's; none without some layers, since
    all others are repaired."""
    cut = candidate.cut_layers if all(candidate.stays) else (True,)
    return cut.index(True) if True in cut else len(cut)


def layer_outputs(model: nn.Module, batch: Batch) -> list[Any]:
    """What each layer returns in a forward."""
    found: list[Any] = []
    with ExitStack() as hooks, torch.no_grad():
        for layer in layers_of(model):
            hook = layer.register_forward_hook(lambda _, __, output: found.append(output))
            hooks.enter_context(hook)
        answer_of(model, batch)
    return found


def _bytes(output: Any) -> int:
    """Of the hidden states that a layer returns."""
    hidden = output[0] if isinstance(output, tuple) else output
    return int(hidden.numel() * hidden.element_size())


def _return(output: Any, *inputs: Any, **named: Any) -> Any:
    return output


class ScreenEvaluator:
    """A screen in a worker; its metric is `NATS`."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def prepare(self, threads: int) -> None:
        set_threads(threads)

    def run(self, job: Job) -> Result:
        try:
            nats = self._screen.of(job.candidate)
        except Exception as error:
            return failure(error)
        return Result(Outcome.OK, {NATS: Measurement.exact(nats, "nats")})
