"""The contract of a runtime, and the registry of runtimes."""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from paretoformer.spaces.common.registry import Registry, unknown
from paretoformer.spaces.models.tokens import Batch, Step


@dataclass(frozen=True)
class Tools:
    device: str = "cpu"
    """Where the model will run, as torch names it."""
    threads: int = 1
    """CPU threads of one forward."""
    example: Batch | None = None
    """One batch of real inputs, (batch, length); None: made from the model's config. It determines
    which inputs the model takes; results do not depend on its values."""
    calibration: Callable[[], Iterable[Batch]] | None = None
    """Returns batches of training inputs for calibration; None: there are none."""
    teacher: Callable[[], Any] | None = None
    """Returns the `recovery.Teacher` that a repair needs; None: there is no study."""
    texts: Callable[[], Iterator[Step]] | None = None
    """Returns endless unlabelled steps to distil on; None: there is no study."""
    workspace: Path | None = None
    """Folder from which interrupted work resumes; None: it starts over."""
    shared: Mapping[str, Any] = field(default_factory=dict)
    """Axis -> what it made once for all builds of a study, as `Axis.shared`."""


class Runnable(ABC):
    """A model in a runtime.

    Laws, run over every registered runtime by `tests/test_runtimes.py`:

    - it accepts any batch size and length that the torch model accepts, and honours the padding;
    - `Runtime.load` reads what `save` writes, with equal outputs;
    - equal inputs give equal outputs.
    """

    couples_rows: bool = False
    """Whether a row's output depends on the other rows of its batch, as with activations quantised
    by the range of the whole batch."""
    origin: nn.Module | None = None
    """The torch model it was converted from, if `compress` or `load_compressed` returned it."""

    @abstractmethod
    def __call__(self, **inputs: torch.Tensor) -> Any:
        """Inputs by name -> an object with `logits`, or the other outputs of the torch model."""

    @property
    def generator(self) -> Any:
        """The torch module that generates text with a key-value cache; None: not possible."""
        return None

    @property
    @abstractmethod
    def weight_bytes(self) -> int:
        """Bytes of the weights and other constants."""

    @property
    @abstractmethod
    def threads(self) -> int:
        """CPU threads, as reported by the runtime."""

    def peak_bytes(self, inputs: Batch) -> int | None:
        """Peak bytes of one forward on a GPU, without weights and inputs; None if unknown."""
        return None

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the runtime's own files, `Runtime.files`, below `folder`."""


class Runtime(ABC):
    """A library that runs models, and the precisions in which it can."""

    name: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]]
    """The first is the default, the last has the fewest bits."""
    files: ClassVar[tuple[str, ...]] = ()
    """Paths that `save` writes and `load` reads, relative to their folder."""
    rebuilt: ClassVar[bool] = False
    """Whether repeating the conversion is cheap and exact, so that no files are saved."""
    summary: ClassVar[str]
    """One line for the user."""
    source: ClassVar[str]
    """Link to its documentation."""

    generates: ClassVar[bool] = False
    """Whether its runnables generate text with a key-value cache."""
    for_generation: ClassVar[tuple[str, ...]] = ()
    """Precisions that are tried only for language models, unless they are named."""
    one_graph: ClassVar[bool] = False
    """Whether one graph computes prompts and next tokens; for a language model it then supports no
    attention mechanism but `full`."""
    starts_slowly: ClassVar[bool] = False
    """Whether the first output takes half a minute in each process."""
    tells_peak: ClassVar[bool] = False
    """Whether the memory of a process that serves it is measured: `runtimes.sessions` can open what
    it saves."""

    @abstractmethod
    def unavailable(self, precision: str, device: str) -> str:
        """Why this machine cannot run the precision; empty when it can."""

    def slower(self, precision: str, device: str) -> str:
        """Why one with more bits is faster on this machine, so that it is tried only if it is
        named; empty where that is not known."""
        return ""

    def unsuitable(self, precision: str, model: nn.Module) -> str:
        """Why this model cannot be converted; empty when it can."""
        return ""

    def quick(self, precisions: Sequence[str]) -> str:
        """The one of these that a short study tries."""
        return precisions[-1]

    @abstractmethod
    def convert(self, model: nn.Module, precision: str, tools: Tools) -> Runnable:
        """Convert `model`, which is not changed.

        Raises:
            ValueError: the model is unsuitable, or the precision needs calibration data.
            ImportError: a package is not installed; the message names the extra.
            RuntimeError: the runtime uses another number of threads than `tools.threads`.
        """

    def load(self, folder: Path, precision: str, tools: Tools) -> Runnable:
        """Read what `Runnable.save` wrote below `folder`.

        Raises:
            ValueError: the runtime has no files of its own.
            ImportError: a package is not installed; the message names the extra.
        """
        raise ValueError(
            f"runtime {self.name!r} has no files of its own: convert the torch model instead."
        )

    def check(self, precision: str, model: nn.Module) -> None:
        if reason := self.unsuitable(precision, model):
            raise ValueError(f"{self.value(precision)} cannot run this model: {reason}.")

    def value(self, precision: str) -> str:
        """The name of this runtime in this precision, such as `onnxruntime:int8`."""
        return self.name if precision == self.precisions[0] else f"{self.name}:{precision}"


_REGISTRY: Registry[Runtime] = Registry("runtime")
register = _REGISTRY.register


def runtimes() -> tuple[Runtime, ...]:
    """The registered runtimes, torch first."""
    return tuple(_REGISTRY)


def names() -> tuple[str, ...]:
    """Every runtime in every precision, such as `torch` and `onnxruntime:int8`."""
    return tuple(each.value(precision) for each in runtimes() for precision in each.precisions)


def parse(value: str) -> tuple[Runtime, str]:
    """`onnxruntime:int8` -> the runtime and its precision.

    Raises:
        ValueError: unknown runtime or precision; the message lists the known ones.
    """
    name, _, precision = value.partition(":")
    if name in _REGISTRY.names():
        runtime = _REGISTRY[name]
        precision = precision if ":" in value else runtime.precisions[0]
        if precision in runtime.precisions:
            return runtime, precision
    raise ValueError(unknown("runtime", value, names()))


def in_every_precision(name: str) -> tuple[str, ...]:
    """A runtime in each of its precisions.

    Raises:
        ValueError: unknown runtime; the message lists the known ones.
    """
    runtime, _ = parse(name)
    return tuple(runtime.value(precision) for precision in runtime.precisions)


def missing(extra: str, *packages: str) -> str:
    """The missing packages, and how to install them; empty when all are installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed: pip install 'paretoformer[{extra}]'"
    return ""


def optional(module: str, extra: str) -> Any:
    """Import a module of an optional dependency.

    Raises:
        ImportError: it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"{package} is not installed: pip install 'paretoformer[{extra}]'"
        ) from error


def check_threads(runtime: str, used: int, wanted: int) -> None:
    """Raises RuntimeError if a runtime does not use the requested number of threads."""
    if used != wanted:
        raise RuntimeError(f"{runtime} uses {used} threads, but {wanted} were asked for.")
