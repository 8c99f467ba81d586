"""Placement: which nodes of a Ray cluster time, and which do the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from paretoformer.evaluators.common.device import cuda_index
from paretoformer.evaluators.common.target import differences
from paretoformer.search.dispatch.ray_session import import_ray
from paretoformer.search.records.errors import UserError


@dataclass(frozen=True)
class Places:
    """Ray node ids, one per worker: `timing` for timings, `shared` for all else.

    separate_machines: no machine has both kinds; then neither waits for the other.
    own_gpu: every shared worker has a GPU to itself.
    """

    timing: tuple[str, ...]
    shared: tuple[str, ...]
    separate_machines: bool
    own_gpu: bool = False


def places(
    resource: str = "",
    workers: int | None = None,
    device: str = "cpu",
    machine_of: Callable[[dict[str, Any]], str] = lambda node: str(node["NodeManagerAddress"]),
) -> Places:
    """Where the workers of a study run in the connected Ray cluster.

    Timings go to the nodes that have `resource`, by default to this process's own node. All else
    goes to the other machines, or to the same one if there is no other: one worker per core, on
    `cuda` one per GPU, on `mps` or a device with a number one per machine.

    workers: limit for the workers that do not time. device: what they need.
    machine_of: nodes with equal values share a machine.

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
    others = [node for node in alive if machine_of(node) not in taken and _room(node, device)]
    spread = [node["NodeID"] for node in others or timing for _ in range(_room(node, device))]
    shared = spread[:workers] or [timing[0]["NodeID"]]
    # Several timing nodes on one machine would disturb each other.
    if not others:
        timing = timing[:1]
    return Places(
        tuple(node["NodeID"] for node in timing),
        tuple(shared),
        separate_machines=bool(others),
        own_gpu=device == "cuda" and bool(spread),
    )


def _room(node: dict[str, Any], device: str) -> int:
    """The number of workers without timings on a node; each reserves a core."""
    processors, gpus = (int(node["Resources"].get(name, 0)) for name in ("CPU", "GPU"))
    if device == "cpu":
        return processors
    if device == "cuda":
        return min(processors, gpus)
    return min(processors, 1) if gpus > (cuda_index(device) or 0) else 0


Hardware = Mapping[str, Any]
"""The facts that decide a machine's speed, from `machine_facts`."""


def check_alike(machines: Sequence[Mapping[str, Any]]) -> None:
    """Check that all machines that time have the same hardware, so that times are comparable.

    machines: from `machine_facts`.

    Raises:
        UserError: two differ; names both and the difference.
    """
    first, *others = machines
    for other in others:
        apart = [
            f"{key} {values[0]} and {values[1]}"
            for key, values in differences(first["hardware"], other["hardware"]).items()
        ]
        if apart:
            raise UserError(
                f"the nodes {first['host']} and {other['host']} would both be used for timing, "
                f"but differ ({'; '.join(apart)}): give target.resource to one kind of "
                "node, and run the study once for each kind."
            )


def only_alike(where: Places, hardware: Hardware, hardware_of: Callable[[str], Hardware]) -> Places:
    """Remove the timing nodes with other hardware."""
    timing = tuple(node for node in where.timing if not differences(hardware, hardware_of(node)))
    return replace(where, timing=timing)


def run_on(node: str, call: Callable[..., Any], *arguments: Any) -> Any:
    """A Ray reference to the result of `call` on that node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    task = import_ray().remote(call).options(num_cpus=0, scheduling_strategy=there)
    return task.remote(*arguments)
