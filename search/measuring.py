"""Starting the workers that measure the candidates of a session."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch

from paretoformer.evaluators.common.target import physical_cores
from paretoformer.evaluators.evaluator import Evaluator
from paretoformer.evaluators.timing.protocol import (
    FEWER_TIMES,
    REFERENCE_TIMES,
    TimingProtocol,
)
from paretoformer.search.dispatch.dispatcher import Dispatcher
from paretoformer.search.dispatch.memory import room_after
from paretoformer.search.session import Session
from paretoformer.search.study.budget import timing_seconds
from paretoformer.spaces.axes import axes
from paretoformer.spaces.recovery import Teacher


def dispatcher(session: Session, *, fresh: bool) -> AbstractContextManager[Dispatcher]:
    """Workers for the search or, with a `fresh` process for every timing, for the confirmation."""
    # The confirmation needs no teacher: its candidates were repaired in the search.
    teacher = None if fresh else _shared_teacher(session)
    return session.workers.measuring(_evaluator(session, teacher, fresh=fresh), fresh=fresh)


def _evaluator(session: Session, teacher: Teacher | None, *, fresh: bool) -> Evaluator:
    subject, width = session.subject, session.spec.timing.width
    search_seconds, confirm_seconds = timing_seconds(session.spec)
    times = FEWER_TIMES if session.has_minutes else REFERENCE_TIMES
    return Evaluator(
        subject.model,
        subject.task,
        subject.workload,
        subject.target,
        subject.metrics,
        {
            "search": TimingProtocol(width, search_seconds, times),
            "confirm": TimingProtocol(width, confirm_seconds, times),
        },
        session.folder.models.resolve(),
        subject.confirmed,
        teacher,
        by_labels=subject.learns_labels,
        shared=None if fresh else _shared(session),
    )


def _shared(session: Session) -> Mapping[str, Any]:
    model, facts = session.subject.model, session.prepared.facts
    made = ((axis, axis.shared(facts[axis.name], model)) for axis in axes() if axis.name in facts)
    return {axis.name: each for axis, each in made if each is not None}


def _shared_teacher(session: Session) -> Teacher | None:
    """A teacher that all workers share, if they compute on the CPU in the model's own precision."""
    subject = session.subject
    target, weights = subject.target, next(subject.model.parameters())
    here = torch.device("cpu"), weights.dtype
    if not session.prepared.repairs or (torch.device(target.device), target.torch_dtype) != here:
        subject.forget_teacher()
        return None
    torch.set_num_threads(physical_cores())
    teacher = subject.teacher(session.display.progress)
    subject.forget_teacher()
    if room_after(teacher.nbytes) > 0:
        return teacher
    session.display.note(
        f"There is no memory to share {teacher.nbytes / 1e9:.1f} GB for repairs: each worker "
        "computes them again, into temporary files."
    )
    return None
