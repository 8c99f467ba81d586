"""Domains: what a study may choose from on one axis."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

V = TypeVar("V")
Params = dict[str, int | str]
"""Parameters of an Optuna trial."""


class Suggests(Protocol):
    """The part of a trial that a domain needs: `optuna.trial.Trial` and `FixedTrial` have it."""

    def suggest_int(self, name: str, low: int, high: int) -> int: ...
    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str: ...


class Domain(ABC, Generic[V]):
    """The values of an axis that a trial may have, and the parameters that say so.

    Laws, checked for every registered axis by `paretoformer.testing.check_domain`:

    - equal parameters suggest equal values, and `params` of a value suggest that value again;
    - the uncompressed model's value is the first of `starts`, and all of them can be suggested; a
      `Fixed` domain may have another value, which everything has that the search changes;
    - `values` yields exactly `size` different values.
    """

    @abstractmethod
    def suggest(self, trial: Suggests) -> V: ...

    @abstractmethod
    def params(self, value: V) -> Params:
        """The parameters that suggest `value`."""

    @abstractmethod
    def starts(self) -> Sequence[V]:
        """Values worth measuring before any sampler proposes one; the default is the first."""

    def kinds(self) -> Sequence[V]:
        """Of the starts those that differ in kind, not in size; empty where all differ in size."""
        return ()

    def solved(self) -> Domain[V]:
        """The domain that also holds whatever is solved from a block table."""
        return self

    @property
    @abstractmethod
    def size(self) -> int:
        """How many values there are."""

    @abstractmethod
    def values(self) -> Iterator[V]:
        """Every value; read only where `size` is small."""


@dataclass(frozen=True)
class Fixed(Domain[V]):
    """One value, which takes no parameter."""

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
    """A value is made of integers, one parameter each."""

    @property
    @abstractmethod
    def ranges(self) -> Mapping[str, tuple[int, int]]:
        """Parameter -> the least and the greatest integer."""

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
