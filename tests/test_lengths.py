"""Timing at the lengths of the data: the batches of a pass, their mean, and what is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import paretoformer as pf
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.data.workload import BATCHES, Split, Workload
from paretoformer.evaluators.metrics import Bench, metrics_of
from paretoformer.evaluators.metrics.end_to_end import EndToEnd
from paretoformer.evaluators.metrics.latency import Latency
from paretoformer.evaluators.tasks import task_of
from paretoformer.evaluators.tasks.text import TextInputs
from paretoformer.evaluators.timing.intervals import Reference
from paretoformer.evaluators.timing.passes import LENGTHS, Pass
from paretoformer.evaluators.timing.protocol import (
    WARM_UP_RUNS,
    TimingProtocol,
    time_alone,
    time_interleaved,
)
from paretoformer.search.records.parquet import read_front
from paretoformer.search.study.spec import Spec, load_spec
from paretoformer.search.study.subject import Subject, load_subject
from paretoformer.spaces.runtimes.torch_runtime import TorchRunnable
from tests.conftest import Run
from tests.tiny import write_study

DATA = Target(sequence_length=512, follows_data=True)
TORCH = '[space]\nruntime = ["torch"]\nattention = ["full"]\n'


def workload(lengths: list[int]) -> Workload:
    """Texts of these lengths, each of one token that no other has."""
    texts = tuple({"input_ids": np.full(length, i)} for i, length in enumerate(lengths))
    return Workload({"search": Split(texts, np.zeros(len(texts)))}, TextInputs({"input_ids": 0}))


def study_of_data(folder: Path) -> Path:
    study = write_study(folder, trials=3, extra=TORCH)
    study.write_text(study.read_text().replace("sequence_length = 64\n", ""))
    return study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study_of_data(tmp_path_factory.mktemp("lengths"))


@pytest.fixture(scope="module")
def subject(study: Path) -> Subject:
    return load_subject(load_spec(study))


texts = st.lists(st.integers(1, 512), min_size=1, max_size=60)


@given(texts, st.integers(1, 3))
def test_mean_of_a_pass_is_near_that_of_the_data(lengths: list[int], rows: int) -> None:
    target = replace(DATA, batch_size=rows)
    batches = workload(lengths).timing_batches(target)
    assert BATCHES[0] <= len(batches) <= BATCHES[1]
    timed = [int(n) for batch in batches for n in batch["attention_mask"].sum(dim=1)]
    assert len(timed) == len(batches) * rows
    reach = (max(lengths) - min(lengths)) / len(timed)
    assert abs(np.mean(timed) - np.mean(lengths)) <= reach + 1e-6


@given(texts, st.integers(1, 3))
def test_every_row_of_a_pass_is_a_text(lengths: list[int], rows: int) -> None:
    made = workload(lengths)
    target = replace(DATA, batch_size=rows)
    first, second = made.timing_batches(target), made.timing_batches(target)
    for batch, again in zip(first, second, strict=True):
        assert torch.equal(batch["input_ids"], again["input_ids"])
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            assert mask.sum() == lengths[int(ids[0])]
        assert batch["attention_mask"].any(dim=0).all()  # padded to the longest of the batch


def test_neighbours_in_a_pass_differ_in_length() -> None:
    batches = workload(list(range(5, 105))).timing_batches(DATA)
    lengths = [batch["input_ids"].shape[1] for batch in batches]
    assert lengths != sorted(lengths)
    assert all(a != b for a, b in pairwise(lengths))


def test_long_texts_and_large_batches_have_fewer_batches() -> None:
    counts = [len(workload([n] * 9).timing_batches(DATA)) for n in (8, 80, 512)]
    assert counts == [8, 6, 4]
    assert len(workload([8] * 9).timing_batches(replace(DATA, batch_size=8))) == 8


def test_one_length_is_one_batch_without_padding() -> None:
    made = workload([3, 5])
    target = Target(batch_size=2, sequence_length=8)
    (batch,) = made.timing_batches(target)
    rows = [[0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1]]
    assert batch["input_ids"].tolist() == rows
    assert batch["attention_mask"].all()
    assert torch.equal(batch["input_ids"], made.timing_batch(target)["input_ids"])


def test_single_batch_has_the_mean_length_of_a_pass() -> None:
    made = workload(list(range(5, 105)))
    batch = made.timing_batch(replace(DATA, batch_size=2))
    assert batch["attention_mask"].all()
    assert batch["input_ids"].shape == (2, made.timed_length(replace(DATA, batch_size=2)))
    assert made.timed_length(DATA) == pytest.approx(54.5, abs=2)


def test_a_pass_is_timed_as_the_mean_of_its_calls() -> None:
    times = iter([1.0, 5.0, 3.0, 7.0])
    timed = Pass(lambda call: next(times), [lambda: None] * 2)
    assert (timed(), timed()) == (3.0, 5.0)
    assert timed.by_length([8, 90], 8.0) == {"ms_at_90": 12.0, "ms_at_8": 4.0}
    assert timed.by_length([], 8.0) == {}


def test_times_are_kept_of_a_few_lengths_and_the_longest() -> None:
    timed = Pass(lambda call: 2.0, [lambda: None] * 16)
    timed()
    found = timed.by_length(list(range(1, 17)), 2.0)
    assert len(found) == LENGTHS
    assert next(iter(found)) == "ms_at_16"


def test_passes_are_warmed_up_and_grouped_by_their_forwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from paretoformer.evaluators.timing import protocol

    assert TimingProtocol().warm_up_runs == WARM_UP_RUNS
    monkeypatch.setattr(protocol, "WARM_UP_SECONDS", 0.0)
    monkeypatch.setattr(protocol, "SETTLE_SECONDS", 0.0)
    counts = {}
    for calls in (1, 10):
        ran = [0, 0]

        def one(index: int, ms: float, ran: list[int] = ran) -> float:
            ran[index] += 1
            return ms

        short = TimingProtocol(seconds=0.0, reference_times=0, calls=calls)
        timed = time_alone(lambda: one(0, 3.0), short)
        assert timed.mean == 3.0
        timed = time_interleaved(lambda: one(1, 3.0), lambda: 6.0, short, reference=Reference(4.0))
        assert timed.mean == 8.0
        counts[calls] = ran[0]
    assert counts == {1: 10 + 1 + 8 * 10, 10: 2 + 1 + 8}


def test_texts_are_cut_where_the_model_has_no_room(subject: Subject) -> None:
    assert subject.target.follows_data
    assert subject.target.sequence_length == 80
    shortest, mean, longest = subject.lengths
    assert 5 <= shortest < mean < longest <= 31
    assert subject.task.shown(subject.lengths) == (
        f"texts of {shortest} to {longest} tokens (mean {mean:.0f})"
    )


def test_text_that_fills_the_model_is_said_to_be_cut(study: Path) -> None:
    made = load_spec(study)
    long = study.with_name("long.csv")
    long.write_text(study.with_name("data.csv").read_text().replace("word1 ", "word1 " * 80))
    here = load_subject(
        made.model_copy(update={"data": made.data.model_copy(update={"path": str(long)})})
    )
    (remark,) = [each.text for each in here.remarks if "fill all 80 tokens" in each.text]
    assert remark.endswith(
        "anything longer is cut (its positions end there, or the tools that serve it cut there)."
    )


def test_time_of_a_length_is_the_mean_of_its_texts() -> None:
    timed = Pass(lambda call: float(call()), [lambda: 1.0, lambda: 3.0, lambda: 8.0])
    timed()
    assert timed.by_length([16, 16, 64], mean=4.0) == {"ms_at_64": 8.0, "ms_at_16": 2.0}


def bench(subject: Subject) -> Bench:
    return Bench(
        runnable=TorchRunnable(subject.model),
        model=subject.model,
        dense=subject.model,
        reference=None,
        task=subject.task,
        split=subject.workload.splits["search"],
        workload=subject.workload,
        target=subject.target,
        protocol=TimingProtocol(0.5, 0.01),
    )


@pytest.mark.usefixtures("hasty")
def test_latency_has_the_times_of_its_lengths(subject: Subject) -> None:
    made = bench(subject)
    dense = Latency().measure(made)
    assert dense is not None
    measured = Latency().measure(replace(made, reference={"latency_ms": dense}))
    assert measured is not None
    widths = {b["input_ids"].shape[1] for b in subject.workload.timing_batches(subject.target)}
    for each in (dense, measured):
        kept = {n: ms for n, ms in each.conditions.items() if n.startswith("ms_at_")}
        assert 1 < len(kept) <= LENGTHS
        assert {int(name.removeprefix("ms_at_")) for name in kept} <= widths
        assert min(kept.values()) > 0


def test_prompts_and_images_have_one_length(subject: Subject) -> None:
    config = subject.model.config
    assert task_of("text-generation").length(config, "data") == 79  # and one for the next token
    assert not task_of("text-generation").has_lengths
    assert not task_of("image-classification").has_lengths


def test_a_run_goes_on_with_the_length_that_it_has(study: Path) -> None:
    spec = load_spec(study)
    fixed = spec.target.model_copy(update={"sequence_length": 512})
    there = spec.model_copy(update={"target": fixed})
    assert spec.settled(None).target.sequence_length == "data"
    assert spec.settled(there).target.sequence_length == 512
    assert spec.settled(there).target.threads == spec.target.threads
    own = Spec.model_validate(spec.model_dump())  # where the key is written
    assert own.settled(there).target.sequence_length == "data"


@pytest.mark.slow
@pytest.mark.usefixtures("inline")
def test_run_says_how_long_its_texts_are(tmp_path: Path, run: Run) -> None:
    study = study_of_data(tmp_path)
    folder = pf.search(study, out=tmp_path / "run", quiet=True)
    _, facts = read_front(tmp_path / "run")
    assert facts.study["target"]["sequence_length"] == "data"
    assert facts.lengths is not None
    shown = task_of("text-classification").shown(facts.lengths)
    assert shown.startswith("texts of ")
    assert run("report", folder)[0] == 0
    assert shown in (tmp_path / "run" / "report.html").read_text()
    assert run("export", folder, tmp_path / "out", "--require", "parameters>0")[0] == 0
    assert shown in (tmp_path / "out" / "README.md").read_text()
    measured = json.loads((tmp_path / "out" / "measured.json").read_text())
    assert measured["lengths"] == list(facts.lengths)
    status, _, errors = run("verify", tmp_path / "out")
    assert status == 0, errors
    pf.search(study, out=tmp_path / "run", trials=4, quiet=True)


@pytest.mark.usefixtures("hasty")
def test_end_to_end_begins_with_the_texts(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its inputs are those that the split has encoded; and the tokenizer runs at each call."""
    workload = subject.workload
    requests: Any = workload.requests
    for rows in workload.stream(subject.target):
        known = workload.inputs.collate([workload.splits["search"].examples[row] for row in rows])
        again = requests(rows)
        assert again.keys() == known.keys()
        assert all(torch.equal(again[name], known[name]) for name in known)
    made = bench(subject)
    calls = EndToEnd().calls(made, made.runnable)
    assert len(calls) == len(workload.timing_batches(subject.target))
    assert len(calls[0]()) == subject.target.batch_size
    monkeypatch.setattr(type(requests), "__call__", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        calls[0]()


def test_only_tasks_of_texts_are_timed_end_to_end() -> None:
    assert "end_to_end_ms" in metrics_of(task_of("token-classification"))
    for name in ("image-classification", "text-generation"):
        assert "end_to_end_ms" not in metrics_of(task_of(name))
