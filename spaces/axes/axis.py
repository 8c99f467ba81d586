"""What every axis promises, and the registry of those that keep the promise.

An axis is one thing that may vary between two compressed versions of a model. It is stateless: its
values belong to candidates, and what a study may choose from belongs to a `Domain`.

This file and those of the axes import torch only inside functions, so that reading a run folder
stays quick.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from paretoformer.spaces.common.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import nn

    from paretoformer.spaces.axes.block_options import Block
    from paretoformer.spaces.recovery.repair_report import Recovered
    from paretoformer.spaces.runtimes import Runnable, Tools

V = TypeVar("V")
Json = Any
Values = Mapping[str, Any]
"""Axis name -> its value."""
Params = dict[str, int | str]
"""Parameters of an Optuna trial."""


class Stage(IntEnum):
    """The order in which a candidate is built."""

    STRUCTURE = 0
    RECOVERY = 1
    RUNTIME = 2


@dataclass(frozen=True)
class Shape:
    """Of the dense model. heads: of one layer; where they form groups, the groups."""

    layers: int
    heads: int


@dataclass(frozen=True)
class Built:
    """A candidate while it is built.

    runnable: None until a runtime made one of the model.
    kept: of each layer that the model has, which of the dense model's it was; None: each its own.
    recovered: names of the parameters that no cut explains.
    report: what recovered them did; None where nothing had to.
    """

    model: nn.Module
    runnable: Runnable | None = None
    kept: tuple[int, ...] | None = None
    recovered: tuple[str, ...] = ()
    report: Recovered | None = None


@dataclass(frozen=True)
class Cell:
    """What one axis says of one layer in the report.

    marks: a square each, filled where it stays. share: of the whole, drawn as a bar.
    colour: the technique that colours the squares. removed: the layer is gone.
    """

    label: str = ""
    marks: tuple[bool, ...] = ()
    share: float | None = None
    colour: str = ""
    removed: bool = False


class Unsuitable(ValueError):
    """What runs a candidate cannot run this one; known before anything is measured."""


class Suggests(Protocol):
    """What a domain needs of a trial: `optuna.trial.Trial` has it, and so has `FixedTrial`."""

    def suggest_int(self, name: str, low: int, high: int) -> int: ...
    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str: ...


class Domain(ABC, Generic[V]):
    """An axis within one study: which values a trial may have, and how its parameters say so.

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


@dataclass(frozen=True)
class Context:
    """What an axis may look at when a study begins.

    model: dense, in evaluation mode, with its transformers config; left as it was.
    device, threads, batch_size, sequence_length, dtype: of the target.
    batches: inputs of so many training examples, at most, in batches of like lengths.
    divergence: (output, output of the dense model, batch) -> nats, their sum over the examples.
    kept: output of the dense model -> what `divergence` needs of it, which is smaller.
    progress: called with (what is going on, steps done, steps in all).
    unmeasurable: value of an axis -> why an objective of the study cannot be measured of it, or "".
    minutes: that the study has; infinite where it has a number of trials.
    generates: whether the model continues texts, a token at a time.
    """

    model: nn.Module
    shape: Shape
    device: str
    threads: int
    batch_size: int
    sequence_length: int
    dtype: str
    batches: Callable[[int], Iterable[Mapping[str, torch.Tensor]]]
    divergence: Callable[[Any, Any, Any], float]
    kept: Callable[[Any], Any] = lambda output: output
    progress: Callable[[str, int, int], None] = lambda what, done, total: None
    unmeasurable: Callable[[Any], str] = lambda value: ""
    minutes: float = math.inf
    generates: bool = False


@dataclass(frozen=True)
class Evidence:
    """What was found out about the dense model when the study began; kept with the run.

    facts: of each axis, plain values that JSON can hold.
    """

    shape: Shape
    facts: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)

    def of(self, axis: str) -> Mapping[str, Json]:
        return self.facts.get(axis, {})


class Probe(ABC):
    """Watches the dense model's forward and backward passes over the training examples."""

    @abstractmethod
    def install(self, model: nn.Module) -> None:
        """Hook into a copy of the model, made for the probes."""

    @abstractmethod
    def leaves(self) -> Sequence[torch.Tensor]:
        """After a forward: the tensors by which the loss is to be differentiated."""

    @abstractmethod
    def update(self, gradients: Sequence[torch.Tensor]) -> None:
        """After a backward: the gradients, one for each leaf."""

    @abstractmethod
    def facts(self, examples: int) -> dict[str, Json]:
        """What was found over so many examples, as plain values."""


class Axis(ABC, Generic[V]):
    """One thing that may vary. Stateless.

    Laws, checked for every registered axis by `paretoformer.testing.check_axis`: `decode` undoes
    `encode`; `canonical` is idempotent; the default is canonical and changes nothing when applied.
    """

    name: ClassVar[str]
    """Key in a candidate's JSON and in `[space]`, prefix of parameters, column of tables."""
    stage: ClassVar[Stage]
    order: ClassVar[int]
    """Its place within the stage, and in tables."""
    since: ClassVar[int] = 2
    """The version of the candidate format that knows it first."""
    setting: ClassVar[Any] = str
    """The type of its key in a study file."""
    setting_key: ClassVar[tuple[str, str] | None] = None
    """Section and key; None: `[space]` and the name of the axis."""
    setting_default: ClassVar[Any]
    setting_help: ClassVar[str] = ""

    @abstractmethod
    def default(self, shape: Shape) -> V:
        """The value of the uncompressed model."""

    @abstractmethod
    def check(self, value: V, shape: Shape) -> V:
        """The value in its own type.

        Raises:
            ValueError: it does not fit a model of that shape.
        """

    def canonical(self, value: V, others: Values) -> V:
        """The value that stands for all which give the same model: one model, one candidate.

        others: the values of all axes, checked, not yet canonical.
        """
        return value

    @abstractmethod
    def encode(self, value: V) -> Json: ...

    @abstractmethod
    def decode(self, data: Json) -> V:
        """Raises ValueError, KeyError or TypeError when `data` is not what `encode` returned."""

    def check_setting(
        self, setting: Any, *, causal: bool | None = None, device: str | None = None
    ) -> None:
        """Raises ValueError when the study file's value for this axis cannot be used.

        causal: whether the model is; device: of the target; None: not known yet.
        """

    def survey(self, setting: Any, context: Context) -> dict[str, Json]:
        """What this axis finds out when a study begins, besides what its probe finds."""
        return {}

    def probe(self, setting: Any, facts: Mapping[str, Json], context: Context) -> Probe | None:
        """What watches the passes over the training examples; facts: what `survey` returned."""
        return None

    @abstractmethod
    def domain(self, setting: Any, evidence: Evidence) -> Domain[V]:
        """What a study may choose from. Without facts of its own, one value: the default."""

    def block(self, evidence: Evidence) -> Block | None:
        """What the options of this axis, alone or with others, damage in each layer.

        None: the axis has no part in a sum over blocks.
        """
        return None

    def solved_setting(self, setting: Any) -> Any:
        """The setting with which the domain holds whatever is solved from a block table."""
        return setting

    def removes_layers(self, evidence: Evidence) -> bool:
        """Whether the study may remove whole layers by this axis."""
        return False

    def mends(self, evidence: Evidence) -> bool:
        """Whether every cut of the study is mended by this axis."""
        return False

    def catalogue(self) -> list[dict[str, Json]]:
        """What the axis can do, for `paretoformer techniques`: a row each, with equal keys.

        `here`: "yes", or why it cannot be used on this machine.
        """
        return []

    def is_meant(self, name: str, *, generates: bool) -> bool:
        """Whether the setting `all` means this value too. generates: of a language model."""
        return True

    def changes_prompts(self, setting: Any) -> bool:
        """Whether a language model may fill or read its key-value cache in another way than the
        one graph of a runtime does."""
        return False

    def without_time(self, names: Sequence[str], minutes: float) -> Mapping[str, str]:
        """Of the values that a user did not name one by one, what so short a study leaves out ->
        why."""
        return {}

    def left_out(self, facts: Mapping[str, Json]) -> Mapping[str, str]:
        """What the study does not try, and why."""
        reasons: Mapping[str, str] = facts.get("left_out", {})
        return reasons

    @abstractmethod
    def apply(self, built: Built, value: V, tools: Tools) -> Built:
        """Change `built.model`, which is a copy, or make it run, as `value` says."""

    def restore(self, built: Built, value: V, folder: Path, tools: Tools) -> Built:
        """As `apply`, from the files that building the candidate once left in `folder`."""
        return self.apply(built, value, tools)

    def save(self, built: Built, value: V, folder: Path) -> None:
        """Write into `folder` what `restore` will need."""

    def seconds(self, value: V) -> float:
        """How long building the value takes on purpose, beyond what any building takes."""
        return 0.0

    def given(self, value: V, minutes: float) -> V:
        """The value that takes so long on purpose, to do better; itself where time buys nothing."""
        return value

    def rebuilt(self, value: V) -> bool:
        """Whether building it again is free and gives the same weights; else it is kept on disk."""
        return True

    @abstractmethod
    def cell(self, value: V) -> str:
        """The value in a table."""

    def words(self, value: V) -> str:
        """The value within a sentence: `54 of 72 heads`."""
        return f"{self.name} {self.cell(value)}"

    def is_plain(self, value: V, shape: Shape) -> bool:
        """Whether transformers itself computes the same from the rebuilt config and weights.

        An export of such values alone is left loadable by whoever does not have paretoformer.
        """
        return bool(value == self.default(shape))

    def is_fixed(self, setting: Any) -> bool:
        """Whether the study file leaves one value only, whatever the model and the machine are."""
        return bool(setting == "off")

    def layer_cells(self, value: V) -> Sequence[Cell]:
        """The value layer by layer, for the report; empty when layers do not differ by it."""
        return ()

    def told(self, value: V, folder: Path) -> str:
        """What building it found out, for the report; from the files that `save` wrote."""
        return ""

    @abstractmethod
    def techniques(self, value: V) -> Sequence[str]:
        """What the value uses that the uncompressed model does not."""


_REGISTRY: Registry[Axis[Any]] = Registry("axis", order=lambda axis: (axis.stage, axis.order))
register = _REGISTRY.register


def axes() -> tuple[Axis[Any], ...]:
    """Every registered axis, in the order in which a candidate is built."""
    return tuple(_REGISTRY)


def axis_of(name: str) -> Axis[Any]:
    """The axis of that name.

    Raises:
        ValueError: there is none; the message names those there are.
    """
    return _REGISTRY[name]
