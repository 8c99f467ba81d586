"""Prediction of a candidate's metrics, from the block table and the measurements so far.

Predictions decide what is tried; they are stored with the measurements, but never reported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from paretoformer.search.planning.knapsack import KnapsackProblem
from paretoformer.search.planning.latency_model import LatencyModel
from paretoformer.search.planning.size_model import SizeModel
from paretoformer.search.records.facts import DIVERGENCE, LATENCY
from paretoformer.search.records.record import Records, TrialRecord
from paretoformer.spaces.axes.axis import Stage
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.space import Space

SIZES = ("memory_mb", "disk_mb", "parameters")
PREDICTED = (DIVERGENCE, LATENCY, *SIZES)


@dataclass(frozen=True)
class Predictor:
    space: Space
    problem: KnapsackProblem

    def of(self, candidate: Candidate, records: Records) -> dict[str, float]:
        """Metric -> predicted value, for metrics that can be predicted."""
        base = self.unserved(candidate)
        found = {}
        if not candidate.seconds:
            found[DIVERGENCE] = self.problem.nats(candidate)
        if (latency := self.latency_model(base, records)) is not None:
            found[LATENCY] = latency.predict(candidate)
        for name in SIZES:
            if (size := self._size_model(base, records, name)) is not None:
                found[name] = size.predict(candidate)
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def unserved(self, candidate: Candidate) -> Candidate:
        """The uncompressed model in a candidate's runtime."""
        return self.space.dense.replaced(**candidate.of_stage(Stage.RUNTIME))

    def served(self, structure: Candidate, base: Candidate) -> Candidate:
        """A structure in the runtime of `base`, with the changes that every candidate has."""
        return self.space.completed(structure).replaced(**base.of_stage(Stage.RUNTIME))

    def latency_model(self, base: Candidate, records: Records) -> LatencyModel | None:
        """The model of the runtime of `base`; None until the uncompressed model is measured there.

        Changes that cost no quality, such as the readout of one token, are part of the baseline
        once they are measured, since every other candidate has them too.
        """
        torch_dense = _value(records.get(self.space.dense.id), LATENCY)
        free = self.served(self.space.dense, base)
        wholes = ((model, _value(records.get(model.id), LATENCY)) for model in (free, base))
        whole = next(((model, ms) for model, ms in wholes if ms is not None), None)
        if whole is None or torch_dense is None:
            return None
        measured = self._measured(base, records, LATENCY)
        return LatencyModel.fitted(self.problem, torch_dense, whole, measured)

    def _size_model(self, base: Candidate, records: Records, name: str) -> SizeModel | None:
        """The model of `base`'s runtime; None until the uncompressed model has a size there."""
        free = records.get(self.served(self.space.dense, base).id, records.get(base.id))
        whole = _value(free, name)
        measured = self._measured(base, records, name)
        return None if whole is None else SizeModel.fitted(whole, measured)

    def _measured(
        self, base: Candidate, records: Records, name: str
    ) -> list[tuple[Candidate, float]]:
        found = ((record.candidate, _value(record, name)) for record in self.cut(base, records))
        return [(candidate, value) for candidate, value in found if value is not None]

    def cut(self, base: Candidate, records: Records) -> list[TrialRecord]:
        """Successful records of cut candidates in the runtime of `base`."""
        whole = self.space.dense.of_stage(Stage.STRUCTURE)
        runtime = base.of_stage(Stage.RUNTIME)
        return [
            record
            for record in records.values()
            if record.ok
            and record.candidate.of_stage(Stage.RUNTIME) == runtime
            and record.candidate.of_stage(Stage.STRUCTURE) != whole
        ]


def _value(record: TrialRecord | None, name: str) -> float | None:
    if record is None or not record.ok or name not in record.measurements:
        return None
    return record.measurements[name].value
