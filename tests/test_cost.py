"""Counted costs: operations, and memory from the allocator, against arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.counts import _FORMULAS, Flops
from paretoformer.evaluators.timing.protocol import TimingProtocol
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import Subject, load_subject
from paretoformer.spaces.runtimes.torch_runtime import TorchRunnable, weight_bytes
from paretoformer.testing import peak_bytes
from tests.tiny import write_study


def subject(tmp_path: Path) -> Subject:
    return load_subject(load_spec(write_study(tmp_path)))


def bench(here: Subject) -> Bench:
    """The dense model of a study on the bench, measured on the search split."""
    return Bench(
        runnable=TorchRunnable(here.model),
        model=here.model,
        dense=here.model,
        reference=None,
        task=here.task,
        split=here.workload.splits["search"],
        workload=here.workload,
        target=here.target,
        protocol=TimingProtocol(),
    )


def flops(here: Subject, implementation: str) -> float:
    here.model.set_attn_implementation(implementation)
    return Flops().measure(bench(here)).value


def test_sdpa_counts_as_many_operations_as_eager(tmp_path: Path) -> None:
    here = subject(tmp_path)
    layers, length, width, inner, labels = 2, 64, 32, 64, 2
    projections = layers * 2 * length * (4 * width * width + 2 * width * inner)
    attention = layers * 2 * 2 * length * length * width
    pooler = 2 * width * width + 2 * width * labels
    assert flops(here, "eager") == projections + attention + pooler
    assert flops(here, "sdpa") == flops(here, "eager")


@pytest.mark.parametrize(
    ("call", "count"),
    [
        (lambda x: x.T.sort(dim=-1), 64 * 4),  # 64 numbers, log2(16) comparisons each
        (lambda x: x.T.topk(8, dim=-1), 64 * 3),
        (lambda x: x.cumsum(0), 64),
    ],
)
def test_operations_that_torch_does_not_count_are_counted(call, count: int) -> None:
    counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
    with counter:
        call(torch.randn(16, 4))
    assert counter.get_total_flops() == count


def test_peak_memory_equals_arithmetic_to_the_byte() -> None:
    """Two layers: while the second one runs, its input and its output are there."""
    model = nn.Sequential(nn.Linear(8, 100), nn.Linear(100, 40)).eval()
    x = torch.randn(16, 8)
    with torch.inference_mode():
        assert peak_bytes(lambda: model(x)) == 16 * (100 + 40) * 4
    assert weight_bytes(model) == (8 * 100 + 100 + 100 * 40 + 40) * 4
