"""Offline, and quiet about what is not ours."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:  # the environment is set below, before torch is imported
    from paretoformer.evaluators.job import Evaluates

# Speed is what benchmarks are for.
hypothesis.settings.register_profile("daily", deadline=None, max_examples=25)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=200)
# Two threads would wait for each other at every product of a tiny model.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

Run = Callable[..., tuple[int, str, str]]
EXAMPLE = Path(__file__).parent.parent / "runs" / "example"
STDERR = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[STDERR] = os.dup(2)  # while nothing captures it yet
    nightly = "nightly" in config.option.markexpr
    hypothesis.settings.load_profile("nightly" if nightly else "daily")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Exhaustive tests run only where `-m` asks for them; `-m "nightly or not nightly"` is all."""
    if "nightly" in config.option.markexpr:
        return
    exhaustive = [item for item in items if item.get_closest_marker("nightly")]
    config.hook.pytest_deselected(items=exhaustive)
    items[:] = [item for item in items if not item.get_closest_marker("nightly")]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """A crash prints its stack: Ray replaces the handler that pytest installs, then removes it."""
    faulthandler.disable()
    faulthandler.enable(file=item.config.stash[STDERR])


@pytest.fixture(scope="session")
def example() -> Path:
    """The committed run, made by a real search."""
    return EXAMPLE


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Threads of tiny products mostly wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def hasty() -> Iterator[None]:
    """Timings and intervals are rough: for what does not depend on their values."""
    from paretoformer.evaluators.common import statistics
    from paretoformer.evaluators.timing import protocol, quiet
    from paretoformer.search.planning import block_costs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "WARM_UP_SECONDS", 0.05)
        patch.setattr(protocol, "SETTLE_SECONDS", 0.001)
        patch.setattr(protocol, "BLOCK_SECONDS", 0.003)
        patch.setattr(quiet, "ATTEMPTS", 1)  # the other tests keep the machine busy
        patch.setattr(statistics, "RESAMPLES", 19)
        patch.setattr(block_costs, "ROUNDS", (2, 2))
        patch.setattr(block_costs, "BLOCK_SECONDS", 0.001)
        yield


@pytest.fixture(scope="module")
def inline(hasty: None) -> Iterator[None]:
    """Studies measure in this process, and hastily: for what does not depend on who measures.

    Each process of a worker takes seconds to import torch. tests/test_study.py has real workers.
    """
    import torch

    from paretoformer.search.dispatch.dispatcher import Dispatcher, InlineDispatcher
    from paretoformer.search.workers import Workers

    def measuring(workers: Workers, evaluator: Evaluates, *, fresh: bool) -> Dispatcher:
        return InlineDispatcher(evaluator, threads=1)

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workers, "measuring", measuring)
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process; (status, stdout, stderr)."""
    from paretoformer.search.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["paretoformer", *map(str, arguments)])
        capsys.readouterr()  # of what the test wrote before
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return run
