"""Doors: who else is on the machine, or has a page open in its browser, gets nothing."""

from __future__ import annotations

import http.client
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from paretoformer.search.dispatch.ray_session import _keep_token_to_its_owner
from paretoformer.search.report.dashboard import _server, is_asked_for, only_for


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Someone's home, on a machine where what is written is for everyone to read."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    before = os.umask(0)
    yield tmp_path
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_token_is_readable_by_its_owner_alone(home: Path) -> None:
    _keep_token_to_its_owner(create=True)
    token = home / ".ray" / "auth_token"
    assert (mode(token), mode(token.parent)) == (0o600, 0o700)
    assert len(token.read_text()) == 64
    assert list(token.parent.iterdir()) == [token]


def test_token_that_is_there_stays_and_is_shut(home: Path) -> None:
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("mine")
    token.chmod(0o644)
    for create in (False, True):
        _keep_token_to_its_owner(create=create)
        assert (token.read_text(), mode(token)) == ("mine", 0o600)


def test_no_token_is_made_to_join_a_cluster(home: Path) -> None:
    _keep_token_to_its_owner(create=False)
    assert not list(home.iterdir())


def test_token_from_elsewhere_is_left_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "other"))
    _keep_token_to_its_owner(create=True)
    assert not list(home.iterdir())


@pytest.mark.slow
@pytest.mark.alone
def test_ray_takes_the_token_that_is_there(home: Path) -> None:
    """In a process of its own, for Ray reads a token once."""
    import subprocess
    import sys

    code = (
        "from paretoformer.search.dispatch.ray_session import ray_session\n"
        "with ray_session(None, 1):\n"
        "    import ray\n"
        "    print(ray.get(ray.remote(lambda: 7).remote()))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split()[-1] == "7"
    assert mode(home / ".ray" / "auth_token") == 0o600


@pytest.mark.parametrize(
    ("header", "host", "answer"),
    [
        ("127.0.0.1:8080", "127.0.0.1", True),
        ("localhost:8080", "127.0.0.1", True),
        ("LOCALHOST", "127.0.0.1", True),
        ("localhost:9000", "127.0.0.1", True),  # a forwarded port
        ("[::1]:8080", "::1", True),
        ("evil.example:8080", "127.0.0.1", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("localhost.evil.example:8080", "127.0.0.1", False),
        ("evil.example", "localhost", False),
        ("10.0.0.5:8080", "127.0.0.1", False),
        ("", "127.0.0.1", False),
        ("study.lab:8080", "study.lab", True),
        ("localhost:8080", "study.lab", False),
        ("evil.example:8080", "study.lab", False),
        ("10.0.0.5:8080", "0.0.0.0", True),
        ("[fe80::1]:8080", "::", True),
        ("evil.example:8080", "0.0.0.0", False),
        ("evil.example:8080", "::", False),
        ("", "0.0.0.0", False),
        ("", "", False),
    ],
)
def test_dashboard_answers_to_the_host_that_was_asked_for(
    header: str, host: str, answer: bool
) -> None:
    assert is_asked_for(header, host) is answer


@pytest.fixture
def port() -> Iterator[int]:
    """Of a server of a page."""

    def page(environ, start):
        start("200 OK", [("Content-Type", "text/plain")])
        return [b"the study"]

    class Silent(WSGIRequestHandler):
        def log_message(self, *_: object) -> None: ...

    host = "127.0.0.1"
    with make_server(host, 0, only_for(host, page), _server(host), Silent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("host", "status", "body"),
    [("localhost:{port}", 200, "the study"), ("evil.example:{port}", 403, "answers to 127.0.0.1")],
)
def test_request_for_another_host_is_forbidden(
    port: int, host: str, status: int, body: str
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for path in ("/", "/api/studies"):
        connection.request("GET", path, headers={"Host": host.format(port=port)})
        answer = connection.getresponse()
        assert answer.status == status
        assert body in answer.read().decode()
    connection.close()
