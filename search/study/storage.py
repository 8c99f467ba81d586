"""The storage of a running study: in memory, with every change that counts in its database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from paretoformer.search.study.tables import Tables


class StudyStorage(InMemoryStorage):
    """One study, held in memory and kept in a database, which only this process writes.

    Samplers read from memory. The database gets a trial when it is finished and when `keep` is
    called, each time in one transaction with all others that changed since; an attribute of the
    study, at once. So a process that is killed leaves whole trials, and at most forgets what it was
    about to begin.

    System attributes of the study stay in memory: they are what samplers remember, in terms of the
    ids that trials have here.
    """

    def __init__(self, database: RDBStorage, name: str) -> None:
        super().__init__()
        self._database = database
        self._stored_id = database.get_study_id_from_name(name)
        self._study_id = self.create_new_study(database.get_study_directions(self._stored_id), name)
        trials = database.get_all_trials(self._stored_id, deepcopy=False)
        for trial in trials:
            super().create_new_trial(self._study_id, trial)
        for key, value in database.get_study_user_attrs(self._stored_id).items():
            super().set_study_user_attr(self._study_id, key, value)
        unfinished = {n: each for n, each in enumerate(trials) if not each.state.is_finished()}
        self._tables = Tables(database, self._stored_id, unfinished)
        self._changed: dict[int, None] = {}

    def keep(self) -> None:
        """Write what changed since."""
        if self._changed:
            self._tables.write([self.get_trial(each) for each in self._changed])
            self._changed.clear()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial_id = super().create_new_trial(study_id, template_trial)
        self._changed[trial_id] = None
        if template_trial is not None and template_trial.state.is_finished():
            self.keep()
        return trial_id

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
        self._changed[trial_id] = None

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        done = super().set_trial_state_values(trial_id, state, values)
        self._changed[trial_id] = None
        if state.is_finished():
            self.keep()
        return done

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_user_attr(trial_id, key, value)
        self._changed[trial_id] = None

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_system_attr(trial_id, key, value)
        self._changed[trial_id] = None

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        super().set_study_user_attr(study_id, key, value)
        self.keep()
        self._database.set_study_user_attr(self._stored_id, key, value)
