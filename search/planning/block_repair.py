"""Block repair: any cut of any block, repaired at once from moments of dense inputs.

`repair` takes seconds per candidate, since it runs every text through every layer again. Here a
block is repaired alone, behind a dense model: the moments of its inputs, summed once, give the
solution for every subset of its heads or neurons by a small linear system. So a search can compare
thousands of candidates; the result is repaired by `repair`.

Sources: the database of separately solved blocks of ZipLM (Kurtic et al. 2023, arXiv:2302.04089,
section 3) and SPDY (Frantar & Alistarh 2022, arXiv:2201.13096). Differs in: blocks are not stored,
but solved on demand; mechanisms are options too. Candidates without some layers are not for it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from paretoformer.spaces.axes.evidence import Shape
from paretoformer.spaces.build import build
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.attention_choice import FULL, AttentionChoice
from paretoformer.spaces.models.families import blocks_of, neurons_of, shape_of
from paretoformer.spaces.models.surgery import matrix_of
from paretoformer.spaces.recovery.layerwise import Layerwise, Part
from paretoformer.spaces.recovery.least_squares import CHECKED, Moments, apply_change, best_change
from paretoformer.spaces.recovery.teacher import Teacher

Reals = npt.NDArray[np.floating[Any]]

KEPT_BYTES = 2**30
"""Solutions that are kept for reuse."""


@dataclass(frozen=True)
class Sums:
    """Moments of a block's inputs with the missing residual stream.

    Arrays, not tensors, since processes of one machine can share them without a copy. They are
    summed in float64 and kept in float32: the smallest ridge is a thousandth of the mean diagonal,
    far above the rounding errors.

    inner: (inputs + 1, inputs + 1). outer: (inputs + 1, hidden).
    """

    inner: Reals
    outer: Reals

    @classmethod
    def rounded(cls, moments: Moments) -> Sums:
        return cls(*(each.float().cpu().numpy() for each in (moments.inner, moments.outer)))

    def of(self, kept: Sequence[int], weight: torch.Tensor) -> Moments:
        """The moments of a block that keeps only these inputs.

        weight: (inputs, hidden); the contribution of the other inputs counts as missing.
        """
        inputs = len(self.inner) - 1
        stays = np.zeros(inputs + 1, dtype=bool)
        stays[[*kept, inputs]] = True
        rows = torch.from_numpy(self.inner[stays]).double()
        outer = torch.from_numpy(self.outer[stays]).double()
        there = torch.from_numpy(stays)
        lost = rows[:, ~there] @ weight[~there[:-1]].double()
        return Moments.of(rows[:, there], outer + lost)

    @property
    def nbytes(self) -> int:
        return self.inner.nbytes + self.outer.nbytes


Key = tuple[int, Part, Hashable]
"""Layer, block, and the block's mechanism; None if it has none."""


Change = torch.Tensor
"""(inputs + 1, hidden): added to the weights and, in the last row, to the bias."""


class BlockRepairs:
    """Repairs candidates of one dense model, one block at a time.

    sums: of every block, a pair: to solve from and to choose by. With L layers, width H and N
    neurons they take about 8·L·(choices·2·H² + N² + N·H) bytes; solutions take up to `KEPT_BYTES`
    more.
    """

    def __init__(self, model: nn.Module, sums: Mapping[Key, tuple[Sums, Sums]]) -> None:
        self._model, self.sums = model, sums
        config: Any = model.config
        self.shape = Shape(*shape_of(config))
        self._neurons = neurons_of(config)
        self._changes: dict[tuple[Hashable, ...], Change] = {}
        self._kept = 0

    def __getstate__(self) -> dict[str, Any]:
        """Without the solutions, so that a receiver needs no memory for them."""
        return {**self.__dict__, "_changes": {}, "_kept": 0}

    @classmethod
    def of(cls, teacher: Teacher, choices: Iterable[AttentionChoice] = (FULL,)) -> BlockRepairs:
        """Repairs for the teacher's model, from its texts.

        choices: mechanisms that a layer may have; `full` first.
        """
        with torch.no_grad():
            return cls(teacher.model, _gathered(teacher, list(choices)))

    @property
    def nbytes(self) -> int:
        return sum(sums.nbytes for pair in self.sums.values() for sums in pair)

    def repair(self, model: nn.Module, candidate: Candidate) -> None:
        """In place. model: the candidate's, cut but not repaired, with all layers."""
        for layer, block in enumerate(blocks_of(model)):
            for part in Part:
                change = self._change(candidate, layer, part)
                if change is not None:
                    apply_change(part.projection(block), change)

    def _change(self, candidate: Candidate, layer: int, part: Part) -> torch.Tensor | None:
        """The change of one block; None if nothing is missing."""
        projection = part.projection(blocks_of(self._model)[layer])
        whole = matrix_of(projection).shape[1]
        choice: Hashable = None
        if part is Part.ATTENTION:
            choice = candidate.attention[layer]
            width = whole // self.shape.heads
            heads = candidate.heads.indices(layer)
            units = [head * width + i for head in heads for i in range(width)]
            choice = choice if units else FULL
        else:
            units = list(candidate.feed_forward.indices(layer, self._neurons))
        if len(units) == whole and choice in (None, FULL):
            return None
        key = (layer, part, choice, tuple(units))
        if key not in self._changes:
            weight = matrix_of(projection).detach().T
            sums = self.sums[layer, part, choice]
            fit, checks = (moments.of(units, weight) for moments in sums)
            bias: Any = projection.bias
            change = best_change(fit, checks, bias is not None).float()
            self._kept += change.numel() * change.element_size()
            if self._kept > KEPT_BYTES:
                self._changes, self._kept = {}, 0
            self._changes[key] = change
        return self._changes[key]


def _gathered(teacher: Teacher, choices: Sequence[AttentionChoice]) -> dict[Key, tuple[Sums, Sums]]:
    """One walk through the dense model, which also tries every mechanism in every layer."""
    dense = Candidate.dense(*shape_of(teacher.model.config))
    walk = Layerwise(teacher.model, teacher.texts.fit)
    others, found = {}, {}
    for choice in dict.fromkeys((FULL, *choices)):
        candidate = dense.replaced(attention=(choice,) * dense.shape.layers)
        model = build(candidate, teacher.model).model
        # A layer with another mechanism takes another mask.
        others[choice] = blocks_of(model), Layerwise(model, teacher.texts.fit)
    for layer, block in enumerate(blocks_of(teacher.model)):
        for choice, (blocks, other) in others.items():
            other.hidden = walk.hidden
            key: Key = (layer, Part.ATTENTION, choice)
            found[key], _ = _watched(teacher, other, blocks[layer], layer, Part.ATTENTION)
        key = (layer, Part.FEED_FORWARD, None)
        found[key], totals = _watched(teacher, walk, block, layer, Part.FEED_FORWARD)
        walk.advance(block, totals)
    return found


def _watched(
    teacher: Teacher, walk: Layerwise, block: Any, layer: int, part: Part
) -> tuple[tuple[Sums, Sums], list[torch.Tensor]]:
    """One block's moments, and its residual stream in every batch."""
    fit, checks, totals = Moments(), Moments(), []
    every = min(CHECKED, len(teacher.masks))
    for index, seen in enumerate(walk.of(block, part)):
        mask = teacher.masks[index]
        total = seen.total[mask].float()
        missing = teacher.sums(layer, part, index).to(total.device) - total
        weights = teacher.weights(layer, part, index).to(total.device)
        own = checks if index % every == every - 1 else fit
        own.add(seen.inputs[mask].float(), missing, weights)
        totals.append(seen.total)
    return (Sums.rounded(fit), Sums.rounded(checks)), totals
