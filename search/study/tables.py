"""Optuna's tables: what changed of a study's trials, written in one transaction.

Optuna's own storage writes a trial value by value, each with some queries: about 1 ms for each of
its parameters. The rows here are those that it would have written, and only it reads them.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from copy import copy
from datetime import UTC, datetime
from typing import Any

import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

NAMES = (
    "trials",
    "trial_params",
    "trial_values",
    "trial_user_attributes",
    "trial_system_attributes",
)

Rows = dict[str, list[dict[str, Any]]]
"""Table -> rows to insert."""


class Tables:
    """The rows of one study's trials.

    unfinished: number -> a trial that may still change, as the database has it.
    """

    def __init__(
        self, database: RDBStorage, study_id: int, unfinished: Mapping[int, FrozenTrial]
    ) -> None:
        metadata = sqlalchemy.MetaData()
        metadata.reflect(database.engine, only=NAMES)
        self._engine = database.engine
        self._study_id = study_id
        self._tables = {name: metadata.tables[name] for name in NAMES}
        self._open = {n: (each._trial_id, _frozen(each)) for n, each in unfinished.items()}

    def write(self, trials: Iterable[FrozenTrial]) -> None:
        """Make the rows of these trials say what they say; all of them or, if it fails, none."""
        there = dict(self._open)
        with self._engine.begin() as connection:
            rows: Rows = defaultdict(list)
            for trial in trials:
                if trial.number in there:
                    key, before = there[trial.number]
                    self._update(connection, key, before, trial)
                    self._replace(connection, key, before, trial)
                    _add(rows, key, before, trial)
                else:
                    key = self._insert(connection, trial)
                    _add(rows, key, None, trial)
                there[trial.number] = key, _frozen(trial)
            for name, new in rows.items():
                connection.execute(self._tables[name].insert(), new)
        self._open = {n: each for n, each in there.items() if not each[1].state.is_finished()}

    def _insert(self, connection: sqlalchemy.Connection, trial: FrozenTrial) -> int:
        statement = self._tables["trials"].insert()
        values = {"number": trial.number, "study_id": self._study_id, **_state(trial)}
        (key,) = tuple(connection.execute(statement, values).inserted_primary_key or ())
        return int(key)

    def _update(
        self, connection: sqlalchemy.Connection, key: int, before: FrozenTrial, trial: FrozenTrial
    ) -> None:
        if _state(trial) != _state(before):
            table = self._tables["trials"]
            connection.execute(table.update().where(table.c.trial_id == key), _state(trial))

    def _replace(
        self, connection: sqlalchemy.Connection, key: int, before: FrozenTrial, trial: FrozenTrial
    ) -> None:
        """Remove the attributes whose values changed, which are then added as new."""
        for kind in ("user", "system"):
            table = self._tables[f"trial_{kind}_attributes"]
            old, new = (getattr(each, f"{kind}_attrs") for each in (before, trial))
            for name in old.keys() & new.keys():
                if old[name] != new[name]:
                    this = (table.c.trial_id == key) & (table.c.key == name)
                    connection.execute(table.delete().where(this))


def _frozen(trial: FrozenTrial) -> FrozenTrial:
    """A copy that stays as it is: a `Trial` changes the one that it got from its storage."""
    frozen = copy(trial)
    for name in ("params", "user_attrs", "system_attrs"):
        setattr(frozen, name, dict(getattr(trial, name)))
    return frozen


def _add(rows: Rows, key: int, before: FrozenTrial | None, trial: FrozenTrial) -> None:
    """Collect what a trial has and had not before."""
    known = before.params if before else {}
    for name in (each for each in trial.params if each not in known):
        rows["trial_params"].append(_param(key, trial, name))
    if trial.values is not None and (before is None or before.values is None):
        found = enumerate(trial.values)
        rows["trial_values"] += [_value(key, place, value) for place, value in found]
    for kind in ("user", "system"):
        had: Mapping[str, Any] = getattr(before, f"{kind}_attrs") if before else {}
        for name, value in getattr(trial, f"{kind}_attrs").items():
            if name not in had or had[name] != value:
                text = json.dumps(value)
                row = {"trial_id": key, "key": name, "value_json": text}
                rows[f"trial_{kind}_attributes"].append(row)


def _state(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "state": trial.state.name,
        "datetime_start": _utc(trial.datetime_start),
        "datetime_complete": _utc(trial.datetime_complete),
    }


def _utc(moment: datetime | None) -> datetime | None:
    """Trials have local times, and the tables those of Greenwich, both without a zone."""
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None)


def _param(key: int, trial: FrozenTrial, name: str) -> dict[str, Any]:
    distribution = trial.distributions[name]
    return {
        "trial_id": key,
        "param_name": name,
        "param_value": distribution.to_internal_repr(trial.params[name]),
        "distribution_json": distribution_to_json(distribution),
    }


def _value(key: int, place: int, value: float) -> dict[str, Any]:
    kind = "FINITE" if math.isfinite(value) else "INF_POS" if value > 0 else "INF_NEG"
    stored = value if kind == "FINITE" else None
    return {"trial_id": key, "objective": place, "value": stored, "value_type": kind}
