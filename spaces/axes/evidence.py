"""Evidence: what the axes measure on the dense model at the start of a study."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import torch
    from torch import nn

Json = Any


@dataclass(frozen=True)
class Shape:
    """Shape of the dense model. heads: per layer; groups of heads where they form groups."""

    layers: int
    heads: int


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The findings of one axis, kept with the run. An axis with findings has its own subclass.

    Every field has a default, for runs written before the field existed.

    left_out: what the study does not try -> why. note: a sentence for the user; empty: none.
    """

    left_out: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    def to_json(self) -> dict[str, Json]:
        unset = type(self)()
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value != getattr(unset, name)}

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Self:
        """Raises ValueError when a value has another type."""
        from pydantic import TypeAdapter

        return TypeAdapter(cls).validate_python(data)


@dataclass(frozen=True)
class Evidence:
    """The facts of a study, by the names of the axes that it began with."""

    shape: Shape
    facts: Mapping[str, Facts] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """The study's settings that an axis may depend on.

    device, dtype: of the target.
    minutes: the study's time; infinite where its number of trials is given. slowness: how many
        times as much a candidate's scores take as those of a usual model and data; at least 1.
    generates: whether the model generates text, token by token.
    sized: whether the study asks how large the model is, in memory or on disk.
    unmeasurable: value of an axis -> why an objective of the study cannot be measured for it, or
        "".
    """

    device: str
    dtype: str
    minutes: float = math.inf
    slowness: float = 1.0
    generates: bool = False
    sized: bool = False
    unmeasurable: Callable[[Any], str] = lambda value: ""


@dataclass(frozen=True, kw_only=True)
class Context(Circumstances):
    """The dense model and the study's data, for a survey.

    model: dense, in evaluation mode, with its transformers config; not changed.
    sequence_length: tokens of a timed text; the mean if the target follows the data.
    texts: all encoded examples but those that score. special: tokens that are no text.
    batches: inputs of at most that many training examples, in batches of similar lengths.
    divergence: (output, output of the dense model, batch) -> nats, summed over the examples.
    kept: output of the dense model -> the smaller part of it that `divergence` needs.
    progress: called with (description, steps done, steps in all).
    """

    model: nn.Module
    shape: Shape
    sequence_length: int
    batches: Callable[[int], Iterable[Mapping[str, torch.Tensor]]]
    divergence: Callable[[Any, Any, Any], float]
    texts: Sequence[Mapping[str, Any]] = ()
    special: Sequence[int] = ()
    kept: Callable[[Any], Any] = lambda output: output
    progress: Callable[[str, int, int], None] = lambda what, done, total: None


class Probe(ABC):
    """Watches the dense model's forward and backward passes over the training examples."""

    @abstractmethod
    def install(self, model: nn.Module) -> None:
        """Hook into a copy of the model, made for the probes."""

    @abstractmethod
    def leaves(self) -> Sequence[torch.Tensor]:
        """After a forward: the tensors with respect to which the loss is differentiated."""

    @abstractmethod
    def update(self, gradients: Sequence[torch.Tensor]) -> None:
        """After a backward: one gradient per leaf."""

    @abstractmethod
    def found(self, examples: int) -> dict[str, Any]:
        """Fields of the axis's facts, averaged over that number of examples."""
