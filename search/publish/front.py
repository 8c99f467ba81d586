"""The published front: confirmed numbers, the search's numbers, and the role of every point."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import bootstrap

from paretoformer.evaluators.common.measurement import Measurements
from paretoformer.evaluators.metrics.metric import Metric
from paretoformer.search.publish.choose import intervals
from paretoformer.search.records.dominance import clearly_dominated, nondominated
from paretoformer.search.records.facts import compared_timing
from paretoformer.search.records.record import DIFFERENCE, TrialRecord, front_schema, row
from paretoformer.spaces.candidate import Candidate


def published_table(
    searched: Sequence[TrialRecord],
    confirmed: Mapping[str, TrialRecord],
    objectives: Sequence[Metric],
    metrics: Sequence[str],
    sampled: Sequence[str],
    alternatives: Collection[Candidate] = (),
) -> pa.Table:
    """`front.parquet`: confirmed numbers, the search's numbers, and the role of every point.

    searched: the dense model's record, then those of the search's front.
    alternatives: the uncompressed model in other runtimes, which always keep that role.
    """
    pairs = [(seen, confirmed[seen.candidate.id]) for seen in searched]
    front, lost = _standing([again for _, again in pairs], objectives)
    roles = [
        _role(seen, again, alternatives, bool(best), bool(worse))
        for (seen, again), best, worse in zip(pairs, front, lost, strict=True)
    ]
    dense = pairs[0][1].measurements
    timing = compared_timing({metric.name: metric.unit for metric in objectives})
    paired = [n for n in metrics if n not in sampled and n in dense and dense[n].samples]
    rows: list[dict[str, Any]] = []
    for (seen, again), role in zip(pairs, roles, strict=True):
        cells = row(again, metrics, sampled)
        cells |= {f"search_{name}": _value(seen.measurements, name) for name in metrics}
        cells |= _speedup(again.measurements, dense, timing) | {"role": role}
        for name in paired:
            cells |= _difference(name, again.measurements, dense)
        rows.append(cells)
    first = objectives[0]
    sign = -1.0 if first.direction == "maximize" else 1.0
    points = sorted(rows[1:], key=lambda r: (r[first.name] is None, sign * (r[first.name] or 0)))
    return pa.Table.from_pylist([rows[0], *points], front_schema(metrics, sampled, paired))


def _standing(
    records: Sequence[TrialRecord], objectives: Sequence[Metric]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Masks: not dominated; clearly dominated.

    A point that was timed while other work ran may be better than its numbers: it is never clearly
    dominated, and dominates nothing.
    """
    values, lows, highs = intervals(records, objectives)
    directions = [metric.direction for metric in objectives]
    sure = np.array([not _is_unsure(record, objectives) for record in records])
    front = nondominated(values, directions)
    front[sure] = nondominated(values[sure], directions)
    lost = np.zeros_like(sure)
    lost[sure] = clearly_dominated(values[sure], lows[sure], highs[sure], directions)
    return front, lost


def _is_unsure(record: TrialRecord, objectives: Sequence[Metric]) -> bool:
    """Whether one of its objectives was timed while other work ran."""
    found = (record.measurements.get(metric.name) for metric in objectives)
    return any(measured is not None and measured.disturbed for measured in found)


def _role(
    seen: TrialRecord,
    again: TrialRecord,
    alternatives: Collection[Candidate],
    best: bool,
    worse: bool,
) -> str:
    """best: not dominated. worse: clearly dominated."""
    if seen.candidate.is_dense:
        return "dense"
    if seen.candidate in alternatives and again.ok:
        return "alternative"
    return "front" if best else "dominated" if worse else "tied"


def _value(measured: Measurements, name: str) -> float | None:
    return measured[name].value if name in measured else None


def _difference(name: str, measured: Measurements, dense: Measurements) -> dict[str, float | None]:
    """A score minus the dense model's on the same examples: mean and 95% interval.

    Paired: examples that both models answer alike add no noise, so the interval is far narrower
    than those of the two scores.
    """
    keys = [f"{name}{end}" for end in DIFFERENCE]
    if name not in measured or not measured[name].samples:
        return dict.fromkeys(keys)
    change = np.subtract(measured[name].samples, dense[name].samples)
    if not change.any():
        return dict.fromkeys(keys, 0.0)
    interval = bootstrap(
        (change,), np.mean, n_resamples=1999, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    ends = (float(change.mean()), float(interval.low), float(interval.high))
    return dict(zip(keys, ends, strict=True))


def _speedup(measured: Measurements, dense: Measurements, timing: str) -> dict[str, float | None]:
    """Dense time over this one's, with the interval of the latter."""
    time, reference = measured.get(timing), dense.get(timing)
    if time is None or reference is None:
        return {"speedup": None, "speedup_low": None, "speedup_high": None}
    return {
        "speedup": reference.value / time.value,
        "speedup_low": reference.value / time.high,
        "speedup_high": reference.value / time.low if time.low else float("inf"),
    }
