"""The plan of a study: what would be done with what, once everything was checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paretoformer.evaluators.target import cpu_name
from paretoformer.search.budget import plan
from paretoformer.search.results.run_folder import RunFolder
from paretoformer.search.study.spec import Spec, check_varies, load_spec, read_spec
from paretoformer.search.study.subject import Subject, load_subject
from paretoformer.spaces.axes import axes
from paretoformer.spaces.axis import Axis
from paretoformer.spaces.families import shape_of


def planned(
    study: str | Path,
    out: str | Path | None,
    trials: int | None,
    seed: int | None,
    require: Sequence[str],
    minutes: float | None,
) -> str:
    """What `search` with the same arguments would do, some lines of text. Nothing is measured.

    Raises:
        UserError: as `search`.
    """
    spec = load_spec(study, trials=trials, seed=seed, require=require, minutes=minutes)
    check_varies(spec)
    folder = RunFolder(out if out is not None else Path("runs") / spec.name)
    if folder.exists:
        there = read_spec(folder.study)
        if "objectives" not in spec.model_fields_set:  # whose default has changed
            spec = spec.model_copy(update={"objectives": there.objectives})
        folder.check_study(spec.model_dump(), there.model_dump())
    else:
        folder.check_free()
    subject = load_subject(spec)
    return "\n".join(f"{name:<9} {text}" for name, text in _lines(spec, subject, folder).items())


def _lines(spec: Spec, subject: Subject, folder: RunFolder) -> dict[str, str]:
    model_type = getattr(subject.model.config, "model_type", "unknown")
    layers, heads = shape_of(subject.model.config)
    splits = subject.workload.splits
    target = subject.target
    varied = [axis.name for axis in axes() if spec.setting(axis.name) not in ("off", False)]
    return {
        "model": f"{spec.model.path}: {model_type}, {layers} layers x {heads} heads",
        "data": ", ".join(f"{len(each)} to {_PURPOSE[name]}" for name, each in splits.items()),
        "target": f"{target.device} ({cpu_name()}), {target.threads} threads, batch "
        f"{target.batch_size}, {target.sequence_length} tokens",
        "varied": ", ".join(varied),
        **_choices(spec, target.device),
        "answer": " and ".join(each.text for each in subject.requirements)
        + f"; the front trades {', '.join(metric.name for metric in subject.objectives)}",
        "plan": plan(spec),
        "folder": f"{folder.path}, {'which goes on' if folder.exists else 'new'}",
    }


def _choices(spec: Spec, device: str) -> dict[str, str]:
    """Of each axis that is set by names: those that can be used on this machine."""
    found = {}
    for axis in axes():
        setting = spec.setting(axis.name)
        wanted = [row["name"] for row in axis.catalogue()] if setting == "all" else setting
        if isinstance(wanted, list):
            usable = (name for name in wanted if _is_usable(axis, name, device))
            found[axis.name] = ", ".join(usable)
    return found


def _is_usable(axis: Axis[Any], name: str, device: str) -> bool:
    try:
        axis.check_setting([name], device=device)
    except ValueError:
        return False
    return True


_PURPOSE = {
    "confirm": "confirm",
    "search": "search",
    "train": "rank",
    "steer": "steer",
    "recovery": "repair",
}
