"""Recovery: a repair never makes answers worse where it looked, and changes only what it may."""

from __future__ import annotations

import itertools
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.nn.functional import cross_entropy

import paretoformer as pf
from paretoformer.spaces import AttentionChoice, Candidate, HeadMask
from paretoformer.spaces.build import build, load_built
from paretoformer.spaces.models.divergence import Distributions
from paretoformer.spaces.models.families import blocks_of, shape_of
from paretoformer.spaces.models.tokens import Step
from paretoformer.spaces.recovery import (
    Distillation,
    Teacher,
    distillation,
    mixed_precision,
    repair,
)
from paretoformer.spaces.recovery.checkpoint import read_progress
from paretoformer.spaces.recovery.distillation import is_worse
from paretoformer.spaces.recovery.least_squares import STRIP, Moments, best_change, solve
from paretoformer.spaces.recovery.teacher import Texts, _weights
from paretoformer.spaces.runtimes import Tools
from tests.sampled import sampled
from tests.test_cutting import LAYERS, tiny
from tests.test_every_axis import changed as every_axis_changed
from tests.test_surgery import VISION, every_family

pytestmark = pytest.mark.usefixtures("one_thread")


def batches(model: Any, count: int, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """Random inputs of eight rows, with padding where there are tokens."""
    random = torch.Generator().manual_seed(seed)
    if model.config.model_type in VISION:
        size = (8, 3, model.config.image_size, model.config.image_size)
        return [{"pixel_values": torch.randn(size, generator=random)} for _ in range(count)]
    found = []
    for _ in range(count):
        ids = torch.randint(5, 90, (8, 20), generator=random)
        lengths = torch.randint(4, 21, (8, 1), generator=random)
        found.append({"input_ids": ids, "attention_mask": (torch.arange(20) < lengths).long()})
    return found


def teacher(model: Any, count: int = 12) -> Teacher:
    every = batches(model, count + 4)
    return Teacher(model, Texts(every[:count], every[count:]), Distributions())


def changed(dense: Any, runtime: str) -> Candidate:
    """Every axis but those that come after recovery."""
    return every_axis_changed(dense, runtime).replaced(readout="all")


def copied(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: each.clone() for name, each in model.state_dict().items()}


def kept_of(candidate: Candidate) -> list[int]:
    return [layer for layer, stays in enumerate(candidate.layers) if stays]


@every_family
def test_repair_lowers_the_divergence_and_leaves_dense_alone(family: str) -> None:
    dense = tiny(family)
    before = copied(dense)
    candidate = changed(dense, "torch")
    cut = build(candidate, dense).model
    first = teacher(dense)
    weights, report = repair(cut, kept_of(candidate), first)
    assert weights
    assert report.after < report.before
    assert report.after == pytest.approx(first.divergence(cut), rel=1e-4)
    assert all(torch.equal(each, copied(dense)[name]) for name, each in before.items())


def test_repair_gives_the_same_weights_again() -> None:
    dense = tiny("bert")
    candidate = changed(dense, "torch")
    found = [
        repair(build(candidate, dense).model, kept_of(candidate), teacher(dense))[0]
        for _ in range(2)
    ]
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(each, found[1][name]) for name, each in found[0].items())


def test_teacher_whose_arrays_are_shared_repairs_the_same() -> None:
    """As in a worker, whose copy lies in memory that it can only read."""
    dense = tiny("bert")
    candidate, first = changed(dense, "torch"), teacher(dense)
    shared: list[pickle.PickleBuffer] = []
    packed = pickle.dumps(first, protocol=5, buffer_callback=shared.append)
    assert sum(each.raw().nbytes for each in shared) == first.nbytes
    there = pickle.loads(packed, buffers=[each.raw().toreadonly() for each in shared])
    found = [
        repair(build(candidate, each.model).model, kept_of(candidate), each)[0]
        for each in (first, there)
    ]
    assert found[0]
    assert all(torch.equal(each, found[1][name]) for name, each in found[0].items())


def test_repair_changes_only_what_stands_behind_the_first_cut() -> None:
    dense = tiny("bert")
    rows = [(True,) * 4] * LAYERS
    rows[2] = (True, False, False, True)
    cut = build(Candidate(HeadMask(tuple(rows))), dense).model
    weights, _ = repair(cut, range(LAYERS), teacher(dense))
    layers = {name.split("layer.")[1].split(".")[0] for name in weights}
    assert layers == {"2", "3", "4"}
    outputs = ("attention.output.dense", "output.dense")
    assert all(any(part in name for part in outputs) for name in weights)


@every_family
def test_repair_reaches_some_layers_behind_each_cut(family: str) -> None:
    """It solves them as a repair of all layers would, which walks through the first ones."""
    dense = tiny(family)
    layers, heads = shape_of(dense.config)
    rows = [(True,) * heads] * layers
    rows[2] = (True,) + (False,) * (heads - 1)
    candidate = Candidate(HeadMask(tuple(rows)))
    assert candidate.cut_layers == tuple(layer == 2 for layer in range(layers))
    whole, some = (build(candidate, dense).model for _ in range(2))
    before = copied(whole)
    with torch.no_grad():
        solve(whole, range(layers), teacher(dense))
        solve(some, range(layers), teacher(dense), candidate.cut_layers, reach=2)
    new = [name for name, weight in copied(some).items() if not weight.equal(before[name])]
    assert {int(re.findall(r"\.(\d+)\.", name)[0]) for name in new} == {2, 3}
    for name in new:
        torch.testing.assert_close(copied(some)[name], copied(whole)[name], rtol=1e-3, atol=1e-4)


def test_layers_next_to_removed_ones_are_cut() -> None:
    dense = Candidate.dense(6, 4)
    assert not any(dense.cut_layers)
    gone = dense.without_layers([False, True, True, False, False, True])
    assert gone.cut_layers == (True, True, False)
    assert dense.without_layers([True] * 5 + [False]).cut_layers == (False,) * 4 + (True,)


def test_uncut_model_is_left_alone() -> None:
    dense = tiny("gpt2")
    same = build(Candidate.dense(LAYERS, 4), dense).model
    weights, report = repair(same, range(LAYERS), teacher(dense))
    assert not weights
    assert report.before == report.after == pytest.approx(0, abs=1e-6)


def test_neuron_that_repeats_others_is_made_up_for_in_full() -> None:
    """Half of the neurons are copies of the other half: with these alone nothing is missing."""
    dense = tiny("bert")
    for block in blocks_of(dense):
        inner = block.get("intermediate.dense")
        half = inner.weight.shape[0] // 2
        inner.weight.data[half:], inner.bias.data[half:] = inner.weight[:half], inner.bias[:half]
    scores = torch.arange(64).flip(0).repeat(LAYERS, 1).double().numpy()
    mask = pf.Candidate.dense(LAYERS, 4).feed_forward.ranked([32] * LAYERS, scores)
    candidate = Candidate.dense(LAYERS, 4).replaced(feed_forward=mask)
    _, report = repair(build(candidate, dense).model, range(LAYERS), teacher(dense, 40))
    assert report.after < report.before / 1e3


def test_solution_is_that_of_least_squares() -> None:
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(400, 6, generator=random, dtype=torch.float64)
    wanted = torch.randn(7, 3, generator=random, dtype=torch.float64)
    missing = inputs @ wanted[:-1] + wanted[-1]
    moments = Moments()
    for part, rest in zip(inputs.split(90), missing.split(90), strict=True):
        moments.add(part, rest, torch.ones(len(part), dtype=torch.float64))
    found = best_change(moments, moments, biased=True)
    torch.testing.assert_close(found, wanted, atol=0.01, rtol=0.01)
    without = best_change(moments, moments, biased=False)
    assert not without[-1].any()


@pytest.mark.parametrize("inputs", [1, STRIP - 1, STRIP, 2 * STRIP + 5])
def test_moments_of_many_inputs_are_the_whole_products(inputs: int) -> None:
    random = torch.Generator().manual_seed(inputs)
    rows, missing = (torch.randn(20, width, generator=random) for width in (inputs, 3))
    weights = torch.rand(20, generator=random)
    moments = Moments()
    moments.add(rows, missing, weights)
    every = torch.cat((rows, torch.ones(20, 1)), dim=1).double()
    wanted = every.T @ (weights.double()[:, None] * every)
    torch.testing.assert_close(moments.inner, wanted, atol=1e-4, rtol=1e-4)


def test_candidate_is_repaired_only_where_something_was_cut() -> None:
    dense = Candidate.dense(LAYERS, 4)
    assert dense.replaced(recovery="least_squares") == dense
    assert dense.replaced(recovery="least_squares", runtime="onnxruntime").recovery == "none"
    swapped = dense.replaced(attention=(AttentionChoice.of("linear"),) * LAYERS)
    assert swapped.replaced(recovery="least_squares") != swapped


def test_compressing_by_hand_says_that_a_repair_needs_a_study() -> None:
    model = tiny("bert")
    with pytest.raises(ValueError, match="load it from its run"):
        pf.compress(model, changed(model, "torch").replaced(recovery="least_squares"))


@every_family
def test_repaired_weights_are_kept_and_come_back(family: str, tmp_path: Any) -> None:
    dense = tiny(family)
    candidate = every_axis_changed(dense, "torch").replaced(recovery="least_squares")
    tools = Tools(threads=1, teacher=lambda: teacher(dense))
    made = build(candidate, dense, tools)
    made.save(candidate, tmp_path)
    again = load_built(candidate, dense, tmp_path)
    (batch,) = batches(dense, 1, seed=5)
    with torch.inference_mode():
        assert torch.equal(again.model(**batch).logits, made.model(**batch).logits)
    pf.save_compressed(made.model, tmp_path / "whole")
    whole = pf.load_compressed(tmp_path / "whole")
    with torch.inference_mode():
        assert torch.equal(whole(**batch).logits, made.model(**batch).logits)


def endless(model: Any) -> Iterator[Step]:
    """Steps of one batch, which come again."""
    return itertools.cycle(Step([each], repeats=True) for each in batches(model, 10, seed=9))


@sampled("family", ["bert", "gpt2", "vit"], ["bert"])
def test_distillation_lowers_the_divergence_and_leaves_dense_alone(family: str) -> None:
    dense = tiny(family)
    before = copied(dense)
    candidate = changed(dense, "torch")
    cut = build(candidate, dense).model
    first = teacher(dense)
    weights, report = Distillation(
        cut, kept_of(candidate), first, endless(dense), minutes=0.1
    ).run()
    assert report.after < 0.8 * report.before
    assert report.after == pytest.approx(first.divergence(cut), rel=1e-4)
    assert weights.keys() <= dict(cut.named_parameters()).keys()
    assert all(torch.equal(each, copied(dense)[name]) for name, each in before.items())


def test_distillation_learns_from_labels_where_dense_is_wrong() -> None:
    """All labels are the class that the dense model does not give."""
    dense = tiny("bert")
    candidate = changed(dense, "torch")
    found = batches(dense, 10, seed=9)
    with torch.no_grad():
        wanted = [dense(**batch).logits.argmin(dim=-1) for batch in found]

    def by(labels: torch.Tensor) -> Any:
        return lambda output: cross_entropy(output.logits, labels)

    losses = list(map(by, wanted))
    shares = []
    for some in ((), losses):
        steps = [
            Step([b], True, [loss] if some else ()) for b, loss in zip(found, losses, strict=True)
        ]
        cut = build(candidate, dense).model
        Distillation(
            cut, kept_of(candidate), teacher(dense), itertools.cycle(steps), minutes=0.1
        ).run()
        with torch.no_grad():
            right = [
                cut(**b).logits.argmax(dim=-1) == w for b, w in zip(found, wanted, strict=True)
            ]
        shares.append(float(torch.cat(right).float().mean()))
    assert shares[1] > shares[0] + 0.2


def test_training_that_only_harms_begins_again_more_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(distillation, "LEARNING_RATE", 3.0)
    dense = tiny("bert")
    candidate = changed(dense, "torch")
    cut = build(candidate, dense).model
    trained = Distillation(cut, kept_of(candidate), teacher(dense), endless(dense), minutes=0.05)
    _, report = trained.run()
    assert trained._state.slower > 1
    assert report.after <= report.before


def test_last_weights_are_kept_unless_held_out_texts_are_against_them() -> None:
    lowest = torch.tensor([0.01, 0.02, 0.01, 0.5])
    by_one_text = lowest + torch.tensor([-0.01, -0.01, -0.01, 0.3])
    by_all_texts = lowest + torch.tensor([0.02, 0.02, 0.02, 0.03])
    assert not is_worse(by_one_text, lowest)
    assert is_worse(by_all_texts, lowest)
    assert not is_worse(lowest, lowest)
    assert is_worse(lowest * float("nan"), lowest)
    assert is_worse(torch.tensor([0.2]), torch.tensor([0.1]))


def test_attention_is_trained_in_float32_whatever_the_rest_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mixed_precision, "slow_precision", lambda *_: "")
    query, key, value = (torch.randn(1, 2, 5, 8) for _ in range(3))
    with mixed_precision.mixed_precision(torch.device("cpu")):
        halves = F.linear(query, torch.eye(8))
        found = F.scaled_dot_product_attention(halves, key, value=value)
    assert halves.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    expected = F.scaled_dot_product_attention(halves.float(), key, value)
    torch.testing.assert_close(found, expected)


def test_step_in_several_batches_goes_where_one_of_all_their_rows_goes() -> None:
    dense = tiny("bert")
    candidate = changed(dense, "torch")
    (whole,) = batches(dense, 1)
    whole["attention_mask"] = torch.ones_like(whole["attention_mask"])
    parts = [{name: each[rows] for name, each in whole.items()} for rows in (slice(5), slice(5, 8))]
    gradients = []
    for step in ([whole], parts, parts[:1]):
        cut = build(candidate, dense).model
        trained = Distillation(cut, kept_of(candidate), teacher(dense), endless(dense), minutes=1)
        trained._step(Step(step))
        found = [p.grad.flatten() for p in trained._parameters.values() if p.grad is not None]
        gradients.append(torch.cat(found))
    same, other = (torch.cosine_similarity(gradients[0], each, dim=0) for each in gradients[1:])
    assert same > 0.995
    assert same > other


def test_dense_is_computed_once_for_texts_that_come_again() -> None:
    dense = tiny("bert")
    candidate = changed(dense, "torch")
    batch, *_ = batches(dense, 1)
    cut, first = build(candidate, dense).model, teacher(dense)
    trained = Distillation(cut, kept_of(candidate), first, endless(dense), minutes=1)
    calls: list[int] = []
    dense.register_forward_hook(lambda *_: calls.append(1))
    losses = [float(trained._loss(batch, repeats=True).detach()) for _ in range(4)]
    assert len(set(losses)) == 1
    assert losses[0] > 0
    assert len(calls) == 1
    trained._loss(dict(batch), repeats=False)
    trained._loss(dict(batch), repeats=False)
    assert len(calls) == 3
    trained._room, other = 0, dict(batch)
    for _ in range(3):
        trained._loss(other, repeats=True)
    assert len(calls) == 6


def test_distillation_that_was_cut_off_goes_on_where_it_was(tmp_path: Path) -> None:
    """Killed right after a checkpoint: the second run has its steps, best weights and moments."""
    dense = tiny("bert")
    candidate = changed(dense, "torch")

    def begin(minutes: float, stream: Iterator[Any]) -> Distillation:
        cut = build(candidate, dense).model
        return Distillation(cut, kept_of(candidate), teacher(dense), stream, minutes, tmp_path)

    first = begin(0.05, endless(dense))
    first.run()
    first._checkpoint()
    second = begin(0.1, endless(dense))
    assert second._resume(first._state.before)
    assert second._state == first._state
    for name, parameter in second._parameters.items():
        moments = second._optimizer.state[parameter]
        before = first._optimizer.state[first._parameters[name]]
        assert all(torch.equal(moments[key], before[key]) for key in before)
    _, report = second.run()
    assert report.after <= first._state.best
    assert read_progress(tmp_path) is not None


def test_damaged_checkpoint_is_not_gone_on_with(tmp_path: Path) -> None:
    dense = tiny("bert")
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\0" * 100)
    cut = build(changed(dense, "torch"), dense).model
    kept = kept_of(changed(dense, "torch"))
    assert not Distillation(cut, kept, teacher(dense), endless(dense), 1, tmp_path)._resume(0.1)


def test_checkpoint_of_another_model_is_not_gone_on_with(tmp_path: Path) -> None:
    dense = tiny("bert")
    candidate = changed(dense, "torch")
    cut = build(candidate, dense).model
    begun = Distillation(cut, kept_of(candidate), teacher(dense), endless(dense), 0.02, tmp_path)
    begun.run()
    begun._checkpoint()
    assert not begun._resume(2 * begun._state.before)
    assert begun._resume(begun._state.before)


def test_what_cannot_be_kept_ends_no_distillation(tmp_path: Path) -> None:
    dense = tiny("bert")
    candidate = changed(dense, "torch")
    cut = build(candidate, dense).model
    (tmp_path / "file").touch()
    work = tmp_path / "file" / "work"
    begun = Distillation(cut, kept_of(candidate), teacher(dense), endless(dense), 0.02, work)
    _, report = begun.run()
    begun._checkpoint()
    assert report.after <= report.before


def test_embeddings_are_not_trained_and_get_no_gradients() -> None:
    dense = tiny("bert")
    candidate = changed(dense, "torch")
    cut = build(candidate, dense).model
    weights, _ = Distillation(
        cut, kept_of(candidate), teacher(dense), endless(dense), minutes=0.02
    ).run()
    table = dense.get_input_embeddings().weight
    assert table.grad is None
    assert table.requires_grad
    assert torch.equal(cut.get_input_embeddings().weight, table)
    assert not any(name.endswith("word_embeddings.weight") for name in weights)


def test_model_of_half_precision_is_trained_in_single_and_handed_back_in_half() -> None:
    dense = tiny("bert").to(torch.bfloat16)
    candidate = changed(dense, "torch")
    cut = build(candidate, dense).model
    weights, report = Distillation(
        cut, kept_of(candidate), teacher(dense), endless(dense), minutes=0.1
    ).run()
    assert report.after < report.before
    assert {each.dtype for each in weights.values()} == {torch.bfloat16}
    assert {each.dtype for each in cut.parameters()} == {torch.bfloat16}
    assert {each.dtype for each in dense.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("wrong", ["", "distilled", "distilled:", "distilled:x", "ridge", 3])
def test_unknown_recovery_is_refused(wrong: Any) -> None:
    candidate = changed(tiny("bert"), "torch")
    with pytest.raises(ValueError, match="recovery is none, least_squares, or distilled:MINUTES"):
        candidate.replaced(recovery=wrong or "empty")


def test_equal_minutes_are_one_candidate() -> None:
    candidate = changed(tiny("bert"), "torch")
    assert candidate.replaced(recovery="distilled:2.50") == candidate.replaced(
        recovery="distilled:2.5"
    )


@pytest.mark.parametrize("count", [2, 3, 9])
def test_ridge_is_chosen_on_texts_that_were_not_solved_for(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where long texts leave few batches."""
    tokens = []

    def watched(moments: Moments, checks: Moments, biased: bool) -> torch.Tensor:
        tokens.append((moments.tokens, checks.tokens))
        return best_change(moments, checks, biased)

    monkeypatch.setattr("paretoformer.spaces.recovery.least_squares.best_change", watched)
    dense = tiny("bert")
    candidate = changed(dense, "torch")
    first = teacher(dense, count)
    repair(build(candidate, dense).model, kept_of(candidate), first)
    assert tokens
    assert all(solved and checked for solved, checked in tokens)
    assert {sum(each) for each in tokens} == {sum(int(mask.sum()) for mask in first.masks)}


def test_one_batch_of_texts_is_too_few() -> None:
    (batch,) = batches(tiny("bert"), 1)
    with pytest.raises(ValueError, match="two batches"):
        Texts([batch], [batch])


def test_tokens_with_massive_activations_hardly_count() -> None:
    total, gradient = torch.randn(2, 6, 8), torch.randn(2, 6, 8)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    total[0, 2] *= 100
    found = _weights(gradient, total, mask)
    assert float(found[0, 2]) < 1e-3
    torch.testing.assert_close(found.sum(dim=1) / mask.sum(dim=1), torch.ones(2))
    assert not found[1, 4:].any()
    only = torch.zeros_like(gradient)
    only[0, 2] = 1  # of a token that the answer reads alone, it does not matter how large it is
    assert float(_weights(only, total, mask)[0, 2]) == pytest.approx(3.0, abs=1e-3)


def test_a_sum_that_varies_less_counts_for_more() -> None:
    total = torch.randn(1, 4, 16)
    total[0, 0] /= 2
    mask = torch.ones(1, 4, dtype=torch.bool)
    found = _weights(None, total, mask)[0]
    products = found * total[0].var(dim=-1)
    torch.testing.assert_close(products, products[:1].expand(4))
