"""Ray for the length of a search: started with token authentication, or joined, and shut down."""

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
"""Ray waits 30 seconds for its processes: too short for the first start from a cold disk."""
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


def import_ray() -> Any:
    """The module `ray`, which reads its settings from the environment when it is first imported.

    Raises:
        UserError: it was imported before, without token authentication.
    """
    if "ray" in sys.modules and os.environ.get("RAY_AUTH_MODE") != "token":
        raise UserError(
            "ray was imported without token authentication, and it listens on all interfaces: "
            "set RAY_AUTH_MODE=token in the environment before this process imports ray."
        )
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Otherwise a worker that reserves no GPU is shown none, and device indices are renumbered.
    os.environ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"] = "1"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    # Ray's default of 15 lets any other process starve a timing; a deployed model is not niced.
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray  # seconds to import, and only a search needs it

    return ray


@contextmanager
def ray_session(address: str | None, cores: int) -> Iterator[None]:
    """A local Ray for the length of the block, or a connection to the cluster at `address`.

    SIGINT and SIGTERM become `Interrupted`; Ray is shut down whatever happens.

    Raises:
        UserError: there is no cluster at `address`.
        StudyFailed: Ray does not start here.
    """
    ray = import_ray()
    if ray.is_initialized():  # the caller's own Ray stays the caller's
        yield
        return
    _keep_token_to_its_owner(create=not address)
    try:
        if address:
            _join(ray, address)
        else:
            _start(ray, cores)
    except SystemExit:  # its own handler of SIGTERM, before ours is in place
        raise Interrupted(signal.SIGTERM) from None
    try:
        # Only now: `ray.init` installs a handler of its own for SIGTERM.
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
    for start in range(STARTS):
        try:
            # "local", or RAY_ADDRESS and clusters of this machine would be joined.
            ray.init(address="local", num_cpus=cores, include_dashboard=False, **QUIET)
            return
        except Exception as error:  # a node that is late raises a bare `Exception`
            ray.shutdown()
            if start == STARTS - 1:
                raise StudyFailed(f"Ray does not start: {one_line(error)}") from None


def _keep_token_to_its_owner(*, create: bool) -> None:
    """See that nobody else on this machine can read the token in its default place.

    Ray would write it for everyone to read, and whoever has it may run code in the session. It
    stays where Ray looks for it, so its own commands and clusters go on as they did.

    create: write one where there is none.
    """
    if any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return
    path = Path.home() / ".ray" / "auth_token"
    if create and not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_once(path, secrets.token_hex(32))
    with suppress(FileNotFoundError, PermissionError):
        path.chmod(0o600)


def _write_once(path: Path, text: str) -> None:
    """Write a file for its owner alone; where another process was faster, theirs stays."""
    number, name = tempfile.mkstemp(dir=path.parent)  # which is readable by its owner alone
    try:
        with os.fdopen(number, "w") as file:
            file.write(text)
        with suppress(FileExistsError):
            os.link(name, path)  # whole or not at all
    finally:
        os.unlink(name)
