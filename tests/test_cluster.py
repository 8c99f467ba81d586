"""A Ray cluster of two nodes on this machine: who times, and who else works meanwhile."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from paretoformer.evaluators.formula import FormulaEvaluator
from paretoformer.evaluators.job import Job
from paretoformer.evaluators.outcome import Outcome, Phase, Result, Span
from paretoformer.search.dispatch import ray_dispatcher
from paretoformer.search.dispatch.placement import (
    Places,
    check_alike,
    only_alike,
    places,
    run_on,
)
from paretoformer.search.dispatch.ray_dispatcher import RayDispatcher
from paretoformer.search.dispatch.ray_session import import_ray
from paretoformer.search.records.errors import StudyFailed, UserError
from tests.test_ray import CANDIDATES, run

pytestmark = [pytest.mark.slow, pytest.mark.alone]


class NodeEvaluator(FormulaEvaluator):
    """Says on which Ray node it ran, as if each were a machine."""

    def run(self, job: Job) -> Result:
        node = import_ray().get_runtime_context().get_node_id()
        result = super().run(job)
        return replace(result, spans=tuple(replace(span, host=node) for span in result.spans))


class GpuEvaluator(FormulaEvaluator):
    """Says which GPUs its process sees, as if they were its machine."""

    def run(self, job: Job) -> Result:
        result = super().run(job)
        return replace(result, spans=tuple(replace(span, host=seen()) for span in result.spans))


def seen() -> str:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Any]:
    ray = import_ray()
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.add_node(num_cpus=1, resources={"edge-box": 1})
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def node_with(resource: str) -> str:
    nodes = import_ray().nodes()
    return next(node["NodeID"] for node in nodes if node["Resources"].get(resource))


def each_node(node: dict[str, Any]) -> str:
    """Every Ray node counts as a machine."""
    return str(node["NodeID"])


def spans(results: list[Result], phase: Phase) -> list[Span]:
    return [span for result in results for span in result.spans if span.phase is phase]


def overlap(one: Span, other: Span) -> bool:
    return one.started < other.ended and other.started < one.ended


def wait_until_gone(node: str) -> None:
    deadline = time.monotonic() + 60
    while any(each["NodeID"] == node and each["Alive"] for each in import_ray().nodes()):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def wait_on(dispatcher: RayDispatcher) -> None:
    while True:
        dispatcher.wait()


def mixed() -> list[Job]:
    both = (Phase.SHARED, Phase.TIMING)
    return [Job(each, "search", phase) for each in CANDIDATES for phase in both]


def test_timings_go_to_the_resource_while_the_others_go_on_elsewhere() -> None:
    where = places("edge-box", machine_of=each_node)
    assert where.separate_machines
    with RayDispatcher(NodeEvaluator(0.05), where=where, threads=1, seconds=60) as dispatcher:
        results = run(dispatcher, *mixed())
    timings, shared = spans(results, Phase.TIMING), spans(results, Phase.SHARED)
    assert {span.host for span in timings} == {node_with("edge-box")}
    assert node_with("edge-box") not in {span.host for span in shared}
    assert any(overlap(timing, other) for timing in timings for other in shared)
    assert not any(
        overlap(timing, other) and timing.host == other.host
        for timing in timings
        for other in (*timings, *shared)
        if timing is not other
    )


@pytest.mark.nightly
def test_each_gpu_has_a_worker_which_sees_no_other(cluster: Any) -> None:
    """Ray counts GPUs and gives them away; whether there are any, it takes our word for."""
    node = cluster.add_node(num_cpus=3, num_gpus=2)
    try:
        look = partial(places, "edge-box", machine_of=each_node)
        where = look(device="cuda")
        assert Counter(where.shared) == {node.node_id: 2}
        with RayDispatcher(GpuEvaluator(0.2), where=where, threads=1, seconds=60) as dispatcher:
            results = run(dispatcher, *mixed())
        assert {span.host for span in spans(results, Phase.SHARED)} == {"0", "1"}
        assert {span.host for span in spans(results, Phase.TIMING)} == {seen()}
        chosen = look(device="cuda:1")
        assert (chosen.shared, chosen.own_gpu) == ((node.node_id,), False)
        nowhere = look(device="cuda:2")
        assert nowhere.shared == nowhere.timing == (node_with("edge-box"),)
        assert not nowhere.separate_machines
    finally:
        cluster.remove_node(node)
        wait_until_gone(node.node_id)


def test_jobs_of_a_node_that_dies_are_done_by_the_others(cluster: Any) -> None:
    dying = cluster.add_node(num_cpus=1)
    where = places("edge-box", machine_of=each_node)
    work = [Job(each, "search", Phase.SHARED) for each in CANDIDATES]
    with RayDispatcher(NodeEvaluator(0.2), where=where, threads=1, seconds=60) as dispatcher:
        assert dispatcher.slots == 2
        futures = [dispatcher.submit(job) for job in work]
        dispatcher.wait()
        cluster.remove_node(dying, allow_graceful=False)
        while not all(future.done() for future in futures):
            dispatcher.wait()
        wait_until_gone(dying.node_id)  # which the cluster notices after a while
        results = [*(future.result() for future in futures), *run(dispatcher, *work)]
        assert dispatcher.slots == 1
    assert {result.outcome for result in results} == {Outcome.OK}


@pytest.mark.nightly
def test_workers_that_do_not_time_go_on_without_a_node_that_dies(cluster: Any) -> None:
    dying = cluster.add_node(num_cpus=1)
    where = replace(places("edge-box", machine_of=each_node), timing=())
    work = [Job(each, "search", Phase.SHARED) for each in CANDIDATES]
    with RayDispatcher(NodeEvaluator(0.2), where=where, threads=1, seconds=60) as dispatcher:
        futures = [dispatcher.submit(job) for job in work]
        dispatcher.wait()
        cluster.remove_node(dying, allow_graceful=False)
        while not all(future.done() for future in futures):
            dispatcher.wait()
    results = [future.result() for future in futures]
    assert {result.outcome for result in results} == {Outcome.OK}
    assert node_with("edge-box") not in {span.host for span in spans(results, Phase.SHARED)}
    wait_until_gone(dying.node_id)


@pytest.mark.nightly
def test_node_that_joins_later_is_used(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_dispatcher, "LOOK_SECONDS", 0.1)
    look = partial(places, "edge-box", machine_of=each_node)
    work = [Job(each, "search", Phase.SHARED) for each in CANDIDATES]
    with RayDispatcher(
        NodeEvaluator(2.0), where=look(), threads=1, seconds=60, look=look
    ) as dispatcher:
        joined = cluster.add_node(num_cpus=1)
        try:
            hosts = {span.host for span in spans(run(dispatcher, *work), Phase.SHARED)}
        finally:
            cluster.remove_node(joined)
    assert joined.node_id in hosts
    assert len(hosts) == 2


@pytest.mark.nightly
def test_study_whose_last_timing_node_dies_says_so(cluster: Any) -> None:
    dying = cluster.add_node(num_cpus=1, resources={"lone-box": 1})
    where = places("lone-box", machine_of=each_node)
    with RayDispatcher(NodeEvaluator(0.2), where=where, threads=1, seconds=60) as dispatcher:
        for each in CANDIDATES:
            dispatcher.submit(Job(each, "search", Phase.TIMING))
        dispatcher.wait()
        cluster.remove_node(dying, allow_graceful=False)
        with pytest.raises(StudyFailed, match="no node that times is left in the Ray cluster"):
            wait_on(dispatcher)


def test_nodes_of_one_machine_wait_for_each_other() -> None:
    where = places("edge-box")  # both nodes have this machine's address
    assert not where.separate_machines
    with RayDispatcher(FormulaEvaluator(0.02), where=where, threads=1, seconds=60) as dispatcher:
        results = run(dispatcher, *mixed())
    timings = spans(results, Phase.TIMING)
    for timing in timings:
        for other in (*timings, *spans(results, Phase.SHARED)):
            assert timing is other or not overlap(timing, other)


def test_resource_that_no_node_has_is_named() -> None:
    with pytest.raises(UserError, match="no node of the Ray cluster has the resource 'moon'"):
        places("moon")


def test_call_runs_on_the_node_it_is_sent_to() -> None:
    def here() -> str:
        return str(import_ray().get_runtime_context().get_node_id())

    node = node_with("edge-box")
    assert import_ray().get(run_on(node, here)) == node


def machine(host: str, **hardware: object) -> dict[str, object]:
    return {"host": host, "hardware": {"cpu": "fast", "cores": 4} | hardware}


def test_nodes_that_time_and_are_not_alike_are_refused_by_name() -> None:
    check_alike([machine("a"), machine("b")])
    with pytest.raises(UserError, match=r"a and c would both be used for timing.*cores 4 and 8"):
        check_alike([machine("a"), machine("b"), machine("c", cores=8)])


def test_a_node_that_joins_and_is_not_alike_does_not_time() -> None:
    where = Places(timing=("one", "two"), shared=("three",), separate_machines=True)
    kinds = {"one": {"cores": 4}, "two": {"cores": 8}}
    assert only_alike(where, {"cores": 4}, kinds.__getitem__).timing == ("one",)
