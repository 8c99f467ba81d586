"""Pictures of trials for optuna-dashboard: artifacts that are drawn when someone looks at them."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import optuna
from optuna.artifacts import upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound

from paretoformer.search.records.record import RECORD, TrialRecord
from paretoformer.search.report.layers import picture

NAME = "layers.svg"
PICTURE = "picture"
"""User attribute of a trial: the id of its artifact."""


class Pictures:
    """Optuna's artifact store for the trials of a study: the layers of each, and nothing else.

    Nothing is written: a trial's record says what to draw.
    """

    def __init__(self, storage: optuna.storages.BaseStorage, name: str) -> None:
        """name: of the study."""
        self._storage = storage
        self._name = name

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The picture, as SVG.

        Raises:
            ArtifactNotFound: no trial of this study has it.
        """
        study = self._storage.get_study_id_from_name(self._name)
        for trial in self._storage.get_all_trials(study, deepcopy=False):
            if trial.user_attrs.get(PICTURE) == artifact_id and RECORD in trial.user_attrs:
                record = TrialRecord.from_json(trial.user_attrs[RECORD])
                return io.BytesIO(picture(record.candidate).encode())
        raise ArtifactNotFound(f"no trial has the picture {artifact_id!r}")

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """It is drawn when someone looks."""

    def remove(self, artifact_id: str) -> None:
        """There is no file."""


def attach_picture(trial: optuna.Trial) -> None:
    """Have a trial that is not finished yet say that there is a picture of its layers."""
    store = Pictures(trial.storage, trial.study.study_name)
    found = upload_artifact(artifact_store=store, file_path=str(_nothing()), study_or_trial=trial)
    trial.set_user_attr(PICTURE, found)


@cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="paretoformer-")


@cache
def _nothing() -> Path:
    """An empty file of the right name, which Optuna wants to read."""
    path = Path(_folder().name) / NAME
    path.touch()
    return path
