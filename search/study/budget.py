"""The budget of a study with minutes instead of trials: its shares, and the time left."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import optuna

from paretoformer.search.study.spec import Spec

CONFIRMATION = 0.3
"""Share of the minutes reserved for the confirmation."""
DISTILLATION = 0.3
"""Largest share of the minutes that distillation may take."""
WAITING = 0.1
"""Largest share of the minutes that one timing may wait for a quiet machine."""
SEARCHED = 10.0
"""Minutes that distillation leaves for the rest: a search that is too short finds nothing worth
distilling."""
PREPARATION = 0.5
"""Share of the search time after which measuring the block table stops."""
SHORT = 10.0
"""Minutes below which a study saves time on everything but trials."""
SPENT = "spent_seconds"
"""User attribute of the study: seconds spent by its earlier runs."""


@dataclass
class Budget:
    """The minutes of one study over all its runs; no limit if it has trials instead.

    study: stores the time spent. begun: start of this run, by `time.monotonic`.
    """

    spec: Spec
    study: optuna.Study
    begun: float
    _before: float = field(init=False)

    def __post_init__(self) -> None:
        self._before = float(self.study.user_attrs.get(SPENT, 0.0))

    @property
    def minutes(self) -> float:
        return math.inf if self.spec.search.minutes is None else self.spec.search.minutes

    @property
    def distill_minutes(self) -> float:
        """The requested minutes, limited to their share."""
        return distill_minutes(self.spec)

    @property
    def spent(self) -> float:
        """Seconds spent so far."""
        return self._before + time.monotonic() - self.begun

    @property
    def search_seconds(self) -> float:
        """The end of the search, in seconds since the study began."""
        return 60 * (self.minutes * (1 - CONFIRMATION) - self.distill_minutes)

    @property
    def is_preparation_over(self) -> bool:
        return self.spent >= PREPARATION * self.search_seconds

    @property
    def is_searched(self) -> bool:
        return self.spent >= self.search_seconds

    def has_time_for(self, begun: float, done: int, under_way: int) -> bool:
        """Whether one more trial would finish in time, at the pace so far.

        begun: seconds spent when the first trial began.
        """
        pace = (self.spent - begun) / done if done else 0.0
        return self.spent + pace * (under_way + 1) < self.search_seconds

    @property
    def is_over(self) -> bool:
        return self.spent >= 60 * self.minutes

    def keep(self) -> None:
        if math.isfinite(self.minutes):
            self.study.set_user_attr(SPENT, self.spent)


def is_short(spec: Spec) -> bool:
    return spec.search.minutes is not None and spec.search.minutes < SHORT


def patience_seconds(spec: Spec) -> float:
    """How long a timing may wait for a quiet machine, limited to a share of the minutes."""
    minutes = spec.timing.patience_minutes
    if spec.search.minutes is not None:
        minutes = min(minutes, WAITING * spec.search.minutes)
    return 60 * minutes


def distill_minutes(spec: Spec) -> float:
    """The requested minutes of distillation, limited by the budget."""
    wanted = float(spec.recovery.distill_minutes)
    limit = spec.search.minutes
    if limit is None:
        return wanted
    return min(wanted, DISTILLATION * limit, max(0.0, limit - SEARCHED))


def plan(spec: Spec) -> str:
    """The plan for a study's time, in one line."""
    distilling = distill_minutes(spec)
    limit = spec.search.minutes
    if limit is None:
        then = f", then {distilling:g} minutes of distillation" if distilling else ""
        return f"{spec.trials} trials{then}, then the confirmation of the front."
    parts = [f"{limit * (1 - CONFIRMATION) - distilling:.1f} to prepare and to search"]
    if distilling:
        parts.append(f"{distilling:.1f} to distil")
    parts.append(f"{limit * CONFIRMATION:.1f} to confirm")
    wanted = float(spec.recovery.distill_minutes)
    less = (
        f" There is no time for all {wanted:g} minutes of distillation."
        if distilling < wanted
        else ""
    )
    return f"{limit:g} minutes: {', '.join(parts)}.{less}"
