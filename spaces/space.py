"""The space of candidates: what may vary, how a trial suggests it, and what to try first."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from paretoformer.spaces import attention
from paretoformer.spaces.candidate import FULL, AttentionChoice, Candidate
from paretoformer.spaces.heads import HeadMask, Scores

Params = dict[str, int | str]


class Suggests(Protocol):
    """What a space needs of a trial: `optuna.trial.Trial` has it, and so has `FixedTrial`."""

    def suggest_int(self, name: str, low: int, high: int) -> int: ...
    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str: ...


class HeadEncoding(ABC):
    """How the kept heads are written as parameters of a trial."""

    @abstractmethod
    def suggest(self, trial: Suggests) -> HeadMask: ...

    @abstractmethod
    def params(self, mask: HeadMask) -> Params:
        """The parameters whose `suggest` is `mask`, or the nearest mask that has parameters."""

    @abstractmethod
    def masks_per_layer(self) -> Sequence[int]:
        """How many masks of each layer keep at least one head."""


@dataclass(frozen=True)
class Ranked(HeadEncoding):
    """A count a layer; heads stay in order of their importance.

    scores: (layers, heads), larger matters more.
    """

    scores: Scores

    def suggest(self, trial: Suggests) -> HeadMask:
        layers, heads = self.scores.shape
        counts = [trial.suggest_int(f"heads_{layer}", 0, heads) for layer in range(layers)]
        return HeadMask.ranked(counts, self.scores)

    def params(self, mask: HeadMask) -> Params:
        return {f"heads_{layer}": count for layer, count in enumerate(mask.counts)}

    def masks_per_layer(self) -> Sequence[int]:
        layers, heads = self.scores.shape
        return [heads] * layers


@dataclass(frozen=True)
class Bits(HeadEncoding):
    """One bit a head."""

    layers: int
    heads: int

    def suggest(self, trial: Suggests) -> HeadMask:
        return HeadMask(
            tuple(
                tuple(bool(trial.suggest_int(name, 0, 1)) for name in row) for row in self._names()
            )
        )

    def params(self, mask: HeadMask) -> Params:
        return {
            name: int(keep)
            for names, row in zip(self._names(), mask.kept, strict=True)
            for name, keep in zip(names, row, strict=True)
        }

    def masks_per_layer(self) -> Sequence[int]:
        return [2**self.heads - 1] * self.layers

    def _names(self) -> list[list[str]]:
        return [[f"head_{i}_{j}" for j in range(self.heads)] for i in range(self.layers)]


@dataclass(frozen=True)
class AllHeads(HeadEncoding):
    """Every head stays."""

    layers: int
    heads: int

    def suggest(self, trial: Suggests) -> HeadMask:
        return HeadMask.all(self.layers, self.heads)

    def params(self, mask: HeadMask) -> Params:
        return {}

    def masks_per_layer(self) -> Sequence[int]:
        return [1] * self.layers


@dataclass(frozen=True)
class Space:
    """Every combination of an encoding's head masks with one mechanism for each layer.

    A mechanism with its setting is one category of one parameter a layer: nothing in the space is
    conditional, which keeps the crossover of a genetic search whole.

    choices: the mechanisms with their settings, `full` first.
    scores: (layers, heads) importance, needed only to plant masks; None plants none.
    begin: candidates to plant beside them.
    """

    encoding: HeadEncoding
    layers: int
    heads: int
    choices: tuple[AttentionChoice, ...] = (FULL,)
    scores: Scores | None = None
    begin: tuple[Candidate, ...] = ()

    def suggest(self, trial: Suggests) -> Candidate:
        """Equal parameters give equal candidates."""
        mask = self.encoding.suggest(trial)
        if len(self.choices) == 1:
            return Candidate(mask, self.choices * self.layers)
        by_label = {str(choice): choice for choice in self.choices}
        labels = list(by_label)
        chosen = (
            trial.suggest_categorical(f"attention_{layer}", labels) for layer in range(self.layers)
        )
        return Candidate(mask, tuple(by_label[label] for label in chosen))

    def params(self, candidate: Candidate) -> Params:
        """The parameters that suggest `candidate`."""
        params = self.encoding.params(candidate.heads)
        if len(self.choices) > 1:
            for layer, choice in enumerate(candidate.attention):
                params[f"attention_{layer}"] = str(choice)
        return params

    @property
    def size(self) -> int:
        """How many different candidates there are."""
        headless = 0 if isinstance(self.encoding, AllHeads) else 1
        return math.prod(
            headless + masks * len(self.choices) for masks in self.encoding.masks_per_layer()
        )

    def random(self, rng: np.random.Generator) -> Candidate:
        """A candidate drawn as a uniform sampler would draw its parameters."""
        return self.suggest(_RandomTrial(rng))

    def planted(self, steps: int = 8) -> list[Candidate]:
        """What every search tries before its sampler proposes anything.

        Dense; the smallest; global-importance masks at even steps; what was forecast; each
        mechanism in every layer.
        """
        planted = [Candidate(HeadMask.all(self.layers, self.heads))]
        if not isinstance(self.encoding, AllHeads):
            planted.append(Candidate(HeadMask.none(self.layers, self.heads)))
        planted += map(Candidate, self._masks(steps))
        planted += self.begin
        planted += self.uniform()
        return list(dict.fromkeys(planted))

    def uniform(self) -> list[Candidate]:
        """Each mechanism, at its first setting, in every layer, with all heads."""
        mask = HeadMask.all(self.layers, self.heads)
        return [
            Candidate(mask, (choice,) * self.layers) for choice in _one_a_mechanism(self.choices)
        ]

    def crossed(self, uniform: Candidate, steps: int = 8) -> list[Candidate]:
        """A uniform candidate's mechanisms with each planted mask, down to half of the heads."""
        half = self.layers * self.heads / 2
        masks = (mask for mask in self._masks(steps) if mask.total >= half)
        return [Candidate(mask, uniform.attention) for mask in masks]

    def _masks(self, steps: int) -> list[HeadMask]:
        """Global-importance masks at even steps of the number of heads, the largest first."""
        if self.scores is None or isinstance(self.encoding, AllHeads):
            return []
        whole = self.layers * self.heads
        counts = (round(whole * step / steps) for step in range(steps - 1, 0, -1))
        return [HeadMask.most_important(count, self.scores) for count in counts]


def menu(
    names: Sequence[str] | None, length: int, *, causal: bool = False
) -> tuple[AttentionChoice, ...]:
    """The mechanisms, each with the settings worth trying at `length` tokens; `full` first.

    names: registered names; None takes every mechanism that is legal here.

    Raises:
        ValueError: an unknown name, or one that cannot be causal for a causal model.
    """
    choices = {FULL: None}
    for name in attention.names() if names is None else names:
        mechanism = attention.attention_class(name)
        if causal and not mechanism.causal:
            if names is None:
                continue
            raise ValueError(f"attention {name!r} cannot be causal, as this model needs it to be.")
        for params in mechanism.settings(length):
            choices[AttentionChoice.of(name, **params)] = None
    return tuple(choices)


def _one_a_mechanism(choices: Sequence[AttentionChoice]) -> Iterator[AttentionChoice]:
    """The first setting, which is the default, of every mechanism but `full`."""
    others = (choice for choice in choices if choice != FULL)
    for _, group in itertools.groupby(others, key=lambda choice: choice.name):
        yield next(group)


@dataclass(frozen=True)
class _RandomTrial:
    rng: np.random.Generator

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return int(self.rng.integers(low, high, endpoint=True))

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        return choices[int(self.rng.integers(len(choices)))]
