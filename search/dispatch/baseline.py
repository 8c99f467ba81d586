"""The baseline: the uncompressed model with which candidates in compiled runtimes alternate.

Two vCPUs of a shared host were in one of two states for minutes each: in the slow one torch took
1.16 times as long, and MiniLM in ONNX Runtime int8 1.75 times, cut or not. The ratio of a cut model
to torch changed by half between them, that to the uncompressed one by 2%. So candidates compare
with each other, and with the best alternative, whenever they were timed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from paretoformer.search.records.record import TrialRecord
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.runtimes import parse


def is_compiled(candidate: Candidate) -> bool:
    """Whether its runtime executes files of its own rather than torch's kernels."""
    return bool(parse(candidate["runtime"])[0].files)


def baseline_of(
    records: Iterable[TrialRecord], alternatives: Collection[Candidate], timing: str
) -> TrialRecord | None:
    """The fastest alternative in a compiled runtime; None if none was timed on a quiet machine, or
    if none is faster than the dense model.

    timing: name of a metric.
    """
    timed = [
        r
        for r in records
        if r.ok and timing in r.measurements and not r.measurements[timing].disturbed
    ]
    dense = [r for r in timed if r.candidate.is_dense]
    known = [r for r in timed if r.candidate in alternatives and is_compiled(r.candidate)]
    best = min((*dense, *known), key=lambda r: r.measurements[timing].value, default=None)
    return None if best is None or best.candidate.is_dense else best
