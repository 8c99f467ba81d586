"""Domains: what a study may choose from on one axis."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
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
