"""Gain of recovery: pruned only, repaired by least squares, distilled.

Accuracy and divergence from the dense model are on the confirmation examples, which recovery never
sees. All in torch, float32; only the repair is timed.

    python benchmarks/recovery.py [--study reviews] [--minutes 2 5] [--only NAME ...] [--control]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from paretoformer.evaluators.common.target import cpu_name
from paretoformer.evaluators.data.recovery_texts import (
    endless_batches,
    recovery_texts,
)
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import Subject, load_subject
from paretoformer.spaces.attention.menu import menu
from paretoformer.spaces.axes import axis_of
from paretoformer.spaces.axes.evidence import Shape
from paretoformer.spaces.axes.head_mask import HeadMask
from paretoformer.spaces.axes.sensitivity import OutputProbe, sensitivity
from paretoformer.spaces.build import build
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.models.families import neurons_of, shape_of
from paretoformer.spaces.recovery import Distillation, Teacher, repair

MECHANISMS = ("linear", "lowrank", "strided", "nystrom", "clustered")


def structures(here: Subject) -> dict[str, Candidate]:
    shape = Shape(*shape_of(here.model.config))
    probes = {
        "heads": OutputProbe(lambda block: block.output, shape.heads),
        "feed_forward": OutputProbe(
            lambda block: block.feed_forward_output, neurons_of(here.model.config)
        ),
    }
    train = here.workload.splits["train"]
    batches = (
        (inputs, torch.from_numpy(train.labels[indices]))
        for indices, inputs in here.workload.batches(train, "cpu", 16)
    )
    facts = sensitivity(here.model, batches, here.task.loss, probes)
    domains: Any = {
        n: axis_of(n).domain("ranked", axis_of(n).facts(**facts[n]), shape) for n in probes
    }
    dense = Candidate.dense(shape.layers, shape.heads)

    def some(heads: int, neurons: float) -> Candidate:
        values = {"heads": HeadMask.most_important(heads, domains["heads"].scores)}
        if neurons < 1:
            values["feed_forward"] = domains["feed_forward"].most_important(neurons)
        return dense.replaced(**values)

    def only(*layers: int) -> Candidate:
        return dense.replaced(layers=tuple(layer in layers for layer in range(shape.layers)))

    found = {
        "36 heads": some(36, 1),
        "36 heads, 1/2": some(36, 0.5),
        "18 heads": some(18, 1),
        "9 heads": some(9, 1),
        "18 heads, 1/2": some(18, 0.5),
        "18 heads, 1/4": some(18, 0.25),
        "layers 024": only(0, 2, 4),
        "layers 0135": only(0, 1, 3, 5),
    }
    for choice in menu(None, here.target.sequence_length):
        if choice.name in MECHANISMS:
            found.setdefault(choice.name, dense.replaced(attention=(choice,) * shape.layers))
    return found


class Scores:
    """Accuracy and divergence on the confirmation examples, in batches."""

    def __init__(self, here: Subject) -> None:
        self._here, self._split = here, here.workload.splits["confirm"]
        self._dense: list[Any] = []
        self.of(here.model)

    def of(self, model: nn.Module) -> tuple[float, float]:
        right, nats, outputs, task = 0, 0.0, [], self._here.task
        batches = list(self._here.workload.batches(self._split, "cpu"))
        with torch.inference_mode():
            for indices, batch in batches:
                output = model(**batch)
                right += int((task.predict(output) == self._split.labels[indices]).sum())
                outputs.append(output)
        self._dense = self._dense or outputs
        for output, dense, (_, batch) in zip(outputs, self._dense, batches, strict=True):
            nats += float(task.answers.divergence(output, dense, batch).sum())
        return right / len(self._split), nats / len(self._split)


def kept_of(candidate: Candidate) -> list[int]:
    return [layer for layer, stays in enumerate(candidate.layers) if stays]


def cell(scores: tuple[float, float]) -> str:
    return f"{scores[0]:.3f} ({scores[1]:.3f})"


def table(here: Subject, arguments: argparse.Namespace) -> None:
    scores = Scores(here)
    teacher = Teacher(here.model, recovery_texts(here.workload, "cpu"), here.task.answers)
    print(f"{arguments.study}: accuracy (nats) on {len(here.workload.splits['confirm'])} examples;")
    print(f"dense {cell(scores.of(here.model))}; teacher of {tokens(teacher)} tokens")
    heads = ("cut only", "repaired", "s", "strength")
    distilled = [f"{m:g} min" for m in arguments.minutes]
    control = arguments.minutes[:1] if arguments.control else []
    controls = [f"{m:g} min, unrepaired" for m in control]
    print(" | ".join(("candidate", *heads, *distilled, *controls)))
    for name, candidate in structures(here).items():
        if arguments.only and name not in arguments.only:
            continue
        kept = kept_of(candidate)
        cut = build(candidate, here.model).model
        row = [f"{name:<14}", cell(scores.of(cut))]
        fixed = build(candidate, here.model).model
        _, report = repair(fixed, kept, teacher, candidate.cut_layers)
        row += [cell(scores.of(fixed)), f"{report.seconds:.1f}", f"{report.strength:g}"]
        for minutes, start in [(m, True) for m in arguments.minutes] + [
            (m, False) for m in control
        ]:
            model = build(candidate, here.model).model
            if start:
                repair(model, kept, teacher, candidate.cut_layers)
            stream = endless_batches(here.workload, "cpu", 0)
            Distillation(model, kept, teacher, stream, minutes).run()
            row.append(cell(scores.of(model)))
            print(f"  {name}: {minutes:g} min {row[-1]}", flush=True)
        print(" | ".join(row), flush=True)


def tokens(teacher: Teacher) -> int:
    return sum(int(mask.sum()) for mask in teacher.masks)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--study", default="reviews")
    parser.add_argument("--minutes", type=float, nargs="*", default=[2.0])
    parser.add_argument("--control", action="store_true", help="distilled without repair, too")
    parser.add_argument("--only", nargs="*", default=[])
    arguments = parser.parse_args(argv)
    print(f"{cpu_name()}, {torch.get_num_threads()} threads")
    here = load_subject(load_spec(arguments.study))
    torch.set_num_threads(here.target.threads)
    table(here, arguments)


if __name__ == "__main__":
    main()
