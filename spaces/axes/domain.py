"""Domains: the values of one axis that a study may choose from."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

V = TypeVar("V")
Params = dict[str, int | str]


class Suggests(Protocol):
    """The part of a trial that a domain needs: `optuna.trial.Trial` and `FixedTrial` have it."""

    def suggest_int(self, name: str, low: int, high: int) -> int: ...
    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str: ...


class Domain(ABC, Generic[V]):
    """The values that a trial may choose on an axis, and the parameters that encode them.

    Laws, checked for every registered axis by `paretoformer.testing.check_domain`:

    - equal parameters suggest equal values, and `params` inverts `suggest`;
    - the dense value is the first of `starts`, and all starts can be suggested; only a `Fixed`
      domain may have another value, which all changed candidates share;
    - `values` yields exactly `size` different values.
    """

    @abstractmethod
    def suggest(self, trial: Suggests) -> V: ...

    @abstractmethod
    def params(self, value: V) -> Params:
        """The parameters that suggest `value`."""

    @abstractmethod
    def starts(self) -> Sequence[V]:
        """Values to measure before any sampler proposes one; the default is the first."""

    def kinds(self) -> Sequence[V]:
        """The starts that differ in kind, not in size; empty where all differ in size."""
        return ()

    def solved(self) -> Domain[V]:
        """The domain that also contains candidates solved from a block table."""
        return self

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of values."""

    @abstractmethod
    def values(self) -> Iterator[V]:
        """Every value; used only where `size` is small."""


@dataclass(frozen=True)
class Fixed(Domain[V]):
    """One value, without parameters."""

    value: V

    def suggest(self, trial: Suggests) -> V:
        return self.value

    def params(self, value: V) -> Params:
        return {}

    def starts(self) -> Sequence[V]:
        return [self.value]

    @property
    def size(self) -> int:
        return 1

    def values(self) -> Iterator[V]:
        yield self.value


class IntegerDomain(Domain[V]):
    """Values that consist of integers, with one parameter per integer."""

    @property
    @abstractmethod
    def ranges(self) -> Mapping[str, tuple[int, int]]:
        """Parameter -> its smallest and largest integer."""

    @abstractmethod
    def of_integers(self, integers: Sequence[int]) -> V: ...

    @abstractmethod
    def integers(self, value: V) -> Sequence[int]:
        """The integers that give `value`, in the order of `ranges`."""

    def suggest(self, trial: Suggests) -> V:
        return self.of_integers([trial.suggest_int(name, *r) for name, r in self.ranges.items()])

    def params(self, value: V) -> Params:
        return dict(zip(self.ranges, self.integers(value), strict=True))

    @property
    def size(self) -> int:
        return math.prod(high - low + 1 for low, high in self.ranges.values())

    def values(self) -> Iterator[V]:
        every = (range(low, high + 1) for low, high in self.ranges.values())
        return map(self.of_integers, itertools.product(*every))
