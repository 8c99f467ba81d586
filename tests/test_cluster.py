"""A Ray cluster of two nodes on this machine: who times, and who else works meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from paretoformer.evaluators.evaluator import Job
from paretoformer.evaluators.formula import FormulaEvaluator
from paretoformer.evaluators.outcome import Phase, Result, Span
from paretoformer.search.dispatch.placement import places, run_on
from paretoformer.search.dispatch.ray_dispatcher import RayDispatcher
from paretoformer.search.dispatch.ray_session import import_ray
from paretoformer.search.errors import UserError
from tests.test_ray import CANDIDATES, run

pytestmark = pytest.mark.slow


class NodeEvaluator(FormulaEvaluator):
    """Says on which Ray node it ran, as if each were a machine."""

    def run(self, job: Job) -> Result:
        node = import_ray().get_runtime_context().get_node_id()
        result = super().run(job)
        return replace(result, spans=tuple(replace(span, host=node) for span in result.spans))


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
