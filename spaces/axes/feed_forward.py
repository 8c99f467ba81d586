"""Axis `feed_forward`: which neurons of each feed-forward block stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt

from paretoformer.spaces.axes.axis import Axis, Built, Cell, Stage, Values, register
from paretoformer.spaces.axes.block_options import (
    BlockKind,
    Costs,
    Damage,
    between,
    normalised,
    rising,
)
from paretoformer.spaces.axes.domain import Domain, Fixed, IntegerDomain
from paretoformer.spaces.axes.evidence import Context, Facts, Json, Probe, Shape
from paretoformer.spaces.axes.neuron_mask import ALL, NeuronMask, NeuronScores

if TYPE_CHECKING:
    from paretoformer.spaces.runtimes import Tools

GRID = 32
"""Widths are multiples of this: an AVX-512 register holds 16 float32, a cache line too."""
STEPS = 16
"""Approximate number of non-zero widths per layer; finer steps differ by less than the noise."""
STARTS = (0.75, 0.5, 0.25)
"""Shares of all neurons among the starting points."""
MEASURED = (0, 1 / 4, 1 / 2, 1 / 8, 3 / 4, 1 / 16)
"""Shares of the neurons whose damage is measured, the most informative first."""


@dataclass(frozen=True, kw_only=True)
class NeuronFacts(Facts):
    """removed: (layers, neurons), first-order loss change without a neuron; None: all stay."""

    removed: tuple[tuple[float, ...], ...] | None = None


class FeedForward(Axis[NeuronMask]):
    """A width per layer; the most important neurons stay, by first-order importance.

    In a gated block, a neuron's gate goes with it. A block without neurons adds its bias.

    Source: Molchanov et al. 2017 (arXiv:1611.06440), eq. 8: mean over examples of |Σ over tokens of
    gradient x activation|. Differs in: importance is divided by the layer's norm as Michel et al.
    2019 (arXiv:1905.10650) do with heads, and neurons are cut, not masked.
    """

    name = "feed_forward"
    stage = Stage.STRUCTURE
    order = 30
    facts = NeuronFacts
    technique = "feed-forward pruning"
    setting = Literal["ranked", "off"]
    setting_default = "ranked"
    setting_help = "ranked: a width for each layer, neurons in order of importance; off: all stay."

    def default(self, shape: Shape) -> NeuronMask:
        return NeuronMask.all(shape.layers)

    def check(self, value: NeuronMask, shape: Shape) -> NeuronMask:
        if value.layers != shape.layers:
            raise ValueError(
                f"a candidate needs one feed-forward width for each of the {shape.layers} layers, "
                f"but got {value.layers}."
            )
        return value

    def canonical(self, value: NeuronMask, others: Values) -> NeuronMask:
        """A removed layer has nothing left to cut."""
        rows = (
            row if stays else ALL for row, stays in zip(value.rows, others["layers"], strict=True)
        )
        return NeuronMask(tuple(rows), value.neurons)

    def encode(self, value: NeuronMask) -> Json:
        return value.to_dict()

    def decode(self, data: Json) -> NeuronMask:
        return NeuronMask.from_dict(data)

    def probe(self, setting: Any, context: Context) -> Probe | None:
        from paretoformer.spaces.axes.sensitivity import OutputProbe
        from paretoformer.spaces.models.families import neurons_of

        if setting == "off":
            return None
        neurons = neurons_of(cast(Any, context.model).config)
        return OutputProbe(lambda block: block.feed_forward_output, neurons)

    def domain(self, setting: Any, facts: NeuronFacts, shape: Shape) -> Domain[NeuronMask]:
        if facts.removed is None:
            return Fixed(self.default(shape))
        return RankedNeurons.of(np.asarray(facts.removed))

    def blocks(
        self, facts: NeuronFacts, shape: Shape, before: Mapping[str, BlockKind]
    ) -> Mapping[str, BlockKind]:
        if facts.removed is None:
            return before
        return {**before, self.name: NeuronBlock.of(np.asarray(facts.removed))}

    def apply(self, built: Built, value: NeuronMask, tools: Tools) -> Built:
        from paretoformer.spaces.models.families import blocks_of, neurons_of
        from paretoformer.spaces.models.surgery import keep_neurons

        neurons = neurons_of(cast(Any, built.model).config)
        for layer, block in enumerate(blocks_of(built.model)):
            if value.rows[layer] is not ALL:
                keep_neurons(block, value.indices(layer, neurons), neurons)
        return built

    def of_layers(self, value: NeuronMask, kept: Sequence[int]) -> NeuronMask:
        return NeuronMask(tuple(value.rows[layer] for layer in kept), value.neurons)

    def kept_share(self, value: NeuronMask) -> float:
        return value.total_share

    def cell(self, value: NeuronMask) -> str:
        return f"{value.total_share:.0%}"

    def phrase(self, value: NeuronMask) -> str:
        return f"{value.total_share:.0%} of the neurons"

    def layer_cells(self, value: NeuronMask) -> Sequence[Cell]:
        shares = map(value.share, range(value.layers))
        return [Cell(label=f"feed-forward {share:.0%}", share=share) for share in shares]


def widths_of(neurons: int) -> tuple[int, ...]:
    """The possible widths of a layer, from none to all, at even steps of the grid."""
    step = max(GRID, round(neurons / STEPS / GRID) * GRID)
    return (*range(0, neurons, step), neurons)


@dataclass(frozen=True)
class RankedNeurons(IntegerDomain[NeuronMask]):
    """One of `widths` per layer; its most important neurons stay.

    scores: (layers, neurons), larger matters more, comparable across layers.
    """

    scores: NeuronScores
    widths: tuple[int, ...]

    @classmethod
    def of(cls, removed: NeuronScores) -> RankedNeurons:
        """removed: (layers, neurons), first-order damage."""
        return cls(normalised(removed), widths_of(removed.shape[1]))

    @property
    def ranges(self) -> Mapping[str, tuple[int, int]]:
        most = len(self.widths) - 1
        return {f"feed_forward_{layer}": (0, most) for layer in range(len(self.scores))}

    def of_integers(self, integers: Sequence[int]) -> NeuronMask:
        return NeuronMask.ranked([self.widths[step] for step in integers], self.scores)

    def integers(self, value: NeuronMask) -> Sequence[int]:
        return nearest_widths(value, self.widths)

    def starts(self) -> Sequence[NeuronMask]:
        """All neurons; the globally most important three quarters, half and quarter."""
        some = (self.most_important(share) for share in STARTS)
        return [NeuronMask.all(len(self.scores)), *some]

    def most_important(self, share: float) -> NeuronMask:
        """About that share of all neurons; each layer's width is rounded to the grid."""
        steps = np.asarray(self.widths)
        counts = global_counts(self.scores, share)
        nearest = np.abs(steps[None] - counts[:, None]).argmin(axis=1)
        return NeuronMask.ranked(steps[nearest].tolist(), self.scores)


def nearest_widths(mask: NeuronMask, widths: Sequence[int]) -> list[int]:
    """For each layer, the index of the width nearest to its own."""
    own = (mask.width(layer) for layer in range(mask.layers))
    wanted = np.array([widths[-1] if width is None else width for width in own])
    return [int(index) for index in np.abs(np.asarray(widths) - wanted[:, None]).argmin(axis=1)]


def global_counts(scores: NeuronScores, share: float) -> npt.NDArray[np.int64]:
    """(layers,) number of neurons of each layer among the best `share` of all."""
    best = np.argsort(-scores, axis=None, kind="stable")[: round(scores.size * share)]
    return np.bincount(best // scores.shape[1], minlength=len(scores))


@dataclass(frozen=True)
class NeuronBlock(BlockKind):
    """The feed-forward block: option k keeps the `widths[k]` most important neurons."""

    scores: NeuronScores
    widths: tuple[int, ...]

    @classmethod
    def of(cls, removed: NeuronScores) -> NeuronBlock:
        """removed: (layers, neurons), larger matters more; compared within a layer."""
        return cls(normalised(removed), widths_of(removed.shape[1]))

    @property
    def size(self) -> int:
        return len(self.widths)

    @property
    def meaning(self) -> str:
        order = np.argsort(-self.scores, axis=1, kind="stable").tolist()
        return f"{self.widths} {order}"

    @property
    def uncut(self) -> int:
        return len(self.widths) - 1

    @cached_property
    def _quarters(self) -> dict[int, int]:
        """Option -> its width, for none, a quarter, half and all."""
        last = len(self.widths) - 1
        return {option: self.widths[option] for option in sorted({0, last // 4, last // 2, last})}

    def timed(self) -> Mapping[int, Values]:
        layers = len(self.scores)
        return {
            option: {"feed_forward": NeuronMask.ranked([width] * layers, self.scores)}
            for option, width in self._quarters.items()
        }

    def costs(self, milliseconds: Mapping[int, float]) -> Costs:
        """Time is linear between the timed widths."""
        options = sorted(milliseconds)
        above = rising([milliseconds[option] - milliseconds[0] for option in options])
        return np.interp(self.widths, [self.widths[option] for option in options], above)

    def options(self, values: Mapping[str, Any]) -> Sequence[int] | None:
        return nearest_widths(values["feed_forward"], self.widths)

    def measured(self, costs: Costs) -> Sequence[int]:
        last = len(self.widths) - 1
        some = dict.fromkeys(round(last * share) for share in MEASURED)
        return [option for option in some if option != last]

    def filled(self, nats: Mapping[int, Damage]) -> Damage:
        options = sorted(nats)
        sizes = [*(self.widths[option] for option in options), self.widths[-1]]
        nothing = np.zeros(len(self.scores))
        return between(sizes, [*(nats[option] for option in options), nothing], self.widths)

    def values(self, chosen: Sequence[int]) -> Values:
        widths = [self.widths[option] for option in chosen]
        return {"feed_forward": NeuronMask.ranked(widths, self.scores)}


register(FeedForward())
