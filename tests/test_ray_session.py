"""Ray, started: a first start that is late is not the end."""

from __future__ import annotations

from typing import Any

import pytest

from paretoformer.search.dispatch.ray_session import _start
from paretoformer.search.records.errors import StudyFailed


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
