"""A whole study on a small real model: real Ray, real Optuna, real kills."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
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
from paretoformer.search.report.evidence import overlaps, timeline
from paretoformer.search.study.optuna_study import open_study
from paretoformer.spaces.models.surgery import count_parameters
from tests.tiny import write_study

pytestmark = [pytest.mark.slow, pytest.mark.alone]

TORCH = '[space]\nruntime = ["torch"]\n'
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
    output, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    return subprocess.CompletedProcess(process.args, 0, output, error)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study file of a finished run, which lies beside it as `run`."""
    study = write_study(tmp_path_factory.mktemp("study"), trials=7, extra=TORCH)
    finish(study)
    return study


def ids(study: Path) -> list[str]:
    column = read_table(study.parent / "run" / "trials.parquet")[0]["candidate_id"]
    return list(column.to_pylist())


def ray_processes() -> set[int]:
    """Every process of any Ray."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if "ray::" in line or "raylet" in line or "gcs_server" in line:
            found.add(process.pid)
    return found


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
    assert overlaps(evaluations) == 0


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


def test_exported_model_answers_alike_in_another_process(finished: Path) -> None:
    subprocess.run(
        [*COMMAND, "export", "run", "out", "--minimize", "parameters", "--require", "accuracy>=0"],
        cwd=finished.parent,
        check=True,
        capture_output=True,
    )
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


def test_more_trials_go_on_from_those_there_are(finished: Path) -> None:
    before = ids(finished)
    finish(finished, "--trials", "9")
    after = ids(finished)
    assert after[:7] == before
    assert len(set(after)) == len(after) == 9


def test_finished_run_is_not_measured_again(finished: Path) -> None:
    trials = finished.parent / "run" / "trials.parquet"
    before = pq.read_table(trials)
    finish(finished, "--trials", "9")
    assert pq.read_table(trials).equals(before)


def test_folder_of_another_study_is_refused(finished: Path) -> None:
    text = finished.read_text().replace("sequence_length = 64", "sequence_length = 32")
    other = finished.with_name("other.toml")
    other.write_text(text)
    process = start(other)
    error = process.communicate(timeout=100)[1]
    assert process.returncode == 2
    assert "holds another study" in error
    assert "target.sequence_length is 64 there and 32 here" in error
    assert error.count("\n") == 1


def test_folder_without_its_storage_is_not_begun_again(finished: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(finished.parent / "run", tmp_path / "copy")
    (copy / "optuna.db").unlink()
    process = start(finished, "--out", str(copy))
    error = process.communicate(timeout=100)[1]
    assert process.returncode == 2
    assert "has lost its optuna.db" in error
    assert error.count("\n") == 1


def test_storage_of_another_run_is_refused(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/shared.db"
    study = write_study(tmp_path, extra=f'[search]\nstorage = "{storage}"')
    open_study("tiny", storage, [Accuracy(), Latency()], "random", 0)
    process = start(study)
    error = process.communicate(timeout=100)[1]
    assert process.returncode == 2
    assert "holds a study 'tiny' already: choose another name" in error
    assert not (tmp_path / "run").exists()


def test_changed_data_is_refused(finished: Path) -> None:
    data = finished.parent / "data.csv"
    text = data.read_text()
    try:
        data.write_text(text.replace("word1 ", "word2 "))
        process = start(finished, "--trials", "9")
        error = process.communicate(timeout=100)[1]
    finally:
        data.write_text(text)
    assert process.returncode == 2
    assert "the data changed" in error


def test_killed_study_goes_on_without_loss_or_double(tmp_path: Path) -> None:
    study = write_study(tmp_path, trials=8, extra=TORCH)
    kept: list[str] = []
    for seconds in (14 + 4 * random.random(), 14 + 6 * random.random()):
        process = start(study)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if (tmp_path / "run" / "trials.parquet").exists():
            assert ids(study)[: len(kept)] == kept
            kept = ids(study)
    finish(study)
    assert set(kept) <= set(ids(study))
    assert len(set(ids(study))) == len(ids(study)) == 8


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_command_ends_its_workers_and_prints_no_stack(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    before = ray_processes()
    study = write_study(tmp_path, trials=50, extra=TORCH)
    process = start(study)
    trials = tmp_path / "run" / "trials.parquet"
    deadline = time.monotonic() + 60
    while not trials.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(process.pid, number)
    error = process.communicate(timeout=30)[1]
    assert process.returncode == status
    assert error.splitlines()[-1].startswith("Interrupted. What was finished is kept")
    assert "Traceback" not in error
    deadline = time.monotonic() + 10
    while ray_processes() - before and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not ray_processes() - before
    assert not RunFolder(tmp_path / "run").living_workers()
