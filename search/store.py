"""The run folder: everything that a study leaves behind; files appear whole or not at all."""

from __future__ import annotations

import json
import os
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from paretoformer.search.errors import RunError
from paretoformer.search.record import SCHEMA_VERSION, TrialRecord, row, schema

if TYPE_CHECKING:
    import pandas as pd

    from paretoformer.search.spec import Spec

METADATA = b"paretoformer"
"""The key under which a Parquet file holds schema version, study, machine and versions."""


class RunFolder:
    """The files of one study, by name."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.study = self.path / "study.toml"
        self.machine = self.path / "machine.json"
        self.storage = self.path / "optuna.db"
        self.trials = self.path / "trials.parquet"
        self.front = self.path / "front.parquet"
        self.report = self.path / "report.html"
        self.workers = self.path / "workers.json"

    @property
    def exists(self) -> bool:
        return self.study.exists()

    def storage_url(self, configured: str) -> str:
        return configured or f"sqlite:///{self.storage.resolve()}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process works on a run; the system frees the lock when that process dies.

        Raises:
            RunError: another one does.
        """
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(f"{self.path} is in use by another paretoformer process.") from None
        try:
            yield
        finally:
            lock.release()

    def check_free(self) -> None:
        """Raises RunError when the path cannot become a run folder."""
        there = self.path.absolute()
        while not there.exists():
            there = there.parent
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise RunError(f"{self.path} cannot be made in {there}: choose another --out.")
        if self.path.is_dir():
            # What a first run leaves that was killed before it had written the study.
            stem = self.storage.name
            ours = {".lock", self.machine.name, stem, f"{stem}-wal", f"{stem}-shm"}
            names = {each.name for each in self.path.iterdir() if each.suffix != ".part"}
            if not self.exists and names - ours:
                raise RunError(f"{self.path} holds other files: choose another --out.")

    def check_study(self, spec: Spec) -> None:
        """Raises RunError, naming what differs, when the folder holds another study."""
        try:
            there = tomllib.loads(self.study.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise RunError(f"{self.study} is damaged: {error}.") from None
        here = tomllib.loads(spec.to_toml())
        changed = [
            f"{key} is {old!r} there and {new!r} here"
            for key, old, new in _differences(there, here)
            if key not in ("trials", "search.trial_seconds")
        ]
        if changed:
            raise RunError(
                f"{self.path} holds another study, {there.get('name')!r}: "
                f"{'; '.join(changed[:3])}. Choose another --out."
            )

    def check_machine(self, machine: Mapping[str, Any]) -> None:
        """Raises RunError, naming both, when the folder was measured on another machine."""
        from paretoformer.evaluators.target import describe

        there = self.read_machine()
        if there["hardware"] != machine["hardware"]:
            raise RunError(
                f"{self.path} was measured on another machine, {describe(there)}; "
                f"this one is {describe(machine)}. Choose another --out."
            )

    def read_machine(self) -> dict[str, Any]:
        try:
            machine: dict[str, Any] = json.loads(self.machine.read_text(encoding="utf-8"))
            machine["hardware"]["cpu"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self.machine} is missing or damaged: {error}.") from None
        return machine

    def write_machine(self, machine: Mapping[str, Any]) -> None:
        """On the first run: the machine, and an id by which a storage knows this folder."""
        if not self.machine.exists():
            facts = {**machine, "run": uuid.uuid4().hex}
            write_whole(self.machine, json.dumps(facts, indent=2) + "\n")

    def write_study(self, spec: Spec) -> None:
        """The resolved study, last of what makes a run folder: with it, the run has begun."""
        write_whole(self.study, spec.to_toml())

    def record_workers(self, processes: Sequence[tuple[int, float]]) -> None:
        write_whole(self.workers, json.dumps(processes))

    def living_workers(self) -> list[psutil.Process]:
        """Worker processes of an earlier run that are still there."""
        try:
            recorded = json.loads(self.workers.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        living = []
        for pid, created in recorded:
            try:
                process = psutil.Process(pid)
                # A zombie computes nothing: it only waits for its parent to read its exit status.
                ended = process.status() == psutil.STATUS_ZOMBIE
                if abs(process.create_time() - created) < 1 and not ended:
                    living.append(process)
            except psutil.NoSuchProcess:
                continue
        return living


def write_whole(path: Path, text: str) -> None:
    """Write beside, flush to the disk, then rename over."""
    _replace(path, lambda beside: _write_text(beside, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    beside = path.with_name(f".{path.name}.part")
    write(beside)
    with beside.open("rb+") as file:
        os.fsync(file.fileno())
    beside.replace(path)


class TrialsFile:
    """`trials.parquet`, kept up to date while the search runs.

    It is a view: Optuna's storage holds every record. So it may lag, which it does only as much as
    keeps writing it under a twentieth of the time.
    """

    def __init__(
        self,
        path: Path,
        metrics: Sequence[str],
        sampled: Sequence[str],
        metadata: Mapping[str, Any],
    ) -> None:
        self._path = path
        self._metrics = metrics
        self._sampled = sampled
        self._metadata = metadata
        self._due = 0.0

    def update(self, records: Sequence[TrialRecord], *, now: bool = False) -> None:
        start = time.monotonic()
        if now or start >= self._due:
            rows = [row(each, self._metrics, self._sampled) for each in records]
            table = pa.Table.from_pylist(rows, schema(self._metrics, self._sampled))
            write_table(table, self._path, self._metadata)
            took = time.monotonic() - start
            self._due = start + 20 * took


def write_table(table: pa.Table, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a Parquet file whole, with our metadata in its schema."""
    own = {METADATA: json.dumps({"schema_version": SCHEMA_VERSION, **metadata}).encode()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **own})
    _replace(path, lambda beside: pq.write_table(table, beside, compression="zstd"))


def read_table(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """A Parquet file of ours, and its metadata.

    Raises:
        RunError: it is missing, damaged, not ours, or from a newer version.
    """
    if not path.exists():
        raise RunError(f"there is no {path}.")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:150]
        raise RunError(f"{path} is damaged: {reason}") from None
    metadata = (table.schema.metadata or {}).get(METADATA)
    if metadata is None:
        raise RunError(f"{path} was not written by paretoformer.")
    facts: dict[str, Any] = json.loads(metadata)
    if facts["schema_version"] != SCHEMA_VERSION:
        raise RunError(
            f"{path} has schema version {facts['schema_version']}, and this paretoformer reads "
            f"version {SCHEMA_VERSION}. Install the version that wrote it."
        )
    return table, facts


def read_front(run: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Every row of a run's `front.parquet`, and its metadata: study, machine, metrics, objectives.

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
    return table.to_pandas(), facts


def load_front(run: str | Path) -> pd.DataFrame:
    """The front of a finished run: the rows of `front.parquet` whose role is `front` or `tied`.

    Columns as in `front.parquet`: for each metric M its confirmed value `M`, the 95% interval
    `M_low` and `M_high`, what the search saw `search_M`; `speedup` over the dense model.

    Raises:
        RunError: no run there, its search is not finished, or the file is damaged.
    """
    frame, _ = read_front(run)
    return frame[frame["role"].isin(["front", "tied"])].reset_index(drop=True)


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) where two nested tables differ."""
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}", before, after
