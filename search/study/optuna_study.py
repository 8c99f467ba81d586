"""The Optuna study: its storage, its sampler, and the trials of a run that was cut off."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
import sqlalchemy
from optuna.samplers import BaseSampler
from optuna.samplers._ga import BaseGASampler
from optuna.trial import TrialState

from paretoformer.evaluators.metrics import Metric
from paretoformer.search.errors import StudyError

SURROGATE = "surrogate"
"""The sampler of ours, which a study gets once its block table is there."""
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
    study = optuna.create_study(
        study_name=name,
        storage=open_storage(storage_url),
        directions=[metric.direction for metric in metrics],
        load_if_exists=True,
    )
    # A restarted sampler must not draw again what it drew before it was cut off.
    study.sampler = make_sampler(sampler, seed + len(study.get_trials(deepcopy=False)))
    names = [metric.name for metric in metrics]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if study.metric_names not in (None, names):
            raise StudyError(
                f"{storage_url} holds a study {name!r} with the objectives "
                f"{', '.join(study.metric_names)}: choose another name."
            )
        study.set_metric_names(names)
    return study


def check_storage(url: str, new: str) -> None:
    """Raises StudyError unless a database answers at the SQLAlchemy URL, without a study `new`."""
    try:
        sqlalchemy.create_engine(url).connect().close()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StudyError(f"cannot open the storage {url!r}: {reason}") from None
    if new and new in optuna.get_all_study_names(open_storage(url)):
        raise StudyError(f"{url} holds a study {new!r} already: choose another name.")


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Optuna's storage at a SQLAlchemy URL; SQLite in WAL mode: readers never block it."""
    if not url.startswith("sqlite"):
        return optuna.storages.RDBStorage(url)
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})

    @sqlalchemy.event.listens_for(storage.engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        # NORMAL in WAL mode loses nothing when a process dies, only (the last commits) when the
        # machine loses power; it saves a disk flush at every commit.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    storage.engine.dispose()  # connections made before the listener
    return storage


def make_sampler(name: str, seed: int) -> BaseSampler:
    """The sampler of that name; every setting explicit where Optuna's defaults have moved.

    Random, until it is there, in place of `SURROGATE`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "nsga2":
            return optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
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
    if isinstance(study.sampler, BaseGASampler) and "fixed_params" in frozen.system_attrs:
        study.sampler.get_trial_generation(study, frozen)


def unfinished(study: optuna.Study) -> Iterator[optuna.Trial]:
    """The trials that a killed run was measuring, to be measured now under their own numbers.

    A `Trial` made for a running trial answers `suggest` with the values that are stored already,
    and planted ones with their planted values.
    """
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        yield optuna.Trial(study, frozen._trial_id)
