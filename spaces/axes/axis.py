"""The contract of an axis, and the registry of those that keep it.

An axis is one thing that may vary between two compressed versions of a model. It is stateless: its
values belong to candidates, and what a study may choose from belongs to a `Domain`. The contract
has five parts: what a value is, what a study file says, what is surveyed, how a value is built, how
it is shown.

This file and those of the axes import torch only inside functions, so that reading a run folder
stays quick.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from paretoformer.spaces.axes.domain import Domain
from paretoformer.spaces.axes.evidence import Circumstances, Context, Facts, Json, Probe, Shape
from paretoformer.spaces.common.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from paretoformer.spaces.axes.block_options import BlockKind
    from paretoformer.spaces.recovery.repair_report import Recovered
    from paretoformer.spaces.runtimes import Runnable, Tools

V = TypeVar("V")
Values = Mapping[str, Any]
"""Axis name -> its value."""


class Stage(IntEnum):
    """The order in which a candidate is built."""

    STRUCTURE = 0
    RECOVERY = 1
    RUNTIME = 2


@dataclass(frozen=True)
class Built:
    """A candidate while it is built.

    runnable: None until a runtime made one of the model.
    kept: of each layer that the model has, which of the dense model's it was; None: each its own.
    recovered: names of the parameters that no cut explains.
    report: of what recovered them; None where nothing had to.
    """

    model: nn.Module
    runnable: Runnable | None = None
    kept: tuple[int, ...] | None = None
    recovered: tuple[str, ...] = ()
    report: Recovered | None = None


@dataclass(frozen=True)
class Cell:
    """One layer in the report, as one axis shows it.

    marks: a square each, filled where it stays. share: of the whole, drawn as a bar.
    colour: the technique that colours the squares. removed: the layer is gone.
    """

    label: str = ""
    marks: tuple[bool, ...] = ()
    share: float | None = None
    colour: str = ""
    removed: bool = False


class Unsuitable(ValueError):
    """A candidate that its runtime or readout cannot run; known before anything is measured."""


class AxisValue(ABC, Generic[V]):
    """What a value of the axis is."""

    name: ClassVar[str]
    """Key in a candidate's JSON and in `[space]`, prefix of parameters, column of tables."""
    stage: ClassVar[Stage]
    order: ClassVar[int]
    """Its place within the stage, and in tables."""
    since: ClassVar[int] = 2
    """The version of the candidate format that knows it first."""

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

    def encode(self, value: V) -> Json:
        return value

    def decode(self, data: Json) -> V:
        """Raises ValueError, KeyError or TypeError when `data` is not what `encode` returned."""
        value: V = data
        return value


class AxisSetting:
    """What a study file says of the axis."""

    setting: ClassVar[Any] = str
    """The type of its key in a study file."""
    setting_key: ClassVar[tuple[str, str] | None] = None
    """Section and key; None: `[space]` and the name of the axis."""
    setting_default: ClassVar[Any]
    setting_help: ClassVar[str] = ""

    def check_setting(
        self, setting: Any, *, causal: bool | None = None, device: str | None = None
    ) -> None:
        """Raises ValueError when the setting cannot be used.

        causal: whether the model is; device: of the target; None: not known yet.
        """

    def is_fixed(self, setting: Any) -> bool:
        """Whether one value is left, whatever the model and the machine are."""
        return bool(setting == "off")

    def choices(self, setting: Any, study: Circumstances) -> Sequence[str]:
        """The names that the study will try, of an axis that is set by names."""
        return ()

    def changes_prompts(self, setting: Any) -> bool:
        """Whether a language model may fill or read its key-value cache in another way than the
        one graph of a runtime does."""
        return False

    def catalogue(self) -> list[dict[str, Json]]:
        """Everything the axis can do, for `paretoformer techniques`: a row each, with equal keys.

        `here`: "yes", or why it cannot be used on this machine.
        """
        return []


class AxisSurvey(ABC, Generic[V]):
    """What the axis finds out when a study begins, and what the study may then choose from."""

    facts: ClassVar[type[Facts]] = Facts

    def survey(self, setting: Any, context: Context) -> Facts:
        """The findings, apart from those of the probe. No axis sees the facts of another."""
        return self.facts()

    def probe(self, setting: Any, context: Context) -> Probe | None:
        """Watches the passes over the training examples."""
        return None

    @abstractmethod
    def domain(self, setting: Any, facts: Any, shape: Shape) -> Domain[V]:
        """The values to choose from. A study that began before the axis existed does not ask."""

    def blocks(
        self, facts: Any, shape: Shape, before: Mapping[str, BlockKind]
    ) -> Mapping[str, BlockKind]:
        """Part of a layer -> the options of it from which candidates are solved.

        before: those of the axes in front of this one, which it may extend.
        """
        return before


class AxisBuild(ABC, Generic[V]):
    """How a value is applied to a model."""

    is_plain: ClassVar[bool] = False
    """Whether transformers itself computes the same from the rebuilt config and weights.

    An export that differs from the uncompressed model in such axes alone can be loaded without
    paretoformer."""

    @abstractmethod
    def apply(self, built: Built, value: V, tools: Tools) -> Built:
        """Change `built.model`, which is a copy, or make it run, as `value` says."""

    def is_free(self, value: V) -> bool:
        """Whether building it again is free and gives the same weights; else it is kept on disk."""
        return True

    def save(self, built: Built, value: V, folder: Path) -> None:
        """Write into `folder` what `restore` will need."""

    def restore(self, built: Built, value: V, folder: Path, tools: Tools) -> Built:
        """As `apply`, from the files that `save` wrote."""
        return self.apply(built, value, tools)

    def seconds(self, value: V) -> float:
        """How long building the value takes on purpose, beyond what any building takes."""
        return 0.0

    def with_minutes(self, value: V, minutes: float) -> V:
        """The value that is built for so long; itself where more time gives nothing better."""
        return value


class AxisDisplay(ABC, Generic[V]):
    """How a value is shown, in tables, sentences and the report.

    All but `layer_cells` see the value of the layers that the model still has.
    """

    name: ClassVar[str]
    technique: ClassVar[str] = ""
    """What a changed value is called in the evidence; empty: the name of the axis."""

    def of_layers(self, value: V, kept: Sequence[int]) -> V:
        """The value of a model of these layers alone."""
        return value

    def kept_share(self, value: V) -> float | None:
        """How much of its part of each layer stays, 0 to 1; None where the axis cuts nothing."""
        return None

    def cell(self, value: V) -> str:
        """The value in a table."""
        return str(value)

    def phrase(self, value: V) -> str:
        """The value within a sentence: `54 of 72 heads`."""
        return f"{self.name} {self.cell(value)}"

    def layer_cells(self, value: V) -> Sequence[Cell]:
        """The value layer by layer, for the report; empty when layers do not differ by it."""
        return ()

    def build_note(self, value: V, folder: Path) -> str:
        """A sentence for the report on how the building went, from the files that `save` wrote."""
        return ""

    def techniques(self, value: V) -> Sequence[str]:
        """What a value uses that is not the uncompressed model's."""
        return [self.technique or self.name]


class Axis(AxisValue[V], AxisSetting, AxisSurvey[V], AxisBuild[V], AxisDisplay[V]):
    """One thing that may vary. Stateless.

    Laws, checked for every registered axis by `paretoformer.testing.check_axis`: `decode` undoes
    `encode`; `canonical` is idempotent; the default is canonical and changes nothing when applied.
    """


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
