"""Preparation, done once per study: from a model to the space to search.

survey the model -> forecast good candidates -> store the plan -> space
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import optuna
import torch

from paretoformer.evaluators.common.progress import Progress
from paretoformer.evaluators.common.target import physical_cores
from paretoformer.search.planning.forecast import Forecaster
from paretoformer.search.planning.knapsack import KnapsackProblem
from paretoformer.search.planning.plan import (
    Plan,
    check_plan,
    is_of_version_1,
    plan_of_version_1,
    read_plan,
    write_plan,
)
from paretoformer.search.planning.predictor import Predictor
from paretoformer.search.planning.screener import StartsWorkers
from paretoformer.search.planning.survey import survey
from paretoformer.search.records.errors import RunError
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.study.spec import Spec
from paretoformer.search.study.subject import Subject
from paretoformer.spaces.axes import axes
from paretoformer.spaces.axes.evidence import Facts, Shape
from paretoformer.spaces.common.malformed import MALFORMED, one_line
from paretoformer.spaces.models.families import shape_of
from paretoformer.spaces.space import Space


@dataclass(frozen=True)
class Prepared:
    """The space of a study, and what was left out of it: axis -> value -> reason.

    problem: predicts candidates; None without a block table.
    begun_without: axes that did not exist when the run began.
    notes: for the user, one sentence per entry.
    repairs: whether candidates are repaired.
    facts: axis -> what it found at the beginning.
    """

    space: Space
    left_out: dict[str, dict[str, str]]
    problem: KnapsackProblem | None = None
    begun_without: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    repairs: bool = False
    facts: Mapping[str, Facts] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: Spec, plan: Plan) -> Prepared:
        evidence = plan.evidence
        space = plan.space(spec)
        return cls(
            space,
            {name: dict(facts.left_out) for name, facts in evidence.facts.items()},
            plan.problem,
            tuple(axis.name for axis in axes() if axis.name not in evidence.facts),
            (*plan.notes, *(facts.note for facts in evidence.facts.values() if facts.note)),
            space.repairs,
            evidence.facts,
        )

    @property
    def predictor(self) -> Predictor | None:
        return None if self.problem is None else Predictor(self.space, self.problem)


def prepare(
    study: optuna.Study,
    spec: Spec,
    subject: Subject,
    folder: RunFolder,
    progress: Progress,
    is_late: Callable[[float], bool] = lambda share: False,
    workers: StartsWorkers | None = None,
) -> Prepared:
    """The space of a study on its model.

    is_late: whether a share of the time for preparation is spent. workers: for a table that takes
    long; None: it is measured here.

    Raises:
        RunError: the run has trials, but its plan is lost or damaged.
    """
    shape = Shape(*shape_of(subject.model.config))
    if folder.evidence.exists():
        return _restored(spec, folder, shape)
    if is_of_version_1(study.user_attrs):
        return Prepared.of(spec, plan_of_version_1(study.user_attrs, shape))
    if study.get_trials(deepcopy=False):
        raise RunError(f"{folder.evidence} is lost, without which the run cannot go on.")
    torch.set_num_threads(physical_cores())
    evidence = survey(spec, subject, progress)
    plan = Forecaster(spec, subject, folder, progress, is_late, workers).plan(evidence)
    write_plan(folder.evidence, plan)
    return Prepared.of(spec, plan)


def _restored(spec: Spec, folder: RunFolder, shape: Shape) -> Prepared:
    try:
        plan = read_plan(folder.evidence, shape)
        prepared = Prepared.of(spec, plan)
        check_plan(plan, prepared.space)
    except (OSError, *MALFORMED) as error:
        raise RunError(
            f"{folder.evidence} is damaged, without which the run cannot go on: {one_line(error)}. "
            "Choose another --out."
        ) from None
    return prepared
