"""A full disk: one line that says which, nothing partial left, and the same command goes on."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from safetensors import SafetensorError

import paretoformer as pf
from paretoformer.evaluators.artifact import Artifact
from paretoformer.evaluators.evaluator import failure
from paretoformer.evaluators.outcome import Outcome, Result
from paretoformer.search.dispatch.artifacts import ArtifactFolder
from paretoformer.search.dispatch.pipeline import Pipeline
from paretoformer.search.records.disk import room_on
from paretoformer.search.records.errors import DiskFull, StudyError
from paretoformer.spaces.common.atomic import atomic_file, write_atomically
from tests.conftest import Run
from tests.tiny import write_study

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def chained(outer: Exception, inner: Exception) -> Exception:
    """`outer` as it is when it was raised from `inner`."""
    outer.__cause__ = inner
    return outer


RAISED = {
    "system": FULL,
    "quota": OSError(errno.EDQUOT, "Disk quota exceeded"),
    "sqlite": sqlalchemy.exc.OperationalError("INSERT", {}, Exception("database or disk is full")),
    "optuna": chained(optuna.exceptions.StorageInternalError("An exception is raised"), FULL),
    "safetensors": SafetensorError("I/O error: No space left on device (os error 28)"),
    "no folder for temporary files": FileNotFoundError(
        errno.ENOENT, "No usable temporary directory found in ['/tmp']"
    ),
    "postgresql": sqlalchemy.exc.OperationalError("x", {}, Exception("could not extend file")),
}


@pytest.mark.parametrize("who", RAISED)
def test_full_disk_is_recognised_whoever_says_it(who: str, tmp_path: Path) -> None:
    with (
        pytest.raises(DiskFull, match=r"no room is left on .* MB are free. Make room"),
        room_on(tmp_path / "not" / "there"),
    ):
        raise RAISED[who]


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "no"), StudyError("x"), KeyError("disk")])
def test_other_errors_stay_what_they_are(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, room_on(tmp_path):
        raise error
    assert caught.value is error


def test_file_that_an_error_names_says_which_file_system(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, "full", "/proc/self/status")
    with pytest.raises(DiskFull, match="file system at /proc: "), room_on(tmp_path):
        raise error


def test_partial_file_is_removed(tmp_path: Path) -> None:
    def half(path: Path) -> None:
        with atomic_file(path) as part:
            part.write_text("half")
            raise FULL

    write_atomically(tmp_path / "a.json", "old")
    with pytest.raises(OSError, match="No space"):
        half(tmp_path / "a.json")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


def test_partial_artifact_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(self: Artifact, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "half").touch()
        raise FULL

    monkeypatch.setattr(Artifact, "write", half)
    with pytest.raises(OSError, match="No space"):
        ArtifactFolder(tmp_path / "models", "x").put(pf.Candidate.dense(1, 2), Artifact({}))
    assert not list((tmp_path / "models").iterdir())


class Full:
    """A dispatcher whose only worker has no room."""

    slots = 1

    def submit(self, job: object) -> object:
        from concurrent.futures import Future

        future: Future[Result] = Future()
        future.set_result(failure(FULL))
        return future

    def wait(self) -> None: ...


def test_candidate_is_not_to_blame_for_a_full_disk() -> None:
    """So its trial stays begun, and is measured when there is room."""
    assert failure(FULL).outcome is Outcome.ERROR
    pipeline = Pipeline(Full(), "search")  # type: ignore[arg-type]
    pipeline.start(0, pf.Candidate.dense(1, 2), None)
    with pytest.raises(DiskFull, match="no room is left where a worker works: OSError"):
        pipeline.finished()


def test_command_says_what_is_full(
    run: Run, example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(example, tmp_path / "run"))
    monkeypatch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(FULL))
    status, _, error = run("report", copy)
    assert status == 2
    assert error.startswith("paretoformer: no room is left on the file system at ")
    assert error.count("\n") == 1
    assert not [path.name for path in copy.iterdir() if path.name.startswith(".report")]


@pytest.fixture
def small(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of a few kilobytes, as many as the parameter says."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={request.param}k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    # A study of this process may still hold its database open.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def grow(folder: Path, kilobytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(folder)], check=True)


@pytest.mark.parametrize("small", [130], indirect=True)
def test_report_is_written_once_there_is_room(run: Run, small: Path, example: Path) -> None:
    copy = small / "run"
    shutil.copytree(example, copy)
    status, _, error = run("report", copy)
    assert status == 2
    assert error.count("\n") == 1
    assert f"no room is left on the file system at {small}: " in error
    assert {path.name for path in copy.iterdir()} == {path.name for path in example.iterdir()}
    grow(small, 20_000)
    assert run("report", copy)[0] == 0


@pytest.mark.slow
@pytest.mark.usefixtures("inline")
@pytest.mark.parametrize("small", [100], indirect=True)
def test_search_goes_on_once_there_is_room(run: Run, small: Path, tmp_path: Path) -> None:
    """First its storage does not fit, then what it writes while it searches."""
    extra = (
        '[space]\nruntime = ["torch"]\nattention = ["full", "window"]\n[search]\ntable = false\n'
    )
    study = write_study(tmp_path, trials=3, extra=extra)
    for kilobytes in (100, 400):
        grow(small, kilobytes)
        status, _, error = run("search", study, "--out", small / "run")
        assert status == 2, error
        assert "Traceback" not in error
        assert f"no room is left on the file system at {small}: " in error.splitlines()[-1]
        assert not list(small.rglob("*.part"))
    grow(small, 50_000)
    assert run("search", study, "--out", small / "run")[0] == 0
    assert (small / "run" / "report.html").exists()
