"""The builder of one process: candidates as they run here, each built once while it is in use."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from paretoformer.evaluators.artifact import Artifact
from paretoformer.evaluators.target import Target
from paretoformer.evaluators.workload import Workload
from paretoformer.spaces.build import build, load_built
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.runtimes import Runnable, Tools

KEPT = 2
"""Candidates that stay in memory after their use: scoring and timing may follow each other."""
CALIBRATION_EXAMPLES = 128
CALIBRATION_BATCH = 8


@dataclass(frozen=True)
class Ready:
    """A candidate that can be measured. folder: of its files, which may be read while it runs."""

    model: nn.Module
    runnable: Runnable
    folder: TemporaryDirectory[str] | None = None


class Builder:
    """Builds candidates of one dense model.

    model: dense, on the target's device and in its dtype.
    """

    def __init__(self, model: nn.Module, workload: Workload, target: Target, threads: int) -> None:
        self._model = model
        self._workload = workload
        self._target = target
        self._threads = threads
        self._ready: OrderedDict[str, Ready] = OrderedDict()

    def artifact(self, candidate: Candidate) -> Artifact:
        """Build it now, and return the files that bring it back."""
        with TemporaryDirectory() as folder:
            built = build(candidate, self._model, self._tools)
            built.runnable.save(Path(folder))
            return Artifact.read(Path(folder))

    def built(self, candidate: Candidate, artifact: Artifact | None) -> Ready:
        """The candidate, from its artifact where it has one."""
        if candidate.id not in self._ready:
            self._ready[candidate.id] = self._make(candidate, artifact)
        self._ready.move_to_end(candidate.id)
        while len(self._ready) > KEPT:
            self._ready.popitem(last=False)
        return self._ready[candidate.id]

    def _make(self, candidate: Candidate, artifact: Artifact | None) -> Ready:
        if artifact is None:
            built = build(candidate, self._model, self._tools)
            return Ready(built.model, built.runnable)
        folder = TemporaryDirectory(prefix="paretoformer-")
        artifact.write(Path(folder.name))
        built = load_built(candidate, self._model, Path(folder.name), self._tools)
        return Ready(built.model, built.runnable, folder)

    @property
    def _tools(self) -> Tools:
        return Tools(
            device=self._target.device,
            threads=self._threads,
            example=self._workload.timing_batch(self._target),
            calibration=lambda: self._workload.training_batches(
                CALIBRATION_EXAMPLES, "cpu", CALIBRATION_BATCH
            ),
        )
