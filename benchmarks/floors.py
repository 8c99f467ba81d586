"""Share of the attention cost that a chosen point saves, compared with two lower bounds.

The bounds are the model without heads, and the point's own heads with the identity on values as
attention core. All models run in alternation, in one process, on the study's target.

    python benchmarks/floors.py RUN [--minimize METRIC] [--require EXPR ...] [--seconds S]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from torch import nn

from paretoformer.evaluators.common.target import cpu_name
from paretoformer.search.publish.best import load_best
from paretoformer.search.study.spec import Spec
from paretoformer.search.study.subject import load_subject
from paretoformer.spaces import AttentionChoice, Candidate, HeadMask
from paretoformer.spaces.attention.interface import MECHANISM
from paretoformer.spaces.build import build
from paretoformer.spaces.models.families import blocks_of


class Identity(nn.Module):
    """An attention core that returns the values."""

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **call: Any
    ) -> torch.Tensor:
        return value


def without_core(model: nn.Module, heads: HeadMask) -> nn.Module:
    """The model with these heads and their projections, but no attention between tokens."""
    window = AttentionChoice.of("window", window=1, global_tokens=0)
    rebuilt = build(Candidate(heads, (window,) * heads.layers), model).model
    for block, count in zip(blocks_of(rebuilt), heads.counts, strict=True):
        if count:
            setattr(block.attention, MECHANISM, Identity())
    return rebuilt.eval()


def medians(models: dict[str, nn.Module], batch: Any, seconds: float) -> dict[str, float]:
    """Milliseconds per forward: dense's median times each model's median ratio to it."""
    samples: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for model in models.values():
            for _ in range(3):
                model(**batch)
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            for name in (*models, *reversed(models)):  # both orders, to cancel drift
                begin = time.perf_counter()
                models[name](**batch)
                samples[name].append((time.perf_counter() - begin) * 1e3)
    pairs = {name: np.reshape(times, (-1, 2)).sum(axis=1) for name, times in samples.items()}
    dense = float(np.median(pairs["dense"])) / 2
    return {name: dense * float(np.median(pairs[name] / pairs["dense"])) for name in models}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--minimize", default=None)
    parser.add_argument("--require", action="append", default=None)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    best = load_best(arguments.run, arguments.minimize, arguments.require)
    spec = Spec.model_validate(best.study)
    subject = load_subject(spec)
    torch.set_num_threads(subject.target.threads)
    dense, heads = subject.model, best.candidate.heads
    everything = HeadMask.all(heads.layers, heads.heads)
    nothing = HeadMask.none(heads.layers, heads.heads)
    models = {
        "dense": dense,
        "point": build(best.candidate, dense).model.eval(),
        "no heads": build(Candidate(nothing), dense).model.eval(),
        "own heads, no core": without_core(dense, heads),
        "all heads, no core": without_core(dense, everything),
    }
    found = medians(models, subject.workload.timing_batch(subject.target), arguments.seconds)
    print(f"{spec.name}, trial {best.trial}, {cpu_name()}, {subject.target.threads} threads")
    print(f"heads {best.candidate.heads.counts} of {heads.heads}")
    print(f"attention {', '.join(map(str, best.candidate.attention))}")
    for name, milliseconds in found.items():
        print(f"  {name:20} {milliseconds:8.2f} ms  {found['dense'] / milliseconds:5.2f}x")
    core = found["dense"] - found["all heads, no core"]
    left = found["point"] - found["own heads, no core"]
    print(f"the core: {core:.2f} ms in dense, {left:.2f} ms left: {1 - left / core:.0%} saved")
    way = (found["dense"] - found["point"]) / (found["dense"] - found["no heads"])
    print(f"of the way from dense to no heads: {way:.0%}")
    accuracy = best.metrics["accuracy"].value, best.dense["accuracy"].value
    print(f"accuracy {accuracy[0]:.4f}, dense {accuracy[1]:.4f} (confirmed)")


if __name__ == "__main__":
    main()
