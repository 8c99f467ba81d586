"""Gain of recovery: pruned only, repaired by least squares, distilled; and factors of repair.

Accuracy and divergence from the dense model are on the confirmation examples, which recovery never
sees. All in torch, float32; only the repair is timed.

    python benchmarks/recovery.py table    [--study reviews] [--minutes 2 5] [--only NAME ...]
                                           [--control]
    python benchmarks/recovery.py ablation [--study reviews]
    python benchmarks/recovery.py seeds    [--study reviews] [--seeds 10]
    python benchmarks/recovery.py cost     [--only NAME ...]
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers
from torch import nn

from paretoformer.evaluators.common.target import cpu_name
from paretoformer.evaluators.data.recovery_texts import (
    endless_batches,
    recovery_pool,
    recovery_texts,
)
from paretoformer.evaluators.data.workload import Workload
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import Subject, load_subject
from paretoformer.spaces.attention.menu import menu
from paretoformer.spaces.axes import axis_of
from paretoformer.spaces.axes.evidence import Shape
from paretoformer.spaces.axes.head_mask import HeadMask
from paretoformer.spaces.axes.sensitivity import OutputProbe, sensitivity
from paretoformer.spaces.build import build
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.models.divergence import Distributions
from paretoformer.spaces.models.families import neurons_of, shape_of
from paretoformer.spaces.recovery import Distillation, Teacher, least_squares, repair
from paretoformer.spaces.recovery.teacher import Texts

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
    scores, teacher = Scores(here), made_teacher(here)
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


def made_teacher(here: Subject, examples: int = 512, seed: int = 0) -> Teacher:
    workload = here.workload if not seed else shuffled(here.workload, seed)
    return Teacher(here.model, recovery_texts(workload, "cpu", examples), here.task.answers)


def shuffled(workload: Workload, seed: int) -> Workload:
    pool = recovery_pool(workload)
    order = np.random.default_rng(seed).permutation(len(pool))
    split = workload.splits.get("recovery", workload.splits["train"])
    other = replace(split, examples=tuple(pool[i] for i in order))
    return replace(workload, splits={**workload.splits, "recovery": other})


def tokens(teacher: Teacher) -> int:
    return sum(int(mask.sum()) for mask in teacher.masks)


def ablation(here: Subject, arguments: argparse.Namespace) -> None:
    """Change one factor at a time; one row each, one column per candidate."""
    chosen = {
        name: candidate
        for name, candidate in structures(here).items()
        if name in (arguments.only or ("36 heads, 1/2", "18 heads", "18 heads, 1/4"))
    }
    scores, teacher = Scores(here), made_teacher(here)
    print(" | ".join((f"{'accuracy (nats)':<24}", *chosen)))

    def row(name: str, source: Teacher, **settings: Any) -> None:
        cells = []
        with mock.patch.multiple(least_squares, **(settings or {"CHECKED": least_squares.CHECKED})):
            for candidate in chosen.values():
                model = build(candidate, here.model).model
                repair(model, kept_of(candidate), source, candidate.cut_layers)
                cells.append(cell(scores.of(model)))
        print(" | ".join((f"{name:<24}", *cells)), flush=True)

    cells = [cell(scores.of(build(candidate, here.model).model)) for candidate in chosen.values()]
    print(" | ".join((f"{'cut only':<24}", *cells)))
    row("as it is", teacher)
    row("in full, no choice", teacher, STRENGTHS=(1.0,))
    for ridge in (1e-3, 1e-2, 1e-1, 1.0):
        row(f"ridge {ridge:g}, in full", teacher, RIDGES=(ridge,), STRENGTHS=(1.0,))
    row("bias only", teacher, RIDGES=())
    for part in ("attention only", "feed-forward only"):
        row(part, teacher, _solve=only_part(part))
    for examples in (32, 128, 512, 2048):
        with mock.patch("paretoformer.evaluators.data.recovery_texts.FIT_TOKENS", 10**9):
            row(f"{examples} examples", made_teacher(here, examples))


def only_part(part: str) -> Callable[..., Any]:
    solve = least_squares._solve

    def solved(block: Any, which: Any, layer: int, teacher: Teacher, walk: Any) -> Any:
        if which.name.lower().replace("_", "-") == part.partition(" ")[0]:
            return solve(block, which, layer, teacher, walk)
        return [batch.total for batch in walk.of(block, which)]

    return solved


def seeds(here: Subject, arguments: argparse.Namespace) -> None:
    """Accuracy gain of repair over pruning only, for different repair texts."""
    scores, found = Scores(here), structures(here)
    found = {name: cut for name, cut in found.items() if name in (arguments.only or found)}
    before = {name: scores.of(build(cut, here.model).model) for name, cut in found.items()}
    after: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
    for seed in range(1, arguments.seeds + 1):
        teacher = made_teacher(here, seed=seed)
        for name, candidate in found.items():
            model = build(candidate, here.model).model
            repair(model, kept_of(candidate), teacher, candidate.cut_layers)
            after[name].append(scores.of(model))
        print(f"seed {seed} done", flush=True)
    print("candidate | cut only | median repaired | lowest to highest | difference of the medians")
    for name, results in after.items():
        low, median, high = np.quantile([accuracy for accuracy, _ in results], (0, 0.5, 1))
        gain = median - before[name][0]
        nats = np.median([n for _, n in results])
        print(
            f"{name:<14} | {cell(before[name])} | {median:.3f} ({nats:.3f}) "
            f"| {low:.3f} to {high:.3f} | {gain:+.3f}"
        )


SHAPES: Mapping[str, tuple[str, dict[str, int], int, int]] = {
    "BERT-base, 128 tokens": ("bert", {}, 128, 128),
    "GPT-2 of 12 layers, 128 tokens": ("gpt2", {"pad_token_id": 0}, 128, 128),
}


def cost(arguments: argparse.Namespace) -> None:
    """Seconds and memory of the teacher, and of repair with half of the heads and neurons."""

    def wanted(name: str) -> bool:
        return not arguments.only or name in arguments.only

    print("model | tokens | teacher s | its file MB | repair s | peak resident MB")
    for study in filter(wanted, ("reviews", "long-reviews")):
        here = load_subject(load_spec(study))
        torch.set_num_threads(here.target.threads)
        start = time.perf_counter()
        teacher = made_teacher(here)
        seconds = time.perf_counter() - start
        _cost_row(study, here.model, structures(here)["36 heads, 1/2"], teacher, seconds)
    for name in filter(wanted, SHAPES):
        family, settings, count, length = SHAPES[name]
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(family, **settings)
        model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
        ids = torch.randint(5, 1000, (count + 32, length))
        batches = [{"input_ids": rows, "attention_mask": rows * 0 + 1} for rows in ids.split(8)]
        start = time.perf_counter()
        texts = Texts(batches[: count // 8], batches[count // 8 :])
        teacher = Teacher(model, texts, Distributions())
        seconds = time.perf_counter() - start
        layers, heads = shape_of(config)
        half = Candidate(
            HeadMask(tuple(tuple(h % 2 == 0 for h in range(heads)) for _ in range(layers))),
            feed_forward=_half_of_neurons(layers, neurons_of(config)),
        )
        _cost_row(name, model, half, teacher, seconds)


def _half_of_neurons(layers: int, neurons: int) -> Any:
    scores = np.random.default_rng(0).random((layers, neurons))
    return type(Candidate.dense(layers, 1).feed_forward).ranked([neurons // 2] * layers, scores)


def _cost_row(
    name: str, model: nn.Module, candidate: Candidate, teacher: Teacher, seconds: float
) -> None:
    made = build(candidate, model).model
    _, report = repair(made, kept_of(candidate), teacher, candidate.cut_layers)
    bytes_ = sum(teacher.sums(*key, 0).numel() for key in teacher.known) * 4
    share = tokens(teacher) / max(1, int(teacher.masks[0].sum()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name} | {tokens(teacher)} | {seconds:.1f} | {bytes_ * share / 2**20:.0f} "
        f"| {report.seconds:.1f} | {peak:.0f}",
        flush=True,
    )


WHAT: dict[str, Callable[[Subject, argparse.Namespace], None]] = {
    "table": table,
    "ablation": ablation,
    "seeds": seeds,
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=[*WHAT, "cost"])
    parser.add_argument("--study", default="reviews")
    parser.add_argument("--minutes", type=float, nargs="*", default=[2.0])
    parser.add_argument("--control", action="store_true", help="distilled without repair, too")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args(argv)
    print(f"{cpu_name()}, {torch.get_num_threads()} threads")
    if arguments.what == "cost":
        cost(arguments)
        return
    here = load_subject(load_spec(arguments.study))
    torch.set_num_threads(here.target.threads)
    WHAT[arguments.what](here, arguments)


if __name__ == "__main__":
    main()
