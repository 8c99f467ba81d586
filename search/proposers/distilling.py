"""Distilling: the candidates that a study distils after its search, chosen once and stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna

from paretoformer.evaluators.artifact import workspace
from paretoformer.search.proposers import to_distil
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.study.subject import Subject
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.recovery.distillation import read_progress

PLAN = "distilled"
"""User attribute of the study: the chosen candidates, and the number of trials at that time."""


@dataclass(frozen=True)
class Distilling:
    """The candidates that a study distils.

    They are chosen after the search, and again only after more trials or with other minutes: an
    interrupted distillation is finished, and a finished one is not repeated.
    """

    study: optuna.Study
    subject: Subject
    minutes: float

    def is_left(self, records: Sequence[TrialRecord]) -> bool:
        """Whether any candidate is still to distil."""
        kept = self._kept(records)
        picks = self._chosen(records, slots=1) if kept is None else kept
        return bool(_missing(picks, records))

    def begun(self, records: Sequence[TrialRecord]) -> list[Candidate]:
        """Candidates that an interrupted run may have begun to distil."""
        return _missing(self._kept(records) or [], records)

    def left(self, records: Sequence[TrialRecord], slots: int) -> list[Candidate]:
        """Candidates still to distil, `slots` of them in parallel."""
        picks = self._kept(records)
        if picks is None:
            picks = self._chosen(records, slots)
            texts = [pick.to_json() for pick in picks]
            self.study.set_user_attr(PLAN, {**self._basis(records), "candidates": texts})
        return _missing(picks, records)

    def _chosen(self, records: Sequence[TrialRecord], slots: int) -> list[Candidate]:
        if not self.minutes:
            return []
        quality, others = None, []
        for requirement in self.subject.requirements:
            if quality is None and self.subject.metrics[requirement.metric].role == "quality":
                quality = requirement
            else:
                others.append(requirement)
        if quality is None:
            return []
        return to_distil(records, self.subject.objectives, quality, self.minutes, slots, others)

    def _kept(self, records: Sequence[TrialRecord]) -> list[Candidate] | None:
        """The earlier choice for the same trials and minutes; None if there is none."""
        plan, basis = self.study.user_attrs.get(PLAN, {}), self._basis(records)
        if any(plan.get(name) != value for name, value in basis.items()):
            return None
        return [Candidate.from_json(text) for text in plan["candidates"]]

    def _basis(self, records: Sequence[TrialRecord]) -> dict[str, float]:
        return {"minutes": self.minutes, "trials": sum(record.counts for record in records)}


def _missing(picks: Sequence[Candidate], records: Sequence[TrialRecord]) -> list[Candidate]:
    known = {record.candidate for record in records}
    return [pick for pick in picks if pick not in known]


def progress_of(picks: Sequence[Candidate], models: Path) -> Callable[[], tuple[int, int, str]]:
    """Returns a function: () -> (seconds done, seconds in total, current divergences)."""

    begun: set[Candidate] = set()

    def look() -> tuple[int, int, str]:
        found = {pick: read_progress(workspace(models, pick)) for pick in picks}
        begun.update(pick for pick, progress in found.items() if progress is not None)
        under_way = {pick: progress for pick, progress in found.items() if progress is not None}
        nats = ", ".join(f"{progress['divergence']:.3f}" for progress in under_way.values())
        total = sum(pick.seconds for pick in picks)
        # A finished candidate has left its folder.
        done = sum(
            under_way[pick]["seconds"] if pick in under_way else pick.seconds for pick in begun
        )
        return round(done), round(total) if under_way else 0, f"{nats} nats"

    return look
