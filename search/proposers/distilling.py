"""Distilling: the candidates that a study distils after its search, chosen in stored rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import optuna

from paretoformer.evaluators.artifact import workspace
from paretoformer.search.proposers.distilled import LEFT, LEFT_BY_LABELS, to_distil
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.study.subject import Subject
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.recovery.checkpoint import read_progress

PLAN = "distilled"
"""User attribute of the study: the rounds chosen so far, and what they were chosen for."""


@dataclass(frozen=True)
class Distilling:
    """The candidates that a study distils, chosen in rounds of equal minutes.

    A later round knows what an earlier one achieved. The rounds begin after the search, and again
    only for more trials or other minutes: an interrupted distillation is finished, and a finished
    one is not repeated.

    minutes: for all `rounds`. trials: the number that the study wants.
    """

    study: optuna.Study
    subject: Subject
    minutes: float
    rounds: int
    trials: int

    def is_left(self, records: Sequence[TrialRecord]) -> bool:
        """Whether any candidate is still to distil."""
        return bool(self.begun(records) or self._next(records, slots=1))

    def begun(self, records: Sequence[TrialRecord]) -> list[Candidate]:
        """Candidates that an interrupted run may have begun to distil."""
        known = {record.candidate for record in records}
        chosen = chain.from_iterable(self._rounds(records))
        return [candidate for candidate in chosen if candidate not in known]

    def left(self, records: Sequence[TrialRecord], slots: int) -> list[Candidate]:
        """Candidates of this round still to distil, in parallel; else those of the next round."""
        if begun := self.begun(records):
            return begun
        rounds, picks = self._rounds(records), self._next(records, slots)
        left = self.rounds - len(rounds)
        if left > 0:  # where nothing is to gain, the rounds that are left are over
            texts = [[c.to_json() for c in chosen] for chosen in (*rounds, picks)]
            texts += [] if picks else [[]] * (left - 1)
            self.study.set_user_attr(PLAN, {**self._basis, "rounds": texts})
        return picks

    def _next(self, records: Sequence[TrialRecord], slots: int) -> list[Candidate]:
        if len(self._rounds(records)) >= self.rounds:
            return []
        quality, others = None, []
        for requirement in self.subject.requirements:
            if quality is None and self.subject.metrics[requirement.metric].role == "quality":
                quality = requirement
            else:
                others.append(requirement)
        if quality is None:
            return []
        share = self.minutes / self.rounds
        share = int(4 * share) / 4 if share >= 1 else share
        left = LEFT_BY_LABELS if self.subject.learns_new_labels else LEFT
        return to_distil(records, self.subject.objectives, quality, share, slots, others, left)

    def _rounds(self, records: Sequence[TrialRecord]) -> list[list[Candidate]]:
        """The rounds chosen so far for the same trials and minutes."""
        plan = self.study.user_attrs.get(PLAN, {})
        if "candidates" in plan:  # older versions chose all at once, for the trials so far
            counted = sum(record.counts for record in records)
            same = {**self._basis, "rounds": [plan["candidates"], [], []]}
            plan = same if plan["trials"] == counted else {}
        if any(plan.get(name) != value for name, value in self._basis.items()):
            return []
        rounds = plan["rounds"]
        return [[Candidate.from_json(text) for text in texts] for texts in rounds]

    @property
    def _basis(self) -> dict[str, float]:
        return {"minutes": self.minutes, "trials": self.trials}


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
