"""The artifacts of built candidates, kept during a study and after it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from paretoformer.evaluators.artifact import Artifact, needs_artifact, workspace
from paretoformer.search.records.errors import RunError
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.atomic import atomic_folder
from paretoformer.spaces.common.malformed import json_object

DIGEST = "artifact.json"


class ArtifactFolder:
    """One folder per candidate; it appears complete or not at all.

    digest: of the dense model. An artifact that was built from another model does not count.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self._path = path
        self._digest = digest

    def has(self, candidate: Candidate) -> bool:
        """Whether the artifact is there, complete, and built from this model."""
        try:
            facts = json_object((self.folder(candidate) / DIGEST).read_bytes())
            read_artifact(self.folder(candidate))
        except (OSError, ValueError):
            return False
        return bool(facts.get("model") == self._digest)

    def put(self, candidate: Candidate, artifact: Artifact) -> None:
        folder = self.folder(candidate)
        facts = {"model": self._digest, "artifact": artifact.digest, "id": candidate.id}
        shutil.rmtree(folder, ignore_errors=True)
        with atomic_folder(folder) as part:
            artifact.write(part)
            (part / DIGEST).write_text(json.dumps(facts) + "\n", encoding="utf-8")
        shutil.rmtree(workspace(self._path, candidate), ignore_errors=True)

    def of(self, candidate: Candidate) -> Artifact | None:
        """Raises RunError if its files have changed or are gone."""
        if not needs_artifact(candidate):
            return None
        try:
            return read_artifact(self.folder(candidate))
        except ValueError as error:
            raise RunError(f"{error} Run the same command again to build it again.") from None

    def folder(self, candidate: Candidate) -> Path:
        return self._path / candidate.id

    def drop(self, candidates: Iterable[Candidate]) -> None:
        for candidate in candidates:
            shutil.rmtree(self.folder(candidate), ignore_errors=True)
            shutil.rmtree(workspace(self._path, candidate), ignore_errors=True)


def read_artifact(folder: Path) -> Artifact:
    """The artifact in a folder that `ArtifactFolder` wrote.

    Raises:
        ValueError: there is none, or its files have changed.
    """
    try:
        facts = json_object((folder / DIGEST).read_bytes())
        files = dict(Artifact.read(folder).files)
    except (OSError, ValueError):
        raise ValueError(f"{folder} holds no artifact.") from None
    files.pop(DIGEST)
    artifact = Artifact(files)
    if artifact.digest != facts.get("artifact"):
        raise ValueError(f"the files in {folder} were changed since they were measured.")
    return artifact
