"""Shared by the timing benchmarks: random candidates of the whole space, and a neighbour
process."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from paretoformer.evaluators.timing.threads import set_threads
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import Subject, load_subject
from paretoformer.spaces.attention.menu import menu
from paretoformer.spaces.axes.attention import ChoicePerLayer
from paretoformer.spaces.axes.domain import Domain
from paretoformer.spaces.axes.evidence import Shape
from paretoformer.spaces.axes.feed_forward import RankedNeurons
from paretoformer.spaces.axes.heads import RankedHeads
from paretoformer.spaces.axes.runtime import RuntimeChoice
from paretoformer.spaces.build import Compressed, build, load_built
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.models.families import shape_of
from paretoformer.spaces.runtimes import Tools
from paretoformer.spaces.space import Space

CALIBRATION_EXAMPLES, CALIBRATION_BATCH = 64, 8
NEIGHBOUR = """
import random, time
while True:
    end = time.time() + random.uniform(0.5, 6)
    while time.time() < end: pass
    time.sleep(random.uniform(0.5, 6))
"""
"""Alternates between some seconds of load on one core and some seconds without."""


def options(doc: str, candidates: int) -> argparse.ArgumentParser:
    """Shared command line options. doc: the benchmark's docstring."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--study", default="reviews")
    parser.add_argument("--candidates", type=int, default=candidates)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--runtimes", nargs="+", default=["torch", "openvino", "openvino:int8"])
    parser.add_argument("--built", type=Path, default=None, help="keeps what was converted")
    parser.add_argument("--raw", type=Path, default=None, help="keeps what was measured, as JSON")
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    return parser


def build_all(arguments: argparse.Namespace) -> None:
    """Convert every candidate, in a separate process that times nothing."""
    if arguments.built is None:
        arguments.built = Path(tempfile.mkdtemp(prefix="timed-"))
    in_a_fresh_process(__file__, arguments)


def in_a_fresh_process(script: str, arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Run `script --once` with these arguments and return its last line, parsed."""
    command = [sys.executable, "-W", "ignore", script, "--once"]
    for name in ("study", "candidates", "seconds", "built", *names):
        command += [f"--{name}", str(getattr(arguments, name))]
    command += ["--runtimes", *arguments.runtimes]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


@dataclass
class TimedSpace:
    """Random candidates of a built-in study's model, in these runtimes in turn."""

    study: str
    runtimes: list[str]
    folder: Path
    """Builds are kept here for the next process: a conversion takes ten seconds."""

    @cached_property
    def subject(self) -> Subject:
        found = load_subject(load_spec(self.study))
        set_threads(found.target.threads)
        return found

    @cached_property
    def space(self) -> Space:
        """Heads and neurons ranked by random scores, and every mechanism that saves computation."""
        config: Any = self.subject.model.config
        layers, heads = shape_of(config)
        rng, neurons = np.random.default_rng(0), int(config.intermediate_size)
        domains: dict[str, Domain[Any]] = {
            "heads": RankedHeads(rng.random((layers, heads))),
            "attention": ChoicePerLayer(menu(None, self.subject.target.sequence_length), layers),
            "feed_forward": RankedNeurons.of(rng.random((layers, neurons))),
            "runtime": RuntimeChoice(tuple(self.runtimes)),
        }
        return Space(Shape(layers, heads), domains)

    def drawn(self, count: int) -> Iterator[tuple[Candidate, Compressed]]:
        """The same candidates in every process, with their builds."""
        rng, found = np.random.default_rng(1), 0
        while found < count:
            runtime = self.runtimes[found % len(self.runtimes)]
            candidate = self.space.random(rng).replaced(runtime=runtime)
            if runtime != "torch":  # most mechanisms run only in torch
                candidate = candidate.replaced(attention=self.space.dense.attention)
            found += 1
            yield candidate, self.built(candidate)

    def built(self, candidate: Candidate) -> Compressed:
        here, folder = self.subject, self.folder / candidate.id
        tools = Tools(
            device=here.target.device,
            threads=here.target.threads,
            example=here.workload.timing_batch(here.target),
            calibration=lambda: here.workload.training_batches(
                CALIBRATION_EXAMPLES, "cpu", CALIBRATION_BATCH
            ),
        )
        if not folder.exists():
            made = build(candidate, here.model, tools)
            folder.mkdir(parents=True)
            made.save(candidate, folder)
        return load_built(candidate, here.model, folder, tools)


@contextmanager
def neighbour(there: bool) -> Iterator[None]:
    """Runs an intermittent neighbour process during the block."""
    other = subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) if there else None
    try:
        yield
    finally:
        if other:
            other.kill()
            other.wait()


if __name__ == "__main__":
    given = options(__doc__ or "", candidates=0).parse_args()
    made = TimedSpace(given.study, given.runtimes, given.built).drawn(given.candidates)
    print(json.dumps({"built": sum(1 for _ in made)}))
