"""Ray, started: a first start that is late is not the end, and odd environments neither."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from paretoformer.search.dispatch.ray_session import (
    _keep_token_to_its_owner,
    _start,
    _use_short_paths,
)
from paretoformer.search.records.errors import StudyFailed, UserError


class ColdRay:
    """Whose processes are late at first: it raises what Ray 2.60 raises, a bare `Exception`."""

    def __init__(self, late: int) -> None:
        self.late = late
        self.calls: list[str] = []

    def init(self, **options: Any) -> None:
        self.calls.append("init")
        assert options["address"] == "local"
        if self.late:
            self.late -= 1
            raise Exception("The current node timed out\nduring startup.")

    def shutdown(self) -> None:
        self.calls.append("shutdown")


def test_ray_that_is_late_is_started_again() -> None:
    ray = ColdRay(late=1)
    _start(ray, cores=2)
    assert ray.calls == ["init", "shutdown", "init"]


def test_ray_that_does_not_start_is_one_line() -> None:
    with pytest.raises(StudyFailed, match=r"Ray does not start: The current node timed out during"):
        _start(ColdRay(late=2), cores=2)


@pytest.fixture
def own_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Variables that a test sets, or lets be set, are undone."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_TMPDIR", "TMPDIR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize("home", ["/proc", "/dev/null"])
def test_home_that_cannot_be_written_needs_no_token_file(
    own_environment: pytest.MonkeyPatch, home: str
) -> None:
    own_environment.setenv("HOME", home)
    _keep_token_to_its_owner(create=True)
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


def test_token_is_in_a_file_of_its_owner(
    own_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own_environment.setenv("HOME", str(tmp_path))
    _keep_token_to_its_owner(create=True)
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600


def test_sockets_go_elsewhere_if_the_path_of_tmpdir_is_too_long(
    own_environment: pytest.MonkeyPatch,
) -> None:
    own_environment.setenv("TMPDIR", "/scratch")
    _use_short_paths()
    assert "RAY_TMPDIR" not in os.environ
    own_environment.setenv("TMPDIR", "/scratch/" + "x" * 101)
    _use_short_paths()
    assert os.environ["RAY_TMPDIR"] == "/tmp"
    own_environment.setenv("RAY_TMPDIR", "/scratch/" + "x" * 101)
    with pytest.raises(UserError, match="RAY_TMPDIR has 110 characters, and Ray's sockets have"):
        _use_short_paths()
