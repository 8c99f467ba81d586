"""The workers of a run: their places, and how they start."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from paretoformer.evaluators.common.target import (
    Target,
    accelerators,
    machine_facts,
    physical_cores,
)
from paretoformer.evaluators.job import Evaluates
from paretoformer.search.dispatch.dispatcher import Dispatcher
from paretoformer.search.dispatch.placement import (
    Places,
    check_alike,
    only_alike,
    places,
    run_on,
)
from paretoformer.search.dispatch.ray_dispatcher import RayDispatcher
from paretoformer.search.dispatch.ray_session import import_ray, ray_session
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.report.display import Display
from paretoformer.search.study.budget import patience_seconds
from paretoformer.search.study.spec import Spec

PATIENCE_SECONDS = 60
"""How long to wait for the workers of a killed run before ending them."""

SCREENERS = 4
"""With fewer workers, screening is no faster than in one process with as many threads: 1.05 s per
candidate on two cores either way (MiniLM on an AMD EPYC), but workers need
15 s to start."""


class Workers:
    """Workers on this machine or, with an address, on a Ray cluster.

    target: where timings run. stack: Ray starts when first needed, and ends with this stack.
    """

    def __init__(
        self,
        spec: Spec,
        target: Target,
        folder: RunFolder,
        address: str | None,
        display: Display,
        stack: ExitStack,
    ) -> None:
        self._spec, self._target = spec, target
        self._folder, self._address = folder, address
        self._display, self._stack = display, stack
        self._facts: dict[str, dict[str, Any]] = {}
        self._refused: set[str] = set()
        self._started: list[tuple[int, float]] = []
        if address:  # fail before anything is written if it is wrong
            stack.enter_context(ray_session(address, physical_cores()))

    def machine(self) -> dict[str, Any]:
        """Facts of the machine that times, and its threads.

        Raises:
            UserError: there is none, or those that time differ.
        """
        found = machine_facts(self._target)
        if self._spec.target.resource:
            nodes = self._anywhere().timing
            machines = [self._facts_of(node) for node in nodes]
            check_alike(machines)
            found = machines[0]
        return found | {"threads": self._target.threads}

    @property
    def many(self) -> bool:
        """Whether there are enough workers to screen faster than this process."""
        if self._address:
            return len(self._anywhere().shared) >= SCREENERS
        here = physical_cores()
        if self._target.device != "cpu":
            here = min(here, accelerators(self._target.device))
        return here >= SCREENERS

    @contextmanager
    def measuring(self, evaluator: Evaluates, *, fresh: bool) -> Iterator[Dispatcher]:
        """Workers for the search or, with a fresh process for every timing, the confirmation."""
        self._start_ray()
        dispatcher = RayDispatcher(
            evaluator,
            where=self._places(),
            look=self._places,
            threads=self._target.threads,
            seconds=self._spec.search.trial_seconds,
            fresh=fresh,
            on_worker=self._on_worker,
            patience=patience_seconds(self._spec),
            on_waiting=self._display.waiting,
        )
        del evaluator  # Ray's object store has it now
        with dispatcher:
            yield dispatcher

    @contextmanager
    def screening(self, evaluator: Evaluates, *, most: int) -> Iterator[Dispatcher]:
        """One worker per core or GPU, at most `most`; they do no timings."""
        self._start_ray()
        with RayDispatcher(
            evaluator,
            where=replace(self._anywhere(most), timing=()),
            threads=1,
            seconds=self._spec.search.trial_seconds,
            on_worker=self._on_worker,
        ) as dispatcher:
            yield dispatcher

    def _facts_of(self, node: str) -> dict[str, Any]:
        """Machine facts of a cluster node; asked once."""
        if node not in self._facts:
            self._facts[node] = import_ray().get(run_on(node, machine_facts, self._target))
        return self._facts[node]

    def _anywhere(self, most: int | None = None) -> Places:
        """Places on nodes of any hardware. most: limit for the workers that do not time."""
        return places(self._spec.target.resource, most, self._target.device)

    def _places(self) -> Places:
        """Places for workers now; all timing nodes have the hardware of the first one."""
        where = self._anywhere()
        if not self._spec.target.resource:
            return where
        hardware = self._folder.read_machine()["hardware"]
        found = only_alike(where, hardware, lambda node: self._facts_of(node)["hardware"])
        for node in set(where.timing) - set(found.timing) - self._refused:
            self._refused.add(node)
            self._display.note(
                f"The node {self._facts_of(node)['host']} is not used for timing: its hardware is "
                "different."
            )
        return found

    def _start_ray(self) -> None:
        if not import_ray().is_initialized():
            self._stack.enter_context(ray_session(self._address, physical_cores()))

    def _on_worker(self, process: tuple[int, float]) -> None:
        self._started.append(process)
        self._folder.record_workers(self._started)

    def wait_for_old_ones(self) -> None:
        """Wait for workers of a killed run, then end them: nothing may be timed while they run."""
        start = time.monotonic()
        living = self._folder.living_workers()
        if living:
            self._display.note("Waiting for the workers of the interrupted run to end.")
        while living and time.monotonic() - start < PATIENCE_SECONDS:
            time.sleep(0.5)
            living = self._folder.living_workers()
        for process in living:
            process.kill()
