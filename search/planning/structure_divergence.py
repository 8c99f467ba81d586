"""How far the answers of a candidate's structure are from the dense model's, as torch runs both."""

from __future__ import annotations

import torch
from torch import nn

from paretoformer.evaluators.data.workload import Workload
from paretoformer.evaluators.tasks import Task
from paretoformer.spaces.build import build
from paretoformer.spaces.candidate import Candidate


class StructureDivergence:
    """Mean nats between a torch candidate's answers and the dense model's; needs no labels.

    The dense model's own answers are computed once.

    examples: training examples to use, at most.
    """

    def __init__(self, model: nn.Module, task: Task, workload: Workload, examples: int) -> None:
        self._model = model.eval()
        self._task = task
        self._batches = workload.training_batches(examples, "cpu", size=16)
        with torch.inference_mode():
            self._dense = [task.answers.kept(self._model(**each)) for each in self._batches]

    def of(self, candidate: Candidate) -> float:
        """Of the candidate's structure, as torch runs it."""
        return self.between(build(candidate, self._model).model)

    def between(self, model: nn.Module) -> float:
        found = []
        with torch.inference_mode():
            for batch, dense in zip(self._batches, self._dense, strict=True):
                found.append(self._task.answers.divergence(model(**batch), dense, batch))
        return float(torch.cat(found).mean())
