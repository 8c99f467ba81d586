"""The Optuna study: its storage, its sampler, and the trials of a run that was cut off."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
import sqlalchemy
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from paretoformer.evaluators.metrics import Metric
from paretoformer.search.records.disk import is_full
from paretoformer.search.records.errors import StudyError
from paretoformer.search.study.generations import Generations
from paretoformer.search.study.storage import StudyStorage
from paretoformer.spaces.common.malformed import one_line

SURROGATE = "surrogate"
"""The sampler of ours, which a study gets once its block table is there."""
AUTO = "auto"
"""`SURROGATE` where there is such a table and it models the objectives, else NSGA-II."""
POPULATION = 16
"""Of NSGA-II. Optuna's 50 would spend most of a study of 60 trials on its random first generation;
the planted trials fill one of 16, or two."""


def open_study(
    name: str,
    storage_url: str,
    metrics: Sequence[Metric],
    sampler: str,
    seed: int,
) -> optuna.Study:
    """Create the study, or open it where an earlier run left it.

    Raises:
        StudyError: the storage cannot be opened, or holds a study of that name with other
            objectives.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _answering(storage_url):
        study = _opened(name, storage_url, metrics)
    # A restarted sampler must not draw again what it drew before it was cut off.
    study.sampler = make_sampler(sampler, seed + len(study.get_trials(deepcopy=False)))
    return study


def _opened(name: str, storage_url: str, metrics: Sequence[Metric]) -> optuna.Study:
    database = open_storage(storage_url)
    stored = optuna.create_study(
        study_name=name,
        storage=database,
        directions=[metric.direction for metric in metrics],
        load_if_exists=True,
    )
    names = [metric.name for metric in metrics]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if stored.metric_names not in (None, names):
            raise StudyError(
                f"{_shown(storage_url)} holds a study {name!r} with the objectives "
                f"{', '.join(stored.metric_names)}: choose another name."
            )
        stored.set_metric_names(names)
        study = optuna.load_study(study_name=name, storage=StudyStorage(database, name))
        study.set_metric_names(names)
    return study


def check_storage(url: str, new: str) -> None:
    """Raises StudyError unless a database answers at the SQLAlchemy URL, without a study `new`."""
    with _answering(url):
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
def _answering(url: str) -> Iterator[None]:
    """Within, a database that cannot be used is a `StudyError`; one whose disk is full stays it."""
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


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Optuna's storage at a SQLAlchemy URL; SQLite in WAL mode: readers never block it.

    Its connections are closed when it is no longer used.

    Raises:
        StudyError: the database cannot be used.
    """
    with _answering(url):
        return _storage(url)


def _storage(url: str) -> optuna.storages.RDBStorage:
    if not url.startswith("sqlite"):
        storage = optuna.storages.RDBStorage(_with_driver(url))
        weakref.finalize(storage, storage.engine.dispose)
        return storage
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})

    @sqlalchemy.event.listens_for(storage.engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        # NORMAL in WAL mode loses nothing when a process dies, only (the last commits) when the
        # machine loses power; it saves a disk flush at every commit.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    storage.engine.dispose()  # connections made before the listener
    return storage


def _with_driver(url: str) -> str:
    """PostgreSQL by psycopg 3, which the extra `postgres` installs, unless the URL names another.

    SQLAlchemy 2.0 would take psycopg2, later versions this one.
    """
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg{separator}{rest}" if scheme == "postgresql" else url


def make_sampler(name: str, seed: int) -> BaseSampler:
    """The sampler of that name; every setting explicit where Optuna's defaults have moved.

    Random, until it is there, in place of `SURROGATE`.

    seed: numpy, which draws for the samplers, takes 32 bits of it.
    """
    seed %= 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name in ("nsga2", AUTO):
            return Generations(population_size=POPULATION, seed=seed)
        if name == "tpe":
            return optuna.samplers.TPESampler(
                multivariate=False, constant_liar=True, n_startup_trials=10, seed=seed
            )
        if name == "gp":
            return optuna.samplers.GPSampler(n_startup_trials=10, seed=seed)
        return optuna.samplers.RandomSampler(seed=seed)


def belongs_to_population(study: optuna.Study, trial: optuna.Trial) -> None:
    """Make a planted trial a member of the generation that is being filled.

    Optuna's genetic samplers count only trials that they proposed: without this the planted ones
    would have no children, and the search would begin again from random candidates.
    """
    frozen = trial._cached_frozen_trial  # as it was asked: no question to the storage
    if isinstance(study.sampler, Generations) and "fixed_params" in frozen.system_attrs:
        study.sampler.get_trial_generation(study, frozen)


def keep(trial: optuna.Trial) -> None:
    """Have a begun trial in the database, before anyone works on it."""
    if isinstance(trial.storage, StudyStorage):
        trial.storage.keep()


def unfinished(study: optuna.Study) -> Iterator[optuna.Trial]:
    """The trials that a killed run was measuring, to be measured now under their own numbers.

    A `Trial` made for a running trial answers `suggest` with the values that are stored already,
    and planted ones with their planted values.
    """
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        yield optuna.Trial(study, frozen._trial_id)
