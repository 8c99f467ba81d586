"""Sampler `surrogate`: what the sums over blocks predict, corrected by a Gaussian process, and the
candidate with the largest expected gain of hypervolume.

Source: expected hypervolume improvement under noise, of which one objective is known (qNEHVI,
Daulton et al. 2021, arXiv:2105.08195). Differs in: latency is taken as its prediction; the
expectation over quality is a Gauss-Hermite sum; what is under way counts as its prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from paretoformer.evaluators.metrics import Metric
from paretoformer.search.planning.predictor import LATENCY, Predictor
from paretoformer.search.proposers.gain import Gain
from paretoformer.search.proposers.gaussian_process import GaussianProcess
from paretoformer.search.proposers.solved import least_of_use
from paretoformer.search.proposers.standard import best_servings
from paretoformer.search.records.record import Records
from paretoformer.search.records.requirement import Requirement
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.arrays import Floats
from paretoformer.spaces.space import Space

LEAST = 5
"""Measured structures below which there is nothing to learn from."""
BUDGETS = 25
"""Solved candidates in the pool, for each runtime."""
NEIGHBOURS = 75
"""Changes of one parameter of a member of the pool or the front."""
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(5)


@dataclass
class Recorded:
    """A trial that answers at random, and keeps what it was asked."""

    rng: np.random.Generator
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)

    def suggest_int(self, name: str, low: int, high: int) -> int:
        self.distributions[name] = IntDistribution(low, high)
        return int(self.rng.integers(low, high, endpoint=True))

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        self.distributions[name] = CategoricalDistribution(choices)
        return choices[int(self.rng.integers(len(choices)))]


class SurrogateSampler(BaseSampler):
    """Proposes within one study's space.

    records: what was measured so far; under_way: candidates that are being measured.
    requirements: say which runtimes are worth it, and what quality is of no use.
    """

    def __init__(
        self,
        predictor: Predictor,
        objectives: Sequence[Metric],
        requirements: Sequence[Requirement],
        seed: int,
    ) -> None:
        self._predictor = predictor
        self._objectives = objectives
        self._requirements = requirements
        self._rng = np.random.default_rng(seed)
        self._random = RandomSampler(seed=seed)
        self.records: Callable[[], Records] = dict
        self.under_way: Callable[[], Sequence[Candidate]] = list

    @property
    def _space(self) -> Space:
        return self._predictor.space

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        recorded = Recorded(self._rng)
        self._space.suggest(recorded)
        return recorded.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Empty, which leaves it to chance, where nothing can be predicted yet."""
        candidate = self._best(self.records(), self.under_way())
        return {} if candidate is None else dict(self._space.params(candidate))

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _best(self, records: Records, under_way: Sequence[Candidate]) -> Candidate | None:
        quality = next((m for m in self._objectives if m.role == "quality"), None)
        if quality is None or LATENCY not in {m.name for m in self._objectives}:
            return None
        model = _Quality.fitted(self._predictor, records, quality)
        pool = [
            each
            for each in self._pool(records)
            if each.id not in records and each not in under_way and self._space.holds(each)
        ]
        if model is None or not pool:
            return None
        known = [
            (record.measurements[quality.name].value, record.measurements[LATENCY].value)
            for record in records.values()
            if record.ok and {quality.name, LATENCY} <= record.measurements.keys()
        ]
        for each in under_way:
            told = self._predictor.of(each, records).get(LATENCY)
            if told is not None and (mean := model.predict([each])[0][0]) == mean:
                known.append((float(mean), told))
        times = [self._predictor.of(each, records).get(LATENCY, np.nan) for each in pool]
        means, errors = model.predict(pool)
        dense = records[self._space.dense.id].measurements[quality.name].value
        least = least_of_use(self._requirements, quality, dense)
        gains = _gains(known, quality, least, means, errors, np.array(times))
        return pool[int(gains.argmax())] if gains.max() > 0 else None

    def _pool(self, records: Records) -> list[Candidate]:
        """Solved for budgets in each runtime, and neighbours of these and of the front."""
        found: dict[Candidate, None] = {}
        for base in best_servings(self._space, self._objectives, self._requirements, records):
            model = self._predictor.latency_model(base, records)
            if model is None:
                continue
            for solution in model.solutions().along(BUDGETS):
                found[self._predictor.served(solution.candidate, base)] = None
        measured = [r.candidate for r in records.values() if r.ok and not r.candidate.seconds]
        parents = [*found, *measured]
        for _ in range(NEIGHBOURS if parents else 0):
            found[self._neighbour(parents[int(self._rng.integers(len(parents)))])] = None
        return list(found)

    def _neighbour(self, candidate: Candidate) -> Candidate:
        """One parameter drawn anew."""
        params = self._space.params(candidate)
        other = self._space.params(self._space.random(self._rng))
        name = list(params)[int(self._rng.integers(len(params)))]
        return self._space.of_params({**params, name: other[name]})


@dataclass(frozen=True)
class _Quality:
    """Quality = a line in the logarithm of the predicted nats, and a process over the blocks."""

    predictor: Predictor
    line: Floats
    process: GaussianProcess

    @classmethod
    def fitted(cls, predictor: Predictor, records: Records, quality: Metric) -> _Quality | None:
        pairs = [
            (features, record.measurements[quality.name].value)
            for record in records.values()
            if record.ok
            and quality.name in record.measurements
            and not record.candidate.seconds
            and (features := _features(predictor, record.candidate)) is not None
        ]
        if len(pairs) < LEAST:
            return None
        rows = np.stack([features for features, _ in pairs])
        values = np.array([value for _, value in pairs])
        design = _mean_terms(rows)
        line = np.linalg.lstsq(design, values, rcond=None)[0]
        return cls(predictor, line, GaussianProcess.fitted(rows, values - design @ line))

    def predict(self, candidates: Sequence[Candidate]) -> tuple[Floats, Floats]:
        """(mean, standard deviation); NaN where nothing is known of a candidate."""
        found = [_features(self.predictor, each) for each in candidates]
        known = [index for index, each in enumerate(found) if each is not None]
        means, errors = np.full((2, len(candidates)), np.nan)
        if known:
            rows = np.stack([each for each in found if each is not None])
            mean, error = self.process.predict(rows)
            means[known], errors[known] = mean + _mean_terms(rows) @ self.line, error
        return means, errors


def _features(predictor: Predictor, candidate: Candidate) -> Floats | None:
    """Predicted nats, then what each layer adds to them."""
    shares = predictor.problem.shares(candidate)
    return None if shares is None else np.array([shares.sum(), *shares.sum(axis=1)])


def _mean_terms(rows: Floats) -> Floats:
    """Constant, root and size of the predicted nats: a score falls slowly, then faster."""
    nats = rows[:, 0]
    return np.stack([np.ones_like(nats), np.sqrt(nats), nats], axis=1)


def _gains(
    known: Sequence[tuple[float, float]],
    quality: Metric,
    least: float | None,
    means: Floats,
    errors: Floats,
    times: Floats,
) -> Floats:
    """(candidates,) the expected gain of hypervolume."""
    gain = Gain(known, quality, least)
    gains = np.zeros(len(means))
    for index, (mean, error, ms) in enumerate(zip(means, errors, times, strict=True)):
        if np.isfinite([mean, ms]).all():
            found = [gain.of(float(mean + node * error), float(ms)) for node in NODES]
            gains[index] = WEIGHTS @ found
    return gains
