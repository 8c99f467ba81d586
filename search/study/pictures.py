"""Pictures of trials for optuna-dashboard: artifacts that are drawn when someone looks at them."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from typing import BinaryIO

import optuna
from optuna.artifacts import ArtifactMeta
from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX
from optuna.artifacts.exceptions import ArtifactNotFound

from paretoformer.search.results.layers import picture
from paretoformer.search.results.record import RECORD, TrialRecord

PICTURE = "layers.svg"


def attach_picture(trial: optuna.Trial, record: TrialRecord) -> None:
    """Have a trial that is not finished yet say that there is a picture of its layers.

    `upload_artifact` would want a file for every trial; `Pictures` draws from the record.
    """
    meta = ArtifactMeta(_artifact_id(record), PICTURE, "image/svg+xml", None)
    key = ARTIFACTS_ATTR_PREFIX + meta.artifact_id
    trial.storage.set_trial_system_attr(trial._trial_id, key, json.dumps(asdict(meta)))


def _artifact_id(record: TrialRecord) -> str:
    """Hexadecimal digits and hyphens, which is all that the dashboard serves."""
    return f"{record.trial:x}-{record.candidate.id}"


class Pictures:
    """Optuna's artifact store for the trials of a study: the layers of each, and nothing else."""

    def __init__(self, storage: optuna.storages.BaseStorage, name: str) -> None:
        """name: of the study."""
        self._storage = storage
        self._name = name

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The picture, as SVG.

        Raises:
            ArtifactNotFound: it is none of this study.
        """
        try:
            study = self._storage.get_study_id_from_name(self._name)
            number = int(artifact_id.partition("-")[0], 16)
            trial = self._storage.get_trial_id_from_study_id_trial_number(study, number)
            record = TrialRecord.from_json(self._storage.get_trial(trial).user_attrs[RECORD])
        except (KeyError, ValueError):
            raise ArtifactNotFound(f"no trial has the picture {artifact_id}") from None
        if _artifact_id(record) != artifact_id:
            raise ArtifactNotFound(f"{artifact_id} is a picture of another study")
        return io.BytesIO(picture(record.candidate).encode())

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        raise ValueError("a run keeps no files of its trials.")

    def remove(self, artifact_id: str) -> None:
        """There is no file."""
