"""The scores of single examples, in append-only Parquet parts in the run folder.

They are not in Optuna's storage: with many examples they exceed the size of a text in a database
(64 KiB in MySQL), and would be nearly all of its content.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from paretoformer.evaluators.data.examples import SplitName
from paretoformer.search.records.errors import RunError
from paretoformer.search.records.record import TrialRecord
from paretoformer.spaces.common.atomic import atomic_file
from paretoformer.spaces.common.malformed import MALFORMED, one_line

COLUMNS = pa.schema(
    [
        pa.field("split", pa.string()),
        pa.field("trial", pa.int64()),
        pa.field("candidate_id", pa.string()),
        pa.field("metric", pa.string()),
        pa.field("scores", pa.list_(pa.float64())),
    ]
)
PART = 64
"""Records per part."""


class Scores:
    """The scores of one run.

    path: the folder of the parts. metrics: those whose samples are scores of examples.
    """

    def __init__(self, path: Path, metrics: Collection[str]) -> None:
        self._path = path
        self._metrics = metrics
        self._rows: list[dict[str, Any]] = []
        self._records = 0

    def __enter__(self) -> Scores:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.keep()

    def take(self, record: TrialRecord, split: SplitName) -> TrialRecord:
        """The record without its scores; they are written with the next part, or by `keep`."""
        found = {n: record.measurements[n] for n in self._metrics if n in record.measurements}
        scored = {name: m for name, m in found.items() if m.samples}
        if not scored:
            return record
        identity = {"trial": record.trial, "candidate_id": record.candidate.id, "split": split}
        self._rows += [
            {**identity, "metric": name, "scores": m.samples} for name, m in scored.items()
        ]
        self._records += 1
        if self._records >= PART:
            self.keep()
        return _with_samples(record, dict.fromkeys(scored, ()))

    def keep(self) -> None:
        """Write the pending scores."""
        if not self._rows:
            return
        self._path.mkdir(exist_ok=True)
        table = pa.Table.from_pylist(self._rows, COLUMNS)
        path = self._path / f"{1 + max(map(_number, self._parts()), default=-1):06d}.parquet"
        with atomic_file(path) as part:
            pq.write_table(table, part, compression="zstd")
        self._rows, self._records = [], 0

    def restored(
        self, records: Mapping[str, TrialRecord], split: SplitName
    ) -> dict[str, TrialRecord]:
        """The records, by candidate id, with their stored scores."""
        found: dict[str, dict[str, tuple[float, ...]]] = {}
        for part in self._parts():
            wanted = [("split", "==", split), ("candidate_id", "in", list(records))]
            for row in _rows(part, wanted) if records else ():
                found.setdefault(row["candidate_id"], {})[row["metric"]] = tuple(row["scores"])
        return {key: _with_samples(record, found.get(key, {})) for key, record in records.items()}

    def _parts(self) -> list[Path]:
        return sorted(self._path.glob("[0-9]*.parquet"), key=_number)


def _rows(part: Path, wanted: list[tuple[str, str, Any]]) -> list[dict[str, Any]]:
    """Raises RunError if the part is damaged."""
    try:
        table = pq.read_table(part, filters=wanted).cast(COLUMNS)
        table.validate(full=True)
        found: list[dict[str, Any]] = table.to_pylist()
    except (pa.ArrowException, OSError, *MALFORMED) as error:
        raise RunError(f"{part} is damaged: {one_line(error)}.") from None
    return found


def _number(part: Path) -> int:
    return int(part.stem)


def _with_samples(record: TrialRecord, samples: Mapping[str, tuple[float, ...]]) -> TrialRecord:
    measurements = {
        name: replace(m, samples=samples[name]) if name in samples else m
        for name, m in record.measurements.items()
    }
    return replace(record, result=replace(record.result, measurements=measurements))
