"""Confirmation: measures the search's front again, on unseen data and in fresh processes.

The best of many noisy numbers are too good (the winner's curse), so only the second measurement is
published.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from paretoformer.spaces.candidate import Candidate

WHAT = "Confirming the front"
FEW = 2
"""Confirmations under way at once if time may run out."""
ALWAYS = 3
"""Confirmed however late it is, apart from dense: the answer, its alternative, and one more."""
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
    is_over: Callable[[], bool] = lambda: False,
    scores: Scores | None = None,
    baseline: Candidate | None = None,
) -> dict[str, TrialRecord]:
    """Measure these records' candidates again: the dense model first, then the baseline, with which
    others are compared, then the others in random order.

    Confirmations of an earlier run are kept, but timings during which other work ran are repeated,
    even if time is over. Timings on a machine that was slower than during the reference's are
    repeated once, while there is time.

    pipeline: makes one on fresh workers and the split `confirm`; called only if work is left.
    seed: of the order; None: in the given order and a few at a time, since time may run out.
    progress: called with the number done. is_over: whether to begin no more than `ALWAYS`.
    scores: where scores of single examples are kept; None: with the records. baseline: the
    candidate with which `pipeline` compares.

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

    def collect_all() -> None:
        while len(lane):
            collect()

    def was_slow(record: TrialRecord) -> bool:
        """Whether its timings are to be repeated, and may be."""
        return not is_over() and slowdown(confirmed.get(record.candidate.id)) > SLOWER

    if missing[0] is dense:
        begin(dense, None)
        collect_all()
    reference = confirmed[dense.candidate.id].measurements
    most = FEW if seed is None else lane.capacity
    first = [record for record in missing if record.candidate == baseline]
    for record in first:
        begin(record, reference)
        collect_all()
        if was_slow(record):
            begin(record, reference)
            collect_all()
    for record in missing:
        if record is not dense and record not in first:
            if len(lane) >= most:  # a few at a time, so that finished ones are stored
                collect()
            late = is_over() and len(settled) - 1 + len(lane) >= ALWAYS
            if record.candidate.id in confirmed or not late:
                begin(record, reference)
    collect_all()
    for record in missing:  # in the time that is left
        if record not in first and was_slow(record):
            begin(record, reference)
            collect_all()
    return confirmed


def slowdown(record: TrialRecord | None) -> float:
    """The largest slowdown of the machine during its timings."""
    found = () if record is None else record.measurements.values()
    return max((measured.slowdown for measured in found), default=0.0)


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
