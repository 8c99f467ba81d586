"""Memory: what a process that serves the model takes, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.metric import Cost
from paretoformer.evaluators.metrics.registry import register
from paretoformer.spaces.build import CANDIDATE, build
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.models.embedder import architecture_of
from paretoformer.spaces.models.families import shape_of
from paretoformer.spaces.persist import is_served_elsewhere, save_compressed
from paretoformer.spaces.runtimes import Batch, parse, sessions
from paretoformer.spaces.runtimes.exported import Exported

MEGABYTE = 1e6
SPREAD = 0.005
"""Half of the interval, as a share of the peak: by how much six processes that served the same
model differed at most, in torch; in ONNX Runtime and OpenVINO it was 0.2%."""


class Memory(Cost):
    """Megabytes (10^6 bytes) that serving the model adds to a process.

    On a CPU, the peak resident memory of a fresh process that opens the exported model in its
    runtime and answers the texts of a timing, less that of a process that only imports what the
    runtime needs; the peak itself is kept as `process_mb`. Opening a model may take more than
    answering: what must fit into a container counts. It takes seconds, so a study asks for it. On a
    GPU, from torch's allocator: weights and peak activations of one forward.
    """

    name = "memory_mb"
    unit = "MB"
    of_size = True
    slow = True

    def measure(self, bench: Bench) -> Measurement | None:
        if torch.device(bench.target.device).type == "cpu":
            return _of_process(bench)
        with torch.inference_mode():
            peak = bench.runnable.peak_bytes(bench.workload.timing_batch(bench.target))
        if peak is None:
            return None
        return Measurement.exact((bench.runnable.weight_bytes + peak) / MEGABYTE, self.unit)

    def unavailable(self, target: Target) -> str:
        if torch.device(target.device).type != "cpu" or sessions.STATUS.exists():
            return ""
        return "this system does not tell the peak memory of a process in /proc"

    def unmeasurable_reason(self, runtime: str) -> str:
        return "" if parse(runtime)[0].tells_peak else "no fresh process can open it quickly"


def _of_process(bench: Bench) -> Measurement | None:
    model = bench.model
    if not hasattr(model, CANDIDATE):  # the uncompressed model as it was loaded
        model = build(Candidate.dense(*shape_of(model.config)), model).model
    candidate: Candidate = getattr(model, CANDIDATE)
    runtime, precision = parse(candidate.runtime)
    if not runtime.tells_peak:
        return None
    batches = bench.workload.timing_batches(bench.target)
    kind, variant = runtime.name, precision
    if not isinstance(bench.runnable, Exported):
        own = ":own" if is_served_elsewhere(candidate) else ""
        kind, variant = "torch", architecture_of(model).__name__ + own
    with TemporaryDirectory(prefix="paretoformer-") as name:
        folder, inputs = Path(name), Path(name) / "inputs.npz"
        if isinstance(bench.runnable, Exported):
            bench.runnable.save(folder)
        else:
            save_compressed(model, folder)
        sessions.write_feeds([_feed(bench.runnable, batch) for batch in batches], inputs)
        threads = str(bench.target.threads)
        peak = _peak_megabytes(kind, threads, variant, str(inputs), str(folder))
    added, spread = peak - _without_model(kind, threads, variant), SPREAD * peak
    return Measurement(added, added - spread, added + spread, "MB", conditions={"process_mb": peak})


def _feed(runnable: object, batch: Batch) -> sessions.Feed:
    if isinstance(runnable, Exported):
        return runnable.feed(batch)
    return {name: each.cpu().numpy() for name, each in batch.items()}


@cache
def _without_model(*arguments: str) -> float:
    return _peak_megabytes(*arguments)


def _peak_megabytes(*arguments: str) -> float:
    """Of a process of `sessions`.

    Raises:
        RuntimeError: it failed, so nobody could serve the model.
    """
    command: Sequence[str] = [sys.executable, "-P", str(sessions.__file__), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        raise RuntimeError(f"a fresh process could not serve the model: {reason}")
    return int(done.stdout.split()[-1]) / MEGABYTE


register(Memory())
