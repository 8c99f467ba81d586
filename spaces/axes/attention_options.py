"""The options of an attention block: mechanism and number of heads together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from paretoformer.spaces.axes.block_options import (
    BlockKind,
    Costs,
    Damage,
    Values,
    between,
    rising,
)
from paretoformer.spaces.axes.head_mask import HeadMask
from paretoformer.spaces.common.attention_choice import AttentionChoice

ATTENTION = "attention"
"""The part of a layer that these options are for."""
MEASURED = (0, 1 / 2, 1 / 4, 3 / 4, 1 / 8)
"""Shares of the heads whose damage is measured, the most informative first."""


@dataclass(frozen=True)
class AttentionBlock(BlockKind):
    """Option (mechanism, heads kept) is number `mechanism * (heads + 1) + kept`.

    choices: the mechanisms, `full` first. scores: (layers, heads), larger matters more; compared
        within a layer. prunes: whether heads may be removed.
    """

    choices: tuple[AttentionChoice, ...]
    scores: npt.NDArray[np.float64]
    prunes: bool = True

    @property
    def heads(self) -> int:
        return int(self.scores.shape[1])

    @property
    def size(self) -> int:
        return len(self.choices) * (self.heads + 1)

    @property
    def meaning(self) -> str:
        order = np.argsort(-self.scores, axis=1, kind="stable").tolist()
        return f"{[str(choice) for choice in self.choices]} {order}"

    @property
    def uncut(self) -> int:
        return self.heads

    def timed(self) -> Mapping[int, Values]:
        layers, heads = self.scores.shape
        counts = sorted({max(1, heads // 4), max(1, heads // 2), heads})
        found: dict[int, Values] = {0: {"heads": HeadMask.none(layers, heads)}}
        for index, choice in enumerate(self.choices):
            for count in counts:
                kept = tuple(head < count for head in range(heads))
                found[index * (heads + 1) + count] = {
                    "heads": HeadMask((kept,) * layers),
                    "attention": (choice,) * layers,
                }
        return found

    def costs(self, milliseconds: Mapping[int, float]) -> Costs:
        """Time is linear between the timed numbers of heads."""
        nothing, width = milliseconds[0], self.heads + 1
        rows = []
        for index in range(len(self.choices)):
            own = {k % width: v for k, v in milliseconds.items() if k and k // width == index}
            above = rising([own[count] - nothing for count in sorted(own)])
            rows.append(np.interp(np.arange(width), [0, *sorted(own)], [0.0, *above]))
        return np.concatenate(rows)

    def options(self, values: Mapping[str, Any]) -> Sequence[int] | None:
        if not set(values["attention"]) <= set(self.choices):
            return None
        which = (self.choices.index(choice) for choice in values["attention"])
        counts = values["heads"].counts
        return [i * (self.heads + 1) + n for i, n in zip(which, counts, strict=True)]

    def measured(self, costs: Costs) -> Sequence[int]:
        """Some numbers of heads with full attention; with all heads, each mechanism that is not
        slower, the fastest first."""
        heads = self.heads
        some = dict.fromkeys(round(heads * share) for share in MEASURED)
        others = [index * (heads + 1) + heads for index in range(1, len(self.choices))]
        others = [option for option in others if costs[option] <= costs[heads]]
        others.sort(key=lambda option: costs[option])
        cuts = [count for count in some if count != heads]
        return [*(cuts if self.prunes else ()), *others]

    def filled(self, nats: Mapping[int, Damage]) -> Damage:
        """The damage of a mechanism and that of fewer heads add up."""
        layers, heads = self.scores.shape
        cut = np.full((layers, heads + 1), np.inf)
        cut[:, heads] = 0.0
        if self.prunes:
            counts = sorted(option for option in nats if option < heads)
            known = [*(nats[count] for count in counts), np.zeros(layers)]
            cut = between([*counts, heads], known, range(heads + 1))
        last = [index * (heads + 1) + heads for index in range(len(self.choices))]
        nothing, never = np.zeros(layers), np.full(layers, np.inf)
        swapped = [nats.get(option, never if option != heads else nothing) for option in last]
        return np.concatenate([cut + each[:, None] for each in swapped], axis=1)

    def slower(self, costs: Costs) -> Sequence[str]:
        left = set(self.choices) - set(self.mechanisms(costs))
        return sorted(str(choice) for choice in left)

    def mechanisms(self, costs: Costs) -> tuple[AttentionChoice, ...]:
        """`full`, and the mechanisms whose damage is measured."""
        which = {option // (self.heads + 1) for option in self.measured(costs)}
        return tuple(self.choices[index] for index in sorted(which | {0}))

    def values(self, chosen: Sequence[int]) -> Values:
        which, kept = np.divmod(np.asarray(chosen), self.heads + 1)
        return {
            "heads": HeadMask.ranked(kept.tolist(), self.scores),
            "attention": tuple(self.choices[index] for index in which),
        }
