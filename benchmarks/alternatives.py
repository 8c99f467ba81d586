"""Gain of every runtime and precision, for the uncompressed model and one pruned model, in one run.

Each is converted, scored on the confirmation examples, and timed in alternation with the dense
torch model by the protocol of a study. The pruned model keeps the most important half of the heads
and feed-forward neurons, without repair.

    python benchmarks/alternatives.py [--study reviews] [--seconds 2] [--examples 1000] [--only X]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import torch

from paretoformer.evaluators.builder import Builder
from paretoformer.evaluators.common.target import cpu_name
from paretoformer.evaluators.data.workload import Split
from paretoformer.evaluators.evaluator import failure
from paretoformer.evaluators.metrics import Bench
from paretoformer.evaluators.metrics.accuracy import Accuracy
from paretoformer.evaluators.metrics.disk import Disk
from paretoformer.evaluators.metrics.latency import Latency
from paretoformer.evaluators.timing.protocol import TimingProtocol
from paretoformer.evaluators.timing.threads import set_threads
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import Subject, load_subject
from paretoformer.spaces.axes import axis_of
from paretoformer.spaces.axes.evidence import Shape
from paretoformer.spaces.axes.head_mask import HeadMask
from paretoformer.spaces.axes.sensitivity import OutputProbe, sensitivity
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.models.families import neurons_of, shape_of
from paretoformer.spaces.runtimes import names, parse

ROW = "{:<8} {:<20} {:>9} {:>22} {:>9} {:>8} {:>9}"


def cut(here: Subject) -> Candidate:
    """Keep the most important half of all heads and of all neurons."""
    shape = Shape(*shape_of(here.model.config))
    neurons = neurons_of(here.model.config)
    probes = {
        "heads": OutputProbe(lambda block: block.output, shape.heads),
        "feed_forward": OutputProbe(lambda block: block.feed_forward_output, neurons),
    }
    train = here.workload.splits["train"]
    batches = (
        (inputs, torch.from_numpy(train.labels[indices]))
        for indices, inputs in here.workload.batches(train, "cpu", 16)
    )
    facts = sensitivity(here.model, batches, here.task.loss, probes)
    domains: Any = {
        name: axis_of(name).domain("ranked", axis_of(name).facts(**facts[name]), shape)
        for name in probes
    }
    half: HeadMask = domains["heads"].starts()[4]
    return Candidate(half, feed_forward=domains["feed_forward"].starts()[2])


def rows(here: Subject, arguments: argparse.Namespace) -> Iterator[tuple[str, str, Candidate]]:
    dense = Candidate.dense(*shape_of(here.model.config))
    halves = cut(here)
    for value in names():
        runtime, precision = parse(value)
        first = value == names()[0]  # the dense model: the reference
        if not (first or value.startswith(arguments.only)):
            continue
        if reason := runtime.unavailable(precision, here.target.device):
            print(f"{value}: {reason}")
            continue
        yield "uncut", value, dense.replaced(runtime=value)
        yield "halves", value, halves.replaced(runtime=value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--study", default="reviews")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--only", default="", help="Runtimes whose names begin so.")
    arguments = parser.parse_args()
    here = load_subject(load_spec(arguments.study))
    chosen = list(rows(here, arguments))
    set_threads(here.target.threads)
    builder = Builder(here.model, here.task, here.workload, here.target, here.target.threads)
    confirm = here.workload.splits["confirm"]
    split = Split(confirm.examples[: arguments.examples], confirm.labels[: arguments.examples])
    print(f"{arguments.study}, {cpu_name()}, {here.target.threads} threads, {len(split)} examples")
    print(ROW.format("model", "runtime", "accuracy", "speed-up", "ms", "MB", "convert s"))
    reference = None
    for what, value, candidate in chosen:
        start = time.perf_counter()
        try:
            ready = builder.built(candidate, None)
        except Exception as error:  # a row like the others
            print(f"{what:<8} {value:<20} {failure(error).message[:90]}", flush=True)
            continue
        seconds = time.perf_counter() - start
        bench = Bench(
            runnable=ready.runnable,
            model=ready.model,
            dense=here.model,
            reference=reference,
            task=here.task,
            split=split,
            workload=here.workload,
            target=here.target,
            protocol=TimingProtocol(0.02, arguments.seconds),
        )
        latency, accuracy, disk = (m.measure(bench) for m in (Latency(), Accuracy(), Disk()))
        reference = reference or {"latency_ms": latency}
        dense = reference["latency_ms"].value
        gain = f"{dense / latency.value:.2f} ({dense / latency.high:.2f}-{dense / latency.low:.2f})"
        cells = (f"{accuracy.value:.3f}", gain, f"{latency.value:.2f}", f"{disk.value:.1f}")
        print(ROW.format(what, value, *cells, f"{seconds:.1f}"), flush=True)


if __name__ == "__main__":
    main()
