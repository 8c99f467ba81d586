"""Fidelity and divergence: likeness to dense answers, and studies that have no labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import paretoformer as pf
from paretoformer.evaluators.data.examples import DataSource
from paretoformer.evaluators.data.splits import read_splits
from paretoformer.evaluators.metrics import Bench
from paretoformer.evaluators.metrics.likeness import Divergence, Fidelity
from paretoformer.evaluators.metrics.predictions import compared
from paretoformer.evaluators.timing.protocol import TimingProtocol
from paretoformer.search.records.errors import StudyError
from paretoformer.search.records.parquet import read_front, read_table
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import Subject, load_subject
from paretoformer.spaces.axes.head_mask import HeadMask
from paretoformer.spaces.build import build
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.runtimes.torch_runtime import TorchRunnable
from paretoformer.testing import check_metric
from tests.tiny import HEADS, LAYERS, SMALL_SPACE, write_data, write_study

UNLABELLED = f"[recovery]\nleast_squares = false\n{SMALL_SPACE}"
HEADLESS = Candidate(HeadMask.none(LAYERS, HEADS))


def bench(here: Subject, candidate: Candidate) -> Bench:
    model = build(candidate, here.model).model
    return Bench(
        runnable=TorchRunnable(model),
        model=model,
        dense=here.model,
        reference=None,
        task=here.task,
        split=here.workload.splits["search"],
        workload=here.workload,
        target=here.target,
        protocol=TimingProtocol(),
        steering=here.workload.splits["confirm"],
    )


def logits(model: torch.nn.Module, here: Subject, split: str) -> torch.Tensor:
    rows = [here.workload.inputs.collate([e]) for e in here.workload.splits[split].examples]
    with torch.inference_mode():
        return torch.cat([model(**row).logits for row in rows])


def test_dense_is_like_itself(tmp_path: Path) -> None:
    here = load_subject(load_spec(write_study(tmp_path)))
    own = bench(here, Candidate.dense(LAYERS, HEADS))
    fidelity, divergence = check_metric(Fidelity(), own), check_metric(Divergence(), own)
    assert fidelity is not None
    assert divergence is not None
    assert (fidelity.value, divergence.value) == (1.0, 0.0)


def test_likeness_is_that_of_the_answers_on_the_steering_examples(tmp_path: Path) -> None:
    here = load_subject(load_spec(write_study(tmp_path)))
    with torch.no_grad():
        here.model.classifier.weight *= 30  # else all answers are nearly even
    cut = bench(here, HEADLESS)
    given, wanted = (logits(m, here, "confirm") for m in (cut.model, here.model))
    p, q = wanted.double().softmax(-1), given.double().softmax(-1)
    nats = (p * (p / q).log()).sum(-1)
    fidelity, divergence = check_metric(Fidelity(), cut), check_metric(Divergence(), cut)
    assert fidelity is not None
    assert divergence is not None
    assert fidelity.value == pytest.approx((given.argmax(-1) == wanted.argmax(-1)).double().mean())
    assert divergence.value == pytest.approx(float(nats.mean()), rel=1e-4)
    assert divergence.value > 0


def test_dense_answers_are_computed_once(tmp_path: Path) -> None:
    here = load_subject(load_spec(write_study(tmp_path)))
    first = bench(here, HEADLESS)
    Fidelity().measure(first)
    assert len(first.dense_outputs) == 1
    kept = next(iter(first.dense_outputs.values()))
    second = replace(bench(here, HEADLESS), dense_outputs=first.dense_outputs)
    Divergence().measure(second)
    assert next(iter(second.dense_outputs.values())) is kept


def test_dense_answers_are_computed_in_large_batches_for_candidates_in_small_ones(
    tmp_path: Path,
) -> None:
    here = load_subject(load_spec(write_study(tmp_path)))
    found = []
    for coupled in (False, True):  # in batches of 32, and of the target's size
        runnable = TorchRunnable(build(HEADLESS, here.model).model)
        runnable.couples_rows = coupled
        cut = replace(bench(here, HEADLESS), runnable=runnable)
        rows = []
        handle = here.model.register_forward_hook(
            lambda model, batch, output, rows=rows: rows.append(len(output.logits))
        )
        found.append(compared(cut).divergence)
        handle.remove()
        assert rows == [32, 28]
        (kept,) = cut.dense_outputs.values()
        assert max(len(output.logits) for output in kept) == (1 if coupled else 32)
    np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-6)


def test_examples_that_steer_are_the_same_ones_each_time(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    write_data(tmp_path / "data.csv", rows=900)
    workload = load_subject(load_spec(study)).workload
    assert "steer" in workload.splits
    assert workload.steering is workload.steering
    assert 128 <= len(workload.steering) <= len(workload.splits["steer"])


def test_what_steers_and_what_repairs_is_in_no_other_split(tmp_path: Path) -> None:
    path = write_data(tmp_path / "data.csv", rows=1500)
    source = DataSource(path=str(path), search_examples=40, confirm_examples=60)
    splits = read_splits(source, seed=0).examples
    assert {name: len(each) for name, each in splits.items() if name != "recovery"} == {
        "confirm": 60, "search": 40, "train": 256, "steer": 256,
    }  # fmt: skip
    found = [key for each in splits.values() for key in each.identities()]
    assert len(set(found)) == len(found)


def test_texts_of_a_file_come_first_among_those_for_recovery(tmp_path: Path) -> None:
    path = write_data(tmp_path / "data.csv", rows=600)
    source = DataSource(path=str(path), search_examples=40, confirm_examples=60)
    before = read_splits(source, seed=0).examples
    known = before["search"].texts[0]
    (tmp_path / "more.txt").write_text(f"one more text\n\n{known}\nand another\n")
    after = read_splits(source, 0, [str(tmp_path / "more.txt")]).examples
    assert set(after["recovery"].texts[:2]) == {"one more text", "and another"}
    assert after["recovery"].labels[:2] == (None, None)
    assert after["recovery"].texts[2:] == before["recovery"].texts


def test_a_study_repairs_from_texts_of_a_file(tmp_path: Path) -> None:
    study = write_study(tmp_path, extra='[recovery]\ntexts = "more.txt"\n')
    (tmp_path / "more.txt").write_text("\n".join(f"word{i} word{i + 1}" for i in range(50)))
    here = load_subject(load_spec(study))
    assert len(here.workload.splits["recovery"]) == 50
    assert (here.workload.splits["recovery"].labels == -1).all()
    assert (here.workload.splits["train"].labels >= 0).all()


def test_texts_for_recovery_of_several_files_are_mixed(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("\n".join(f"{name}{i} text" for i in range(40)))
    study = write_study(tmp_path, extra='[recovery]\ntexts = ["a.txt", "b.txt"]\n')
    spec = load_spec(study)
    assert spec.recovery.texts == [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    source = spec.data.model_copy(update={"search_examples": 8, "confirm_examples": 8})
    texts = read_splits(source, 0, spec.recovery.text_files).examples["recovery"].texts[:80]
    assert sum(text.startswith("a") for text in texts[:20]) in range(4, 17)
    study.write_text(study.read_text().replace('["a.txt", "b.txt"]', '"a.txt"'))
    assert load_spec(study).recovery.texts == str(tmp_path / "a.txt")


def test_without_labels_accuracy_is_refused(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    text = study.read_text().replace("[data]\n", '[data]\nlabel = ""\n')
    study.write_text('objectives = ["accuracy", "latency_ms"]\n' + text)
    with pytest.raises(StudyError, match=r"Known for text-classification without labels: fidelity"):
        load_subject(load_spec(study))


@pytest.mark.slow
@pytest.mark.usefixtures("inline")
def test_a_file_of_texts_is_enough_for_a_study(tmp_path: Path) -> None:
    study = write_study(tmp_path, trials=5, extra=UNLABELLED)
    rows = (tmp_path / "data.csv").read_text().splitlines()[1:]
    (tmp_path / "texts.txt").write_text("\n".join(row.rpartition(",")[0] for row in rows))
    text = study.read_text().replace('path = "data.csv"', 'path = "texts.txt"\nlabel = ""')
    study.write_text(text)
    run = pf.search(study, out=tmp_path / "run", quiet=True)
    frame, facts = read_front(run)
    assert facts.objectives == ("fidelity", "latency_ms")
    assert facts.requirements == ("fidelity>=dense-0.05",)
    assert frame["fidelity"].iloc[0] == 1.0
    assert frame["fidelity"].between(0, 1).all()
    best = pf.load_best(run)
    assert best.metrics["fidelity"].value >= 0.95


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.usefixtures("inline")
def test_divergence_steers_a_labelled_study_that_reports_accuracy(tmp_path: Path) -> None:
    study = write_study(tmp_path, trials=5, extra=UNLABELLED)
    study.write_text('objectives = ["divergence", "latency_ms"]\n' + study.read_text())
    run = pf.search(study, out=tmp_path / "run", quiet=True)
    trials = read_table(run / "trials.parquet")[0].to_pandas()
    assert np.isfinite(trials[["accuracy", "fidelity", "divergence"]].to_numpy()).all()
    frame, facts = read_front(run)
    assert facts.requirements == ("accuracy>=dense-0.01",)
    assert "fidelity" not in frame
    assert frame["divergence"].iloc[0] == 0
    assert frame["accuracy"].notna().all()
