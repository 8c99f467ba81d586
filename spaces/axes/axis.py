"""The contract of an axis, and the registry of axes.

An axis is one property in which two compressed versions of a model may differ. It is stateless: its
values belong to candidates, and the choices of a study belong to a `Domain`. The contract has five
parts: the value, the setting in a study file, the survey, the build and the display.

Files of axes import torch only inside functions, so that reading a run folder stays fast.
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
    """A candidate during its build.

    runnable: None until a runtime has converted the model.
    kept: for each layer of the model, its index in the dense model; None: all layers are kept.
    cut: for each layer of the model, whether it has to be repaired; None: unknown.
    recovered: names of the parameters that a recovery changed.
    report: of the recovery; None without one.
    """

    model: nn.Module
    runnable: Runnable | None = None
    kept: tuple[int, ...] | None = None
    cut: tuple[bool, ...] | None = None
    recovered: tuple[str, ...] = ()
    report: Recovered | None = None


@dataclass(frozen=True)
class Cell:
    """One layer in the report, as one axis shows it.

    marks: one square each, filled if kept. share: of the whole, drawn as a bar.
    colour: the technique that colours the squares. removed: the layer is gone.
    """

    label: str = ""
    marks: tuple[bool, ...] = ()
    share: float | None = None
    colour: str = ""
    removed: bool = False


class Unsuitable(ValueError):
    """Raised for a candidate that its runtime or readout cannot run, before any measurement."""


def needs_study(why: str, instead: str) -> ValueError:
    """The error for a candidate that is built by hand. why: what it has of a study's texts.
    instead: the value that it can be built with."""
    return ValueError(
        f"this candidate {why} a study's texts: load it from its run, with `Best.load_model` or "
        f"`paretoformer export`, or build it with {instead}."
    )


class AxisValue(ABC, Generic[V]):
    name: ClassVar[str]
    """Key in a candidate's JSON and in `[space]`, prefix of parameters, table column."""
    stage: ClassVar[Stage]
    order: ClassVar[int]
    """Position within the stage, and in tables."""
    since: ClassVar[int] = 2
    """The first version of the candidate format with this axis."""

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
        """The representative of all values that give the same model: one model, one candidate.

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

        causal: whether the model is causal; device: of the target; None: not known yet.
        """

    def is_fixed(self, setting: Any) -> bool:
        """Whether only one value is possible, for every model and machine."""
        return bool(setting == "off")

    def is_varied(self, setting: Any, study: Circumstances) -> bool:
        """Whether the study asks for other values than the uncompressed model's."""
        return setting not in ("off", False)

    def choices(self, setting: Any, study: Circumstances) -> Sequence[str]:
        """The names that the study will try, for an axis that is set by names."""
        return ()

    def changes_prompts(self, setting: Any) -> bool:
        """Whether a language model may fill or read its key-value cache differently than a
        runtime's single graph does."""
        return False

    def catalogue(self) -> list[dict[str, Json]]:
        """Everything the axis can do, for `paretoformer techniques`: rows with equal keys. `here`:
        "yes", or why it cannot be used on this machine."""
        return []


class AxisSurvey(ABC, Generic[V]):
    """Measurements of the axis at the start of a study, and the domain that follows from them."""

    facts: ClassVar[type[Facts]] = Facts

    def survey(self, setting: Any, context: Context) -> Facts:
        """The facts, except those of the probe. No axis sees the facts of another."""
        return self.facts()

    def probe(self, setting: Any, context: Context) -> Probe | None:
        """A probe that watches the passes over the training examples."""
        return None

    @abstractmethod
    def domain(self, setting: Any, facts: Any, shape: Shape) -> Domain[V]:
        """The values to choose from. Not called by a study that began before the axis existed."""

    def blocks(
        self, facts: Any, shape: Shape, before: Mapping[str, BlockKind]
    ) -> Mapping[str, BlockKind]:
        """Part of a layer -> its options, from which candidates are solved.

        before: those of the earlier axes, which this one may extend.
        """
        return before


class AxisBuild(ABC, Generic[V]):
    is_plain: ClassVar[bool] = False
    """Whether transformers computes the same from the rebuilt config and weights. An export that
    differs from the dense model only in such axes loads without paretoformer."""

    @abstractmethod
    def apply(self, built: Built, value: V, tools: Tools) -> Built:
        """Change `built.model`, which is a copy, or convert it to run, according to `value`."""

    def is_free(self, value: V) -> bool:
        """Whether a rebuild is free and gives the same weights; else the result is kept on disk."""
        return True

    def save(self, built: Built, value: V, folder: Path) -> None:
        """Write the files that `restore` reads into `folder`."""

    def restore(self, built: Built, value: V, folder: Path, tools: Tools) -> Built:
        """As `apply`, from the files that `save` wrote."""
        return self.apply(built, value, tools)

    def shared(self, facts: Any, model: nn.Module) -> Any:
        """What the builds of a study need and takes long to make: made once, sent to all workers,
        and found in `Tools.shared` by the axis's name. None: nothing.

        model: dense.
        """
        return None

    def empty(self, built: Built, value: V) -> Built:
        """As `apply`, for the shapes of tensors alone: their values are loaded afterwards."""
        from paretoformer.spaces.runtimes import Tools

        return self.apply(built, value, Tools()) if self.is_free(value) else built

    def seconds(self, value: V) -> float:
        """Deliberate build time of the value, such as training, beyond the usual cost."""
        return 0.0

    def with_minutes(self, value: V, minutes: float) -> V:
        """The value with this build time; unchanged where more time improves nothing."""
        return value


class AxisDisplay(ABC, Generic[V]):
    """How a value is shown in tables, sentences and the report. All methods but `layer_cells` get
    the value restricted to the layers that the model keeps."""

    name: ClassVar[str]
    technique: ClassVar[str] = ""
    """The name of a changed value in the evidence; empty: the name of the axis."""

    def of_layers(self, value: V, kept: Sequence[int]) -> V:
        """The value restricted to these layers."""
        return value

    def kept_share(self, value: V) -> float | None:
        """The kept share of its part of each layer, 0 to 1; None where the axis cuts nothing."""
        return None

    def cell(self, value: V) -> str:
        return str(value)

    def phrase(self, value: V) -> str:
        """The value within a sentence: `54 of 72 heads`."""
        return f"{self.name} {self.cell(value)}"

    def layer_cells(self, value: V) -> Sequence[Cell]:
        """The value per layer, for the report; empty when it does not differ between layers."""
        return ()

    def build_note(self, value: V, folder: Path) -> str:
        """A sentence for the report on the build, from the files that `save` wrote."""
        return ""

    def techniques(self, value: V) -> Sequence[str]:
        """Techniques that the value uses and the uncompressed model does not."""
        return [self.technique or self.name]


class Axis(AxisValue[V], AxisSetting, AxisSurvey[V], AxisBuild[V], AxisDisplay[V]):
    """One property that may vary. Stateless.

    Laws, checked for every registered axis by `paretoformer.testing.check_axis`: `decode` inverts
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
        ValueError: unknown name; the message lists the known ones.
    """
    return _REGISTRY[name]
