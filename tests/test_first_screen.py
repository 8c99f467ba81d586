"""What a user sees first, and while a study runs in a pipe."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from paretoformer.search.first_screen import first_screen
from paretoformer.search.preparing import not_tried
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.report.cells import catalogue_table
from paretoformer.search.report.display import Display, LogPace
from paretoformer.search.study.estimate import START_SECONDS, about, estimate, forward_ms
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import Subject, load_subject
from tests.tiny import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("screen"))


@pytest.fixture(scope="module")
def subject(study: Path) -> Subject:
    return load_subject(load_spec(study))


def test_first_screen_says_what_how_long_and_where(
    study: Path, subject: Subject, tmp_path: Path
) -> None:
    shown = first_screen(load_spec(study), subject, RunFolder(tmp_path / "run"))
    assert list(shown) == ["model", "data", "target", "varied", "time"]
    assert "bert, 2 layers x 4 heads" in shown["model"]
    assert "60 to confirm" in shown["data"]
    assert "batch 1, 64 tokens" in shown["target"]
    assert "heads" in shown["varied"]
    assert shown["time"].startswith("about ")
    assert "ms a forward; into" in shown["time"]
    assert shown["time"].endswith(str(tmp_path / "run"))


def test_first_screen_of_a_budget_says_how_it_is_shared_out(
    study: Path, subject: Subject, tmp_path: Path
) -> None:
    spec = load_spec(study, minutes=10)
    shown = first_screen(spec, subject, RunFolder(tmp_path / "run"))
    assert shown["time"].startswith(
        "10 minutes: 4.8 to prepare and to search, 3.6 to distil, 1.5 to confirm; in"
    )


def test_estimate_grows_with_what_there_is_to_do(
    study: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paretoformer.search.study.estimate.forward_ms", lambda subject: 10.0)
    few, many = (estimate(load_spec(study, trials=n), subject) for n in (10, 400))
    assert many.search - START_SECONDS == pytest.approx(40 * (few.search - START_SECONDS))
    assert many.distil == few.distil == 0
    going_on = estimate(load_spec(study, trials=400), subject, done=390, is_prepared=True)
    assert going_on.prepare == 0
    assert going_on.search < 0.2 * many.search


def test_estimate_leaves_threads_and_model_as_they_were(subject: Subject) -> None:
    threads = torch.get_num_threads()
    before = subject.model_digest
    assert forward_ms(subject) > 0
    assert torch.get_num_threads() == threads
    assert before == subject.model_digest


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (20, "about a minute"),
        (200, "about 3 minutes"),
        (1500, "about 25 minutes"),
        (9000, "about 2.5 hours"),
    ],
)
def test_duration_is_said_as_roughly_as_it_is_known(seconds: float, text: str) -> None:
    assert about(seconds) == text


def test_log_has_a_line_a_minute_and_one_at_the_end_of_a_step() -> None:
    now = 0
    pace = LogPace(lambda: now)
    shown = []
    for now in range(0, 151, 10):  # the clock reads it
        if pace.shows("a", now, 150):
            shown.append(now)
    assert shown == [0, 60, 120, 150]
    assert not pace.shows("a", 150, 150)  # twice is once
    assert not pace.shows("a", 150, 200)
    assert pace.shows("a", 200, 200)  # it went on
    assert not pace.shows("b", 1, 3)
    assert pace.shows("b", 3, 3)


def piped(display: Display) -> io.StringIO:
    display.console = Console(file=io.StringIO(), width=40)
    assert isinstance(display.console.file, io.StringIO)
    return display.console.file


def test_log_breaks_no_line() -> None:
    display = Display()
    log = piped(display)
    for done in range(101):
        display.progress("Measuring blocks", done, 100, "a remark that is longer than the log is")
    lines = log.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[1].endswith("longer than the log is): 100 of 100")


def test_last_progress_of_a_step_stands_before_the_note_that_follows() -> None:
    display = Display()
    log = piped(display)
    for done in (1, 2, 3):
        display.progress("Confirming", done, 4)
    display.note("The minutes are over.")
    expected = ["Confirming: 1 of 4", "Confirming: 3 of 4", "The minutes are over."]
    assert log.getvalue().splitlines() == expected


STEPS = (
    *("Checking the uncompressed model", "Trying without layers", "Ranking what may go"),
    *("Timing one layer", "Computing what repairs aim at", "Measuring blocks"),
    *("Trying what is predicted", "Searching, seconds", "Confirming the front"),
)


def test_log_of_a_quarter_of_an_hour_has_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with Display() as display:
        display._pace = LogPace(lambda: now)
        log = piped(display)
        display.facts(dict.fromkeys(("model", "data", "target", "varied", "time"), "known"))
        for step in STEPS:  # 100 s each
            for done in range(100):
                now += 1
                display.progress(step, done, 100)
                display.waiting("waiting for a quiet machine" if done % 3 else "")
            if step != "Searching, seconds":  # which stops before its time
                display.progress(step, 100, 100)
    lines = log.getvalue().splitlines()
    assert now == 900
    assert len(lines) == 26  # 5 facts, 11 by the minute, 9 ends of steps, 1 of what was waited
    assert "Searching, seconds: 99 of 100" in lines
    assert lines[-1] == "Waited 594 s for a quiet machine."


def test_values_left_out_for_one_reason_share_a_line() -> None:
    reasons = {"onnxruntime": "missing", "onnxruntime:int8": "missing", "compile": "too slow"}
    expected = "Not tried: runtime onnxruntime, onnxruntime:int8: missing; compile: too slow."
    assert not_tried("runtime", reasons) == expected


def test_square_brackets_are_no_markup() -> None:
    display = Display()
    log = piped(display)
    display.note("Not tried: pip install 'paretoformer[onnx]'")
    display.facts({"model": "runs/exp[red]"})
    assert "'paretoformer[onnx]'" in log.getvalue()
    assert "runs/exp[red]" in log.getvalue()
    table = io.StringIO()
    rows = [{"name": "x", "here": "pip install 'paretoformer[onnx]'"}]
    Console(file=table, width=80).print(catalogue_table("runtime", rows))
    assert "'paretoformer[onnx]'" in table.getvalue()
