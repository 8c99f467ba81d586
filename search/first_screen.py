"""The plan of a study, printed by a dry run and at the start of a search."""

from __future__ import annotations

import math

from paretoformer.evaluators.common.target import cpu_name, describe_cpu
from paretoformer.evaluators.data.examples import OTHER
from paretoformer.search.opening import is_checked, settled
from paretoformer.search.planning.survey import asks_for_size, slowness_of
from paretoformer.search.records.parquet import read_table
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.study.budget import plan
from paretoformer.search.study.estimate import estimate
from paretoformer.search.study.spec import Spec, check_varies
from paretoformer.search.study.subject import Subject, load_subject, try_dense
from paretoformer.spaces.axes import axes
from paretoformer.spaces.axes.evidence import Circumstances
from paretoformer.spaces.common.instructions import instructions
from paretoformer.spaces.models.families import shape_of


def planned(spec: Spec, folder: RunFolder) -> str:
    """Describe what a search of this study into this folder would do.

    Measures only a few forwards of the dense model.

    Raises:
        UserError: as `search`.
    """
    check_varies(spec)
    spec = settled(spec, folder)
    subject = load_subject(spec)
    if not is_checked(spec, folder):
        subject = try_dense(subject, spec)
    lines = [f"{name:<9} {text}" for name, text in _lines(spec, subject, folder).items()]
    return "\n".join((*lines, *(remark.text for remark in subject.remarks)))


def first_screen(spec: Spec, subject: Subject, folder: RunFolder) -> dict[str, str]:
    """The plan of the run, its estimated time and its folder: five lines, by name.

    Times a few forwards of the dense model.
    """
    return {**_facts(spec, subject), "time": f"{_time(spec, subject, folder)}; into {folder.path}"}


def _time(spec: Spec, subject: Subject, folder: RunFolder) -> str:
    if spec.search.minutes is not None:
        return plan(spec, subject.learns_new_labels).rstrip(".")
    if spec.target.resource:  # another machine, not asked yet
        return f"{spec.trials} trials on {spec.target.resource!r}"
    done = read_table(folder.trials)[0].num_rows if folder.trials.exists() else 0
    return estimate(spec, subject, done, is_prepared=folder.evidence.exists()).text


def _facts(spec: Spec, subject: Subject) -> dict[str, str]:
    model_type = getattr(subject.model.config, "model_type", "unknown")
    layers, heads = shape_of(subject.model.config)
    splits, target = subject.workload.splits, subject.target
    study = _circumstances(spec, subject)
    varied = [axis.name for axis in axes() if axis.is_varied(spec.setting(axis.name), study)]
    here = describe_cpu({"cpu": cpu_name(), "instructions": instructions()})
    return {
        "model": f"{spec.model.path}: {model_type}, {layers} layers x {heads} heads",
        "data": ", ".join(f"{len(split)} to {_PURPOSE[name]}" for name, split in splits.items()),
        "target": f"{target.device} ({here}), {target.threads} threads, batch "
        f"{target.batch_size}, {subject.task.shown(subject.lengths)}",
        "varied": ", ".join(varied),
    }


def _lines(spec: Spec, subject: Subject, folder: RunFolder) -> dict[str, str]:
    return {
        **_facts(spec, subject),
        **_choices(spec, subject),
        "answer": " and ".join(requirement.text for requirement in subject.requirements)
        + f"; the front trades {', '.join(metric.name for metric in subject.objectives)}",
        "plan": plan(spec, subject.learns_new_labels),
        "time": _time(spec, subject, folder),
        "folder": f"{folder.path}, {'which goes on' if folder.exists else 'new'}",
    }


def _circumstances(spec: Spec, subject: Subject) -> Circumstances:
    return Circumstances(
        device=subject.target.device,
        dtype=subject.target.dtype,
        minutes=math.inf if spec.search.minutes is None else spec.search.minutes,
        slowness=slowness_of(subject),
        generates=subject.task.generates,
        sized=asks_for_size(subject),
    )


def _choices(spec: Spec, subject: Subject) -> dict[str, str]:
    """Axis -> its named choices that can be used here and fit into the minutes."""
    found, study = {}, _circumstances(spec, subject)
    for axis in axes():
        if names := axis.choices(spec.setting(axis.name), study):
            found[axis.name] = ", ".join(names)
    return found


_PURPOSE = {
    "confirm": "confirm",
    "search": "search",
    "train": "rank",
    "steer": "steer",
    "recovery": "repair",
    OTHER: "confirm elsewhere",
}
