"""Ray for the length of a search: started with token authentication, or joined, and shut down."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from paretoformer.search.dispatch.signals import ignore_signals, interruptible
from paretoformer.search.errors import Interrupted, StudyFailed, UserError


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
    """
    ray = import_ray()
    if ray.is_initialized():  # the caller's own Ray stays the caller's
        yield
        return
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            ray.init(address=address, **common)
        else:
            # "local", or RAY_ADDRESS and clusters of this machine would be joined.
            ray.init(address="local", num_cpus=cores, include_dashboard=False, **common)
    except SystemExit:  # its own handler of SIGTERM, before ours is in place
        raise Interrupted(signal.SIGTERM) from None
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        if address:
            raise UserError(f"no Ray cluster at {address}: {reason}") from None
        raise StudyFailed(f"Ray does not start: {reason}") from None
    try:
        # Only now: `ray.init` installs a handler of its own for SIGTERM.
        with interruptible():
            yield
    finally:
        with ignore_signals():
            ray.shutdown()
