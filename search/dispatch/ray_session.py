"""A Ray session for a search: started with token authentication, or joined, and shut down."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from paretoformer.search.dispatch.signals import ignore_signals, interruptible
from paretoformer.search.records.errors import Interrupted, StudyFailed, UserError
from paretoformer.spaces.common.malformed import one_line

STARTS = 2
"""Attempts: Ray's limit of 30 seconds is too short for a first start from a cold disk."""
LONGEST_FOLDER = 40
"""Characters. A socket's path has at most 107; Ray adds a session's folder and a name."""
SHORT_FOLDER = "/tmp"  # Ray's default
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


def import_ray() -> Any:
    """The module `ray`, with its environment set before the first import.

    Raises:
        UserError: ray was imported before, without token authentication.
    """
    if "ray" in sys.modules and os.environ.get("RAY_AUTH_MODE") != "token":
        raise UserError(
            "ray was imported without token authentication, and it listens on all interfaces: "
            "set RAY_AUTH_MODE=token in the environment before this process imports ray."
        )
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Otherwise workers without a reserved GPU see none, and device indices are renumbered.
    os.environ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"] = "1"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    # With Ray's default niceness of 15 any process could starve a timing; deployed models run at 0.
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray  # seconds to import, and only a search needs it

    return ray


@contextmanager
def ray_session(address: str | None, cores: int) -> Iterator[None]:
    """A local Ray, or a connection to the cluster at `address`, for the duration of the block.

    SIGINT and SIGTERM become `Interrupted`; Ray is always shut down.

    Raises:
        UserError: there is no cluster at `address`.
        StudyFailed: Ray does not start here.
    """
    ray = import_ray()
    if ray.is_initialized():  # the caller's own Ray: leave it running
        yield
        return
    _keep_token_to_its_owner(create=not address)
    try:
        if address:
            _join(ray, address)
        else:
            _start(ray, cores)
    except SystemExit:  # from Ray's own SIGTERM handler, before ours is installed
        raise Interrupted(signal.SIGTERM) from None
    try:
        # Not earlier: `ray.init` installs its own SIGTERM handler.
        with interruptible():
            yield
    finally:
        with ignore_signals():
            ray.shutdown()


def _join(ray: Any, address: str) -> None:
    try:
        ray.init(address=address, **QUIET)
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"no Ray cluster at {address}: {one_line(error)}") from None


def _start(ray: Any, cores: int) -> None:
    _use_short_paths()
    for start in range(STARTS):
        try:
            # Without "local", Ray would join RAY_ADDRESS or a cluster on this machine.
            ray.init(address="local", num_cpus=cores, include_dashboard=False, **QUIET)
            return
        except Exception as error:  # a node that is late raises a bare `Exception`
            ray.shutdown()
            if start == STARTS - 1:
                raise StudyFailed(f"Ray does not start: {one_line(error)}") from None


def _keep_token_to_its_owner(*, create: bool) -> None:
    """Let only the owner read the token file.

    Ray would make it readable for everyone, and anyone who has it can run code in the session. The
    file stays in its default place, so that Ray's commands and other clusters still find it.

    create: write a token if there is none. Without a home to write it to, only this process and
        those that it starts have it.
    """
    if any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return
    try:
        path = Path.home() / ".ray" / "auth_token"
        if create and not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_once(path, secrets.token_hex(32))
    except (OSError, RuntimeError):  # no home, or one that cannot be written, as in containers
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        return
    with suppress(FileNotFoundError, PermissionError):
        path.chmod(0o600)


def _use_short_paths() -> None:
    """Keep Ray's sockets out of a folder whose path is too long for them, as job schedulers make.

    Raises:
        UserError: there is no other folder.
    """
    variable = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    folder = os.environ.get(variable, "")
    if len(folder) <= LONGEST_FOLDER:
        return
    if variable == "RAY_TMPDIR" or not os.access(SHORT_FOLDER, os.W_OK):
        raise UserError(
            f"{variable} has {len(folder)} characters, and Ray's sockets have room for "
            f"{LONGEST_FOLDER}: set RAY_TMPDIR to a folder with a shorter path."
        )
    os.environ["RAY_TMPDIR"] = SHORT_FOLDER


def _write_once(path: Path, text: str) -> None:
    """Write a file that only its owner can read; if another process was faster, keep its file."""
    number, name = tempfile.mkstemp(dir=path.parent)  # readable only by its owner
    try:
        with os.fdopen(number, "w") as file:
            file.write(text)
        with suppress(FileExistsError):
            os.link(name, path)  # atomic
    finally:
        os.unlink(name)
