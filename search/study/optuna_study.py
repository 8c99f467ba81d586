"""The Optuna study of a run: its storage, and the unfinished trials of an interrupted run."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
import sqlalchemy
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState

from paretoformer.evaluators.metrics import Metric
from paretoformer.search.records.disk import is_full
from paretoformer.search.records.errors import StudyError
from paretoformer.search.study.samplers import make_sampler
from paretoformer.spaces.common.malformed import one_line


class ResumableStudy(optuna.Study):
    """An Optuna study that can continue the trials of an interrupted run."""

    def __init__(self, name: str, storage: BaseStorage, sampler: BaseSampler | None = None) -> None:
        super().__init__(name, storage, sampler)
        self.database = storage

    def unfinished(self) -> Iterator[optuna.Trial]:
        """The running trials, under their own numbers.

        `suggest` answers with the stored or enqueued values.
        """
        study = self.database.get_study_id_from_name(self.study_name)
        find = self.database.get_trial_id_from_study_id_trial_number
        for trial in self.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            yield optuna.Trial(self, find(study, trial.number))


def open_study(
    name: str,
    storage_url: str,
    metrics: Sequence[Metric],
    sampler: str,
    seed: int,
) -> ResumableStudy:
    """Create the study, or open an earlier run's.

    Raises:
        StudyError: the storage cannot be opened, or holds a study of that name with other
            objectives.
    """
    with _storage_errors(storage_url):
        return study_in(open_storage(storage_url), name, metrics, sampler, seed)


def study_in(
    storage: BaseStorage, name: str, metrics: Sequence[Metric], sampler: str, seed: int
) -> ResumableStudy:
    """`open_study` in an open storage."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = [metric.direction for metric in metrics]
    optuna.create_study(
        study_name=name, storage=storage, directions=directions, load_if_exists=True
    )
    study = ResumableStudy(name, storage)
    names = [metric.name for metric in metrics]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if study.metric_names not in (None, names):
            raise StudyError(
                f"the storage holds a study {name!r} with the objectives "
                f"{', '.join(study.metric_names)}: choose another name."
            )
        study.set_metric_names(names)
    # Another seed, so that a resumed study does not draw the same numbers again.
    study.sampler = make_sampler(sampler, seed + len(study.get_trials(deepcopy=False)))
    return study


def check_storage(url: str, new: str) -> None:
    """Raises StudyError unless the URL's database answers and holds no study named `new`."""
    with _storage_errors(url):
        where = sqlalchemy.make_url(_with_driver(url))
        engine = sqlalchemy.create_engine(where)
        engine.connect().close()
        engine.dispose()
        if where.drivername.startswith("sqlite") and where.database in (None, "", ":memory:"):
            raise ValueError("it is in memory, where nothing is kept: use sqlite:///study.db")
        names = optuna.get_all_study_names(open_storage(url)) if new else ()
    if new in names:
        raise StudyError(f"{_shown(url)} holds a study {new!r} already: choose another name.")


@contextmanager
def _storage_errors(url: str) -> Iterator[None]:
    """Turn errors of an unusable database into `StudyError`, except for a full disk."""
    try:
        yield
    except (
        sqlalchemy.exc.SQLAlchemyError,
        optuna.exceptions.OptunaError,
        ImportError,
        OSError,
        RuntimeError,
        ValueError,
        LookupError,
    ) as error:
        if is_full(error):
            raise
        reason = one_line(error)
        if isinstance(error, ImportError) and url.startswith("postgresql"):
            reason += ": pip install 'paretoformer[postgres]'"
        raise StudyError(f"cannot open the storage {_shown(url)!r}: {reason}") from None


def _shown(url: str) -> str:
    """Without the password."""
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except (sqlalchemy.exc.SQLAlchemyError, ValueError):
        return url


def open_storage(url: str) -> RDBStorage:
    """Optuna's storage at a SQLAlchemy URL; SQLite in WAL mode, so that readers do not block.

    Its connections are closed when it is garbage-collected.

    Raises:
        StudyError: the database cannot be used.
    """
    with _storage_errors(url):
        if not url.startswith("sqlite"):
            storage = RDBStorage(_with_driver(url))
            weakref.finalize(storage, storage.engine.dispose)
            return storage
        storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
        sqlalchemy.event.listen(storage.engine, "connect", _use_wal)
        storage.engine.dispose()  # close connections from before the listener
        return storage


def _use_wal(connection: Any, record: Any) -> None:
    """synchronous=NORMAL saves a disk flush per commit. In WAL mode a killed process loses nothing;
    only a power failure can lose the last commits."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _with_driver(url: str) -> str:
    """PostgreSQL through psycopg 3, from the extra `postgres`, unless the URL names a driver.

    The default is psycopg2 in SQLAlchemy 2.0 and psycopg 3 in later versions.
    """
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg{separator}{rest}" if scheme == "postgresql" else url
