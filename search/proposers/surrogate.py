"""Proposer `Surrogate`: the candidate with the largest expected gain of hypervolume.

Quality is the block table's prediction, corrected by a Gaussian process.

Source: noisy expected hypervolume improvement with one known objective (qNEHVI, Daulton et al.
2021, arXiv:2105.08195). Differs in: latency is its prediction, without noise; the expectation over
quality is a Gauss-Hermite sum; candidates under way count as measured at their predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paretoformer.evaluators.metrics import Metric
from paretoformer.search.planning.predictor import Predictor
from paretoformer.search.proposers.gain import Gain
from paretoformer.search.proposers.gaussian_process import GaussianProcess
from paretoformer.search.proposers.proposer import Proposer, Records
from paretoformer.search.proposers.solved import REACH, least_of_use
from paretoformer.search.proposers.standard import best_servings
from paretoformer.search.records.facts import LATENCY
from paretoformer.search.records.requirement import Requirement
from paretoformer.search.study.samplers import quality_and_latency
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.arrays import Floats
from paretoformer.spaces.space import Space

LEAST = 5
"""Fewest measured structures to learn from."""
BUDGETS = 25
"""Solved candidates in the pool, per runtime."""
NEIGHBOURS = 75
"""Pool members that differ from a solved or measured candidate in one parameter."""
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(5)


@dataclass(frozen=True)
class Surrogate(Proposer):
    """One candidate at a time, chosen from all records so far.

    requirements: decide which runtimes are worth it, and which quality is of no use.
    at_once: proposes nothing while this many candidates are under way.
    after: a proposer whose candidates must all be under way before.
    reach: as for `least_of_use`.
    """

    predictor: Predictor
    objectives: Sequence[Metric]
    requirements: Sequence[Requirement]
    seed: int
    at_once: int
    after: Proposer | None = None
    reach: float = REACH

    def waits(self, records: Records, under_way: Sequence[Candidate]) -> bool:
        before = self.after is not None and self.after.waits(records, under_way)
        return before or len(under_way) >= self.at_once

    def propose(self, records: Records, under_way: Sequence[Candidate]) -> Sequence[Candidate]:
        """The best of the pool; empty if nothing can be predicted or gained."""
        quality, latency = quality_and_latency(self.objectives)
        if quality is None or latency is None or self.waits(records, under_way):
            return ()
        model = _Quality.fitted(self.predictor, records, quality)
        if model is None:
            return ()
        pool = self._pool(records, under_way)
        known = [
            (record.measurements[quality.name].value, record.measurements[LATENCY].value)
            for record in records.values()
            if record.ok and {quality.name, LATENCY} <= record.measurements.keys()
        ]
        expected = zip(
            model.predict(under_way)[0], self._latencies(under_way, records), strict=True
        )
        known += [
            (float(mean), float(ms)) for mean, ms in expected if np.isfinite([mean, ms]).all()
        ]
        dense = records[self.predictor.space.dense.id].measurements[quality.name].value
        least = least_of_use(self.requirements, quality, dense, self.reach)
        gain = Gain(known, quality, least)
        gains = _gains(gain, *model.predict(pool), self._latencies(pool, records))
        return [pool[int(gains.argmax())]] if gains.max(initial=0.0) > 0 else ()

    def _latencies(self, candidates: Sequence[Candidate], records: Records) -> Floats:
        """Predicted milliseconds; NaN if unknown."""
        return np.array([self.predictor.of(c, records).get(LATENCY, np.nan) for c in candidates])

    def _pool(self, records: Records, under_way: Sequence[Candidate]) -> list[Candidate]:
        """Solved candidates of every runtime, and neighbours of these and of measured ones."""
        space, found = self.predictor.space, dict[Candidate, None]()
        for base in best_servings(space, self.objectives, self.requirements, records):
            model = self.predictor.latency_model(base, records)
            if model is not None:
                for solution in model.solutions().along(BUDGETS):
                    found[self.predictor.served(solution.candidate, base)] = None
        measured = [r.candidate for r in records.values() if r.ok and not r.candidate.seconds]
        parents = [*found, *measured]
        rng = np.random.default_rng((self.seed, len(records), len(under_way)))
        for _ in range(NEIGHBOURS if parents else 0):
            found[_neighbour(parents[int(rng.integers(len(parents)))], space, rng)] = None
        return [
            candidate
            for candidate in found
            if candidate.id not in records and candidate not in under_way and space.holds(candidate)
        ]


def _neighbour(candidate: Candidate, space: Space, rng: np.random.Generator) -> Candidate:
    """Draws one parameter again."""
    params = space.params(candidate)
    other = space.params(space.random(rng))
    name = list(params)[int(rng.integers(len(params)))]
    return space.of_params({**params, name: other[name]})


@dataclass(frozen=True)
class _Quality:
    """Quality = linear model of `_mean_terms` + Gaussian process over the layers."""

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
        """(mean, standard deviation); NaN if unknown."""
        found = [_features(self.predictor, candidate) for candidate in candidates]
        known = [index for index, features in enumerate(found) if features is not None]
        means, errors = np.full((2, len(candidates)), np.nan)
        if known:
            rows = np.stack([features for features in found if features is not None])
            mean, error = self.process.predict(rows)
            means[known], errors[known] = mean + _mean_terms(rows) @ self.line, error
        return means, errors


def _features(predictor: Predictor, candidate: Candidate) -> Floats | None:
    """(1 + layers,): predicted nats in total, then per layer."""
    shares = predictor.problem.shares(candidate)
    return None if shares is None else np.array([shares.sum(), *shares.sum(axis=1)])


def _mean_terms(rows: Floats) -> Floats:
    """(1, sqrt(nats), nats): a score falls slowly at first, then faster."""
    nats = rows[:, 0]
    return np.stack([np.ones_like(nats), np.sqrt(nats), nats], axis=1)


def _gains(gain: Gain, means: Floats, errors: Floats, times: Floats) -> Floats:
    """(candidates,): expected gain of hypervolume; 0 if unknown."""
    gains = np.zeros(len(means))
    for index in np.flatnonzero(np.isfinite(means + times)):
        values = means[index] + NODES * errors[index]
        gains[index] = WEIGHTS @ [gain.of(float(v), float(times[index])) for v in values]
    return gains
