"""A whole study on a small real model: real Ray, real Optuna, real kills."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
import torch

import paretoformer as pf
from paretoformer.evaluators.metrics.accuracy import Accuracy
from paretoformer.evaluators.metrics.latency import Latency
from paretoformer.search.records.parquet import read_front, read_table
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.report.evidence import timeline
from paretoformer.search.study.optuna_study import open_study
from paretoformer.spaces.models.surgery import count_parameters
from tests.conftest import Run
from tests.sampled import sampled
from tests.tiny import write_study

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(600)]

TORCH = '[space]\nruntime = ["torch"]\nattention = ["full"]\n'
"""Without conversions: these tests are about the loop around them."""

COMMAND = [sys.executable, "-m", "paretoformer.search.cli"]


def start(study: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "search", study.name, "--out", "run", *arguments],
        cwd=study.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(study: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    process = start(study, *arguments)
    output, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return subprocess.CompletedProcess(process.args, 0, output, error)


@dataclass(frozen=True)
class Killed:
    """A study file, and what its run had measured when it was killed."""

    study: Path
    before: list[str]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """A run that was killed once it had two rows; the same command finished it."""
    study = write_study(tmp_path_factory.mktemp("study"), trials=7, extra=TORCH)
    process = start(study)
    try:
        wait_for_rows(study.parent / "run", 2)
    finally:
        process.kill()
        process.communicate()
    before = ids(study.parent / "run")
    finish(study)
    return Killed(study, before)


@pytest.fixture
def finished(killed: Killed) -> Path:
    """The study file of a finished run, which lies beside it as `run`."""
    return killed.study


def ids(run: Path) -> list[str]:
    column = read_table(run / "trials.parquet")[0]["candidate_id"]
    return list(column.to_pylist())


def wait_for_rows(run: Path, count: int) -> None:
    """Until the table has so many."""
    deadline = time.monotonic() + 240
    while not (run / "trials.parquet").exists() or len(ids(run)) < count:
        assert time.monotonic() < deadline, "no trial was finished"
        time.sleep(0.1)


def test_killed_study_goes_on_without_loss_or_double(killed: Killed) -> None:
    after = ids(killed.study.parent / "run")
    assert 2 <= len(killed.before) < 7
    assert after[: len(killed.before)] == killed.before
    assert len(set(after)) == len(after) == 7


def test_run_folder_holds_what_was_promised(finished: Path) -> None:
    run = finished.parent / "run"
    assert {path.name for path in run.iterdir()} >= {
        "study.toml",
        "machine.json",
        "optuna.db",
        "evidence.json",
        "trials.parquet",
        "front.parquet",
        "report.html",
    }
    trials = read_table(run / "trials.parquet")[0].to_pandas()
    assert len(trials) == 7
    assert (trials["outcome"] == "ok").all()
    cut = trials["candidate"].str.contains("feed_forward")  # readout and mechanisms remove nothing
    dense = trials["parameters"].iloc[0]
    assert cut.any()
    assert trials.loc[cut, "parameters"].lt(dense).all()
    assert trials["parameters"].le(dense).all()
    assert trials["flops"].min() > 0
    frame, facts = read_front(run)
    assert facts.machine["threads"] == 2
    assert frame["speedup"].notna().all()


def test_no_evaluation_of_the_study_ran_beside_a_timing(finished: Path) -> None:
    run = finished.parent / "run"
    trials = read_table(run / "trials.parquet")[0].to_pandas()
    evaluations = pd.concat((timeline(trials), timeline(read_front(run)[0])), ignore_index=True)
    assert (evaluations["phase"] == "timing").sum() >= 7
    assert (evaluations["phase"] == "shared").sum() >= 7
    for index, timing in evaluations[evaluations["phase"] == "timing"].iterrows():
        other = evaluations.drop(index)
        other = other[other["host"] == timing["host"]]
        beside = (other["started"] < timing["ended"]) & (timing["started"] < other["ended"])
        assert not beside.any()


def test_confirmed_accuracy_is_paired_with_dense(finished: Path) -> None:
    frame, _ = read_front(finished.parent / "run")
    change = frame["accuracy"] - frame["accuracy"].iloc[0]
    assert frame["accuracy_difference"].to_numpy() == pytest.approx(change.to_numpy())
    assert (frame["accuracy_difference_low"] <= frame["accuracy_difference"]).all()
    assert (frame["accuracy_difference"] <= frame["accuracy_difference_high"]).all()


def test_best_model_runs_and_has_the_measured_size(finished: Path) -> None:
    best = pf.load_best(finished.parent / "run", "parameters", [])
    model = best.load_model()
    assert count_parameters(model) == best.metrics["parameters"].value
    assert model(torch.tensor([[2, 5, 6, 3]])).logits.shape == (1, 2)


def test_exported_model_answers_alike_in_another_process(finished: Path, run: Run) -> None:
    folder = finished.parent
    wanted = ("--minimize", "parameters", "--require", "accuracy>=0")
    assert run("export", folder / "run", folder / "out", *wanted)[0] == 0
    script = (
        "import paretoformer as pf, torch, json, transformers;"
        "model = pf.load_compressed('out');"
        "words = transformers.AutoTokenizer.from_pretrained('out')('word1 word2 word3');"
        "ids = torch.tensor([words['input_ids']]);"
        "print(json.dumps([model(ids).logits.tolist(), words['input_ids'],"
        " sum(p.numel() for p in model.parameters())]))"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=finished.parent, check=True, capture_output=True
    )
    logits, tokens, parameters = json.loads(output.stdout.splitlines()[-1])
    best = pf.load_best(finished.parent / "run", "parameters", ["accuracy>=0"])
    here = best.load_model()(torch.tensor([tokens])).logits
    torch.testing.assert_close(torch.tensor(logits), here.detach(), atol=1e-5, rtol=0)
    assert parameters == best.metrics["parameters"].value


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """Its run folder, for tests that change it."""
    return Path(shutil.copytree(finished.parent / "run", tmp_path / "copy"))


@pytest.mark.usefixtures("inline")
def test_more_trials_go_on_from_those_there_are_and_none_is_measured_again(
    finished: Path, copy: Path
) -> None:
    before = ids(copy)
    pf.search(finished, out=copy, trials=9, quiet=True)
    after = ids(copy)
    assert after[:7] == before
    assert len(set(after)) == len(after) == 9
    table = pq.read_table(copy / "trials.parquet")
    pf.search(finished, out=copy, trials=9, quiet=True)
    assert pq.read_table(copy / "trials.parquet").equals(table)


def test_folder_of_another_study_is_refused(finished: Path, copy: Path, run: Run) -> None:
    text = finished.read_text().replace("sequence_length = 64", "sequence_length = 32")
    other = finished.with_name("other.toml")
    other.write_text(text)
    status, _, error = run("search", other, "--out", copy)
    assert status == 2
    assert "holds another study" in error
    assert "target.sequence_length is 64 there and 32 here" in error
    assert error.count("\n") == 1


def test_folder_without_its_storage_is_not_begun_again(
    finished: Path, copy: Path, run: Run
) -> None:
    (copy / "optuna.db").unlink()
    status, _, error = run("search", finished, "--out", copy)
    assert status == 2
    assert "has lost its optuna.db" in error
    assert error.count("\n") == 1


def test_storage_of_another_run_is_refused(tmp_path: Path, run: Run) -> None:
    storage = f"sqlite:///{tmp_path}/shared.db"
    study = write_study(tmp_path, extra=f'[search]\nstorage = "{storage}"')
    open_study("tiny", storage, [Accuracy(), Latency()], "random", 0)
    status, _, error = run("search", study, "--out", tmp_path / "run")
    assert status == 2
    assert "holds a study 'tiny' already: choose another name" in error
    assert not (tmp_path / "run").exists()


def test_changed_data_is_refused(finished: Path, copy: Path, run: Run) -> None:
    data = finished.parent / "data.csv"
    text = data.read_text()
    try:
        data.write_text(text.replace("word1 ", "word2 "))
        status, _, error = run("search", finished, "--out", copy, "--trials", 9)
    finally:
        data.write_text(text)
    assert status == 2
    assert "the data changed" in error


@sampled("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)], [(signal.SIGINT, 130)])
def test_interrupted_command_ends_its_workers_and_prints_no_stack(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    process = start(write_study(tmp_path, trials=50, extra=TORCH))
    wait_for_rows(tmp_path / "run", 1)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == status
    assert error.splitlines()[-1].startswith("Interrupted. What was finished is kept")
    assert "Traceback" not in error
    assert workers
    assert not psutil.wait_procs(workers, timeout=10)[1]
    assert not RunFolder(tmp_path / "run").living_workers()
