"""Forecast: candidates that should trade well, before anything was measured.

A search over many layers, mechanisms and heads has more corners than trials. What a swap or a
removal does to the loss is known to first order, and what each costs can be timed in one block; so
a search may begin where the best trade-offs ought to lie. A forecast steers, and is never reported.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paretoformer.spaces.candidate import AttentionChoice, Candidate
from paretoformer.spaces.heads import HeadMask
from paretoformer.spaces.importance import Sensitivity

PRICES = np.logspace(-5, 5, 401)
"""What a millisecond may cost in loss, relative to losing every head for all of their time."""


@dataclass(frozen=True)
class BlockCosts:
    """Milliseconds that one attention block adds, by mechanism and by how many heads it keeps.

    milliseconds: (choices, heads + 1); nothing is added by no heads.
    """

    choices: tuple[AttentionChoice, ...]
    milliseconds: npt.NDArray[np.float64]


def forecast(
    sensitivity: Sensitivity, costs: BlockCosts, count: int, *, prune: bool = True
) -> list[Candidate]:
    """At most `count` candidates along the predicted front, the slowest first.

    The loss and the time of a candidate are predicted as sums over its layers, so at any price of a
    millisecond each layer has a best choice of its own; the prices between which the choices
    change give the front's convex hull. A layer keeps its most important heads.

    sensitivity: with `swapped` in the order of `costs.choices`.
    prune: False keeps every head.
    """
    damage = _damage(sensitivity)  # (layers, choices, heads + 1)
    layers = len(damage)
    time = costs.milliseconds
    everything = layers * float(time.max())
    scale = float(damage[:, :, 0].max(axis=1).sum()) / everything if everything else 1.0
    if not prune:
        damage[:, :, :-1] = np.inf
    found: dict[Candidate, float] = {}
    scores = sensitivity.importance
    for price in PRICES * scale:
        flat = (damage + price * time).reshape(layers, -1).argmin(axis=1)
        which, kept = np.divmod(flat, time.shape[1])
        candidate = Candidate(
            HeadMask.ranked(kept.tolist(), scores), tuple(costs.choices[i] for i in which)
        )
        found.setdefault(candidate, float(time[which, kept].sum()))
    return _spread(found, count)


def _damage(sensitivity: Sensitivity) -> npt.NDArray[np.float64]:
    """(layers, choices, heads + 1): predicted loss by mechanism and number of kept heads.

    Divided by the layer's norm, as the importance of heads is: so the layers compare better.
    """
    norms = np.linalg.norm(sensitivity.removed, axis=1)[:, None]
    norms = np.where(norms > 0, norms, 1.0)
    order = np.argsort(-sensitivity.importance, axis=1, kind="stable")
    removed = np.take_along_axis(sensitivity.removed / norms, order, axis=1)
    swapped = np.take_along_axis(sensitivity.swapped / norms, order[None], axis=2)
    lost = removed.sum(axis=1, keepdims=True) - np.cumsum(removed, axis=1)
    lost = np.concatenate((removed.sum(axis=1, keepdims=True), lost), axis=1)
    kept = np.cumsum(swapped, axis=2)
    kept = np.concatenate((np.zeros_like(kept[:, :, :1]), kept), axis=2)
    damage: npt.NDArray[np.float64] = kept.transpose(1, 0, 2) + lost[:, None]
    return damage


def _spread(found: dict[Candidate, float], count: int) -> list[Candidate]:
    """`count` of them at even steps of cost, neither the dense model nor the empty one."""
    inner = [c for c in found if not c.is_dense and c.heads.total]
    inner.sort(key=lambda candidate: -found[candidate])
    if len(inner) <= count:
        return inner
    times = np.array([found[candidate] for candidate in inner])
    wanted = np.linspace(times[0], times[-1], count)
    nearest = [int(np.abs(times - each).argmin()) for each in wanted]
    return [inner[index] for index in dict.fromkeys(nearest)]
