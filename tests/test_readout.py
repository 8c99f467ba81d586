"""Readout: the last layer computes one token, and the answers are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import paretoformer as pf
from paretoformer.spaces import AttentionChoice, Candidate
from paretoformer.spaces.axes.axis import Unsuitable
from paretoformer.spaces.build import build
from paretoformer.spaces.models.families import FAMILIES, blocks_of
from tests.sampled import sampled
from tests.test_cutting import LAYERS, tiny
from tests.test_every_axis import READS_FIRST, changed
from tests.test_recovery import batches
from tests.test_runtimes import assert_equal_everywhere

FULL = AttentionChoice.of("full")
STRIDED = AttentionChoice.of("strided", stride=3, window=2, global_tokens=1)


def pair(family: str, candidate: Candidate) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A model that computes every token of its last layer, and one that computes the first."""
    dense = tiny(family)
    every = build(candidate.replaced(readout="all"), dense).model
    return every, build(candidate.replaced(readout="first"), dense).model


@sampled("family", READS_FIRST, ("bert", "vit"))
@pytest.mark.parametrize("last", [FULL, STRIDED], ids=["full", "strided"])
def test_answers_are_the_same_whatever_else_was_changed(family: str, last: AttentionChoice) -> None:
    candidate = changed(tiny(family), "torch")
    mixed = candidate.replaced(attention=(*candidate.attention[:-1], last))
    for each in (Candidate.dense(LAYERS, 4), candidate, mixed):
        every, first = pair(family, each)
        for batch in batches(every, 2):
            with torch.inference_mode():
                expected, found = every(**batch).logits, first(**batch).logits
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_last_layer_computes_one_token() -> None:
    _, first = pair("bert", Candidate.dense(LAYERS, 4))
    seen = []
    neurons = blocks_of(first)[-1].feed_forward_output
    neurons.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    (batch,) = batches(first, 1)
    first(**batch)
    assert seen == [(8, 1, 64)]


@pytest.mark.slow
@sampled("family", ["bert", "vit"], ["bert"])
def test_one_export_serves_every_length(family: str) -> None:
    _, first = pair(family, Candidate.dense(LAYERS, 4))
    assert_equal_everywhere(first)


@sampled("family", sorted(set(FAMILIES) - set(READS_FIRST)), ("gpt2",))
def test_family_that_reads_other_tokens_is_refused(family: str) -> None:
    with pytest.raises(Unsuitable, match="cannot be computed for the first token alone"):
        pair(family, Candidate.dense(LAYERS, 4))


def test_head_that_reads_every_token_is_refused() -> None:
    model = tiny("bert", "TokenClassification")
    with pytest.raises(Unsuitable, match="reads other tokens"):
        pf.compress(model, Candidate.dense(LAYERS, 4).replaced(readout="first"))


def test_saved_model_still_computes_one_token(tmp_path: Path) -> None:
    every, first = pair("bert", changed(tiny("bert"), "torch"))
    pf.save_compressed(first, tmp_path)
    again = pf.load_compressed(tmp_path)
    (batch,) = batches(every, 1)
    with torch.inference_mode():
        assert torch.equal(again(**batch).logits, first(**batch).logits)
    assert first.state_dict().keys() == every.state_dict().keys()
