"""Optuna's samplers by their names in a study file, and the rule for the surrogate."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from paretoformer.evaluators.metrics import Metric
from paretoformer.search.records.errors import StudyError
from paretoformer.search.records.facts import LATENCY

SURROGATE = "surrogate"
"""The proposer `Surrogate`, which needs a block table; random search when it proposes nothing."""
AUTO = "auto"
"""`SURROGATE` if there is a block table, and a quality and the latency among the objectives; else
NSGA-II."""
POPULATION = 16
"""Population of NSGA-II. Optuna's 50 would spend most of 60 trials on the random first generation;
the planted trials fill one or two generations of 16."""


class NSGAIISampler(optuna.samplers.NSGAIISampler):
    """NSGA-II that counts enqueued trials as members of the current generation.

    Optuna counts only trials that the sampler proposed, so planted ones would have no children, and
    the search would restart from random candidates. The class keeps Optuna's name, since the name
    is part of the attributes in stored studies.
    """

    def __init__(self, *, population_size: int, seed: int) -> None:
        super().__init__(population_size=population_size, seed=seed)
        self._parents: list[list[FrozenTrial]] = []  # by generation

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        super().before_trial(study, trial)
        if "fixed_params" in trial.system_attrs:
            self.get_trial_generation(study, trial)

    def get_parent_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """Computed once per generation and in order, since parents come from the one before.

        Optuna reads the storage every time. If a study does not store parents (earlier versions),
        it recurses through all generations.
        """
        while len(self._parents) <= generation:
            found = super().get_parent_population(study, len(self._parents))
            self._parents.append(found)
        return self._parents[generation]


def make_sampler(name: str, seed: int) -> BaseSampler:
    """Create a sampler; settings are explicit where Optuna's defaults have changed.

    seed: taken modulo 2**32, numpy's limit.
    """
    seed %= 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name in ("nsga2", AUTO):
            return NSGAIISampler(population_size=POPULATION, seed=seed)
        if name == "tpe":
            return optuna.samplers.TPESampler(
                multivariate=False, constant_liar=True, n_startup_trials=10, seed=seed
            )
        if name == "gp":
            return optuna.samplers.GPSampler(n_startup_trials=10, seed=seed)
        return optuna.samplers.RandomSampler(seed=seed)


def quality_and_latency(objectives: Sequence[Metric]) -> tuple[Metric | None, Metric | None]:
    """The objectives that the block table predicts; None if not among the objectives."""
    quality = next((m for m in objectives if m.role == "quality"), None)
    return quality, next((m for m in objectives if m.name == LATENCY), None)


def predicts(objectives: Sequence[Metric]) -> bool:
    """Whether candidates can be solved for these objectives."""
    return None not in quality_and_latency(objectives)


def check_sampler(name: str, objectives: Sequence[Metric]) -> None:
    """Raises ValueError if a sampler cannot propose anything for these objectives."""
    if name == SURROGATE and not predicts(objectives):
        raise ValueError(
            f"search.sampler = {SURROGATE!r} predicts a quality and latency_ms: have both among "
            f"the objectives, or write {AUTO!r}."
        )


def uses_surrogate(name: str, objectives: Sequence[Metric], *, has_table: bool) -> bool:
    """Whether a study uses the surrogate: by name, or by `auto` if it can predict.

    Raises:
        StudyError: it is named, but there is no block table.
    """
    if name == AUTO:
        return has_table and predicts(objectives)
    if name == SURROGATE and not has_table:
        raise StudyError(
            f"search.sampler = {SURROGATE!r} needs a table of blocks, and here there is none: "
            f"nothing of the model may be cut, or there was no time for it. Write {AUTO!r}."
        )
    return name == SURROGATE
