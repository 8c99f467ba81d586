"""Axis `recovery`: how the damage of a cut is repaired."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paretoformer.spaces.axes.axis import Axis, Built, Stage, Values, axes, needs_study, register
from paretoformer.spaces.axes.domain import Domain, Fixed
from paretoformer.spaces.axes.evidence import Context, Facts, Json, Shape

if TYPE_CHECKING:
    from paretoformer.spaces.runtimes import Tools

NONE = "none"
LEAST_SQUARES = "least_squares"
DISTILLED = "distilled"
_DISTILLED = re.compile(rf"{DISTILLED}:([0-9]+(?:\.[0-9]+)?)")
WEIGHTS = "recovered.safetensors"


@dataclass(frozen=True, kw_only=True)
class RecoveryFacts(Facts):
    """method: the recovery of every candidate that the search changes."""

    method: str = NONE


class Recovery(Axis[str]):
    """How the damage of a cut is repaired, from texts without labels.

    none; least_squares: projections after a cut are solved again; distilled:2.5: the model is then
    also trained for two and a half minutes to match the dense one.
    """

    name = "recovery"
    stage = Stage.RECOVERY
    order = 10
    facts = RecoveryFacts
    is_plain = True  # it changes weights only
    setting = bool
    setting_key = ("recovery", "least_squares")
    setting_default = True
    setting_help = "Repair the projections behind a cut, from unlabelled training texts."

    def default(self, shape: Shape) -> str:
        return NONE

    def check(self, value: str, shape: Shape) -> str:
        if value not in (NONE, LEAST_SQUARES) and not minutes_of(value):
            raise ValueError(
                f"recovery is {NONE}, {LEAST_SQUARES}, or {DISTILLED}:MINUTES, but got {value!r}."
            )
        return value

    def canonical(self, value: str, others: Values) -> str:
        """Without a cut or another mechanism there is nothing to repair."""
        shape = Shape(others["heads"].layers, others["heads"].heads)
        cut = any(
            axis.canonical(others[axis.name], others) != axis.default(shape)
            for axis in axes()
            if axis.stage is Stage.STRUCTURE
        )
        minutes = minutes_of(value)
        return NONE if not cut else distilled(minutes) if minutes else value

    def survey(self, setting: Any, context: Context) -> RecoveryFacts:
        return RecoveryFacts(method=LEAST_SQUARES if setting else NONE)

    def domain(self, setting: Any, facts: RecoveryFacts, shape: Shape) -> Domain[str]:
        return Fixed(facts.method)

    def apply(self, built: Built, value: str, tools: Tools) -> Built:
        from paretoformer.spaces.models.families import layers_of
        from paretoformer.spaces.recovery import Distillation, repair

        if value == NONE:
            return built
        if tools.teacher is None:
            raise needs_study("was repaired on", "recovery='none'")
        kept = built.kept or tuple(range(len(layers_of(built.model))))
        teacher = tools.teacher()
        minutes = minutes_of(value)
        before = teacher.held.divergence(built.model.eval()) if minutes else 0.0
        weights, report = repair(built.model, kept, teacher, built.cut)
        if minutes:
            if tools.texts is None:
                raise ValueError("distillation needs a study's texts.")
            trained, after = Distillation(
                built.model, kept, teacher, tools.texts(), minutes, tools.workspace
            ).run()
            weights |= trained
            report = replace(after, before=before, seconds=report.seconds + after.seconds)
        return replace(built, recovered=tuple(weights), report=report)

    def save(self, built: Built, value: str, folder: Path) -> None:
        from safetensors.torch import save_file

        if value == NONE or built.report is None:
            return
        built.report.write(folder)
        parameters = dict(built.model.named_parameters())
        found = {name: parameters[name].detach().contiguous() for name in built.recovered}
        save_file(found, str(folder / WEIGHTS))

    def restore(self, built: Built, value: str, folder: Path, tools: Tools) -> Built:
        from safetensors.torch import load_file

        from paretoformer.spaces.recovery.least_squares import put
        from paretoformer.spaces.recovery.repair_report import Recovered

        if value == NONE:
            return built
        device = next(built.model.parameters()).device
        weights = load_file(str(folder / WEIGHTS), device=str(device))
        put(built.model, weights)
        return replace(built, recovered=tuple(weights), report=Recovered.read(folder))

    def seconds(self, value: str) -> float:
        return 60 * minutes_of(value)

    def with_minutes(self, value: str, minutes: float) -> str:
        return value if value == NONE else distilled(minutes)

    def is_free(self, value: str) -> bool:
        return value == NONE

    def is_fixed(self, setting: Any) -> bool:
        """Either every candidate with a cut is repaired, or none."""
        return True

    def cell(self, value: str) -> str:
        if minutes := minutes_of(value):
            return f"{DISTILLED} {minutes:g} min"
        return value.replace("_", " ")

    def phrase(self, value: str) -> str:
        if minutes := minutes_of(value):
            return f"distilled for {minutes:g} minutes"
        return "not repaired" if value == NONE else f"repaired by {self.cell(value)}"

    def build_note(self, value: str, folder: Path) -> str:
        from paretoformer.spaces.recovery.repair_report import Recovered

        found = None if value == NONE else Recovered.read(folder)
        if found is None:
            return ""
        if not found.strength:
            return f"no repair was better than none: {found.before:.3f} nats from dense"
        by_labels = ", also by labels" if found.by_labels else ""
        return (
            f"{self.cell(value)}{by_labels}: from {found.before:.3f} to {found.after:.3f} nats "
            f"from dense, in {found.seconds:.0f} s"
        )

    def catalogue(self) -> list[dict[str, Json]]:
        rows = {
            LEAST_SQUARES: "projections behind a cut solved again; seconds a candidate",
            f"{DISTILLED}:MINUTES": "trained to do as dense does; [recovery] distill_minutes",
        }
        sources = ("2204.09656, section 4.3", "1503.02531, 2204.00408")
        return [
            {"name": name, "summary": summary, "here": "yes", "source": f"arXiv:{source}"}
            for (name, summary), source in zip(rows.items(), sources, strict=True)
        ]

    def techniques(self, value: str) -> Sequence[str]:
        return ["distillation" if minutes_of(value) else "least squares"]


def minutes_of(value: str) -> float:
    """Minutes of distillation; 0 for other values."""
    found = _DISTILLED.fullmatch(value) if isinstance(value, str) else None
    return float(found.group(1)) if found else 0.0


def distilled(minutes: float) -> str:
    return f"{DISTILLED}:{minutes:g}"


register(Recovery())
