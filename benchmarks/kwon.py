"""Pruning heads and neurons without training, under a FLOPs limit: ours and Kwon et al. 2022.

Theirs follows the paper (arXiv:2204.09656) and uses labels: mask search with diagonal Fisher
information (section 4.1), rearrangement with one block per layer (4.2), tuning with a scale per
head and neuron (4.3). Ours needs labels only for the importance: the block table with FLOPs as
costs is solved with plain and with corrected sums, both are repaired by least squares, and the one
with the smaller divergence on training texts is kept.

FLOPs are those of the encoder layers at the study's length; a multiply-add counts as two. Time is
not counted.

    python benchmarks/kwon.py [--study reviews] [--limits 0.9 0.8 ...] [--examples 2048]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
from recovery import Scores, cell, kept_of, made_teacher
from torch import nn

from paretoformer.evaluators.common.target import cpu_name
from paretoformer.evaluators.data.recovery_texts import has_own_texts
from paretoformer.search.planning.block_repair import BlockRepairs
from paretoformer.search.planning.block_table import KnownRows, block_table
from paretoformer.search.planning.forecast import FORECASTS, ROUNDS
from paretoformer.search.planning.knapsack import BUCKETS, BlockOptions, KnapsackProblem
from paretoformer.search.planning.learn import learn
from paretoformer.search.planning.plan import blocks_of_axes
from paretoformer.search.planning.screen import Screen
from paretoformer.search.planning.screener import Screener
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import Subject, load_subject
from paretoformer.spaces.axes import axis_of
from paretoformer.spaces.axes.block_options import BlockKind
from paretoformer.spaces.axes.evidence import Evidence, Shape
from paretoformer.spaces.axes.head_mask import HeadMask
from paretoformer.spaces.axes.neuron_mask import NeuronMask
from paretoformer.spaces.axes.sensitivity import OutputProbe, sensitivity
from paretoformer.spaces.build import build
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.models.families import blocks_of, neurons_of, shape_of
from paretoformer.spaces.models.surgery import ConstantOutput, matrix_of
from paretoformer.spaces.recovery import Teacher, repair
from paretoformer.spaces.recovery.layerwise import Layerwise, Part
from paretoformer.spaces.recovery.least_squares import put

Floats = npt.NDArray[np.float64]
Bits = npt.NDArray[np.bool_]

DAMPING = 1.0
SCALES = 10.0
"""Mask tuning stops at a layer with scales outside ±SCALES (section 4.3)."""
TUNING_TOKENS = 2048 * 64
"""Maximum tokens for their tuning: 2,048 examples of 512 tokens would need 20 GB."""
LOSS = 0.01


@dataclass(frozen=True)
class Encoder:
    """The encoder layers of a model at a length."""

    layers: int
    heads: int
    neurons: int
    hidden: int
    length: int

    @property
    def head_flops(self) -> float:
        """FLOPs of a head in one layer: four projections, scores, and their product with the
        values."""
        width = self.hidden // self.heads
        return 8.0 * self.length * self.hidden * width + 4.0 * self.length**2 * width

    @property
    def neuron_flops(self) -> float:
        return 4.0 * self.length * self.hidden

    @property
    def dense_flops(self) -> float:
        return self.layers * (self.heads * self.head_flops + self.neurons * self.neuron_flops)

    def share(self, candidate: Candidate) -> float:
        """FLOPs of a candidate relative to dense."""
        widths = [candidate.feed_forward.width(layer) for layer in range(self.layers)]
        kept = sum(self.neurons if width is None else width for width in widths)
        flops = candidate.heads.total * self.head_flops + kept * self.neuron_flops
        return flops / self.dense_flops


def encoder_of(here: Subject) -> Encoder:
    config: Any = here.model.config
    return Encoder(
        *shape_of(config), neurons_of(config), config.hidden_size, here.target.sequence_length
    )


# Theirs


@dataclass(frozen=True)
class Gradients:
    """Gradients of each example's loss by the mask variables.

    heads: (examples, layers, heads). neurons: (examples, layers, neurons).
    """

    heads: Floats
    neurons: Floats


def gradients(here: Subject, encoder: Encoder, examples: int) -> Gradients:
    split = here.workload.splits["recovery" if has_own_texts(here.workload) else "train"]
    some = type(split)(split.examples[:examples], split.labels[:examples])
    found: dict[Part, list[Floats]] = {part: [] for part in Part}
    groups = {Part.ATTENTION: encoder.heads, Part.FEED_FORWARD: encoder.neurons}
    masks: dict[tuple[int, Part], torch.Tensor] = {}

    def hook(key: tuple[int, Part]) -> Callable[[nn.Module, Any], Any]:
        def multiply(module: nn.Module, arguments: Any) -> Any:
            inputs = arguments[0]  # (batch, length, groups * width)
            mask = torch.ones(len(inputs), groups[key[1]], requires_grad=True)
            masks[key] = mask
            split_up = inputs.unflatten(-1, (groups[key[1]], -1))
            return ((split_up * mask[:, None, :, None]).flatten(-2),)

        return multiply

    handles = [
        part.projection(block).register_forward_pre_hook(hook((layer, part)))
        for layer, block in enumerate(blocks_of(here.model))
        for part in Part
    ]
    for indices, inputs in here.workload.batches(some, "cpu", 16):
        with torch.enable_grad():
            loss = here.task.loss(here.model(**inputs), torch.from_numpy(some.labels[indices]))
        gradients = dict(zip(masks, torch.autograd.grad(loss, list(masks.values())), strict=True))
        for part in Part:
            rows = [gradients[layer, part] for layer in range(encoder.layers)]
            found[part].append(torch.stack(rows, dim=1).numpy())
    for handle in handles:
        handle.remove()
    return Gradients(*(np.concatenate(found[part]) for part in Part))


def searched(fisher: tuple[Floats, Floats], encoder: Encoder, limit: float) -> tuple[Bits, Bits]:
    """Algorithm 1: for each number of heads, keep the most important heads, and the most important
    neurons within the limit; return the combination with the smallest loss."""
    orders = [np.argsort(-importance, axis=None, kind="stable") for importance in fisher]
    kept = [
        np.concatenate(([0.0], np.cumsum(importance.ravel()[order])))
        for importance, order in zip(fisher, orders, strict=True)
    ]
    budget = limit * encoder.dense_flops
    best, counts = -1.0, (0, 0)
    for heads in range(1, fisher[0].size + 1):
        left = budget - heads * encoder.head_flops
        neurons = min(int(left // encoder.neuron_flops), fisher[1].size)
        if neurons >= 0 and (gain := kept[0][heads] + kept[1][neurons]) > best:
            best, counts = gain, (heads, neurons)
    masks = []
    for importance, order, count in zip(fisher, orders, counts, strict=True):
        mask = np.zeros(importance.size, dtype=bool)
        mask[order[:count]] = True
        masks.append(mask.reshape(importance.shape))
    return masks[0], masks[1]


def rearranged(mask: Bits, layer: Floats) -> Bits:
    """Algorithm 2, for one layer: remove equally many, so that the norm of their summed gradients
    is small.

    layer: (examples, variables). Each kept variable, least important first, joins the removed ones;
    then the one whose return reduces the norm most returns.
    """
    if mask.all() or not mask.any():
        return mask
    products = layer.T @ layer
    gone = ~mask
    total = products[gone].sum(axis=0)  # each variable with the sum of the removed ones
    order = np.argsort(products.diagonal(), kind="stable")
    for index in order[mask[order]]:
        gone[index] = True
        total = total + products[index]
        lengths = np.where(gone, products.diagonal() - 2 * total, np.inf)
        back = int(lengths.argmin())
        gone[back] = False
        total = total - products[back]
    return ~gone


def tune(model: nn.Module, kept: Sequence[int], teacher: Teacher, heads: Sequence[int]) -> None:
    """Section 4.3: per layer, fit a scale for each remaining head and neuron, so that the residual
    stream is closest to dense. In place.

    heads: number of remaining heads per layer.
    """
    walk = Layerwise(model, teacher.texts.fit)
    running = True
    for block, layer, count in zip(blocks_of(model), kept, heads, strict=True):
        for part in Part:
            projection = part.projection(block)
            groups = count if part is Part.ATTENTION else 0
            seen = list(walk.of(block, part))
            totals = [batch.total for batch in seen]
            if running and not isinstance(projection, ConstantOutput):
                scales = _scales(projection, groups, layer, part, teacher, seen)
                running = bool(scales.abs().max() <= SCALES)
                if running:
                    totals = _scale(projection, scales, seen)
            if part is Part.FEED_FORWARD:
                walk.advance(block, totals)


def _scales(
    projection: nn.Module, groups: int, layer: int, part: Part, teacher: Teacher, seen: Any
) -> torch.Tensor:
    """(inputs,) scales. groups: of equal width; 0: one scale per input."""
    weight = matrix_of(projection).detach().double()  # (hidden, inputs)
    inner = outer = torch.zeros(())
    for index, batch in enumerate(seen):
        mask = teacher.masks[index]
        rows = batch.inputs[mask].double()
        missing = (teacher.sums(layer, part, index) - batch.total[mask].float()).double()
        inner = inner + rows.T @ rows
        outer = outer + rows.T @ missing
    products, wanted = inner * (weight.T @ weight), (outer * weight.T).sum(dim=1)
    if groups:
        products = products.unflatten(0, (groups, -1)).unflatten(2, (groups, -1)).sum(dim=(1, 3))
        wanted = wanted.unflatten(0, (groups, -1)).sum(dim=1)
    products = products + DAMPING**2 * torch.eye(len(products), dtype=torch.float64)
    scales = 1 + torch.linalg.solve(products, wanted)
    return scales.repeat_interleave(weight.shape[1] // len(scales))


def _scale(projection: nn.Module, scales: torch.Tensor, seen: Any) -> list[torch.Tensor]:
    weight = matrix_of(projection).detach()
    change = (weight.double() * (scales - 1)).float()
    put(projection, {"weight": weight + change})
    return [batch.total + batch.inputs @ change.T for batch in seen]


def theirs(encoder: Encoder, found: Gradients, limit: float) -> dict[str, Candidate]:
    """Candidates after the search and after the rearrangement."""
    fisher = tuple(np.square(gradients).sum(axis=0) for gradients in (found.heads, found.neurons))
    masks = searched((fisher[0], fisher[1]), encoder, limit)
    better = [
        np.stack([rearranged(mask[i], gradients[:, i]) for i in range(encoder.layers)])
        for mask, gradients in zip(masks, (found.heads, found.neurons), strict=True)
    ]
    return {
        "searched": _candidate(*masks),
        "rearranged": _candidate(better[0], better[1]),
    }


def _candidate(heads: Bits, neurons: Bits) -> Candidate:
    rows = tuple(np.packbits(row).tobytes() for row in neurons)
    kept = HeadMask(tuple(tuple(row.tolist()) for row in heads))
    return Candidate(kept, feed_forward=NeuronMask(rows, neurons.shape[1]))


# Ours


def problems(here: Subject, encoder: Encoder, teacher: Teacher) -> dict[str, KnapsackProblem]:
    """The block table of a study with FLOPs as costs, with plain and with corrected sums."""
    shape = Shape(encoder.layers, encoder.heads)
    probes = {
        "heads": OutputProbe(lambda block: block.output, encoder.heads),
        "feed_forward": OutputProbe(lambda block: block.feed_forward_output, encoder.neurons),
    }
    train = here.workload.splits["train"]
    batches = (
        (inputs, torch.from_numpy(train.labels[indices]))
        for indices, inputs in here.workload.batches(train, "cpu", 16)
    )
    found = sensitivity(here.model, batches, here.task.loss, probes)
    evidence = Evidence(shape, {name: axis_of(name).facts(**found[name]) for name in probes})
    dense = Candidate.dense(shape.layers, shape.heads)
    blocks = blocks_of_axes(evidence)
    priced = {name: (block, _costs(block, dense, encoder)) for name, block in blocks.items()}
    screener = Screener(Screen(teacher, BlockRepairs.of(teacher)))
    table = block_table(screener, here.model, priced, False, KnownRows())
    kinds = tuple(
        BlockOptions(block, table.nats[name], costs) for name, (block, costs) in priced.items()
    )
    plain = KnapsackProblem(dense, kinds, 0.0, table.removed)
    corrected, _ = learn(plain, screener, ROUNDS, FORECASTS)
    return {"sums": plain, "corrected": corrected}


def _costs(block: BlockKind, dense: Candidate, encoder: Encoder) -> Any:
    """FLOPs instead of milliseconds."""
    whole = encoder.dense_flops / encoder.layers
    return block.costs(
        {o: whole * encoder.share(dense.replaced(**v)) for o, v in block.timed().items()}
    )


def ours(problem: KnapsackProblem, encoder: Encoder, limit: float) -> Candidate:
    """The candidate with the best prediction within the limit."""
    solved = problem.solve()
    for bucket in range(int(limit * BUCKETS), 0, -1):
        solution = solved.at(bucket)
        if solution is not None and encoder.share(solution.candidate) <= limit:
            return solution.candidate
    raise ValueError(f"nothing fits in {limit:.0%} of the FLOPs.")


# Both


def row(
    here: Subject,
    limit: float,
    scores: Scores,
    teacher: Teacher,
    more: tuple[Any, ...],
    brief: bool,
) -> dict[str, tuple[float, tuple[float, float]]]:
    """Method -> (FLOPs, (accuracy, nats))."""
    encoder, found, problems, tuning = more
    result: dict[str, tuple[float, tuple[float, float]]] = {}

    def note(name: str, candidate: Candidate, model: nn.Module) -> None:
        result[name] = (encoder.share(candidate), scores.of(model))

    masks = theirs(encoder, found, limit)
    if not brief:
        for name, candidate in masks.items():
            note(f"theirs, {name}", candidate, build(candidate, here.model).model)
    candidate = masks["rearranged"]
    model = build(candidate, here.model).model
    with torch.no_grad():
        tune(model, kept_of(candidate), tuning, candidate.heads.counts)
    note("theirs", candidate, model)
    model = build(candidate, here.model).model
    repair(model, kept_of(candidate), teacher, candidate.cut_layers)
    note("their masks, our repair", candidate, model)

    best, chosen = np.inf, None
    for name, problem in problems.items():
        candidate = ours(problem, encoder, limit)
        model = build(candidate, here.model).model
        _, report = repair(model, kept_of(candidate), teacher, candidate.cut_layers)
        if not brief:
            note(f"ours, {name}", candidate, model)
        if report.after < best:
            best, chosen = report.after, (candidate, model)
    assert chosen is not None
    note("ours", *chosen)
    return result


def crossing(points: Sequence[tuple[float, float]], least: float) -> float:
    """The interpolated FLOPs at which accuracy first falls below `least`.

    points: (FLOPs, accuracy), largest first.
    """
    before = points[0]
    for share, accuracy in points:
        if accuracy < least:
            if before[1] <= accuracy:
                return share
            part = (before[1] - least) / (before[1] - accuracy)
            return before[0] + part * (share - before[0])
        before = (share, accuracy)
    return before[0]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--study", default="reviews")
    parser.add_argument(
        "--limits", type=float, nargs="*", default=[0.9 - 0.1 * i for i in range(8)]
    )
    parser.add_argument("--examples", type=int, default=2048, help="of theirs; labelled")
    parser.add_argument(
        "--brief", action="store_true", help="leave out their steps before the last"
    )
    parser.add_argument("--threads", type=int, help="default: the study's")
    arguments = parser.parse_args(argv)
    here = load_subject(load_spec(arguments.study))
    torch.set_num_threads(arguments.threads or here.target.threads)
    print(f"{arguments.study}; {cpu_name()}, {torch.get_num_threads()} threads")
    encoder, scores, teacher = encoder_of(here), Scores(here), made_teacher(here)
    tuned = min(arguments.examples, TUNING_TOKENS // here.target.sequence_length)
    with mock.patch("paretoformer.evaluators.data.recovery_texts.FIT_TOKENS", 10**9):
        tuning = made_teacher(here, tuned)
    print(f"theirs: masks from {arguments.examples} examples, tuned on {tuned}", flush=True)
    mine = problems(here, encoder, teacher)
    more = (encoder, gradients(here, encoder, arguments.examples), mine, tuning)
    dense = scores.of(here.model)
    print(f"dense {cell(dense)} on {len(here.workload.splits['confirm'])} examples", flush=True)
    table: dict[str, list[tuple[float, float]]] = {}
    for limit in arguments.limits:
        found = row(here, limit, scores, teacher, more, arguments.brief)
        if not table:
            print(" | ".join(("limit", *found)))
        print(" | ".join([f"{limit:.2f}", *(f"{s:.2f}: {cell(a)}" for s, a in found.values())]),
              flush=True)  # fmt: skip
        for name, (share, (accuracy, _)) in found.items():
            table.setdefault(name, [(1.0, dense[0])]).append((share, accuracy))
    print(f"FLOPs at a loss of {LOSS:g}, interpolated:")
    for name, points in table.items():
        print(f"  {name:<24} {crossing(points, dense[0] - LOSS):.3f}")


if __name__ == "__main__":
    main()
