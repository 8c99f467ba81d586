"""Confirmation: measures the search's front again, on unseen data and in fresh processes.

The best of many noisy numbers are too good (the winner's curse), so only the second measurement is
published.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import optuna

from paretoformer.evaluators.common.measurement import Measurements
from paretoformer.evaluators.common.progress import Progress, silent
from paretoformer.evaluators.outcome import Phase
from paretoformer.evaluators.timing.intervals import SLOWER
from paretoformer.search.dispatch.pipeline import Pipeline
from paretoformer.search.records.errors import StudyFailed
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.records.scores import Scores

WHAT = "Confirming the front"
FEW = 2
"""Confirmations under way at once if time may run out."""
ALWAYS = 3
"""Confirmed however late it is, apart from dense: the answer, its alternative, and one more. The
time of as many is kept to repeat timings of a slow machine."""
CONFIRMED = "confirmed:"
"""Prefix of user attributes of the study; with a candidate's id, the key of its confirmation. Older
versions stored the scores of single examples there, too."""


def confirmed_ids(study: optuna.Study) -> list[str]:
    return [key.removeprefix(CONFIRMED) for key in study.user_attrs if key.startswith(CONFIRMED)]


def confirmations(study: optuna.Study) -> dict[str, TrialRecord]:
    """Candidate id -> its confirmation so far."""
    texts = study.user_attrs
    return {key: TrialRecord.from_json(texts[CONFIRMED + key]) for key in confirmed_ids(study)}


def confirm(
    study: optuna.Study,
    records: Sequence[TrialRecord],
    pipeline: Callable[[], Pipeline],
    seed: int | None,
    progress: Progress = silent,
    left: Callable[[], float] = lambda: math.inf,
    scores: Scores | None = None,
) -> dict[str, TrialRecord]:
    """Measure these records' candidates again: the dense model first, the others in random order.

    Confirmations of an earlier run are kept, but timings during which other work ran are repeated,
    even if time is over. Timings while the machine was slower than during others are repeated once,
    the first of these records first, while there is time: a neighbour on the host slows compiled
    kernels more than the dense model, so that points timed at different paces do not compare.

    pipeline: makes one on fresh workers and the split `confirm`; called only if work is left.
    seed: of the order; None: in the given order and a few at a time, since time may run out.
    progress: called with the number done. left: seconds left; without any, at most `ALWAYS` begin.
    scores: where scores of single examples are kept; None: with the records.

    Returns candidate id -> its confirmation.

    Raises:
        StudyFailed: the dense model could not be measured.
    """
    confirmed = confirmations(study)
    dense, *others = records
    if seed is not None:
        others = [others[i] for i in np.random.default_rng(seed).permutation(len(others))]
    settled = {key for key, record in confirmed.items() if not record.disturbed}
    missing = [record for record in (dense, *others) if record.candidate.id not in settled]
    progress(WHAT, len(records) - len(missing), len(records))
    if not missing:
        return confirmed
    lane = pipeline()
    by_trial = {record.trial: record for record in missing}

    def collect() -> None:
        for trial, result in lane.finished():
            again = TrialRecord(trial, by_trial[trial].candidate, result)
            again = _together(confirmed.get(again.candidate.id), again)
            if again.candidate.is_dense and not again.ok:
                raise StudyFailed(f"the uncompressed model cannot be confirmed: {result.message}.")
            confirmed[again.candidate.id] = again
            settled.add(again.candidate.id)
            kept = again
            if scores is not None:
                kept = scores.take(again, "confirm")
                scores.keep()
            study.set_user_attr(CONFIRMED + again.candidate.id, kept.to_json())
            progress(WHAT, sum(r.candidate.id in settled for r in records), len(records))

    def begin(record: TrialRecord, reference: Measurements | None) -> None:
        known = (Phase.SHARED,) if record.candidate.id in confirmed else ()
        lane.start(record.trial, record.candidate, reference, known)

    reference: Measurements | None = None
    if missing[0] is dense:
        begin(dense, None)
        while len(lane):
            collect()
    reference = confirmed[dense.candidate.id].measurements
    most = FEW if seed is None else lane.capacity  # few, so that finished ones are stored
    order = [record for record in missing if record is not dense]
    fresh = deque(order)
    repeated: set[str] = set()
    start, before = time.monotonic(), len(settled)

    def following() -> TrialRecord | None:
        """The next record to begin."""
        waiting = {*repeated, *(record.candidate.id for record in fresh)}
        slow = [r for r in _slow(order, confirmed) if r.candidate.id not in waiting]
        each = (time.monotonic() - start) / max(1, len(settled) - before + len(repeated))
        if slow and left() > 0 and (not fresh or left() < ALWAYS * each):
            repeated.add(slow[0].candidate.id)
            return slow[0]
        late = left() <= 0 and len(settled) - 1 + len(lane) >= ALWAYS
        while fresh:
            record = fresh.popleft()
            if record.candidate.id in confirmed or not late:
                return record
        return None

    while True:
        record = following() if len(lane) < most else None
        if record is not None:
            begin(record, reference)
        elif len(lane):
            collect()
        else:
            return confirmed


def _slow(
    records: Iterable[TrialRecord], confirmed: Mapping[str, TrialRecord]
) -> Iterator[TrialRecord]:
    """Those confirmed while the machine was slower than during the fastest confirmation."""
    paces = {key: slowdown(record) for key, record in confirmed.items()}
    fastest = min(filter(None, paces.values()), default=1.0)
    return (r for r in records if paces.get(r.candidate.id, 0.0) > SLOWER * fastest)


def slowdown(record: TrialRecord) -> float:
    """The largest slowdown of the machine during its timings; 0 if none is known."""
    return max((measured.slowdown for measured in record.measurements.values()), default=0.0)


def _together(before: TrialRecord | None, again: TrialRecord) -> TrialRecord:
    """An earlier confirmation with its timings replaced, unless the new ones failed or are worse:
    disturbed, or on a slower machine."""
    if before is None:
        return again
    worse = (again.disturbed, slowdown(again)) > (before.disturbed, slowdown(before))
    if not again.ok or worse:
        return before
    phases = {span.phase for span in again.result.spans}
    kept = tuple(span for span in before.result.spans if span.phase not in phases)
    measured = {**before.measurements, **again.measurements}
    spans = (*kept, *again.result.spans)
    return replace(again, result=replace(again.result, measurements=measured, spans=spans))
