"""Ray: worker processes that hold the model, and the lease that lets a timing run alone."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from paretoformer.evaluators.evaluator import Evaluates, Job
from paretoformer.evaluators.measurement import Outcome, Result
from paretoformer.search.dispatch import Dispatcher
from paretoformer.search.errors import Interrupted, StudyFailed, UserError

ATTEMPTS = 3
"""How often a job is tried whose worker dies."""
POLL_SECONDS = 0.5
"""How often a wait looks whether a signal has come."""
START_SECONDS = 300
"""How long a worker may take to import torch and receive the model."""

Process = tuple[int, float]
"""Process id and creation time: together they name one process for good."""


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
        with _deaf():
            ray.shutdown()


@dataclass
class _Interrupts:
    """The signals that asked this process to end.

    polled: whether somebody asks `check` every now and then. Then a first signal raises nothing by
    itself: an exception out of a handler is lost, and printed, where it meets a finaliser.
    """

    received: list[int] = field(default_factory=list)
    polled: bool = False

    def handle(self, number: int, frame: Any) -> None:
        self.received.append(number)
        if not self.polled or len(self.received) > 1:
            raise Interrupted(number)

    def check(self) -> None:
        """Raises Interrupted after a signal."""
        if self.received:
            raise Interrupted(self.received[-1])


_INTERRUPTS = _Interrupts()
"""Of this process: signals are its own, not a dispatcher's."""


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise `Interrupted` in the main thread, for the length of the block.

    Ray's own waits turn whatever a handler raises into a bare `KeyboardInterrupt`, and would so
    lose which signal it was.
    """
    _INTERRUPTS.received.clear()
    with _handled(_INTERRUPTS.handle):
        try:
            yield
        except Interrupted:
            raise
        except KeyboardInterrupt:
            received = _INTERRUPTS.received
            raise Interrupted(received[-1] if received else signal.SIGINT) from None
        finally:
            _INTERRUPTS.received.clear()


@contextmanager
def _deaf() -> Iterator[None]:
    """A second Ctrl-C must not cut the cleaning up short."""
    with _handled(signal.SIG_IGN):
        yield


@contextmanager
def _handled(handler: Any) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)


class _Worker:
    """The actor: one process with the model in it.

    boxed: a list around the reference to the evaluator, so that Ray does not fetch it (and import
    torch) before the threads are set.
    """

    def __init__(self, boxed: list[Any], threads: int) -> None:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(threads)
        import ray

        self._evaluator: Evaluates = ray.get(boxed[0])
        self._evaluator.prepare(threads)

    def process(self) -> Process:
        return os.getpid(), psutil.Process().create_time()

    def run(self, job: Job) -> Result:
        return self._evaluator.run(job)


@dataclass
class _Task:
    job: Job
    future: Future[Result]
    attempts: int = 0


@dataclass
class _Slot:
    """A place for one worker process, and what it is doing.

    node: the Ray node that its process runs on.
    """

    node: str
    threads: int
    exclusive: bool
    actor: Any = None
    hello: Any = None
    task: _Task | None = None
    reference: Any = None
    deadline: float = 0.0


@dataclass(frozen=True)
class Places:
    """Ray nodes for timings, one worker each, and for the rest, one worker an entry.

    apart: whether no machine has both. Then neither waits for the other.
    """

    timing: tuple[str, ...]
    shared: tuple[str, ...]
    apart: bool


def places(
    resource: str = "",
    workers: int | None = None,
    machine_of: Callable[[dict[str, Any]], str] = lambda node: str(node["NodeManagerAddress"]),
) -> Places:
    """Where the workers of a study go, on the Ray that this process is connected to.

    Timings go to the nodes that have `resource`, or else to this process's own. The rest goes to
    the processors of all other machines, one worker each, or where there is none, of the same one.

    workers: at most so many of the rest. machine_of: tells which nodes share a machine.

    Raises:
        UserError: no node has the resource.
    """
    ray = import_ray()
    alive = [node for node in ray.nodes() if node["Alive"]]
    if resource:
        timing = [node for node in alive if node["Resources"].get(resource, 0) > 0]
    else:
        here = ray.get_runtime_context().get_node_id()
        timing = [node for node in alive if node["NodeID"] == here]
    if not timing:
        raise UserError(
            f"no node of the Ray cluster has the resource {resource!r}: start the target's with "
            f"ray start --address=... --resources='{{\"{resource}\": 1}}'."
        )
    taken = {machine_of(node) for node in timing}
    others = [node for node in alive if machine_of(node) not in taken]
    spread = [
        node["NodeID"]
        for node in others or timing
        for _ in range(int(node["Resources"].get("CPU", 0)))
    ]
    shared = spread[:workers] or [timing[0]["NodeID"]]
    # Several targets that share a machine would disturb each other.
    if not others:
        timing = timing[:1]
    return Places(tuple(node["NodeID"] for node in timing), tuple(shared), bool(others))


def run_on(node: str, call: Callable[..., Any], *arguments: Any) -> Any:
    """A Ray reference to what `call` returns on that node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    task = import_ray().remote(call).options(num_cpus=0, scheduling_strategy=there)
    return task.remote(*arguments)


class RayDispatcher(Dispatcher):
    """Jobs on Ray actors: one for each core, and one with the target's threads for timings.

    The lease: an exclusive job starts only when no other job is queued or running, and while any is
    queued or running nothing else starts. So work alternates between a stretch on all cores and a
    stretch of timings. Ray itself cannot do this: its resources are logical, and a task that asks
    for every CPU would wait behind each small one in the queue. On a cluster the machine that times
    does nothing else, so there is nothing to wait for.

    evaluator: sent to Ray's object store once, fetched by each worker once.
    where: the nodes of the workers; by default as many as this machine has processors.
    threads: of a timing worker.
    seconds: time limit of one job.
    fresh: every timing gets a process of its own.
    on_worker: told of every worker process on its start.
    """

    def __init__(
        self,
        evaluator: Evaluates,
        *,
        where: Places | None = None,
        threads: int,
        seconds: float,
        fresh: bool = False,
        on_worker: Callable[[Process], None] = lambda process: None,
    ) -> None:
        ray = import_ray()
        where = where or places()
        self.slots = len(where.shared)
        self._ray = ray
        self._boxed = [ray.put(evaluator)]
        self._actor_class = ray.remote(_Worker)
        self._seconds = seconds
        self._fresh = fresh
        self._on_worker = on_worker
        self._apart = where.apart
        self._shared = [_Slot(node, 1, exclusive=False) for node in where.shared]
        self._timing = [_Slot(node, threads, exclusive=True) for node in where.timing]
        self._queues: dict[bool, deque[_Task]] = {False: deque(), True: deque()}
        self._leased = False
        self._slots = (*self._shared, *self._timing)
        for slot in self._slots:
            self._spawn(slot)
        try:
            ray.get([slot.hello for slot in self._slots], timeout=START_SECONDS)
            self._greet()
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise StudyFailed(f"the workers did not start: {reason}") from None
        _INTERRUPTS.polled = True

    def submit(self, job: Job) -> Future[Result]:
        task = _Task(job, Future())
        self._queues[job.exclusive].append(task)
        self._assign()
        return task.future

    def wait(self) -> None:
        done = False
        self._assign(timing=True)
        while not done and self._busy():
            references = [slot.reference for slot in self._busy()]
            nearest = min(slot.deadline for slot in self._busy()) - time.monotonic()
            self._ray.wait(references, timeout=max(0.0, min(nearest, POLL_SECONDS)))
            _INTERRUPTS.check()
            ready = self._ready(references)
            for slot in self._busy():
                if slot.reference in ready:
                    done |= self._collect(slot)
                elif time.monotonic() > slot.deadline:
                    self._replace(slot)
                    self._finish(slot, Result(Outcome.TIME_LIMIT))
                    done = True
            self._greet()
            self._assign(timing=not done)

    def close(self) -> None:
        _INTERRUPTS.polled = False
        for slot in self._slots:
            if slot.actor is not None:
                self._ray.kill(slot.actor)
                slot.actor = slot.hello = None

    def _busy(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.task is not None]

    def _ready(self, references: list[Any]) -> list[Any]:
        """Those that are done, all of them."""
        ready, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        return list(ready)

    def _assign(self, *, timing: bool = False) -> None:
        """Start what may start now.

        timing: whether a timing may: only while the caller waits, for what it does after a result
        (Optuna, Parquet) would run beside the timing.
        """
        if not self._apart:
            if any(slot.task for slot in self._timing):
                return
            quiet = not self._queues[False] and not self._busy()
            self._leased = bool(self._queues[True]) and (self._leased or quiet)
        if self._apart or self._leased:
            self._fill(self._timing if timing else ())
        if not self._leased:
            self._fill(self._shared)

    def _fill(self, slots: Sequence[_Slot]) -> None:
        """Give each idle slot the next job of its kind."""
        for slot in slots:
            if slot.task is None and self._queues[slot.exclusive]:
                self._start(slot)

    def _start(self, slot: _Slot) -> None:
        allowance = 0.0
        if slot.actor is None:
            self._spawn(slot)
            allowance = START_SECONDS
        slot.task = self._queues[slot.exclusive].popleft()
        slot.task.attempts += 1
        slot.reference = slot.actor.run.remote(slot.task.job)
        slot.deadline = time.monotonic() + self._seconds + allowance

    def _collect(self, slot: _Slot) -> bool:
        """Take a slot's result; False when its worker died and the job waits for another one."""
        try:
            result: Result = self._ray.get(slot.reference)
        except self._ray.exceptions.OutOfMemoryError as error:
            self._replace(slot)
            result = Result(Outcome.OUT_OF_MEMORY, message=str(error).partition("\n")[0])
        except self._ray.exceptions.RayError as error:
            self._replace(slot)
            task = slot.task
            if task is not None and task.attempts < ATTEMPTS:
                slot.task = None
                self._queues[slot.exclusive].appendleft(task)
                return False
            result = Result(Outcome.WORKER_DIED, message=str(error).partition("\n")[0])
        if self._fresh and slot.exclusive:
            self._replace(slot)
        self._finish(slot, result)
        return True

    def _finish(self, slot: _Slot, result: Result) -> None:
        task, slot.task, slot.reference = slot.task, None, None
        if task is not None:
            task.future.set_result(result)

    def _spawn(self, slot: _Slot) -> None:
        """Start a worker process."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(slot.node, soft=False)
        # A timing worker reserves no CPU: the lease, not Ray, keeps the others away from it.
        cpus = 0 if slot.exclusive else 1
        options: dict[str, Any] = {"num_cpus": cpus, "scheduling_strategy": there}
        slot.actor = self._actor_class.options(**options).remote(self._boxed, slot.threads)
        slot.hello = slot.actor.process.remote()

    def _greet(self) -> None:
        """Report the processes that have come up since."""
        for slot in self._slots:
            if slot.hello is not None and self._ready([slot.hello]):
                hello, slot.hello = slot.hello, None
                with suppress(self._ray.exceptions.RayError):  # it died; its job says so
                    self._on_worker(self._ray.get(hello))

    def _replace(self, slot: _Slot) -> None:
        """End a slot's process; the next job starts another one."""
        self._ray.kill(slot.actor)
        slot.actor = slot.hello = None
