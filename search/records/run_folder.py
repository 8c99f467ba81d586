"""The run folder: the names of all files that a study leaves behind."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from paretoformer.search.records.errors import RunError
from paretoformer.search.records.facts import Machine, fault
from paretoformer.spaces.common.atomic import write_atomically
from paretoformer.spaces.common.malformed import MALFORMED, json_object

MAY_CHANGE = (
    "trials",
    "data.check",
    "search.trial_seconds",
    "search.minutes",
    "search.sampler",
    "recovery.distill_minutes",
    "timing.patience_minutes",
)
"""Keys of a study file that do not change measured numbers."""


class _RunMachine(Machine):
    """`machine.json`. run: an id by which a storage recognises the folder."""

    run: str


class RunFolder:
    """The files of one study, by name.

    Raises:
        RunError: the path cannot be a folder's.
    """

    def __init__(self, path: str | Path) -> None:
        if "\0" in str(path):
            raise RunError(
                f"the path of a run folder holds no NUL character, but got {str(path)!r}."
            )
        self.path = Path(path)
        self.study = self.path / "study.toml"
        self.machine = self.path / "machine.json"
        self.storage = self.path / "optuna.db"
        self.trials = self.path / "trials.parquet"
        self.front = self.path / "front.parquet"
        self.report = self.path / "report.html"
        self.workers = self.path / "workers.json"
        self.evidence = self.path / "evidence.json"
        self.scores = self.path / "scores"
        self.blocks = self.path / "blocks.parquet"
        self.models = self.path / "models"

    @property
    def exists(self) -> bool:
        return self.study.exists()

    def storage_url(self, configured: str) -> str:
        return configured or f"sqlite:///{self.storage.resolve()}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run for this process; the system frees the lock when the process dies.

        Raises:
            RunError: another process holds it.
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
        """Raises RunError if the path cannot become a run folder."""
        there = self.path.absolute()
        while not there.exists():
            there = there.parent
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise RunError(f"{self.path} cannot be made in {there}: choose another --out.")
        if self.path.is_dir():
            # Left by a first run that was killed before it wrote the study.
            stem = self.storage.name
            ours = {".lock", self.machine.name, stem, f"{stem}-wal", f"{stem}-shm", "evidence.json"}
            names = {path.name for path in self.path.iterdir() if path.suffix != ".part"}
            if not self.exists and names - ours:
                raise RunError(f"{self.path} holds other files: choose another --out.")

    def check_study(self, here: Mapping[str, Any], there: Mapping[str, Any]) -> None:
        """Raises RunError, naming the differences, if the folder holds another study.

        here, there: resolved studies, so that keys which did not exist yet have their defaults.
        """
        changed = [
            f"{key} is {old!r} there and {new!r} here"
            for key, old, new in _differences(there, here)
            if key not in MAY_CHANGE
        ]
        if changed:
            raise RunError(
                f"{self.path} holds another study, {there.get('name')!r}: "
                f"{'; '.join(changed[:3])}. Choose another --out."
            )

    def check_machine(self, machine: Mapping[str, Any]) -> None:
        """Raises RunError, naming both, if the folder was measured on another machine."""
        from paretoformer.evaluators.common.target import describe_machine, differences

        there = self.read_machine()
        if differences(there["hardware"], machine["hardware"]):
            raise RunError(
                f"{self.path} was measured on another machine, {describe_machine(there)}; "
                f"this one is {describe_machine(machine)}. Choose another --out."
            )

    def read_machine(self) -> dict[str, Any]:
        """Raises RunError if the file is missing, or is not from `write_machine`."""
        try:
            machine = json_object(self.machine.read_bytes())
            _RunMachine.model_validate(machine)
        except (OSError, ValueError) as error:
            raise RunError(f"{self.machine} is missing or damaged: {fault(error)}.") from None
        return machine

    def write_machine(self, machine: Mapping[str, Any]) -> None:
        """On the first run: the machine, and an id by which a storage recognises this folder."""
        if not self.machine.exists():
            facts = {**machine, "run": uuid.uuid4().hex}
            write_atomically(self.machine, json.dumps(facts, indent=2) + "\n")

    def write_study(self, text: str) -> None:
        """The resolved study, the last file of a new run folder: with it, the run has begun."""
        write_atomically(self.study, text)

    def record_workers(self, processes: Sequence[tuple[int, float]]) -> None:
        write_atomically(self.workers, json.dumps(processes))

    def living_workers(self) -> list[psutil.Process]:
        """Worker processes of an earlier run that still run."""
        living = []
        for pid, created in self._recorded_workers():
            try:
                process = psutil.Process(pid)
                # A zombie computes nothing; it waits for its parent to read its exit status.
                ended = process.status() == psutil.STATUS_ZOMBIE
                if abs(process.create_time() - created) < 1 and not ended:
                    living.append(process)
            except (psutil.NoSuchProcess, ValueError, OverflowError):
                continue
        return living

    def _recorded_workers(self) -> list[tuple[int, float]]:
        """Empty if the file is damaged: then they are unknown."""
        try:
            recorded = json.loads(self.workers.read_bytes())
            return [(int(number), float(created)) for number, created in recorded]
        except (OSError, *MALFORMED):
            return []


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
