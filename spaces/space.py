"""The space of a study: one domain for each axis, and every combination of their values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from paretoformer.spaces.axes import axis_of
from paretoformer.spaces.axes.axis import Stage
from paretoformer.spaces.axes.domain import Domain, Fixed, Params, Suggests
from paretoformer.spaces.axes.evidence import Shape
from paretoformer.spaces.candidate import Candidate

ENUMERATED = 5000
"""Above this number of combinations, different candidates are not counted one by one."""


@dataclass(frozen=True)
class Space:
    """All combinations of the domains' values.

    shape: of the dense model. domains: axis name -> the choices of the study.
    forecasts: candidates with good predicted trade-offs, the slowest first.
    kinds: the dense model with a different kind of part, such as a mechanism, in every layer.
    """

    shape: Shape
    domains: Mapping[str, Domain[Any]]
    forecasts: tuple[Candidate, ...] = ()
    kinds: tuple[Candidate, ...] = ()

    def __post_init__(self) -> None:
        for name in ("forecasts", "kinds"):
            found = tuple(map(self.completed, getattr(self, name)))
            object.__setattr__(self, name, found)

    def completed(self, candidate: Candidate) -> Candidate:
        """The candidate with the fixed values that all candidates of the study share."""
        given = {n: d.value for n, d in self.domains.items() if isinstance(d, Fixed)}
        return candidate.replaced(**given)

    def suggest(self, trial: Suggests) -> Candidate:
        """Equal parameters give equal candidates."""
        return Candidate(**{name: domain.suggest(trial) for name, domain in self.domains.items()})

    def params(self, candidate: Candidate) -> Params:
        params: Params = {}
        for name, domain in self.domains.items():
            params |= domain.params(candidate[name])
        return params

    def holds(self, candidate: Candidate) -> bool:
        """Whether parameters can encode the candidate; fixed values do not matter for the dense
        model."""
        return self.of_params(self.params(candidate)) == candidate

    def of_params(self, params: Params) -> Candidate:
        return self.suggest(_Given(params))

    @cached_property
    def dense(self) -> Candidate:
        return Candidate.dense(self.shape.layers, self.shape.heads)

    @cached_property
    def size(self) -> int:
        """Number of different candidates; in a large space, of combinations."""
        combinations = math.prod(domain.size for domain in self.domains.values())
        if combinations > ENUMERATED:
            return combinations
        every = itertools.product(*(domain.values() for domain in self.domains.values()))
        return len({Candidate(**dict(zip(self.domains, each, strict=True))) for each in every})

    @property
    def repairs(self) -> bool:
        """Whether every cut is repaired, so a rebuild is not free."""
        fixed = ((axis_of(n), d.value) for n, d in self.domains.items() if isinstance(d, Fixed))
        return any(axis.with_minutes(value, 1.0) != value for axis, value in fixed)

    @property
    def removes_layers(self) -> bool:
        starts = (start for of_axis in self.starts(Stage.STRUCTURE).values() for start in of_axis)
        return any(len(start.kept_layers) < self.shape.layers for start in starts)

    def random(self, rng: np.random.Generator) -> Candidate:
        """A candidate drawn with uniform parameters."""
        return self.suggest(RandomTrial(rng))

    def starts(self, *stages: Stage) -> dict[str, list[Candidate]]:
        """Axis -> the dense model with each of that axis' starts, except the first (dense)."""
        return {
            name: [self._begun(name, value) for value in domain.starts()[1:]]
            for name, domain in self.domains.items()
            if axis_of(name).stage in stages
        }

    def _begun(self, axis: str, value: Any) -> Candidate:
        """The dense model with one value, and the study's fixed values unless it is a runtime."""
        candidate = self.dense.replaced(**{axis: value})
        return candidate if axis_of(axis).stage is Stage.RUNTIME else self.completed(candidate)

    def sizes(self) -> dict[str, list[Candidate]]:
        """The starts of the structural axes whose values differ in size."""
        starts = self.starts(Stage.STRUCTURE)
        return {name: each for name, each in starts.items() if not self.domains[name].kinds()}


def spread_evenly(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """At most `count` candidates, evenly spaced, including both ends."""
    if len(candidates) <= count:
        return list(candidates)
    return [candidates[i] for i in np.linspace(0, len(candidates) - 1, count).round().astype(int)]


@dataclass(frozen=True)
class _Given:
    params: Params

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return int(self.params[name])

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        return str(self.params[name])


@dataclass(frozen=True)
class RandomTrial:
    rng: np.random.Generator

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return int(self.rng.integers(low, high, endpoint=True))

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        return choices[int(self.rng.integers(len(choices)))]
