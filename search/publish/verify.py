"""Verify: measure an exported model again on this machine, and compare with its card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from paretoformer.evaluators.common.measurement import Measurements
from paretoformer.evaluators.common.progress import Progress, silent
from paretoformer.evaluators.common.target import physical_cores
from paretoformer.evaluators.metrics import Bench
from paretoformer.evaluators.timing.protocol import TimingProtocol
from paretoformer.evaluators.timing.threads import set_threads
from paretoformer.search.publish.export import MEASURED
from paretoformer.search.records.errors import UserError
from paretoformer.search.records.facts import compared_timing
from paretoformer.search.study.spec import Spec, stored_spec
from paretoformer.search.study.subject import Subject, load_subject
from paretoformer.spaces.common.malformed import json_object
from paretoformer.spaces.persist import load_compressed, torch_model_of
from paretoformer.spaces.runtimes import Runnable
from paretoformer.spaces.runtimes.torch_runtime import TorchRunnable


@dataclass(frozen=True)
class Verified:
    """measured: from the folder, as `export` wrote it. dense, here: measured in this process.

    here: only the metrics that could be measured again.
    """

    measured: dict[str, Any]
    dense: Measurements
    here: Measurements

    @property
    def speedup(self) -> float:
        names = self.measured["study"]["objectives"]
        timing = compared_timing({n: self.dense[n].unit for n in names if n in self.dense})
        return self.dense[timing].value / self.here[timing].value


def verify(directory: Path, progress: Progress = silent) -> Verified:
    """Score and time the model in `directory` again, on its study's confirmation examples.

    Raises:
        UserError: the folder is not an export, or the study's model or data are missing.
    """
    facts = read_measured(directory)
    spec = stored_spec(facts["study"], str(directory / MEASURED))
    # Before loading: a runtime takes its thread count from torch when it is opened.
    spec = _within(spec, physical_cores())
    set_threads(spec.target.threads or 1)
    try:
        model = load_compressed(directory)
    except (ValueError, FileNotFoundError, ImportError) as error:
        raise UserError(str(error)) from None
    subject = load_subject(spec, progress)
    if facts["model_digest"] and facts["model_digest"] != subject.model_digest:
        raise UserError(f"{spec.model.path} is not the model that {directory} was made from.")
    model = _placed(model, subject)
    steps = ("the uncompressed model", "the compressed model")
    found: list[Measurements] = []
    for done, what in enumerate(steps):
        progress(f"Measuring {what}", 0, 1)
        found.append(_measured(subject, spec, model if done else None, found[0] if done else None))
        progress(f"Measuring {what}", 1, 1)
    return Verified(facts, *found)


class _Metric(BaseModel):
    model_config = ConfigDict(strict=True)

    value: float
    low: float
    high: float
    unit: str


class _Measured(BaseModel):
    """The keys of `measured.json` that are read."""

    speedup: list[float] = Field(min_length=3, max_length=3)
    study: dict[str, Any]
    model_digest: str
    metrics: dict[str, _Metric]


def read_measured(directory: Path) -> dict[str, Any]:
    """The file that `export` wrote about the model in a folder.

    Raises:
        UserError: the folder is not an export, or the file is damaged.
    """
    try:
        facts = json_object((directory / MEASURED).read_bytes())
        _Measured.model_validate(facts)
    except (OSError, ValueError):
        raise UserError(f"{directory} is no export: it has no readable {MEASURED}.") from None
    return facts


def _within(spec: Spec, cores: int) -> Spec:
    """The study, with at most as many threads as this machine has cores."""
    threads = min(spec.target.threads or cores, cores)
    return spec.model_copy(update={"target": spec.target.model_copy(update={"threads": threads})})


def _measured(
    subject: Subject, spec: Spec, model: Any, reference: Measurements | None
) -> Measurements:
    """Measurements of the exported model; without `model`, of the dense one."""
    dense = subject.model.to(subject.target.device, subject.target.torch_dtype)
    runnable = TorchRunnable(dense) if model is None else _runnable(model)
    bench = Bench(
        runnable=runnable,
        model=dense if model is None else torch_model_of(model),
        dense=dense,
        reference=reference,
        task=subject.task,
        split=subject.workload.splits["confirm"],
        workload=subject.workload,
        target=subject.target,
        protocol=TimingProtocol(spec.timing.width, spec.timing.confirm_seconds),
    )
    found = {name: subject.metrics[name].measure(bench) for name in subject.confirmed}
    return {name: measured for name, measured in found.items() if measured is not None}


def _runnable(model: Any) -> Runnable:
    return model if isinstance(model, Runnable) else TorchRunnable(model)


def _placed(model: Any, subject: Subject) -> Any:
    """On the study's device, if torch serves it."""
    return model.to(subject.target.device) if isinstance(model, nn.Module) else model
