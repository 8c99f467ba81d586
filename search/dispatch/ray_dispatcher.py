"""Jobs on Ray actors, and the lease that lets a timing run alone."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import psutil

from paretoformer.evaluators.job import Evaluates, Job
from paretoformer.evaluators.outcome import Outcome, Result
from paretoformer.evaluators.timing.foreign_load import Process
from paretoformer.evaluators.timing.quiet import Waiting, read_notice
from paretoformer.search.dispatch.dispatcher import Dispatcher
from paretoformer.search.dispatch.patience import Patience
from paretoformer.search.dispatch.placement import Places, places
from paretoformer.search.dispatch.ray_session import import_ray
from paretoformer.search.dispatch.signals import INTERRUPTS
from paretoformer.search.dispatch.worker import Actor, Worker, models_code
from paretoformer.search.records.errors import StudyFailed, UserError

ATTEMPTS = 3
"""Attempts at a job whose worker dies."""
POLL_SECONDS = 0.5
"""Interval at which a wait checks for signals."""
LOOK_SECONDS = 10.0
"""Interval at which the dispatcher looks for nodes that joined the cluster."""
START_SECONDS = 300
"""Time limit for a worker to import torch and receive the model."""
AT_ONCE = 2
"""Fresh timing processes that start together; a start keeps one core busy."""


@dataclass
class _Task:
    job: Job
    future: Future[Result]
    attempts: int = 0


@dataclass
class _Slot:
    """A place for one worker process, and its current job.

    node: a Ray node id. patience: of its timings. spares: fresh processes that were started
    together with the worker, for the next jobs.
    """

    node: str
    threads: int
    exclusive: bool
    patience: Patience
    worker: Worker | None = None
    spares: list[Worker] = field(default_factory=list)
    task: _Task | None = None
    reference: Any = None
    deadline: float = 0.0

    @property
    def workers(self) -> list[Worker]:
        return [*([] if self.worker is None else [self.worker]), *self.spares]


class RayDispatcher(Dispatcher):
    """Jobs on Ray actors: one per core or GPU, and one with the target's threads for timings.

    The lease: an exclusive job starts only when no other job is queued or running; while one is
    queued or running, nothing else starts. So work on all cores alternates with timings. Ray
    cannot do this: its resources are logical, and a task that asks for every CPU would wait
    behind all small tasks in the queue. On a cluster the timing machine does nothing else, so
    there is no need to wait.

    If a node leaves, its jobs go to the others; this does not count as an attempt.

    evaluator: sent to Ray's object store once, fetched once per worker.
    where: the workers' nodes; default: this machine, one worker per core. No timing node: no
    timings.
    threads: of a timing worker.
    seconds: time limit of one job.
    fresh: every timing gets a process of its own.
    on_worker: called with every worker process that starts.
    look: where workers could run now, if nodes may join; None: the nodes stay the same.
    patience: seconds that a timing may wait for a quiet machine; not part of any time limit.
    on_waiting: called with the reason a timing on this machine waits, "" once it continues.
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
        look: Callable[[], Places] | None = None,
        patience: float = 0.0,
        on_waiting: Callable[[str], None] = lambda text: None,
    ) -> None:
        ray = import_ray()
        where = where or places()
        self._ray = ray
        self._boxed = [ray.put(evaluator)]
        self._actor_class = ray.remote(Actor)
        self._seconds = seconds
        self._fresh = fresh
        self._on_worker = on_worker
        self._look = look
        self._patience = patience
        self._on_waiting = on_waiting
        self._notice = ""
        self._process = os.getpid(), psutil.Process().create_time()
        self._next_look = time.monotonic() + LOOK_SECONDS
        self._threads = threads
        self._separate_machines = where.separate_machines
        self._own_gpu = where.own_gpu
        self._times = bool(where.timing)
        self._shared: list[_Slot] = []
        self._timing: list[_Slot] = []
        self._add(where)
        self._scratch = tempfile.TemporaryDirectory(prefix="paretoformer-")
        self._queues: dict[bool, deque[_Task]] = {False: deque(), True: deque()}
        self._leased = False
        for slot in self._slots:
            self._spawn(slot)
        try:
            ray.get([worker.hello for worker in self._workers], timeout=START_SECONDS)
            self._greet()
        except ray.exceptions.RayError as error:
            self.close()
            reason = str(error).strip().splitlines()[-1]
            raise StudyFailed(f"the workers did not start: {reason}") from None
        INTERRUPTS.polled = True

    @property
    def _slots(self) -> tuple[_Slot, ...]:
        return (*self._shared, *self._timing)

    @property
    def _workers(self) -> list[Worker]:
        return [worker for slot in self._slots for worker in slot.workers]

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
            INTERRUPTS.check()
            self._report_waiting()
            ready = self._ready(references)
            for slot in self._busy():
                if slot.task is None:  # its node turned out to be gone
                    continue
                if slot.reference in ready:
                    done |= self._collect(slot)
                elif time.monotonic() > slot.deadline:
                    self._replace(slot)
                    self._finish(slot, Result(Outcome.TIME_LIMIT))
                    done = True
            self._greet()
            if time.monotonic() > self._next_look:
                self._look_again()
            self._assign(timing=not done)

    def close(self) -> None:
        INTERRUPTS.polled = False
        for slot in self._slots:
            self._end(slot, *slot.workers)
        with suppress(OSError):  # a process that is ending may still write
            self._scratch.cleanup()

    def _report_waiting(self) -> None:
        timing = (slot.worker for slot in self._timing if slot.task and slot.worker)
        found = filter(None, (read_notice(worker.notice) for worker in timing))
        notice = next(found, "")
        if notice != self._notice:
            self._notice = notice
            self._on_waiting(notice)

    def _busy(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.task is not None]

    def _ready(self, references: list[Any]) -> list[Any]:
        ready, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        return list(ready)

    def _assign(self, *, timing: bool = False) -> None:
        """Start all jobs that may start now.

        timing: whether timings may start: only while the caller waits, because its work after a
        result (Optuna, Parquet) would disturb them.
        """
        if not self._separate_machines:
            if any(slot.task for slot in self._timing):
                return
            quiet = not self._queues[False] and not self._busy()
            self._leased = bool(self._queues[True]) and (self._leased or quiet)
        if self._separate_machines or self._leased:
            self._fill(self._timing if timing else ())
        if not self._leased:
            self._fill(self._shared)

    def _fill(self, slots: Sequence[_Slot]) -> None:
        """Give every idle slot the next job of its kind."""
        for slot in slots:
            if slot.task is None and self._queues[slot.exclusive]:
                self._start(slot)

    def _start(self, slot: _Slot) -> None:
        allowance = 0.0
        if slot.worker is None:
            if slot.node not in self._alive():
                self._retire(slot.node)
                return
            self._spawn(slot)
            allowance = START_SECONDS
            self._let_start(slot.spares)
        assert slot.worker is not None
        slot.task = self._queues[slot.exclusive].popleft()
        slot.task.attempts += 1
        job = slot.task.job
        if slot.exclusive:
            waiting = Waiting(slot.patience.seconds, slot.worker.notice, self._process)
            job = replace(job, waiting=waiting)
        slot.reference = slot.worker.actor.run.remote(job)
        limit = self._seconds + job.seconds
        slot.deadline = time.monotonic() + limit + allowance

    def _collect(self, slot: _Slot) -> bool:
        """Take a slot's result; False if its worker died and the job is queued again."""
        try:
            result: Result = self._ray.get(slot.reference)
        except self._ray.exceptions.OutOfMemoryError as error:
            self._replace(slot)
            result = Result(Outcome.OUT_OF_MEMORY, message=str(error).partition("\n")[0])
        except self._ray.exceptions.RayError as error:
            if slot.node not in self._alive():
                self._retire(slot.node)
                return False
            self._replace(slot)
            task = slot.task
            if task is not None and task.attempts < ATTEMPTS:
                slot.task = None
                self._queues[slot.exclusive].appendleft(task)
                return False
            result = Result(Outcome.WORKER_DIED, message=str(error).partition("\n")[0])
        if slot.exclusive:
            slot.patience.learn(result)
            if self._fresh:
                self._replace(slot)
        self._finish(slot, result)
        return True

    def _alive(self) -> set[str]:
        return {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}

    def _retire(self, node: str) -> None:
        """Remove a lost node's slots and queue their jobs again.

        Raises:
            StudyFailed: no other node can do them.
        """
        for slot in self._slots:
            if slot.node == node:
                if slot.task is not None:
                    slot.task.attempts -= 1
                    self._queues[slot.exclusive].appendleft(slot.task)
                    slot.task = slot.reference = None
                self._end(slot, *slot.workers)
        self._shared = [slot for slot in self._shared if slot.node != node]
        self._timing = [slot for slot in self._timing if slot.node != node]
        self._look_again()
        if not self._shared or (self._times and not self._timing):
            what = "times" if self._shared else "measures what needs no timing"
            raise StudyFailed(
                f"no node that {what} is left in the Ray cluster. Run the same command again once "
                "there is one."
            )

    def _look_again(self) -> None:
        """Use nodes that have joined.

        Only on separate machines: otherwise a node would have to give up one kind of work.
        """
        self._next_look = time.monotonic() + LOOK_SECONDS
        if self._look is not None and self._separate_machines:
            with suppress(UserError):  # no timing node at the moment
                found = self._look()
                if found.separate_machines:
                    self._add(found)
        self.slots = len(self._shared)

    def _add(self, where: Places) -> None:
        """Add the slots that `where` allows and that are missing."""
        there = Counter(slot.node for slot in self._shared)
        self._shared += [
            _Slot(node, 1, exclusive=False, patience=Patience(0.0))
            for node in (Counter(where.shared) - there).elements()
        ]
        timing = {slot.node for slot in self._timing}
        self._timing += [
            _Slot(node, self._threads, exclusive=True, patience=Patience(self._patience))
            for node in where.timing
            if node not in timing
        ]
        self.slots = len(self._shared)

    def _finish(self, slot: _Slot, result: Result) -> None:
        task, slot.task, slot.reference = slot.task, None, None
        if task is not None:
            task.future.set_result(result)

    def _spawn(self, slot: _Slot) -> None:
        """Give a slot a worker process; with fresh timing processes, also some spares."""
        if not slot.spares:
            wanted = 1
            if slot.exclusive and self._fresh:
                wanted = max(1, min(AT_ONCE, slot.threads, len(self._queues[True])))
            slot.spares = [self._started(slot) for _ in range(wanted)]
        slot.worker = slot.spares.pop(0)

    def _started(self, slot: _Slot) -> Worker:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(slot.node, soft=False)
        options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": there}
        if not slot.exclusive:  # the lease, not Ray, keeps other jobs away from a timing
            options |= {"num_cpus": 1, "num_gpus": int(self._own_gpu)}
        scratch = tempfile.mkdtemp(dir=self._scratch.name)
        actor_class = self._actor_class.options(**options)
        actor = actor_class.remote(self._boxed, slot.threads, scratch, models_code())
        return Worker(actor, actor.process.remote(), scratch)

    def _let_start(self, workers: Sequence[Worker]) -> None:
        """Wait until these are up: a process that starts disturbs a timing."""
        starting = [worker.hello for worker in workers if worker.hello is not None]
        until = time.monotonic() + START_SECONDS
        while starting and time.monotonic() < until:
            _, starting = self._ray.wait(starting, num_returns=len(starting), timeout=POLL_SECONDS)
            INTERRUPTS.check()

    def _greet(self) -> None:
        """Report the processes that have come up."""
        for worker in self._workers:
            if worker.hello is not None and self._ready([worker.hello]):
                hello, worker.hello = worker.hello, None
                with suppress(self._ray.exceptions.RayError):  # it died; its job reports that
                    self._on_worker(self._ray.get(hello))

    def _replace(self, slot: _Slot) -> None:
        """End a slot's process; the next job gets a new one."""
        if slot.worker is not None:
            self._end(slot, slot.worker)

    def _end(self, slot: _Slot, *workers: Worker) -> None:
        for worker in workers:
            self._ray.kill(worker.actor)
            shutil.rmtree(worker.scratch, ignore_errors=True)
        slot.spares = [worker for worker in slot.spares if worker not in workers]
        if slot.worker in workers:
            slot.worker = None
