"""Confirmation: the search's front measured again, on data and in processes it never saw.

A search that picks the best of many noisy numbers picks lucky ones; only the second measurement is
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
from paretoformer.search.dispatch.pipeline import Pipeline
from paretoformer.search.records.errors import StudyFailed
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.records.scores import Scores

WHAT = "Confirming the front"
FEW = 2
"""Confirmations under way at once, where time may be over."""
ALWAYS = 3
"""Besides dense, confirmed however late it is: the answer, what it is compared with, one more."""
CONFIRMED = "confirmed:"
"""User attributes of the study: this and a candidate's id hold its confirmation, without the scores
of single examples; before there were `Scores`, with them."""


def confirmed_ids(study: optuna.Study) -> list[str]:
    """Ids of the candidates that were confirmed so far."""
    return [key.removeprefix(CONFIRMED) for key in study.user_attrs if key.startswith(CONFIRMED)]


def confirmations(study: optuna.Study) -> dict[str, TrialRecord]:
    """What was confirmed so far: candidate id -> its record."""
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
) -> dict[str, TrialRecord]:
    """Measure these records' candidates again, the dense model first, the others in random order.

    What an earlier run had confirmed is kept, but what it had to time while other work ran is timed
    again, whatever the time.

    pipeline: makes one on fresh workers and the split `confirm`; called only if work is left.
    seed: of the order; None: as they come, few at a time, since time may be over before all are.
    progress: called with how many are done. is_over: whether to begin no more than `ALWAYS`.
    scores: where those of single examples are kept; None: with the records.

    Returns candidate id -> its confirmation.

    Raises:
        StudyFailed: the dense model could not be measured.
    """
    confirmed = confirmations(study)
    dense, *others = records
    if seed is not None:
        others = [others[i] for i in np.random.default_rng(seed).permutation(len(others))]
    settled = {key for key, record in confirmed.items() if not record.disturbed}
    missing = [each for each in (dense, *others) if each.candidate.id not in settled]
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
    most = FEW if seed is None else lane.capacity
    for record in missing:
        if record is not dense:
            if len(lane) >= most:  # a few at a time: what is whole is stored
                collect()
            late = is_over() and len(settled) - 1 + len(lane) >= ALWAYS
            if record.candidate.id in confirmed or not late:
                begin(record, reference)
    while len(lane):
        collect()
    return confirmed


def _together(before: TrialRecord | None, again: TrialRecord) -> TrialRecord:
    """An earlier confirmation with new timings in place of its own, unless these failed."""
    if before is None:
        return again
    if not again.ok:
        return before
    phases = {span.phase for span in again.result.spans}
    kept = tuple(span for span in before.result.spans if span.phase not in phases)
    measured = {**before.measurements, **again.measurements}
    spans = (*kept, *again.result.spans)
    return replace(again, result=replace(again.result, measurements=measured, spans=spans))
