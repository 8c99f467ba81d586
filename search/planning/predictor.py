"""What is expected of a candidate before it is measured, from the block table and from what was
measured so far. It decides what is tried, is kept with what came out, and is never reported."""

from __future__ import annotations

import math
from dataclasses import dataclass

from paretoformer.search.planning.knapsack import KnapsackProblem
from paretoformer.search.planning.latency_model import LatencyModel
from paretoformer.search.planning.size_model import SizeModel
from paretoformer.search.records.record import Records, TrialRecord
from paretoformer.spaces.axes.axis import Stage
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.space import Space

LATENCY = "latency_ms"
DIVERGENCE = "divergence"
SIZES = ("memory_mb", "disk_mb", "parameters")
PREDICTED = (DIVERGENCE, LATENCY, *SIZES)


@dataclass(frozen=True)
class Predictor:
    """Predicts the candidates of one study."""

    space: Space
    problem: KnapsackProblem

    def of(self, candidate: Candidate, records: Records) -> dict[str, float]:
        """Metric -> its value, of what can be predicted."""
        found = {}
        if not candidate.seconds:
            found[DIVERGENCE] = self.problem.nats(candidate)
        model = self.latency_model(self.unserved(candidate), records)
        if model is not None:
            found[LATENCY] = model.predict(candidate)
        for name in SIZES:
            size = self.size_model(self.unserved(candidate), records, name)
            if size is not None:
                found[name] = size.predict(candidate)
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def unserved(self, candidate: Candidate) -> Candidate:
        """The uncompressed model in a candidate's runtime."""
        return self.space.dense.replaced(**candidate.of_stage(Stage.RUNTIME))

    def served(self, structure: Candidate, base: Candidate) -> Candidate:
        """A structure with what every candidate of the study has, in the runtime of `base`."""
        return self.space.completed(structure).replaced(**base.of_stage(Stage.RUNTIME))

    def latency_model(self, base: Candidate, records: Records) -> LatencyModel | None:
        """Of the runtime of `base`; None while the uncompressed model was not measured there.

        What costs no quality, such as the readout of one token, is in whatever else is measured;
        so it is the model with that, where it was measured, that the blocks are taken out of.
        """
        dense = records.get(self.space.dense.id)
        runtime = base.of_stage(Stage.RUNTIME)
        free = self.space.completed(self.space.dense).replaced(**runtime)
        served = ((each, _timed(records.get(each.id))) for each in (free, base))
        whole = next(((each, ms) for each, ms in served if ms is not None), None)
        if whole is None or _timed(dense) is None:
            return None
        measured = [
            (record.candidate, milliseconds)
            for record in self.cut(base, records)
            if (milliseconds := _timed(record)) is not None
        ]
        return LatencyModel.fitted(self.problem, _timed(dense) or 0.0, whole, measured)

    def size_model(self, base: Candidate, records: Records, name: str) -> SizeModel | None:
        """Of the runtime of `base`; None while it told no size of the uncompressed model.

        name: of a metric, one of `SIZES`.
        """
        whole = _value(records.get(base.id), name)
        if whole is None:
            return None
        sizes = ((r.candidate, _value(r, name)) for r in self.cut(base, records))
        return SizeModel.fitted(whole, [(c, size) for c, size in sizes if size is not None])

    def cut(self, base: Candidate, records: Records) -> list[TrialRecord]:
        """What was measured in the runtime of `base`, but for what is not cut."""
        whole = self.space.dense.of_stage(Stage.STRUCTURE)
        runtime = base.of_stage(Stage.RUNTIME)
        return [
            record
            for record in records.values()
            if record.ok
            and record.candidate.of_stage(Stage.RUNTIME) == runtime
            and record.candidate.of_stage(Stage.STRUCTURE) != whole
        ]


def _timed(record: TrialRecord | None) -> float | None:
    """Milliseconds, where they were measured."""
    return _value(record, LATENCY)


def _value(record: TrialRecord | None, name: str) -> float | None:
    if record is None or not record.ok or name not in record.measurements:
        return None
    return record.measurements[name].value
