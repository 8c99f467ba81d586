"""Builds the candidates of one worker process; keeps the most recent ones in memory."""

from __future__ import annotations

import shutil
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

from torch import nn

from paretoformer.evaluators.artifact import Artifact, workspace
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.data.recovery_texts import endless_batches, recovery_texts
from paretoformer.evaluators.data.workload import Workload
from paretoformer.evaluators.tasks import Task
from paretoformer.spaces.build import build, load_built
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.recovery import Teacher
from paretoformer.spaces.runtimes import Runnable, Tools

KEPT = 2
"""Candidates kept in memory: scoring and timing of one candidate may follow each other."""
CALIBRATION_EXAMPLES = 128
CALIBRATION_BATCH = 8


@dataclass(frozen=True)
class Ready:
    """A candidate that can be measured."""

    model: nn.Module
    runnable: Runnable


class Builder:
    """Builds candidates of one dense model.

    model: dense, on the target's device and in its dtype.
    workspaces: folder in which interrupted builds are resumed.
    teacher: the reference for repair; None: created here when a candidate first needs it.
    by_labels: whether distillation learns from labels, too.
    shared: axis -> what it made once for all builds.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        workload: Workload,
        target: Target,
        threads: int,
        workspaces: Path | None = None,
        teacher: Teacher | None = None,
        *,
        by_labels: bool = False,
        shared: Mapping[str, Any] | None = None,
    ) -> None:
        self._shared = shared or {}
        self._workspaces = workspaces
        self._model = model
        self._task = task
        self._known_teacher = teacher
        self._by_labels = task.supervised_loss if by_labels else None
        self._workload = workload
        self._target = target
        self._threads = threads
        self._baseline: tuple[Candidate, Ready] | None = None
        self._ready: OrderedDict[str, Ready] = OrderedDict()

    def artifact(self, candidate: Candidate) -> Artifact:
        """Build the candidate and return the files that restore it."""
        with TemporaryDirectory() as folder:
            built = build(candidate, self._model, self._tools(candidate))
            built.save(candidate, Path(folder))
            return Artifact.read(Path(folder))

    def baseline(self, candidate: Candidate, artifact: Artifact | None) -> Ready:
        """As `built`, for a candidate that many timings alternate with: kept until it changes."""
        if self._baseline is None or self._baseline[0] != candidate:
            self._baseline = candidate, self._make(candidate, artifact)
        return self._baseline[1]

    def built(self, candidate: Candidate, artifact: Artifact | None) -> Ready:
        """The candidate, restored from its artifact if it has one."""
        if candidate.id not in self._ready:
            self._ready[candidate.id] = self._make(candidate, artifact)
        self._ready.move_to_end(candidate.id)
        while len(self._ready) > KEPT:
            self._ready.popitem(last=False)
        return self._ready[candidate.id]

    def _make(self, candidate: Candidate, artifact: Artifact | None) -> Ready:
        if artifact is None:
            built = build(candidate, self._model, self._tools(candidate))
            return Ready(built.model, built.runnable)
        folder = Path(mkdtemp(prefix="paretoformer-"))
        try:
            artifact.write(folder)
            built = load_built(candidate, self._model, folder, self._tools(candidate))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        ready = Ready(built.model, built.runnable)
        weakref.finalize(ready, shutil.rmtree, folder, ignore_errors=True)  # in use until then
        return ready

    def _tools(self, candidate: Candidate) -> Tools:
        return Tools(
            device=self._target.device,
            threads=self._threads,
            example=self._workload.timing_batch(self._target),
            calibration=lambda: self._workload.training_batches(
                CALIBRATION_EXAMPLES, "cpu", CALIBRATION_BATCH
            ),
            teacher=self._teacher,
            shared=self._shared,
            texts=lambda: endless_batches(
                self._workload,
                self._target.device,
                seed(candidate),
                self._by_labels,
            ),
            workspace=self._workspaces and workspace(self._workspaces, candidate),
        )

    def _teacher(self) -> Teacher:
        if self._known_teacher is None:
            texts = recovery_texts(self._workload, self._target.device)
            self._known_teacher = Teacher(self._model, texts, self._task.answers)
        return self._known_teacher


def seed(candidate: Candidate) -> int:
    """Random seed of a candidate's build."""
    return int(candidate.id, 16) % 2**32
