"""Screening: here or, where it takes long, on workers; every candidate once, with the same nats."""

from __future__ import annotations

import pickle
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from transformers.models.bert.modeling_bert import BertLayer

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.common.progress import silent
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.job import Evaluates, Job
from paretoformer.evaluators.outcome import Outcome, Result
from paretoformer.search import workers as workers_of
from paretoformer.search.dispatch import memory
from paretoformer.search.dispatch.dispatcher import Dispatcher, InlineDispatcher
from paretoformer.search.planning import screener as screener_of
from paretoformer.search.planning.block_repair import BlockRepairs
from paretoformer.search.planning.prepare import prepare
from paretoformer.search.planning.screen import (
    NATS,
    SCREENED,
    Screen,
    ScreenEvaluator,
    _unchanged_layers,
)
from paretoformer.search.planning.screener import Screener
from paretoformer.search.records.errors import StudyFailed
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.report.display import Display
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import load_subject
from paretoformer.search.workers import Workers
from paretoformer.spaces import Candidate, HeadMask
from paretoformer.spaces.build import build
from paretoformer.spaces.models.families import shape_of
from paretoformer.spaces.recovery.layerwise import Part
from paretoformer.spaces.recovery.least_squares import solve
from tests.test_block_repair import WINDOW, only
from tests.test_cutting import tiny
from tests.test_forecast import new_study, run_folder
from tests.test_recovery import teacher
from tests.tiny import write_study

pytestmark = pytest.mark.usefixtures("one_thread", "hasty")


def candidates() -> list[Candidate]:
    dense = tiny("bert")
    return [
        Candidate.dense(*shape_of(dense.config)),
        *(each for part in Part for each in only(dense, part)),
    ]


def screen() -> Screen:
    source = teacher(tiny("bert"))
    return Screen(source, BlockRepairs.of(source, (WINDOW,)))


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything takes long, once two were tried."""
    monkeypatch.setattr(screener_of, "TRIED", 2)
    monkeypatch.setattr(screener_of, "LONG_SECONDS", 0.0)


def test_what_is_short_is_screened_here() -> None:
    def workers(evaluator: Evaluates, *, most: int) -> AbstractContextManager[Dispatcher]:
        raise AssertionError("nobody is asked")

    with Screener(screen(), workers) as found:
        assert len(list(found(candidates()))) == len(candidates())


def test_layers_before_the_change_need_not_be_computed() -> None:
    here = screen()
    layers, heads = shape_of(tiny("bert").config)
    dense = Candidate.dense(layers, heads)
    gone = [dense.without_layers([i != layer for i in range(layers)]) for layer in range(layers)]
    short = [here.of(each) for each in (*candidates(), *gone)]
    here._outputs = [[] for _ in here._outputs]  # every layer is computed
    assert short == pytest.approx([here.of(each) for each in (*candidates(), *gone)], abs=1e-6)
    assert _unchanged_layers(dense) == layers
    assert {_unchanged_layers(each) for each in gone} == {0}


def test_only_the_layers_from_the_changed_one_on_run(monkeypatch: pytest.MonkeyPatch) -> None:
    here, ran = screen(), []
    layers, heads = shape_of(tiny("bert").config)
    kept = [(True,) * heads] * (layers - 1) + [(True,) + (False,) * (heads - 1)]
    forward = BertLayer.forward
    monkeypatch.setattr(
        BertLayer, "forward", lambda self, *a, **k: ran.append(1) or forward(self, *a, **k)
    )
    here.of(Candidate.dense(layers, heads).replaced(heads=HeadMask(tuple(kept))))
    assert len(ran) == len(here._outputs)  # the last layer alone, in every batch


def test_candidate_without_a_layer_is_repaired_layer_by_layer() -> None:
    source = teacher(tiny("bert"))
    here = Screen(source, BlockRepairs.of(source, (WINDOW,)))
    layers, heads = shape_of(source.model.config)
    gone = Candidate.dense(layers, heads).without_layers([layer > 0 for layer in range(layers)])
    model = build(gone, source.model).model
    with torch.no_grad():
        solve(model, gone.kept_layers, source, gone.cut_layers, SCREENED)
    assert here.of(gone) == pytest.approx(here._dense.divergence(model), rel=1e-5)


def test_screen_that_travelled_finds_the_same() -> None:
    here = screen()
    there = pickle.loads(pickle.dumps(here))
    for each in candidates():
        assert there.of(each) == here.of(each)


class Forgetful(ScreenEvaluator):
    """Has no answer for the last candidate, as if its worker had died."""

    def run(self, job: Job) -> Result:
        if job.candidate == candidates()[-1]:
            return Result(Outcome.WORKER_DIED)
        found = super().run(job)
        return replace(found, measurements={NATS: Measurement.exact(-1.0, "nats")})


def test_what_takes_long_goes_to_workers_and_what_they_leave_out_is_screened_here(
    long: None,
) -> None:
    def workers(evaluator: Evaluates, *, most: int) -> AbstractContextManager[Dispatcher]:
        return InlineDispatcher(Forgetful(here))

    here, every = screen(), candidates()
    with Screener(here, workers) as screener:
        found = list(screener(every))
        assert screener.trouble == Outcome.WORKER_DIED.value
        assert list(screener(every[:1])) == [(every[0], here.of(every[0]))]  # not asked again
    assert len(found) == len(every)
    by_workers = dict.fromkeys(every[2:-1], -1.0)
    assert dict(found) == {**{each: here.of(each) for each in every}, **by_workers}


def test_workers_that_do_not_start_leave_all_of_it_out(long: None) -> None:
    def workers(evaluator: Evaluates, *, most: int) -> AbstractContextManager[Dispatcher]:
        raise StudyFailed("the workers did not start")

    here = screen()
    with Screener(here, workers) as screener:
        assert dict(screener(candidates())) == {each: here.of(each) for each in candidates()}
        assert screener.trouble == "the workers did not start"


def test_table_is_measured_here_and_says_so_where_workers_do_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: None
) -> None:
    def workers(evaluator: Evaluates, *, most: int) -> AbstractContextManager[Dispatcher]:
        raise StudyFailed("the workers did not start")

    monkeypatch.setenv("PARETOFORMER_CACHE", str(tmp_path / "cache"))
    spec = load_spec(write_study(tmp_path))
    folder = run_folder(tmp_path)
    found = prepare(new_study(), spec, load_subject(spec), folder, silent, workers=workers)
    assert pq.read_table(folder.blocks).num_rows
    assert any("without workers: the workers did not start" in note for note in found.notes)


def test_container_limits_the_memory_for_what_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    whole = memory.available_memory()  # a machine without containers has no such files
    assert whole > 2**20
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_memory() > 2**20
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory.available_memory() == 700
    assert memory.room_after(350) == 0
    assert memory.room_after(400) < 0


def test_solutions_do_not_travel() -> None:
    here = screen()
    before = len(pickle.dumps(here))
    list(map(here.of, candidates()))
    assert len(pickle.dumps(here)) == before


def test_table_that_workers_measured_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: None
) -> None:
    started = []

    def workers(evaluator: Evaluates, *, most: int) -> AbstractContextManager[Dispatcher]:
        assert most > 1
        started.append(evaluator)
        return InlineDispatcher(evaluator)

    # Which mechanisms are in a table depends on their timing, and so differs from time to time.
    spec = load_spec(write_study(tmp_path, extra='[space]\nattention = ["full"]\n'))
    here, found = load_subject(spec), []
    for number, ask in enumerate((None, workers)):
        monkeypatch.setenv("PARETOFORMER_CACHE", str(tmp_path / f"cache{number}"))
        (tmp_path / str(number)).mkdir()
        folder = run_folder(tmp_path / str(number))
        prepare(new_study(), spec, here, folder, silent, workers=ask)
        rows = pq.read_table(folder.blocks).to_pylist()
        found.append({(row["layer"], row["block"], row["option"]): row["nats"] for row in rows})
    assert len(started) == 1
    assert found[0] == pytest.approx(found[1], rel=1e-3)


@pytest.mark.parametrize(("cores", "many"), [(2, False), (3, False), (4, True), (64, True)])
def test_few_cores_screen_in_one_process(
    cores: int, many: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_of, "physical_cores", lambda: cores)
    spec = load_spec(write_study(tmp_path))
    with ExitStack() as stack, Display(quiet=True) as display:
        here = Workers(spec, Target("cpu"), RunFolder(tmp_path / "run"), None, display, stack)
        assert here.many == many
