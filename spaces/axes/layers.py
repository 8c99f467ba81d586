"""Axis `layers`: which whole layers stay."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from paretoformer.spaces.axes.axis import Axis, Built, Cell, Stage, register
from paretoformer.spaces.axes.domain import Domain, Fixed, IntegerDomain
from paretoformer.spaces.axes.evidence import Context, Facts, Json, Shape

if TYPE_CHECKING:
    from paretoformer.spaces.runtimes import Tools

Stays = tuple[bool, ...]

EXAMPLES = 16
"""Training examples on which removals of layers are evaluated."""


@dataclass(frozen=True, kw_only=True)
class LayerFacts(Facts):
    """removal: every layer but one, the least important first; None: all stay."""

    removal: tuple[int, ...] | None = None


class Layers(Axis[Stays]):
    """A removed layer is the identity: no attention, feed-forward or normalisation.

    In a post-norm family, the previous layer takes over its output LayerNorm.

    Layers are removed greedily: of the remaining ones, the layer whose removal increases the
    divergence least. Source: the greedy block search in EvoPress (Sieberling et al. 2024,
    arXiv:2410.14649) uses the same measure. Differs in: whole layers, and lazy re-evaluation.
    """

    name = "layers"
    stage = Stage.STRUCTURE
    order = 40  # last of its stage, because it renumbers the layers
    facts = LayerFacts
    is_plain = True  # the config holds the number of layers, and their names count from 0 again
    technique = "layer removal"
    setting = Literal["ranked", "mask", "off"]
    setting_default = "ranked"
    setting_help = (
        "ranked: how many layers stay, by importance; mask: a bit for each; off: all stay."
    )

    def default(self, shape: Shape) -> Stays:
        return (True,) * shape.layers

    def check(self, value: Stays, shape: Shape) -> Stays:
        stays = tuple(map(bool, value))
        if len(stays) != shape.layers:
            raise ValueError(
                f"a candidate says of each of the {shape.layers} layers whether it stays, "
                f"but got {len(stays)}."
            )
        if not any(stays):
            raise ValueError("at least one layer must stay.")
        return stays

    def encode(self, value: Stays) -> Json:
        return "".join("01"[stay] for stay in value)

    def decode(self, data: Json) -> Stays:
        if not isinstance(data, str) or not set(data) <= {"0", "1"}:
            raise ValueError(f"layers are written as a text of 0 and 1, but got {data!r}.")
        return tuple(bit == "1" for bit in data)

    def survey(self, setting: Any, context: Context) -> LayerFacts:
        return LayerFacts(removal=None if setting == "off" else tuple(removal_order(context)))

    def domain(self, setting: Any, facts: LayerFacts, shape: Shape) -> Domain[Stays]:
        if facts.removal is None:
            return Fixed(self.default(shape))
        return LayerBits(facts.removal) if setting == "mask" else RankedLayers(facts.removal)

    def apply(self, built: Built, value: Stays, tools: Tools) -> Built:
        from paretoformer.spaces.models.surgery import keep_layers

        keep_layers(built.model, value)
        return replace(built, kept=tuple(layer for layer, stays in enumerate(value) if stays))

    def cell(self, value: Stays) -> str:
        return f"{sum(value)}/{len(value)}"

    def phrase(self, value: Stays) -> str:
        return f"{sum(value)} of {len(value)} layers"

    def layer_cells(self, value: Stays) -> Sequence[Cell]:
        return [Cell(removed=not stay) for stay in value]


def removal_order(context: Context) -> list[int]:
    """Every layer but the most important one, the least important first.

    Lazy greedy (Minoux 1978): re-evaluate a layer only while its last gain is minimal. A layer that
    becomes less important after other removals is not noticed. The second half of the order uses
    the values known by then.
    """
    import torch

    batches = list(context.batches(EXAMPLES))
    with torch.inference_mode():
        dense = [context.kept(context.model(**batch)) for batch in batches]
    left, order = list(range(context.shape.layers)), list[int]()
    adds, gone = dict[int, float](), 0.0
    if len(left) == 1:
        return order
    total = max(1, len(left) // 2)
    steps = len(left) + total
    for layer in left:
        adds[layer] = _missed(context, batches, dense, [layer])
        context.progress("Trying without layers", layer + 1, steps)
    while True:
        least = min(left, key=adds.__getitem__)
        left.remove(least)
        order.append(least)
        gone += adds[least]
        context.progress("Trying without layers", steps - total + len(order), steps)
        if len(order) == total or len(left) == 1:
            break
        tried = set[int]()
        while (layer := min(left, key=adds.__getitem__)) not in tried:
            adds[layer] = _missed(context, batches, dense, [*order, layer]) - gone
            tried.add(layer)
    rest = sorted(left, key=adds.__getitem__)
    return [*order, *rest[:-1]]


def _missed(
    context: Context, batches: Sequence[Any], dense: Sequence[Any], removed: Sequence[int]
) -> float:
    import torch

    from paretoformer.spaces.models.surgery import keep_layers, share

    model = share(context.model).eval()
    keep_layers(model, _without(removed, context.shape.layers))
    with torch.inference_mode():
        return sum(
            context.divergence(model(**batch), each, batch)
            for batch, each in zip(batches, dense, strict=True)
        )


def _without(removed: Sequence[int], layers: int) -> Stays:
    return tuple(layer not in removed for layer in range(layers))


class _LayerDomain(IntegerDomain[Stays]):
    """removal: every layer but one, the least important first."""

    removal: tuple[int, ...]

    @property
    def layers(self) -> int:
        return len(self.removal) + 1

    def without(self, count: int) -> Stays:
        return _without(self.removal[:count], self.layers)

    def starts(self) -> Sequence[Stays]:
        """All layers; the model without up to half of them."""
        return [self.without(count) for count in range(self.layers // 2 + 1)]


@dataclass(frozen=True)
class RankedLayers(_LayerDomain):
    removal: tuple[int, ...]

    @property
    def ranges(self) -> Mapping[str, tuple[int, int]]:
        return {"layers": (1, self.layers)}

    def of_integers(self, integers: Sequence[int]) -> Stays:
        return self.without(self.layers - integers[0])

    def integers(self, value: Stays) -> Sequence[int]:
        return [sum(value)]

    def solved(self) -> Domain[Stays]:
        """A solution may lack any of the layers."""
        return LayerBits(self.removal)


@dataclass(frozen=True)
class LayerBits(_LayerDomain):
    """One bit per layer; where all are off, the most important layer stays."""

    removal: tuple[int, ...]

    @property
    def ranges(self) -> Mapping[str, tuple[int, int]]:
        return {f"layer_{layer}": (0, 1) for layer in range(self.layers)}

    def of_integers(self, integers: Sequence[int]) -> Stays:
        stays = tuple(map(bool, integers))
        return stays if any(stays) else self.without(self.layers - 1)

    def integers(self, value: Stays) -> Sequence[int]:
        return [int(stay) for stay in value]

    @property
    def size(self) -> int:
        return super().size - 1

    def values(self) -> Iterator[Stays]:
        return itertools.islice(super().values(), 1, None)  # skip the value without layers


register(Layers())
