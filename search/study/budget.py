"""The budget of a study with minutes instead of trials: its shares, and the time left."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import optuna

from paretoformer.evaluators.metrics import Metric, metric_of
from paretoformer.search.records.requirement import Requirement
from paretoformer.search.study.spec import Spec

PREPARATION = 0.25
"""Share of the minutes after which preparation stops."""
DISTILLATION = 0.4
"""Largest share of the minutes that distillation may take."""
CONFIRMATION, IN_SHORT = 0.15, 0.2
"""Shares of the minutes reserved for the confirmation; `IN_SHORT` in a short study."""
SLOW = 0.05
"""Further share for each slow metric that a study asks for."""
TIMING = 1 / 450
"""Largest share of the minutes that one timing of the search may take."""
CONFIRMED = 28
"""Timings that the time for the confirmation should be enough for."""
WAITING = 0.1
"""Largest share of the minutes that one timing may wait for a quiet machine."""
SEARCHED = 3.5
"""Minutes of which distillation gets none by default; of the others it gets half."""
KEPT, KEPT_BY_LABELS = 3.0, 2.0
"""Minutes that preparation and search keep, whatever distillation a study asks for; fewer where it
learns from new labels."""
LEAST_BY_LABELS = 1.25
"""Minutes of distillation by default where it learns from new labels, if there is room."""
USEFUL = 1.0
"""Minutes of distillation below which a study that asks for more gets none."""
ENOUGH = 6
"""Compressed candidates that distillation chooses among: while there are fewer, the search goes on
in its minutes."""
ROUND = 0.4
"""Minutes to repair, convert, score and time the candidates of one round of distillation; more in a
search whose candidates took longer."""
SHORT = 10.0
"""Minutes below which a study saves time on everything but trials, and trains nothing by default:
in two minutes, an embedder is hardly brought back to its requirement. New labels teach within
`USEFUL`: 5 of 6 layers on 77 intents came from 0.864 to 0.899, where the dense model has 0.886."""
SPENT = "spent_seconds"
"""User attribute of the study: seconds spent by its earlier runs."""
DISTILLED = "distill_minutes"
"""User attribute of the study: minutes left to train when that began, and minutes of the study."""
PHASES = "phase_seconds"
"""User attribute of the study: phase -> seconds spent in it by all runs."""


@dataclass
class Budget:
    """The minutes of one study over all its runs; no limit if it has trials instead.

    study: stores the time spent. begun: start of this run, by `time.monotonic`.
    by_labels: whether distillation learns from labels that are new to the dense model.
    """

    spec: Spec
    study: optuna.Study
    begun: float
    by_labels: bool = False
    is_distilled: bool = field(default=False, init=False)
    """Whether distillation is done, so that the search may have the rest of its minutes."""
    pace: float = field(default=0.0, init=False)
    """Seconds per trial so far; 0 before the first one."""
    _before: float = field(init=False)

    def __post_init__(self) -> None:
        self._before = float(self.study.user_attrs.get(SPENT, 0.0))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of this block to a phase."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.took(name, time.monotonic() - begun)

    def took(self, phase: str, seconds: float) -> None:
        before = self.phases.get(phase, 0.0)
        self.study.set_user_attr(PHASES, {**self.phases, phase: before + seconds})

    @property
    def phases(self) -> Mapping[str, float]:
        """Phase -> seconds, in the order of the phases."""
        found: Mapping[str, float] = self.study.user_attrs.get(PHASES, {})
        return found

    @property
    def account(self) -> str:
        """Where the time went: `12 s to start, 95 s to prepare, 240 s to search`."""
        return ", ".join(f"{seconds:.0f} s to {phase}" for phase, seconds in self.phases.items())

    @property
    def minutes(self) -> float:
        return math.inf if self.spec.search.minutes is None else self.spec.search.minutes

    @property
    def planned_minutes(self) -> float:
        """The minutes to train, as `distill_minutes`."""
        return distill_minutes(self.spec, self.by_labels)

    @property
    def distill_minutes(self) -> float:
        """Those planned; fewer if the search took some of them."""
        found, planned = self.study.user_attrs.get(DISTILLED, {}), self.planned_minutes
        return min(planned, found["left"]) if found.get("of") == self.minutes else planned

    def begin_distilling(self) -> None:
        """Limit training to the minutes that are left, in quarters; decided once for a study's
        minutes, also where the training is interrupted."""
        planned = self.distill_minutes
        decided = self.study.user_attrs.get(DISTILLED, {}).get("of") == self.minutes
        if decided or not planned or not math.isfinite(self.minutes):
            return
        left = self.minutes * (1 - confirmation(self.spec)) - self.spent / 60
        pair = 2 * self.pace / 60  # minutes to measure two candidates at the search's pace
        left -= max(ROUND, pair) * self.rounds(min(planned, left))
        left = planned if left >= planned else math.floor(4 * left) / 4
        left = left if left >= min(planned, USEFUL) else 0.0
        self.study.set_user_attr(DISTILLED, {"of": self.minutes, "left": left})

    def rounds(self, minutes: float) -> int:
        return distilling_rounds(minutes, self.by_labels)

    @property
    def spent(self) -> float:
        """Seconds spent so far."""
        return self._before + time.monotonic() - self.begun

    @property
    def search_seconds(self) -> float:
        """The end of the search, in seconds since the study began."""
        searched = self.minutes * (1 - confirmation(self.spec))
        distilled = distillation_phase(self.spec, self.by_labels)
        return 60 * (searched if self.is_distilled else searched - distilled)

    def is_preparation_over(self, share: float = 1.0) -> bool:
        """Whether this share of the time for preparation is spent."""
        return self.spent >= 60 * self.minutes * PREPARATION * share

    @property
    def is_searched(self) -> bool:
        return self.spent >= self.search_seconds

    def has_time_for(
        self, begun: float, done: int, under_way: int, compressed: int = ENOUGH
    ) -> bool:
        """Whether one more trial would finish in time, at the pace so far: that of an earlier part
        of the search until a trial of this one is done.

        begun: seconds spent when the first trial began. compressed: candidates of that kind so far.
        """
        if done:
            self.pace = (self.spent - begun) / done
        end = self.search_seconds
        if compressed < ENOUGH:
            end = max(end, 60 * (self.minutes * (1 - confirmation(self.spec)) - USEFUL - ROUND))
        return self.spent + self.pace * (under_way + 1) < end

    @property
    def is_over(self) -> bool:
        return self.spent >= 60 * self.minutes

    def keep(self) -> None:
        if math.isfinite(self.minutes):
            self.study.set_user_attr(SPENT, self.spent)


def confirmation(spec: Spec) -> float:
    """Share of the minutes reserved for the confirmation."""
    return _usual_confirmation(spec) + SLOW * sum(metric.slow for metric in _asked(spec))


def _usual_confirmation(spec: Spec) -> float:
    return IN_SHORT if is_short(spec) else CONFIRMATION


def _asked(spec: Spec) -> list[Metric]:
    """The metrics that a study's objectives and requirements name."""
    required = (Requirement.parse(text).metric for text in spec.search.require)
    return [metric_of(name) for name in {*spec.objectives, *required}]


def is_short(spec: Spec) -> bool:
    return spec.search.minutes is not None and spec.search.minutes < SHORT


def timing_seconds(spec: Spec) -> tuple[float, float]:
    """Seconds of a timing in the search and in the confirmation, limited by the minutes, which all
    that a study times shares."""
    timing, minutes = spec.timing, spec.search.minutes or math.inf
    minutes /= 1 + sum(metric.slow and metric.exclusive for metric in _asked(spec))
    shares = 60 * minutes * TIMING, 60 * minutes * _usual_confirmation(spec) / CONFIRMED
    return min(timing.search_seconds, shares[0]), min(timing.confirm_seconds, shares[1])


def patience_seconds(spec: Spec) -> float:
    """How long a timing may wait for a quiet machine, limited to a share of the minutes."""
    minutes = spec.timing.patience_minutes
    if spec.search.minutes is not None:
        minutes = min(minutes, WAITING * spec.search.minutes)
    return 60 * minutes


def distill_minutes(spec: Spec, by_labels: bool = False) -> float:
    """The minutes to train: the study's, or a share of its minutes; limited by that share, and by
    what preparation and search need.

    by_labels: whether distillation learns from labels that are new to the dense model.
    """
    wanted, limit = spec.recovery.distill_minutes, spec.search.minutes
    if limit is None:
        return float(wanted or 0.0)
    kept = KEPT_BY_LABELS if by_labels else KEPT
    if wanted is None:
        wanted = (limit - SEARCHED) / 2 if by_labels or limit >= SHORT else 0.0
        wanted = max(wanted, LEAST_BY_LABELS) if by_labels else wanted
    room = limit * (1 - confirmation(spec)) - kept - ROUND
    least = USEFUL if spec.recovery.distill_minutes is None else min(wanted, USEFUL)
    return float(min(wanted, DISTILLATION * limit, room)) if min(wanted, room) >= least else 0.0


def distillation_phase(spec: Spec, by_labels: bool = False) -> float:
    """Minutes of the phase that trains, with the measurements of what it trained."""
    minutes = distill_minutes(spec, by_labels)
    return minutes + ROUND * distilling_rounds(minutes, by_labels)


def distilling_rounds(minutes: float, by_labels: bool = False) -> int:
    """Rounds in which candidates are chosen and trained; later ones know the earlier results.
    Two short rounds of five minutes came to 1.46x the best alternative on 77 intents, one to 1.66x
    (one run of each); all-mpnet-base-v2 without four layers was still improving after five minutes,
    and 0.001 below the requirement. Labels teach most of what they teach within three minutes."""
    return 0 if not minutes else 1 + (minutes >= (5 if by_labels else 16))


def plan(spec: Spec, by_labels: bool = False) -> str:
    """The plan for a study's time, in one line."""
    wanted, training = spec.recovery.distill_minutes, distill_minutes(spec, by_labels)
    limit = spec.search.minutes
    if limit is None:
        then = f", then {training:g} minutes of distillation" if training else ""
        return f"{spec.trials} trials{then}, then the confirmation of the front."
    searched = limit * (1 - confirmation(spec)) - distillation_phase(spec, by_labels)
    parts = [f"{searched:.1f} to prepare and to search"]
    if training:
        parts.append(f"{distillation_phase(spec, by_labels):.1f} to distil")
    parts.append(f"{limit * confirmation(spec):.1f} to confirm")
    less = (
        f" There is no time for all {wanted:g} minutes of distillation."
        if wanted is not None and training < wanted
        else ""
    )
    return f"{limit:g} minutes: {', '.join(parts)}.{less}"
