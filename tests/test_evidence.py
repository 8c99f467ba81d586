"""Evidence: what is said of a run's own trials."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from paretoformer.search.records.facts import MetricFacts, RunFacts
from paretoformer.search.report.evidence import (
    contributions,
    misled_by_flops,
    rank_agreement,
    shrinkage,
)
from paretoformer.spaces import AttentionChoice, Candidate, HeadMask

WINDOW = AttentionChoice.of("window", window=8, global_tokens=1)
FULL = AttentionChoice("full")
ALL = HeadMask.all(2, 2)
FACTS = RunFacts(
    study={},
    machine={},
    objectives=("accuracy", "latency_ms"),
    metrics={
        "accuracy": MetricFacts("fraction", "maximize", "quality", "accuracy>=dense-0.01"),
        "latency_ms": MetricFacts("ms", "minimize", "cost"),
        "flops": MetricFacts("count", "minimize", "cost"),
    },
)


def trials() -> pd.DataFrame:
    """Dense; half of the heads; a window, which counts fewer operations but runs slower."""
    candidates = [
        Candidate(ALL),
        Candidate(HeadMask(((True, False), (True, False)))),
        Candidate(ALL, (WINDOW, FULL)),
        Candidate(HeadMask.none(2, 2)),
    ]
    frame = pd.DataFrame(
        {
            "trial": range(4),
            "candidate": [candidate.to_json() for candidate in candidates],
            "state": "complete",
            "accuracy": [0.9, 0.88, 0.9, 0.5],
            "latency_ms": [10.0, 8.0, 12.0, 4.0],
            "flops": [100.0, 60.0, 80.0, 20.0],
        }
    )
    for name in ("accuracy", "latency_ms", "flops"):
        frame[f"{name}_low"] = frame[name] * 0.99
        frame[f"{name}_high"] = frame[name] * 1.01
    return frame


def test_ranks_of_indicators_agree_as_kendall_says() -> None:
    matrix = rank_agreement(trials(), FACTS)
    assert list(matrix.columns) == ["latency_ms", "flops"]
    assert matrix.loc["latency_ms", "flops"] == pytest.approx(4 / 6)  # one pair of six disagrees
    assert (np.diag(matrix) == 1).all()


def test_fewer_operations_that_ran_slower_are_found() -> None:
    found = misled_by_flops(trials())
    assert (found.pairs, found.slower) == (6, 1)
    assert found.worst == (2, 0, pytest.approx(1.2))


def test_contribution_is_the_hypervolume_that_remains() -> None:
    found = {each.technique: each for each in contributions(trials(), FACTS)}
    assert set(found) == {"head pruning", "window"}
    assert found["head pruning"].trials == 2
    assert found["window"].hypervolume == pytest.approx(1.0)  # the window won nothing here
    assert found["head pruning"].hypervolume < 0.6


def test_shrinkage_is_the_searchs_optimism() -> None:
    front = pd.DataFrame(
        {
            "role": ["dense", "front", "front"],
            "state": "complete",
            "accuracy": [0.9, 0.85, 0.8],
            "search_accuracy": [0.9, 0.87, 0.82],
            "latency_ms": [20.0, 10.0, 10.0],
            "search_latency_ms": [10.0, 4.5, 4.5],  # the machine was twice as fast then
            "latency_ms_samples": [[20.0], [10.0], [10.0]],
            "flops": [100.0, 50.0, 50.0],
            "search_flops": [100.0, 50.0, 50.0],
        }
    )
    found = shrinkage(front, FACTS)
    assert found["accuracy"] == pytest.approx(0.02)
    assert found["latency_ms"] == pytest.approx(0.5 / 0.45 - 1)
    assert found["flops"] == 0
