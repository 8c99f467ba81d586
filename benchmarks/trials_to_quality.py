"""Quality of the front by number of trials, for several proposal methods.

Every method searches the same model in torch, through the same loop. A trial measures quality loss
on 64 texts, with each block repaired separately, and latency by a short real timing. It takes half
a second instead of a study's ten, which allows several seeds. Not covered: propagated repair, other
runtimes, and a task's score.

    python benchmarks/trials_to_quality.py [--study reviews] [--seeds 3] [--trials 15 30 60 100]
                                           [--methods TPE surrogate ...]

Printed: the hypervolume (with log latency), relative to that of all points found by any method and
seed; mean and standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import optuna
import torch
from optuna.samplers import BaseSampler

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.common.progress import silent
from paretoformer.evaluators.common.target import cpu_name
from paretoformer.evaluators.data.recovery_texts import recovery_texts
from paretoformer.evaluators.job import Job
from paretoformer.evaluators.metrics import Metric
from paretoformer.evaluators.metrics.latency import Latency
from paretoformer.evaluators.metrics.likeness import Divergence
from paretoformer.evaluators.outcome import Outcome, Result
from paretoformer.search.dispatch.dispatcher import InlineDispatcher
from paretoformer.search.dispatch.pipeline import Pipeline
from paretoformer.search.loop import Search
from paretoformer.search.planning.block_repair import BlockRepairs
from paretoformer.search.planning.predictor import Predictor
from paretoformer.search.planning.prepare import Prepared, prepare
from paretoformer.search.planning.screen import Screen
from paretoformer.search.proposers import (
    Planted,
    Proposer,
    Records,
    Unseen,
    solved_proposers,
    standard_proposers,
)
from paretoformer.search.proposers.standard import nondominated_records
from paretoformer.search.proposers.surrogate import Surrogate
from paretoformer.search.records.dominance import hypervolume
from paretoformer.search.records.requirement import Requirement
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.study.optuna_study import ResumableStudy
from paretoformer.search.study.samplers import make_sampler
from paretoformer.search.study.spec import Spec, load_spec
from paretoformer.search.study.subject import Subject, load_subject
from paretoformer.spaces.build import build
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.recovery import Teacher
from paretoformer.spaces.space import Space

OBJECTIVES: list[Metric] = [Divergence(), Latency()]
NAMES = [metric.name for metric in OBJECTIVES]
REQUIREMENTS = [Requirement.parse("divergence<=0.06")]
WORST = 0.6
"""Divergence of the hypervolume's reference point, in nats."""
TIMINGS = 7
BITS = "NSGA-II on bits"
METHODS = (BITS, "local search", "TPE", "starts, NSGA-II", "surrogate")


@dataclass
class Quick:
    """Measures a structure in a fraction of a second; results are cached."""

    here: Subject
    screen: Screen

    def __post_init__(self) -> None:
        self._batch = self.here.workload.timing_batch(self.here.target)
        self._known: dict[str, dict[str, Measurement]] = {}

    def prepare(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def run(self, job: Job) -> Result:
        found = self._known.setdefault(job.candidate.id, {})
        name = "latency_ms" if job.exclusive else "divergence"
        if name not in found:
            cut = job.candidate.replaced(recovery="none")  # blocks are repaired separately
            value = self._time(cut) if job.exclusive else self.screen.of(cut)
            found[name] = Measurement(value, value, value, "")
        return Result(Outcome.OK, {name: found[name]})

    def _time(self, candidate: Candidate) -> float:
        model = build(candidate, self.here.model).model.eval()
        times = []
        with torch.inference_mode():
            for _ in range(TIMINGS + 2):
                start = time.perf_counter()
                model(**self._batch)
                times.append(1e3 * (time.perf_counter() - start))
        return float(np.median(times[2:]))


@dataclass
class LocalSearch(Proposer):
    """Changes one random parameter of a front member (Klein et al. 2024, arXiv:2405.02267)."""

    space: Space
    rng: np.random.Generator

    def propose(self, records: Records, under_way: Sequence[Candidate]) -> Sequence[Candidate]:
        done = [record for record in records.values() if record.ok]
        if not done:
            return [self.space.dense]
        front = nondominated_records(done, OBJECTIVES)
        for _ in range(100):
            parent = front[self.rng.integers(len(front))].candidate
            other = self.space.params(self.space.random(self.rng))
            params = self.space.params(parent)
            name = list(params)[self.rng.integers(len(params))]
            child = self.space.suggest(optuna.trial.FixedTrial({**params, name: other[name]}))
            if child.id not in records:
                return [child]
        return []


def spec_of(study: str, space: Mapping[str, Any], *, table: bool) -> Spec:
    spec = load_spec(study)
    search = spec.search.model_copy(update={"table": table})
    axes = spec.space.model_copy(update={"runtime": ["torch"], "readout": "all", **space})
    recovery = spec.recovery.model_copy(update={"distill_minutes": 0})
    return spec.model_copy(update={"search": search, "space": axes, "recovery": recovery})


def made(here: Subject, spec: Spec) -> Prepared:
    empty = optuna.create_study(directions=[metric.direction for metric in OBJECTIVES])
    with TemporaryDirectory() as folder:
        return prepare(empty, spec, here, RunFolder(folder), silent)


def one(
    prepared: Prepared,
    proposers: Sequence[Proposer],
    sampler: BaseSampler,
    seed: int,
    count: int,
    by: Quick,
) -> list[tuple[float, float]]:
    """(nats, milliseconds) per trial."""
    storage = optuna.storages.InMemoryStorage()
    directions = [metric.direction for metric in OBJECTIVES]
    optuna.create_study(study_name="one", storage=storage, directions=directions)
    study = ResumableStudy("one", storage, sampler)
    pipeline = Pipeline(InlineDispatcher(by, by.here.target.threads), "search")
    spare = Unseen(prepared.space, seed)
    search = Search(study, prepared.space, proposers, spare, pipeline, NAMES)
    records = search.run(count)
    return [(record.values(NAMES)[0], record.values(NAMES)[1]) for record in records]


def volume(points: Sequence[tuple[float, float]], dense: float) -> float:
    values = np.array([[nats, np.log(ms / dense)] for nats, ms in points])
    values = values[(values[:, 0] < WORST) & (values[:, 1] < 0)]
    return hypervolume(values, ["minimize", "minimize"], np.array([WORST, 0.0]))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--study", default="reviews")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, nargs="*", default=[15, 30, 60, 100])
    parser.add_argument("--long", type=int, default=1000, help="Trials of NSGA-II on bits, once.")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, help="Only these rows of the table."
    )
    arguments = parser.parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    here = load_subject(load_spec(arguments.study))
    ranked = made(here, spec_of(arguments.study, {}, table=True))
    before = made(here, spec_of(arguments.study, {}, table=False))
    bits = made(here, spec_of(arguments.study, {"heads": "mask", "layers": "mask"}, table=False))
    assert ranked.problem is not None
    teacher = Teacher(here.model, recovery_texts(here.workload, "cpu"), here.task.answers)
    choices = {c for kind in ranked.problem.blocks for c in kind.block.mechanisms(kind.costs)}
    quick = Quick(here, Screen(teacher, BlockRepairs.of(teacher, choices | _all_choices(ranked))))
    predictor = Predictor(ranked.space, ranked.problem)
    print(f"{arguments.study}, {cpu_name()}, {here.target.threads} threads", flush=True)

    def methods(seed: int) -> dict[str, tuple[Prepared, Sequence[Proposer], BaseSampler]]:
        wanted = OBJECTIVES, REQUIREMENTS
        sampler = partial(make_sampler, seed=seed)  # one per run: a sampler keeps its population
        surrogate = Surrogate(predictor, *wanted, seed, at_once=2)
        first: list[Proposer] = [Planted((bits.space.dense,))]
        local = LocalSearch(ranked.space, np.random.default_rng(seed))
        starts = standard_proposers(before.space, *wanted)
        forecast = solved_proposers(predictor, *wanted)
        rows = [
            (bits, first, sampler("nsga2")),
            (ranked, [*first, local], sampler("random")),
            (ranked, first, sampler("tpe")),
            (before, starts, sampler("nsga2")),
            (ranked, [*forecast, surrogate], sampler("nsga2")),
        ]
        every = dict(zip(METHODS, rows, strict=True))
        return {name: every[name] for name in arguments.methods or every}

    most = max(arguments.trials)
    found: dict[str, list[list[tuple[float, float]]]] = {}
    for seed in range(arguments.seeds):
        for name, (space, proposers, sampler) in methods(seed).items():
            found.setdefault(name, []).append(one(space, proposers, sampler, seed, most, quick))
            print(f"seed {seed}: {name} done", flush=True)
        print_table(found, arguments.trials)
    if arguments.long:
        (space, proposers, sampler), name = methods(0)[BITS], f"{BITS}, {arguments.long}"
        found[name] = [one(space, proposers, sampler, 0, arguments.long, quick)]
        print_table(found, [*arguments.trials, arguments.long])


def print_table(
    found: Mapping[str, Sequence[Sequence[tuple[float, float]]]], counts: list[int]
) -> None:
    """found: method -> trials of each seed."""
    dense = next(iter(found.values()))[0][0][1]
    whole = volume([point for runs in found.values() for run in runs for point in run], dense)
    print(" | ".join((f"{'trials':<24}", *(f"{count:>13}" for count in counts))))
    for name, runs in found.items():
        cells = []
        for count in counts:
            shares = [volume(run[:count], dense) / whole for run in runs if len(run) >= count]
            cells.append(f"{np.mean(shares):.3f} ({np.std(shares):.3f})" if shares else "")
        print(" | ".join((f"{name:<24}", *(f"{cell:>13}" for cell in cells))), flush=True)


def _all_choices(prepared: Prepared) -> set[Any]:
    """Attention choices of the study."""
    return {
        choice for value in prepared.space.domains["attention"].starts() for choice in value
    } | set(getattr(prepared.space.domains["attention"], "choices", ()))


if __name__ == "__main__":
    main()
