"""The pages in a real browser: Debian's chromium, where it is installed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.report.page import write_report
from paretoformer.search.study.optuna_study import open_study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

Browse = Callable[[str], str]


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """The page at a URL after its scripts ran."""

    def browse(url: str) -> str:
        assert CHROMIUM is not None
        command = [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=15000",
            "--dump-dom",
            url,
        ]
        for _ in range(3):  # on a busy machine Chromium may dump a page before it has any
            done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
            if page := done.stdout:
                break
        return page

    return browse


def test_report_draws_the_front_and_every_point(
    browse: Browse, example: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(example, tmp_path / "run")
    page = browse(write_report(RunFolder(copy)).as_uri())
    assert page.count("<svg") >= 3
    assert page.count('fill="var(--front)"') >= 3
    assert page.count('class="point"') >= 6
    assert "dense" in page


def test_dashboard_shows_a_study_that_is_being_written(browse: Browse, tmp_path: Path) -> None:
    from paretoformer.evaluators.metrics.accuracy import Accuracy
    from paretoformer.evaluators.metrics.latency import Latency

    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.study.write_text('name = "watched"\n[model]\npath = "m"\n[data]\npath = "d"\n')
    study = open_study("watched", folder.storage_url(""), [Accuracy(), Latency()], "random", seed=0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "paretoformer.search.cli", "dashboard", str(folder.path)]
    server = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}/dashboard"
        for _ in range(100):
            try:
                urllib.request.urlopen(url, timeout=1).read()
                break
            except OSError:
                time.sleep(0.2)
        for number in range(3):  # written while the server reads
            trial = study.ask()
            trial.suggest_int("heads_0", 0, 4)
            study.tell(trial, (0.5 + number / 10, 3.0 - number))
        assert "watched" in browse(url)
    finally:
        server.terminate()
        server.wait(timeout=10)
