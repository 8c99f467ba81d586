"""Block repair: one cut block is mended as `repair` mends it; many, without running them again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from paretoformer.search.planning.block_repair import BlockRepairs
from paretoformer.spaces import AttentionChoice, Candidate, HeadMask
from paretoformer.spaces.axes.neuron_mask import NeuronMask
from paretoformer.spaces.build import build
from paretoformer.spaces.common.attention_choice import FULL
from paretoformer.spaces.models.families import blocks_of, family_of, neurons_of, shape_of
from paretoformer.spaces.recovery.layerwise import Layerwise, Part
from paretoformer.spaces.recovery.least_squares import _solve
from tests.test_cutting import LAYERS, tiny
from tests.test_recovery import changed, copied, teacher
from tests.test_surgery import VISION, every_family

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOW = AttentionChoice.of("window", window=8, global_tokens=1)
CHANGED = 1
"""The one layer that is."""


def only(dense: Any, part: Part) -> list[Candidate]:
    """Some of one layer's heads or neurons, none of them, another mechanism, and that with some."""
    layers, heads = shape_of(dense.config)
    whole = Candidate.dense(layers, heads)
    if part is Part.FEED_FORWARD:
        neurons = neurons_of(dense.config)
        scores = np.random.default_rng(0).random((layers, neurons))
        return [
            whole.replaced(
                feed_forward=NeuronMask.ranked(
                    [width if layer == CHANGED else neurons for layer in range(layers)], scores
                )
            )
            for width in (neurons // 2, 0)
        ]

    def kept(*counts: int) -> HeadMask:
        rows = [(True,) * heads] * layers
        rows[CHANGED] = tuple(head in counts for head in range(heads))
        return HeadMask(tuple(rows))

    found = [whole.replaced(heads=kept(*range(heads - 1))), whole.replaced(heads=kept())]
    # A window covers the few patches of an image.
    if dense.config.model_type in VISION or family_of(dense.config).only_full:
        return found
    swapped = tuple(WINDOW if layer == CHANGED else FULL for layer in range(layers))
    return [*found, *(each.replaced(attention=swapped) for each in (whole, found[0]))]


@every_family
@pytest.mark.parametrize("part", list(Part))
def test_one_block_is_mended_as_repair_mends_it(family: str, part: Part) -> None:
    dense = tiny(family)
    before = copied(dense)
    source = teacher(dense)
    tried = (FULL,) if family_of(dense.config).only_full else (FULL, WINDOW)
    repairs, moved = BlockRepairs.of(source, tried), 0
    for candidate in only(dense, part):
        mended, wanted = (build(candidate, dense).model.eval() for _ in range(2))
        repairs.repair(mended, candidate)
        with torch.no_grad():
            walk = Layerwise(wanted, source.texts.fit)
            for block in blocks_of(wanted)[:CHANGED]:
                walk.advance(block, [each.total for each in walk.of(block, Part.FEED_FORWARD)])
            _solve(blocks_of(wanted)[CHANGED], part, CHANGED, source, walk)
        cut = build(candidate, dense).model.state_dict()
        changes = [torch.cat([(m.state_dict()[n] - cut[n]).flatten() for n in cut])
                   for m in (mended, wanted)]  # fmt: skip
        moved += bool(changes[1].norm() > 0)
        assert (changes[0] - changes[1]).norm() <= 0.01 * changes[1].norm()
    assert moved
    assert all(torch.equal(each, copied(dense)[name]) for name, each in before.items())


@every_family
def test_mending_lowers_the_divergence_of_every_cut_at_once(family: str) -> None:
    dense = tiny(family)
    source = teacher(dense)
    candidate = changed(dense, "torch").replaced(recovery="none", layers=(True,) * LAYERS)
    cut = build(candidate, dense).model
    before = source.divergence(cut)
    BlockRepairs.of(source, candidate.attention).repair(cut, candidate)
    assert source.divergence(cut) < before


def test_dense_is_left_alone() -> None:
    dense = tiny("bert")
    model = build(Candidate.dense(*shape_of(dense.config)), dense).model
    BlockRepairs.of(teacher(dense)).repair(model, Candidate.dense(*shape_of(dense.config)))
    assert all(torch.equal(e, copied(dense)[n]) for n, e in model.state_dict().items())
