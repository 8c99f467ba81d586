"""Screening one candidate: the distance of its outputs from the dense model's.

It takes one forward pass over some texts in torch; a trial also repairs, converts and times.
"""

from __future__ import annotations

import numpy as np
import torch

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.evaluator import failure
from paretoformer.evaluators.job import Job
from paretoformer.evaluators.outcome import Outcome, Result
from paretoformer.evaluators.timing.threads import set_threads
from paretoformer.search.planning.block_repair import KEPT_BYTES, BlockRepairs
from paretoformer.spaces.build import build
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.recovery.teacher import Teacher

EXAMPLES = 64
"""Approximate number of the teacher's held-out texts that a candidate is screened on."""
PROCESS_BYTES = 2**29
"""Approximate memory of a process that has imported torch."""
NATS = "divergence"


class Screen:
    """Mean nats between the outputs of a candidate's structure and the dense model's, in torch.

    repairs: repair every block; None: leave blocks as they were cut.
    """

    def __init__(self, teacher: Teacher, repairs: BlockRepairs | None) -> None:
        self._model, self._repairs = teacher.model, repairs
        texts = sum(len(next(iter(batch.values()))) for batch in teacher.texts.held)
        self._dense = teacher.held.one_in(max(1, texts // EXAMPLES))

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
            if self._repairs is not None:
                self._repairs.repair(model, candidate)
        return self._dense.divergence(model)

    @property
    def nbytes(self) -> int:
        """Size of the sums, which workers of one machine share."""
        return 0 if self._repairs is None else self._repairs.nbytes

    @property
    def worker_bytes(self) -> int:
        """Approximate additional memory per worker: torch, the model twice, and solutions."""
        model = sum(weight.numel() * weight.element_size() for weight in self._model.parameters())
        return PROCESS_BYTES + 2 * model + (KEPT_BYTES if self._repairs is not None else 0)


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
