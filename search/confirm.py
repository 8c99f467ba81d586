"""Confirmation: the search's front measured again, on data and in processes it never saw.

A search that picks the best of many noisy numbers picks lucky ones; only the second measurement is
published.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
from scipy.stats import bootstrap

from paretoformer.evaluators.measurement import Measurement, Measurements
from paretoformer.evaluators.metric import Metric
from paretoformer.search.errors import StudyFailed
from paretoformer.search.front import Values, clearly_dominated, nondominated
from paretoformer.search.pipeline import Pipeline
from paretoformer.search.record import TrialRecord, row, schema

CONFIRMED = "confirmed:"
"""User attributes of the study: this and a candidate's id hold its confirmation."""


def chosen(records: Sequence[TrialRecord], objectives: Sequence[Metric]) -> list[TrialRecord]:
    """The dense model, then the search's front and what lies within its intervals."""
    done = [record for record in records if record.ok]
    lost = clearly_dominated(*_intervals(done, objectives), [m.direction for m in objectives])
    dense = [record for record in done if record.candidate.is_dense]
    return dense + [
        record
        for record, dominated in zip(done, lost, strict=True)
        if not (dominated or record.candidate.is_dense)
    ]


def _intervals(
    records: Sequence[TrialRecord], objectives: Sequence[Metric]
) -> tuple[Values, Values, Values]:
    """Values, lows and highs, each (records, objectives); NaN for what failed."""
    missing = Measurement(np.nan, np.nan, np.nan, "")
    found = [[r.measurements.get(metric.name, missing) for metric in objectives] for r in records]
    values, lows, highs = (
        np.array([[getattr(m, end) for m in row] for row in found]).reshape(-1, len(objectives))
        for end in ("value", "low", "high")
    )
    return values, lows, highs


def confirmations(study: optuna.Study) -> dict[str, TrialRecord]:
    """What was confirmed so far: candidate id -> its record."""
    return {
        key.removeprefix(CONFIRMED): TrialRecord.from_json(text)
        for key, text in study.user_attrs.items()
        if key.startswith(CONFIRMED)
    }


def confirm(
    study: optuna.Study,
    records: Sequence[TrialRecord],
    pipeline: Callable[[], Pipeline],
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, TrialRecord]:
    """Measure these records' candidates again, the dense model first, the others in random order.

    What an interrupted run had confirmed is kept.

    pipeline: makes one on fresh workers and the split `confirm`; called only if work is left.
    progress: told (done, total).

    Returns candidate id -> its confirmation.

    Raises:
        StudyFailed: the dense model could not be measured.
    """
    confirmed = confirmations(study)
    dense, *others = records
    order = np.random.default_rng(seed).permutation(len(others))
    missing = [r for r in (dense, *(others[i] for i in order)) if r.candidate.id not in confirmed]
    progress(len(records) - len(missing), len(records))
    if not missing:
        return confirmed
    lane = pipeline()
    by_trial = {record.trial: record for record in missing}

    def collect() -> None:
        for trial, result in lane.finished():
            again = TrialRecord(trial, by_trial[trial].candidate, result)
            if again.candidate.is_dense and not again.ok:
                raise StudyFailed(f"the uncompressed model cannot be confirmed: {result.message}.")
            confirmed[again.candidate.id] = again
            study.set_user_attr(CONFIRMED + again.candidate.id, again.to_json())
            progress(sum(r.candidate.id in confirmed for r in records), len(records))

    reference: Measurements | None = None
    if missing[0] is dense:
        lane.start(dense.trial, dense.candidate, None)
        while len(lane):
            collect()
    reference = confirmed[dense.candidate.id].measurements
    for record in missing:
        if record is not dense:
            if len(lane) >= lane.capacity:  # a few at a time: what is whole is stored
                collect()
            lane.start(record.trial, record.candidate, reference)
    while len(lane):
        collect()
    return confirmed


def front_table(
    searched: Sequence[TrialRecord],
    confirmed: dict[str, TrialRecord],
    objectives: Sequence[Metric],
    metrics: Sequence[str],
    sampled: Sequence[str],
) -> pa.Table:
    """`front.parquet`: confirmed numbers beside what the search saw, and the role of each point.

    searched: the dense model's record, then those of the search's front.
    """
    pairs = [(seen, confirmed[seen.candidate.id]) for seen in searched]
    intervals = _intervals([again for _, again in pairs], objectives)
    directions = [metric.direction for metric in objectives]
    roles = np.where(
        nondominated(intervals[0], directions),
        "front",
        np.where(clearly_dominated(*intervals, directions), "dominated", "tied"),
    )
    roles[0] = "dense"
    dense = pairs[0][1].measurements
    paired = [name for name in metrics if name not in sampled and dense[name].samples]
    rows: list[dict[str, Any]] = []
    for (seen, again), role in zip(pairs, roles.tolist(), strict=True):
        cells = row(again, metrics, sampled)
        cells |= {f"search_{name}": seen.measurements[name].value for name in metrics}
        cells |= _speedup(again.measurements, dense) | {"role": role}
        for name in paired:
            cells |= _difference(name, again.measurements, dense)
        rows.append(cells)
    first = objectives[0]
    sign = -1.0 if first.direction == "maximize" else 1.0
    points = sorted(rows[1:], key=lambda r: (r[first.name] is None, sign * (r[first.name] or 0)))
    extra = [f"search_{name}" for name in metrics] + ["speedup", "speedup_low", "speedup_high"]
    extra += [f"{name}_difference{end}" for name in paired for end in ("", "_low", "_high")]
    fields = schema(metrics, sampled)
    for name in extra:
        fields = fields.append(pa.field(name, pa.float64()))
    fields = fields.append(pa.field("role", pa.string()))
    return pa.Table.from_pylist([rows[0], *points], fields)


def _difference(name: str, measured: Measurements, dense: Measurements) -> dict[str, float | None]:
    """A score minus the dense model's on the same examples: its mean and 95% interval.

    Paired: what both models answer alike tells nothing of their difference, so the interval is far
    narrower than those of the two scores.
    """
    keys = [f"{name}_difference{end}" for end in ("", "_low", "_high")]
    if name not in measured:
        return dict.fromkeys(keys)
    change = np.subtract(measured[name].samples, dense[name].samples)
    if not change.any():
        return dict.fromkeys(keys, 0.0)
    interval = bootstrap(
        (change,), np.mean, n_resamples=1999, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    ends = (float(change.mean()), float(interval.low), float(interval.high))
    return dict(zip(keys, ends, strict=True))


def _speedup(measured: Measurements, dense: Measurements) -> dict[str, float | None]:
    """Dense latency over this one's, with the interval of the latter's."""
    latency, reference = measured.get("latency_ms"), dense.get("latency_ms")
    if latency is None or reference is None:
        return {"speedup": None, "speedup_low": None, "speedup_high": None}
    return {
        "speedup": reference.value / latency.value,
        "speedup_low": reference.value / latency.high,
        "speedup_high": reference.value / latency.low,
    }
