"""Predictions of the block table against measurements.

Random candidates in the range of a search are built, repaired and measured like a trial, in each
runtime. Latencies in a runtime are predicted from the uncompressed model and a few candidates
(--taught), which are excluded from the evaluation.

    python benchmarks/prediction.py random [--study reviews] [--runtimes torch openvino:int8 ...]
    python benchmarks/prediction.py run RUN          # each trial from those before it, in a run

Errors are |predicted / measured - 1|; tau is Kendall's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import optuna
from scipy.stats import kendalltau

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.common.progress import silent
from paretoformer.evaluators.common.target import cpu_name
from paretoformer.evaluators.data.examples import SplitName
from paretoformer.evaluators.evaluator import Evaluator
from paretoformer.evaluators.job import Job, phases
from paretoformer.evaluators.metrics.latency import Latency
from paretoformer.evaluators.metrics.likeness import Divergence
from paretoformer.evaluators.outcome import Outcome, Result
from paretoformer.evaluators.timing.protocol import TimingProtocol
from paretoformer.search.planning.predictor import SIZES, Predictor
from paretoformer.search.planning.prepare import Prepared, prepare
from paretoformer.search.records.facts import DIVERGENCE, LATENCY
from paretoformer.search.records.parquet import read_table
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import Subject, load_subject
from paretoformer.spaces.candidate import Candidate

SPREAD = 1.0
"""Standard deviation of the logarithm of random coefficients."""
RANGE = (0.01, 0.6)
"""Range of the predicted divergence of random candidates, in nats."""


def prepared(here: Subject, study: str, folder: Path) -> Prepared:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    empty = optuna.create_study(directions=["maximize", "minimize"])
    return prepare(empty, load_spec(study), here, RunFolder(folder), silent)


def drawn(here: Prepared, count: int) -> list[Candidate]:
    """The best candidate for random coefficients, at a random point of its front."""
    problem, rng = here.problem, np.random.default_rng(0)
    assert problem is not None
    found: dict[Candidate, None] = {}
    while len(found) < count:
        weights = np.exp(rng.normal(scale=SPREAD, size=(problem.layers, len(problem.blocks) + 1)))
        fronts = list(replace(problem, coefficients=weights).solve().along(30))
        usable = [s for s in fronts if RANGE[0] < problem.nats(s.candidate) < RANGE[1]]
        if usable:
            found[here.space.completed(usable[rng.integers(len(usable))].candidate)] = None
    return list(found)


class Measured:
    """Measures candidates in this process, like trials."""

    def __init__(self, here: Subject, seconds: float) -> None:
        protocols: dict[SplitName, TimingProtocol] = {"search": TimingProtocol(0.02, seconds)}
        metrics = {metric.name: metric for metric in (Divergence(), Latency())}
        self._evaluator = Evaluator(
            here.model, here.task, here.workload, here.target, metrics, protocols
        )
        self._evaluator.prepare(here.target.threads)
        self._reference: dict[str, Measurement] | None = None
        self.records: dict[str, TrialRecord] = {}

    def add(self, candidate: Candidate) -> TrialRecord:
        found: dict[str, Measurement] = {}
        artifact = None
        for phase in phases(candidate):
            result = self._evaluator.run(Job(candidate, "search", phase, self._reference, artifact))
            if result.outcome is not Outcome.OK:
                raise SystemExit(f"{candidate}: {result.message}")
            artifact = artifact or result.artifact
            found |= result.measurements
        self._reference = self._reference or found
        record = TrialRecord(len(self.records), candidate, Result(Outcome.OK, found))
        self.records[candidate.id] = record
        return record


def random(arguments: argparse.Namespace) -> None:
    here = load_subject(load_spec(arguments.study))
    with TemporaryDirectory() as folder:
        found = prepared(here, arguments.study, Path(folder))
    predictor = found.predictor
    assert predictor is not None
    print(f"{arguments.study}, {cpu_name()}, {here.target.threads} threads", flush=True)
    candidates = drawn(found, arguments.taught + arguments.candidates)
    measured = Measured(here, arguments.seconds)
    measured.add(found.space.dense)
    print("runtime | candidates | untaught: median error, tau | taught | divergence: tau")
    for runtime in arguments.runtimes:
        base = found.space.dense.replaced(runtime=runtime)
        for candidate in (base, found.space.completed(found.space.dense).replaced(runtime=runtime)):
            if candidate.id not in measured.records:
                measured.add(candidate)
        here_served = [candidate.replaced(runtime=runtime) for candidate in candidates]
        judged = here_served[arguments.taught :]
        before = [predictor.of(candidate, measured.records) for candidate in judged]
        for candidate in here_served[: arguments.taught]:
            measured.add(candidate)
        after = [predictor.of(candidate, measured.records) for candidate in judged]
        truth = [measured.add(candidate).measurements for candidate in judged]
        times = [values[LATENCY].value for values in truth]
        nats = [values[DIVERGENCE].value for values in truth]
        errors = " | ".join(judge([p[LATENCY] for p in some], times) for some in (before, after))
        tau = kendalltau([p[DIVERGENCE] for p in after], nats).statistic
        print(f"{runtime:<20} | {len(judged)} | {errors} | {tau:.2f}", flush=True)


def judge(predicted: Sequence[float], measured: Sequence[float]) -> str:
    errors = np.abs(np.array(predicted) / np.array(measured) - 1)
    tau = kendalltau(predicted, measured).statistic
    return f"{np.median(errors):.1%} (90%: {np.quantile(errors, 0.9):.1%}), {tau:.2f}"


def stored(folder: Path) -> Iterator[TrialRecord]:
    table, _ = read_table(folder / "trials.parquet")
    for row in table.sort_by("trial").to_pylist():
        values = {
            name: Measurement(row[name], row[f"{name}_low"], row[f"{name}_high"], "")
            for name in (LATENCY, DIVERGENCE, *SIZES)
            if row.get(name) is not None
        }
        outcome = Outcome.OK if row["outcome"] == "ok" else Outcome.ERROR
        yield TrialRecord(
            row["trial"], Candidate.from_json(row["candidate"]), Result(outcome, values)
        )


def run(arguments: argparse.Namespace) -> None:
    """Predict each trial from earlier ones, per runtime."""
    folder = RunFolder(arguments.run)
    study = str(folder.study)
    found = prepared(load_subject(load_spec(study)), study, folder.path)
    predictor: Predictor | None = found.predictor
    if predictor is None:
        raise SystemExit(f"{folder.path} has no block table.")
    known: dict[str, TrialRecord] = {}
    pairs: dict[str, list[tuple[float, float, float, float]]] = {}
    sizes: dict[tuple[str, str], list[float]] = {}
    whole = predictor.unserved(found.space.dense)
    for record in stored(folder.path):
        guess = predictor.of(record.candidate, known)
        base = predictor.unserved(record.candidate)
        known[record.candidate.id] = record
        cut = record in predictor.cut(base, known) and not record.candidate.seconds
        if cut and LATENCY in guess and DIVERGENCE in guess and whole.id in known:
            values = record.measurements
            runtime = str(record.candidate["runtime"])
            for name in set(SIZES) & guess.keys() & values.keys():
                error = abs(guess[name] / values[name].value - 1)
                sizes.setdefault((runtime, name), []).append(error)
            pairs.setdefault(runtime, []).append(
                (guess[LATENCY], values[LATENCY].value, guess[DIVERGENCE], values[DIVERGENCE].value)
            )
    print("runtime | trials | latency: median error, tau | divergence: tau")
    for runtime, trials in pairs.items():
        predicted_ms, ms, predicted_nats, nats = zip(*trials, strict=True)
        tau = kendalltau(predicted_nats, nats).statistic
        print(f"{runtime:<20} | {len(trials)} | {judge(predicted_ms, ms)} | {tau:.2f}")
    print("runtime | size | trials | median error, that of the last half")
    for (runtime, name), errors in sorted(sizes.items()):
        late = np.median(errors[len(errors) // 2 :])
        print(f"{runtime:<20} | {name} | {len(errors)} | {np.median(errors):.1%}, {late:.1%}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    what = parser.add_subparsers(required=True)
    drawn_ones = what.add_parser("random", help="Random candidates, measured now.")
    drawn_ones.add_argument("--study", default="reviews")
    drawn_ones.add_argument(
        "--runtimes", nargs="*", default=["torch", "onnxruntime:int8", "openvino", "openvino:int8"]
    )
    drawn_ones.add_argument("--candidates", type=int, default=30)
    drawn_ones.add_argument("--taught", type=int, default=8)
    drawn_ones.add_argument("--seconds", type=float, default=1.0)
    drawn_ones.set_defaults(do=random)
    finished = what.add_parser("run", help="The trials of a run, each from those before it.")
    finished.add_argument("run", type=Path)
    finished.set_defaults(do=run)
    arguments = parser.parse_args(argv)
    arguments.do(arguments)


if __name__ == "__main__":
    main()
