"""Axis `heads`: which attention heads of each layer stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from paretoformer.spaces.axes.axis import Axis, Built, Cell, Stage, Values, register
from paretoformer.spaces.axes.block_options import normalised
from paretoformer.spaces.axes.domain import Domain, Fixed, IntegerDomain
from paretoformer.spaces.axes.evidence import Context, Facts, Json, Probe, Shape
from paretoformer.spaces.axes.head_mask import HeadMask, Scores
from paretoformer.spaces.common.attention_choice import FULL

if TYPE_CHECKING:
    from paretoformer.spaces.axes.block_options import BlockKind
    from paretoformer.spaces.runtimes import Tools

STEPS = 8
"""Number of masks among the starting points, at even steps of the number of heads."""


@dataclass(frozen=True, kw_only=True)
class HeadFacts(Facts):
    """removed: (layers, heads), first-order change of the loss without a head; None: all stay."""

    removed: tuple[tuple[float, ...], ...] | None = None

    @property
    def scores(self) -> Scores:
        return normalised(np.asarray(self.removed))


class Heads(Axis[HeadMask]):
    """Attention heads, removed with their rows of query, key and value and columns of output.

    Source: Michel, Levy, Neubig 2019 (arXiv:1905.10650). Differs in: heads are cut, not masked.
    """

    name = "heads"
    stage = Stage.STRUCTURE
    order = 10
    since = 1
    facts = HeadFacts
    technique = "head pruning"
    setting = Literal["ranked", "mask", "off"]
    setting_default = "ranked"
    setting_help = "ranked: a count for each layer; mask: one bit for each head; off: all stay."

    def default(self, shape: Shape) -> HeadMask:
        return HeadMask.all(shape.layers, shape.heads)

    def check(self, value: HeadMask, shape: Shape) -> HeadMask:
        if (value.layers, value.heads) != (shape.layers, shape.heads):
            raise ValueError(
                f"the candidate has (layers, heads) = {(value.layers, value.heads)}, "
                f"but the model has {(shape.layers, shape.heads)}."
            )
        return value

    def canonical(self, value: HeadMask, others: Values) -> HeadMask:
        """A removed layer has nothing left to cut."""
        every = (True,) * value.heads
        rows = (
            row if stays else every for row, stays in zip(value.kept, others["layers"], strict=True)
        )
        return HeadMask(tuple(rows))

    def encode(self, value: HeadMask) -> Json:
        return ["".join("01"[keep] for keep in row) for row in value.kept]

    def decode(self, data: Json) -> HeadMask:
        if not isinstance(data, list):
            raise TypeError(f"heads are a list of texts, but got {data!r}.")
        if not all(isinstance(row, str) and set(row) <= {"0", "1"} for row in data):
            raise ValueError("the heads of a layer are written as a text of 0 and 1.")
        return HeadMask(tuple(tuple(bit == "1" for bit in row) for row in data))

    def probe(self, setting: Any, context: Context) -> Probe | None:
        from paretoformer.spaces.axes.sensitivity import OutputProbe

        if setting == "off":
            return None
        return OutputProbe(lambda block: block.output, context.shape.heads)

    def domain(self, setting: Any, facts: HeadFacts, shape: Shape) -> Domain[HeadMask]:
        if facts.removed is None:
            return Fixed(self.default(shape))
        return HeadBits(facts.scores) if setting == "mask" else RankedHeads(facts.scores)

    def blocks(
        self, facts: HeadFacts, shape: Shape, before: Mapping[str, BlockKind]
    ) -> Mapping[str, BlockKind]:
        """Numbers of heads with full attention."""
        from paretoformer.spaces.axes.attention_options import ATTENTION, AttentionBlock

        if facts.removed is None:
            return before
        return {**before, ATTENTION: AttentionBlock((FULL,), facts.scores)}

    def apply(self, built: Built, value: HeadMask, tools: Tools) -> Built:
        from paretoformer.spaces.models.families import blocks_of
        from paretoformer.spaces.models.surgery import keep_heads

        for layer, block in enumerate(blocks_of(built.model)):
            keep_heads(block, value.indices(layer), value.heads)
        return built

    def of_layers(self, value: HeadMask, kept: Sequence[int]) -> HeadMask:
        return HeadMask(tuple(value.kept[layer] for layer in kept))

    def kept_share(self, value: HeadMask) -> float:
        return value.total / (value.layers * value.heads)

    def cell(self, value: HeadMask) -> str:
        return f"{value.total}/{value.layers * value.heads}"

    def phrase(self, value: HeadMask) -> str:
        return f"{value.total} of {value.layers * value.heads} heads"

    def layer_cells(self, value: HeadMask) -> Sequence[Cell]:
        return [Cell(marks=row) for row in value.kept]


class _HeadDomain(IntegerDomain[HeadMask]):
    """scores: (layers, heads), larger matters more, comparable across layers."""

    scores: Scores

    def starts(self) -> Sequence[HeadMask]:
        """All heads; the globally most important at even steps; none."""
        layers, heads = self.scores.shape
        whole = layers * heads
        counts = [round(whole * step / STEPS) for step in range(STEPS - 1, 0, -1)]
        masks = [HeadMask.most_important(count, self.scores) for count in counts]
        return [HeadMask.all(layers, heads), *masks, HeadMask.none(layers, heads)]


@dataclass(frozen=True)
class RankedHeads(_HeadDomain):
    """A count per layer; its most important heads stay."""

    scores: Scores

    @property
    def ranges(self) -> Mapping[str, tuple[int, int]]:
        layers, heads = self.scores.shape
        return {f"heads_{layer}": (0, heads) for layer in range(layers)}

    def of_integers(self, integers: Sequence[int]) -> HeadMask:
        return HeadMask.ranked(integers, self.scores)

    def integers(self, value: HeadMask) -> Sequence[int]:
        return value.counts


@dataclass(frozen=True)
class HeadBits(_HeadDomain):
    scores: Scores

    @property
    def ranges(self) -> Mapping[str, tuple[int, int]]:
        layers, heads = self.scores.shape
        return {f"head_{i}_{j}": (0, 1) for i in range(layers) for j in range(heads)}

    def of_integers(self, integers: Sequence[int]) -> HeadMask:
        rows = np.reshape(integers, self.scores.shape).astype(bool)
        return HeadMask(tuple(map(tuple, rows.tolist())))

    def integers(self, value: HeadMask) -> Sequence[int]:
        return [int(keep) for row in value.kept for keep in row]


register(Heads())
