"""Least squares: re-solve projections after a cut, to restore the dense residual stream.

Sources: the least-squares reconstruction of Kwon et al. 2022 (arXiv:2204.09656, section 4.3), the
bias of FLAP (An et al. 2023, arXiv:2312.11983), the update of ZipLM (Kurtic et al. 2023,
arXiv:2302.04089). Differs in:

- the target is the dense residual stream, and the inputs are the rebuilt model's own, so a layer
  also compensates for the layers before it, and for removed layers;
- a whole matrix is solved, not a scale per unit, with a ridge towards the weights after the cut;
- tokens are weighted by their effect on the output, and errors are relative (`Teacher`);
- the ridge of each projection is chosen on texts that were not solved for; the strength of the
  whole repair, possibly none, by the divergence of the predictions there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from operator import itemgetter
from typing import Any, cast

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from paretoformer.spaces.models.families import Block, blocks_of
from paretoformer.spaces.models.surgery import ConstantOutput, matrix_of
from paretoformer.spaces.recovery.layerwise import Layerwise, Part
from paretoformer.spaces.recovery.repair_report import Recovered
from paretoformer.spaces.recovery.teacher import Teacher

RIDGES, FIRST = (1e-3, 1e-2, 1e-1, 1.0, 10.0), 1
"""Ridge towards the existing weights, in units of the mean square of a solution's inputs; the place
of the one that is tried first."""
TOGETHER = 2048
"""Tokens whose products are computed at once."""
CHECKED = 4
"""One batch in this many, or at least the last, only chooses the ridge."""
REACH = 3
"""From each cut layer on, the layers that are solved. all-mpnet-base-v2 without one of its first
six layers was 0.008 to 0.020 nats from dense with three solved, and 0.010 to 0.022 with all behind
it, in three times the time; without four of its twelve, 0.061 with three or all, 0.062 with two,
and 0.142 with one."""
STRENGTHS = (1.0, 0.75, 0.5)
"""Fractions of the repair that are tried."""
STRIP = 384
"""Rows of a symmetric product per step."""
EXACT = 1e-5
"""Relative error of the residual stream below which nothing is repaired."""

Weights = dict[str, torch.Tensor]


def repair(
    model: nn.Module,
    kept: Sequence[int],
    teacher: Teacher,
    cut: Sequence[bool] | None = None,
) -> tuple[Weights, Recovered]:
    """Repair a cut model in place.

    model: cut, in evaluation mode. Its tensors are replaced, not written to.
    kept: for each of its layers, its index in the dense model.
    cut: as from `Candidate.cut_layers`; None: all layers are.

    Returns the new tensors by name, and the effect. Deterministic.
    """
    begun = time.perf_counter()
    before = teacher.divergence(model)
    old: Weights = dict(model.named_parameters())
    with torch.no_grad():
        solve(model, kept, teacher, cut)
        new = {
            name: parameter.detach()
            for name, parameter in model.named_parameters()
            if parameter is not old[name]
        }
        after, strength = _best_strength(model, old, new, teacher, before)
        taken = {name: _between(old[name], each, strength) for name, each in new.items()}
        put(model, taken if strength else {name: old[name].detach() for name in new})
    seconds = time.perf_counter() - begun
    return (taken if strength else {}), Recovered(before, after, seconds, strength)


def put(model: nn.Module, weights: Weights) -> None:
    for name, tensor in weights.items():
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        trainable = cast(nn.Parameter, getattr(module, leaf)).requires_grad
        setattr(module, leaf, nn.Parameter(tensor, requires_grad=trainable))


def _best_strength(
    model: nn.Module, old: Weights, new: Weights, teacher: Teacher, before: float
) -> tuple[float, float]:
    """(divergence, strength) of the best fraction of the repair; strength 0 where none helps."""
    found = [(before, 0.0)]
    for strength in STRENGTHS if new else ():
        put(model, {name: _between(old[name], each, strength) for name, each in new.items()})
        found.append((teacher.divergence(model), strength))
        if found[-1][0] > found[-2][0] and len(found) > 2:
            break  # further strengths are worse
    return min(found, key=lambda each: each[0])


def _between(old: torch.Tensor, new: torch.Tensor, strength: float) -> torch.Tensor:
    return torch.lerp(old.detach(), new, strength) if strength < 1 else new


def solve(
    model: nn.Module,
    kept: Sequence[int],
    teacher: Teacher,
    cut: Sequence[bool] | None = None,
    reach: int = REACH,
) -> None:
    """Bottom up; each layer is solved on the outputs of the repaired layers below.

    The layers before the first one to solve have the dense model's outputs, so the walk starts
    behind them. It ends with the last one to solve.

    model, kept, cut: as for `repair`. reach: from each cut layer on, how many are solved.
    """
    cut = [True] * len(kept) if cut is None else cut
    solved = [any(cut[max(0, i - reach + 1) : i + 1]) for i in range(len(cut))]
    places = [place for place, is_solved in enumerate(solved) if is_solved]
    if not places:
        return
    layers = 1 + max(layer for layer, _ in teacher.known)
    last = [*(layer - 1 for layer in kept[1:]), layers - 1]
    walk = Layerwise(model, teacher.texts.fit)
    blocks, first = blocks_of(model), places[0]
    if first:
        walk.advance(blocks[first - 1], teacher.streams(kept[first - 1], walk.hidden))
    for place in range(first, places[-1] + 1):
        block = blocks[place]
        if not solved[place]:
            totals = [seen.total for seen in walk.of(block, Part.FEED_FORWARD)]
        else:
            _solve(block, Part.ATTENTION, kept[place], teacher, walk)
            totals = _solve(block, Part.FEED_FORWARD, last[place], teacher, walk)
        walk.advance(block, totals)


def _solve(
    block: Block, part: Part, layer: int, teacher: Teacher, walk: Layerwise
) -> list[torch.Tensor]:
    """Repair one projection. After the last of a layer, returns the new residual stream.

    layer: the layer of the dense model whose residual stream is the target.
    """
    projection = part.projection(block)
    inputs = 0 if isinstance(projection, ConstantOutput) else matrix_of(projection).shape[1]
    biased = cast(torch.Tensor | None, projection.bias) is not None
    moments, checks, seen = Moments(), Moments(), []
    every = min(CHECKED, len(teacher.masks))
    waiting: list[Callable[[], None]] = []  # while nothing is missing, as below the first cut
    is_exact = True
    for index, each in enumerate(walk.of(block, part)):
        mask = teacher.masks[index]
        total = each.total[mask].float()
        missing = teacher.sums(layer, part, index).to(total.device) - total
        rows = each.inputs[mask].float() if inputs else missing[:, :0]
        own = checks if index % every == every - 1 else moments
        weights = teacher.weights(layer, part, index).to(rows.device)
        waiting.append(partial(own.add, rows, missing, weights))
        is_exact = is_exact and bool(missing.square().sum() <= EXACT**2 * total.square().sum())
        if not is_exact:
            for add in waiting:
                add()
            waiting.clear()
        if part is Part.FEED_FORWARD:
            seen.append(each)
    if is_exact:
        return [each.total for each in seen]
    change = best_change(moments, checks, biased)
    apply_change(projection, change)
    return [_changed(each, change, inputs) for each in seen]


def _changed(seen: Any, change: torch.Tensor, inputs: int) -> torch.Tensor:
    change = change.to(seen.total)
    total: torch.Tensor = seen.total + change[-1]
    return total + seen.inputs @ change[:-1] if inputs else total


class Moments:
    """Weighted sums over tokens: products of a projection's inputs, and of inputs and residuals.

    They take (inputs + 1)·(inputs + hidden + 1) numbers, independent of the number of tokens.
    """

    def __init__(self) -> None:
        self._sums = torch.zeros(0), torch.zeros(0)
        self._waiting: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self.tokens = 0

    @classmethod
    def of(cls, inner: torch.Tensor, outer: torch.Tensor) -> Moments:
        """From existing sums: (inputs + 1, inputs + 1), (inputs + 1, hidden)."""
        moments = cls()
        moments._sums = inner, outer
        return moments

    @property
    def inner(self) -> torch.Tensor:
        return self._summed()[0]

    @property
    def outer(self) -> torch.Tensor:
        return self._summed()[1]

    def add(self, inputs: torch.Tensor, missing: torch.Tensor, weights: torch.Tensor) -> None:
        """inputs: (tokens, inputs). missing: (tokens, hidden). weights: (tokens,)."""
        self._waiting.append((inputs, missing, weights))
        self.tokens += len(inputs)
        if sum(len(each) for each, _, _ in self._waiting) >= TOGETHER:
            self._summed()

    def _summed(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._waiting:
            inputs, missing, weights = map(torch.cat, zip(*self._waiting, strict=True))
            self._waiting.clear()
            rows = torch.cat((inputs, inputs.new_ones(len(inputs), 1)), dim=1)
            weighted = (rows * weights[:, None]).T
            inner, outer = _symmetric(weighted, rows).double(), (weighted @ missing).double()
            if self._sums[0].numel():
                inner, outer = self._sums[0] + inner, self._sums[1] + outer
            self._sums = inner, outer
        return self._sums

    def gain(self, change: torch.Tensor) -> float:
        """By how much a change reduces the weighted squared error, in single precision."""
        inner, outer, change = self.inner.float(), self.outer.float(), change.float()
        return float((change * (2 * outer - inner @ change)).sum(dtype=torch.float64))


def _symmetric(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left @ right for a symmetric result: the lower triangle is copied, not computed."""
    size = len(left)
    found = left.new_empty(size, size)
    for start in range(0, size, STRIP):
        stop = start + STRIP
        found[start:stop, start:] = left[start:stop] @ right[:, start:]
        found[stop:, start:stop] = found[start:stop, stop:].T
    return found


def best_change(moments: Moments, checks: Moments, biased: bool) -> torch.Tensor:
    """(inputs + 1, hidden): what to add to the weights and, in the last row, to the bias. The best
    on `checks` of: no change, the bias alone, and the solutions for `RIDGES`, of which a better one
    is looked for beside the best so far."""
    best, gained = torch.zeros_like(moments.outer), 0.0
    inputs = len(moments.inner) - 1
    if biased:
        shift = torch.zeros_like(best)
        shift[-1] = moments.outer[-1] / moments.inner[-1, -1].clamp_min(1e-12)
        of_bias = Moments.of(checks.inner[-1:, -1:], checks.outer[-1:])
        best, gained = max((best, gained), (shift, of_bias.gain(shift[-1:])), key=itemgetter(1))
    if not inputs:
        return best

    @cache
    def solved(place: int) -> tuple[torch.Tensor, float]:
        change = _ridge(moments, inputs, biased, RIDGES[place])
        return change, checks.gain(change)

    place = FIRST
    for step in (1, -1):
        while 0 <= place + step < len(RIDGES) and solved(place + step)[1] > solved(place)[1]:
            place += step
    return max((best, gained), solved(place), key=itemgetter(1))[0]


def _ridge(moments: Moments, inputs: int, biased: bool, ridge: float) -> torch.Tensor:
    """The change W that minimises |missing - inputs·W|² + ridge·|W|², the bias free.

    In single precision, as the products that were summed: its errors are like a ridge of a
    ten-thousandth at most. In double where that fails.
    """
    size = inputs + int(biased)

    def inner(dtype: torch.dtype) -> torch.Tensor:
        found = moments.inner[:size, :size].to(dtype, copy=True)
        found.diagonal()[:inputs] += ridge * found.diagonal()[:inputs].mean() + 1e-12
        return found

    factor, failed = torch.linalg.cholesky_ex(inner(torch.float32))
    if failed:
        factor = torch.linalg.cholesky(inner(torch.float64))
    change = torch.zeros_like(moments.outer)
    change[:size] = torch.cholesky_solve(moments.outer[:size].to(factor), factor)
    return change


def apply_change(projection: nn.Module, change: torch.Tensor) -> None:
    """Add (inputs + 1, hidden) to weights and bias, as new tensors."""
    found: Weights = {}
    if not isinstance(projection, ConstantOutput) and change[:-1].any():
        weight = cast(nn.Parameter, projection.weight)
        more = change[:-1] if isinstance(projection, Conv1D) else change[:-1].T
        found["weight"] = weight.detach() + more.to(weight)
    bias = cast(nn.Parameter | None, projection.bias)
    if bias is not None and change[-1].any():
        found["bias"] = bias.detach() + change[-1].to(bias)
    put(projection, found)
