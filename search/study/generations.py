"""NSGA-II whose work for one proposal does not grow with the number of trials."""

from __future__ import annotations

from collections import defaultdict

import optuna
from optuna.trial import FrozenTrial, TrialState

GENERATION = "NSGAIISampler:generation"
"""System attribute of a trial: its generation, where Optuna's own sampler has it."""


class Generations(optuna.samplers.NSGAIISampler):
    """Optuna's NSGA-II, which remembers who belongs to which generation.

    The one that it extends goes through all trials several times for each that it proposes: with
    10,000 of them, longer than everything else takes. Who the parents of a generation are is
    decided once, as there; it is remembered here and not in the study.
    """

    def __init__(self, *, population_size: int, seed: int) -> None:
        super().__init__(population_size=population_size, seed=seed)
        self._size = population_size
        self._members: defaultdict[int, list[int]] = defaultdict(list)
        self._parents: list[list[int]] = [[]]  # by generation
        self._unfinished: list[int] = []
        self._seen = 0

    def get_trial_generation(self, study: optuna.Study, trial: FrozenTrial) -> int:
        """The one that is being filled, unless the trial has one."""
        if GENERATION in trial.system_attrs:
            return int(trial.system_attrs[GENERATION])
        self._trials(study)
        latest = max(self._members, default=0)
        generation = latest + (len(self._members[latest]) >= self._size)
        begun = optuna.Trial(study, trial._trial_id)
        begun.storage.set_trial_system_attr(trial._trial_id, GENERATION, generation)
        return generation

    def get_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        trials = self._trials(study)
        return [trials[number] for number in sorted(self._members.get(generation, ()))]

    def get_parent_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """Found in order, since those of a generation come from those of the one before.

        The best first when they are found, by number from then on, as Optuna has it: its choices
        are drawn by place.
        """
        if generation < len(self._parents):
            trials = self._trials(study)
            return [trials[number] for number in self._parents[generation]]
        found: list[FrozenTrial] = []
        while len(self._parents) <= generation:
            found = self.select_parent(study, len(self._parents))
            self._parents.append(sorted(trial.number for trial in found))
        return found

    def _trials(self, study: optuna.Study) -> list[FrozenTrial]:
        """All trials, once those that were finished since are where they belong."""
        trials = study.get_trials(deepcopy=False)
        left = []
        for number in (*self._unfinished, *range(self._seen, len(trials))):
            trial = trials[number]
            if not trial.state.is_finished():
                left.append(number)
            elif trial.state is TrialState.COMPLETE and GENERATION in trial.system_attrs:
                self._members[trial.system_attrs[GENERATION]].append(number)
        self._unfinished, self._seen = left, len(trials)
        return trials
