"""The Parquet files of a run, written atomically, with the run's facts as metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from paretoformer.search.records.checks import check_columns, check_rows
from paretoformer.search.records.errors import RunError
from paretoformer.search.records.facts import RunFacts, fault
from paretoformer.search.records.record import (
    SCHEMA_VERSION,
    TrialRecord,
    row,
    schema,
)
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.records.throttle import Throttle
from paretoformer.spaces.common.atomic import atomic_file
from paretoformer.spaces.common.malformed import MALFORMED, json_object, one_line

if TYPE_CHECKING:
    import pandas as pd

METADATA = b"paretoformer"
"""Metadata key of a Parquet file: schema version, study, machine and versions."""


class TrialsFile:
    """`trials.parquet`, updated while the search runs.

    Optuna's storage holds every record, so this file may lag (`Throttle`).
    """

    def __init__(
        self,
        path: Path,
        metrics: Sequence[str],
        sampled: Sequence[str],
        facts: RunFacts,
        predicted: Sequence[str] = (),
    ) -> None:
        self._path = path
        self._columns = metrics, sampled, predicted
        self._facts = facts
        self._throttle = Throttle()

    def update(self, records: Sequence[TrialRecord], *, now: bool = False) -> None:
        """records: all of them."""
        self._throttle(lambda: self._write(records))
        if now:
            self._throttle.catch_up()

    def _write(self, records: Sequence[TrialRecord]) -> None:
        rows = [row(record, *self._columns) for record in records]
        table = pa.Table.from_pylist(rows, schema(*self._columns))
        write_table(table.sort_by("trial"), self._path, self._facts)


def write_table(table: pa.Table, path: Path, facts: RunFacts) -> None:
    """Write a Parquet file atomically, with our metadata."""
    data = {"schema_version": SCHEMA_VERSION, **facts.to_dict()}
    own = {METADATA: json.dumps(data).encode()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **own})
    with atomic_file(path) as part:
        pq.write_table(table, part, compression="zstd")


def read_table(path: Path) -> tuple[pa.Table, RunFacts]:
    """A Parquet file of ours, and its metadata.

    Raises:
        RunError: it is missing, damaged, not ours, or from a newer version.
    """
    if not path.is_file():
        raise RunError(f"there is no {path}.")
    try:
        table = pq.read_table(path)
        table.validate(full=True)
    except (pa.ArrowException, OSError, *MALFORMED) as error:
        raise RunError(f"{path} is damaged: {one_line(error, 150)}") from None
    metadata = (table.schema.metadata or {}).get(METADATA)
    if metadata is None:
        raise RunError(f"{path} was not written by paretoformer.")
    try:
        facts = json_object(metadata)
        if facts.get("schema_version") == SCHEMA_VERSION:
            return table, RunFacts.from_dict(facts)
    except MALFORMED as error:
        raise _damaged(path, error) from None
    raise RunError(
        f"{path} has schema version {facts.get('schema_version')!r:.60}, and this paretoformer "
        f"reads version {SCHEMA_VERSION}. Install the version that wrote it."
    )


def _damaged(path: Path, error: BaseException) -> RunError:
    return RunError(
        f"{path} is damaged: {fault(error)}. Run the same `paretoformer search` again: it writes "
        "the file anew from what the storage holds."
    )


def read_front(run: str | Path) -> tuple[pd.DataFrame, RunFacts]:
    """All rows of a run's `front.parquet`, and its metadata.

    Raises:
        RunError: no run there, its search is not finished, or the file is damaged.
    """
    folder = RunFolder(run)
    if not folder.path.is_dir():
        raise RunError(f"there is no run folder {folder.path}.")
    if not folder.front.exists():
        if not folder.exists:
            raise RunError(f"{folder.path} is not a run folder: it has no study.toml.")
        raise RunError(
            f"{folder.path} has no front yet: its search is not finished. "
            "Run the same `paretoformer search` again; it goes on where it was."
        )
    table, facts = read_table(folder.front)
    return _checked(table, facts, folder.front, published=True), facts


def read_trials(folder: RunFolder, facts: RunFacts) -> pd.DataFrame:
    """All rows of a finished run's `trials.parquet`. facts: of its front.

    Raises:
        RunError: the file is missing or damaged, or lacks something that the front has.
    """
    table, _ = read_table(folder.trials)
    return _checked(table, facts, folder.trials, published=False)


def _checked(table: pa.Table, facts: RunFacts, path: Path, *, published: bool) -> pd.DataFrame:
    """The rows, after checks.

    Raises:
        RunError: the rows or the facts are damaged.
    """
    try:
        check_columns(table, facts, published=published)
        # Without pandas metadata, which another program may have written.
        frame: pd.DataFrame = table.replace_schema_metadata(None).to_pandas()
        check_rows(frame, facts, published=published)
    except (pa.ArrowException, *MALFORMED) as error:
        raise _damaged(path, error) from None
    return frame


def load_front(run: str | Path) -> pd.DataFrame:
    """The front of a finished run: the rows of `front.parquet` with the role `front` or `tied`.

    Columns as in `front.parquet`: per metric M the confirmed value `M`, its 95% interval `M_low`
    and `M_high`, and the search's value `search_M`; `speedup` over the dense model.

    Raises:
        RunError: no run there, its search is not finished, or the file is damaged.
    """
    frame, _ = read_front(run)
    return frame[frame["role"].isin(["front", "tied"])].reset_index(drop=True)
