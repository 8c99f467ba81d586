"""Screening candidates for the block table, in one process with all cores and on Ray workers.

As in the table, one block of one layer is changed at a time. Printed: seconds per candidate, and
the time until the workers return the first one.

    python benchmarks/screening.py [--only reviews] [--candidates 24] [--workers 2]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import transformers
from recovery import SHAPES, made_teacher
from torch import nn

from paretoformer.evaluators.common.target import cpu_name, physical_cores
from paretoformer.evaluators.job import Evaluates
from paretoformer.search.dispatch.placement import places
from paretoformer.search.dispatch.ray_dispatcher import RayDispatcher
from paretoformer.search.dispatch.ray_session import ray_session
from paretoformer.search.planning import screener as screening
from paretoformer.search.planning.block_repair import BlockRepairs
from paretoformer.search.planning.screen import Screen
from paretoformer.search.planning.screener import Screener
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import load_subject
from paretoformer.spaces import Candidate, HeadMask
from paretoformer.spaces.axes.neuron_mask import NeuronMask
from paretoformer.spaces.models.divergence import Distributions
from paretoformer.spaces.models.families import neurons_of, shape_of
from paretoformer.spaces.recovery.teacher import Teacher, Texts

TEXTS = 128, 64
"""Texts for the statistics and for screening, for a model with random weights."""


def of_reviews() -> Teacher:
    here = load_subject(load_spec("reviews"))
    torch.set_num_threads(physical_cores())
    return made_teacher(here)


def of_shape(family: str, settings: dict[str, int], length: int) -> Teacher:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **settings)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    ids = torch.randint(5, 1000, (sum(TEXTS), length))
    batches = [{"input_ids": rows, "attention_mask": rows * 0 + 1} for rows in ids.split(8)]
    return Teacher(
        model, Texts(batches[: TEXTS[0] // 8], batches[TEXTS[0] // 8 :]), Distributions()
    )


def changed(model: nn.Module, count: int) -> list[Candidate]:
    """Fewer heads or neurons in one layer after another."""
    config: Any = model.config
    (layers, heads), neurons = shape_of(config), neurons_of(config)
    whole, found = Candidate.dense(layers, heads), []
    for index in range(count):
        changed_layer, step = index // 2 % layers, 1 + index // (2 * layers)
        if index % 2:
            widths = [neurons - 64 * step * (layer == changed_layer) for layer in range(layers)]
            scores = torch.rand(layers, neurons).numpy()
            found.append(whole.replaced(feed_forward=NeuronMask.ranked(widths, scores)))
        else:
            rows = [
                [layer != changed_layer or h >= step for h in range(heads)]
                for layer in range(layers)
            ]
            found.append(whole.replaced(heads=HeadMask(tuple(map(tuple, rows)))))
    return found


def seconds_each(screened: Iterable[Any], count: int) -> tuple[float, float]:
    """Seconds for the first candidate, and per further one."""
    begun = time.perf_counter()
    ends = [time.perf_counter() for _ in screened]
    assert len(ends) == count
    return ends[0] - begun, (ends[-1] - ends[0]) / (count - 1)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--workers", type=int, default=physical_cores())
    arguments = parser.parse_args(argv)
    screening.TRIED, screening.LONG_SECONDS = 1, 0.0
    print(f"{cpu_name()}, {physical_cores()} cores, {arguments.workers} workers")
    print("model | sums s | sums MB | here s | here, one thread s | workers s | until the first s")
    teachers: Mapping[str, Callable[[], Teacher]] = {
        "reviews": of_reviews,
        **{
            name: lambda family=family, settings=settings, length=length: of_shape(  # type: ignore[misc]
                family, settings, length
            )
            for name, (family, settings, _, length) in SHAPES.items()
        },
    }

    def workers(evaluator: Evaluates, *, most: int) -> RayDispatcher:
        where = replace(places(workers=min(most, arguments.workers)), timing=())
        return RayDispatcher(evaluator, where=where, threads=1, seconds=600)

    for name, made in teachers.items():
        if arguments.only and name not in arguments.only:
            continue
        teacher = made()
        torch.set_num_threads(physical_cores())
        begun = time.perf_counter()
        repairs = BlockRepairs.of(teacher)
        summed = time.perf_counter() - begun
        cells = [f"{name} | {summed:.0f} | {repairs.nbytes / 2**20:.0f}"]
        some = changed(teacher.model, arguments.candidates)
        for threads in dict.fromkeys((physical_cores(), 1)):
            torch.set_num_threads(threads)
            screener = Screener(Screen(teacher, BlockRepairs(teacher.model, repairs.sums)))
            cells.append(f"{seconds_each(screener(some), len(some))[1]:.2f}")
        with (
            ray_session(None, arguments.workers),
            Screener(Screen(teacher, repairs), workers) as others,
        ):
            list(others(some[:1]))  # the first is screened here
            first, further = seconds_each(others(some[1:]), len(some) - 1)
        print(" | ".join([*cells, f"{further:.2f}", f"{first:.0f}"]), flush=True)


if __name__ == "__main__":
    main()
