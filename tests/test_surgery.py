"""Surgery: a pruned head is gone, and the model answers as if its output were zero."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import paretoformer as pf
from paretoformer.spaces import AttentionChoice, Candidate, HeadMask
from paretoformer.spaces.families import FAMILIES, blocks_of
from paretoformer.spaces.importance import head_importance
from paretoformer.spaces.surgery import apply, count_parameters
from tests.tiny import HEADS, LAYERS

every_family = pytest.mark.parametrize("family", FAMILIES)

MASK = HeadMask(((True, False, True, False), (False, True, True, True)))
HEADLESS = HeadMask(((False,) * 4, (True, False, True, True)))
WINDOW = AttentionChoice.of("window", window=6, global_tokens=1)


def tiny(family: str) -> torch.nn.Module:
    torch.manual_seed(1)
    if family == "distilbert":
        sizes = {"dim": 32, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": 64}
    else:
        sizes = {
            "hidden_size": 32,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "intermediate_size": 64,
        }
    config = transformers.AutoConfig.for_model(
        family, vocab_size=100, max_position_embeddings=80, **sizes
    )
    model = transformers.AutoModelForSequenceClassification.from_config(
        config, attn_implementation="sdpa"
    )
    for parameter in model.parameters():  # biases start at zero, which would hide a lost one
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def inputs() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 100, (3, 40), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[0, 25:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs()).logits


def masked_logits(model: torch.nn.Module, mask: HeadMask) -> torch.Tensor:
    """Of the original model with the removed heads' outputs set to zero."""

    def zero(kept: tuple[bool, ...]):
        keep = torch.tensor(kept, dtype=torch.float32)

        def hook(module, arguments):
            hidden = arguments[0].unflatten(-1, (len(kept), -1)) * keep[:, None]
            return (hidden.flatten(-2), *arguments[1:])

        return hook

    blocks = blocks_of(model)
    hooks = [
        block.output.register_forward_pre_hook(zero(kept))
        for block, kept in zip(blocks, mask.kept, strict=True)
    ]
    result = logits(model)
    for hook in hooks:
        hook.remove()
    return result


@every_family
@pytest.mark.parametrize("mask", [MASK, HEADLESS, HeadMask.none(2, 4)])
def test_masked_head_and_pruned_head_give_equal_outputs(family: str, mask: HeadMask) -> None:
    model = tiny(family)
    pruned = apply(Candidate(mask), model).model
    torch.testing.assert_close(logits(pruned), masked_logits(model, mask), atol=1e-5, rtol=1e-5)


@every_family
def test_pruning_takes_away_exactly_the_weights_of_the_heads(family: str) -> None:
    model = tiny(family)
    applied = apply(Candidate(MASK), model)
    head = 4 * 32 * 8 + 3 * 8  # query, key, value, output columns and three biases
    assert applied.parameters_before - applied.parameters_after == 3 * head
    assert applied.parameters_after == count_parameters(applied.model)
    assert applied.removed_heads == (2, 1)


@every_family
def test_the_original_is_left_as_it_was(family: str) -> None:
    model = tiny(family)
    before, count = logits(model), count_parameters(model)
    apply(Candidate(HEADLESS, (WINDOW, WINDOW)), model)
    torch.testing.assert_close(logits(model), before, atol=0, rtol=0)
    assert count_parameters(model) == count
    assert model.config._attn_implementation == "sdpa"


@every_family
def test_untouched_tensors_are_shared(family: str) -> None:
    model = tiny(family)
    original = {id(parameter) for parameter in model.parameters()}
    pruned = apply(Candidate(HeadMask(((True,) * 4, (True, False, True, True)))), model).model
    own = [name for name, p in pruned.named_parameters() if id(p) not in original]
    assert len(own) == 7  # three weights and biases, and the output's weight


@every_family
def test_wide_window_equals_the_dense_model_and_a_narrow_one_does_not(family: str) -> None:
    model = tiny(family)
    wide = AttentionChoice.of("window", window=64, global_tokens=1)
    mask = HeadMask.all(LAYERS, HEADS)
    full = logits(apply(Candidate(mask, (wide, wide)), model).model)
    torch.testing.assert_close(full, logits(model), atol=1e-5, rtol=1e-5)
    narrow = logits(apply(Candidate(mask, (WINDOW, WINDOW)), model).model)
    assert (narrow - logits(model)).abs().max() > 1e-4


@every_family
def test_padded_tokens_change_nothing_in_a_compressed_model(family: str) -> None:
    model = apply(Candidate(MASK, (WINDOW, WINDOW)), tiny(family)).model
    batch = inputs()
    before = logits(model)
    with torch.no_grad():
        batch["input_ids"][0, 25:] = 7
        after = model(**batch).logits
    torch.testing.assert_close(before, after)


@every_family
def test_saved_model_loads_with_equal_logits(family: str, tmp_path: Path) -> None:
    model = pf.compress(tiny(family), Candidate(HEADLESS, (WINDOW, WINDOW)))
    loaded = pf.load_compressed(pf.save_compressed(model, tmp_path / "out"))
    torch.testing.assert_close(logits(loaded), logits(model), atol=0, rtol=0)
    assert count_parameters(loaded) == count_parameters(model)
    assert not list((tmp_path / "out").glob("*.bin"))


def test_dense_candidate_changes_nothing_and_says_so() -> None:
    applied = apply(Candidate.dense(LAYERS, HEADS), tiny("bert"))
    assert not applied.changed
    assert applied.swapped == {}


def test_candidate_of_another_shape_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"\(layers, heads\) = \(3, 4\), but the model has \(2, 4\)"
    ):
        apply(Candidate.dense(3, 4), tiny("bert"))


def test_model_that_was_compressed_already_is_refused() -> None:
    once = apply(Candidate(MASK), tiny("bert")).model
    with pytest.raises(ValueError, match="compressed already"):
        apply(Candidate(MASK), once)


def test_other_family_is_refused_with_those_supported() -> None:
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=9)
    with pytest.raises(ValueError, match=r"Unsupported model family 'gpt2'.*Supported: bert"):
        apply(Candidate.dense(1, 2), transformers.GPT2Model(config))


def test_folder_without_a_compressed_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no compression\.json"):
        pf.load_compressed(tmp_path)


def test_mask_of_other_shape_than_padding_is_refused() -> None:
    model = apply(Candidate(MASK, (WINDOW, WINDOW)), tiny("bert")).model
    batch = inputs() | {"attention_mask": torch.ones(3, 1, 40, 40)}
    with pytest.raises(ValueError, match=r"takes a padding mask \(batch, length\)"):
        model(**batch)


def test_importance_is_the_gradient_of_a_gate_on_each_head() -> None:
    """Against a finite difference on one example and one head."""
    model = tiny("bert").double()
    batch = {key: value[:1] for key, value in inputs().items()}
    labels = torch.tensor([1])

    def loss(output, labels):
        return torch.nn.functional.cross_entropy(output.logits, labels, reduction="sum")

    scores = head_importance(model, [(batch, labels)], loss)
    assert scores.shape == (LAYERS, HEADS)

    def gated(layer: int, head: int, gate: float) -> float:
        def hook(module, arguments):
            hidden = arguments[0].unflatten(-1, (HEADS, -1)).clone()
            hidden[:, :, head] *= gate
            return (hidden.flatten(-2), *arguments[1:])

        handle = blocks_of(model)[layer].output.register_forward_pre_hook(hook)
        with torch.no_grad():
            value = float(loss(model(**batch), labels))
        handle.remove()
        return value

    numeric = np.array(
        [
            [abs(gated(i, j, 1 + 1e-4) - gated(i, j, 1 - 1e-4)) / 2e-4 for j in range(HEADS)]
            for i in range(LAYERS)
        ]
    )
    numeric /= np.linalg.norm(numeric, axis=1, keepdims=True)
    np.testing.assert_allclose(scores, numeric, rtol=1e-4)


def test_importance_needs_an_example() -> None:
    with pytest.raises(ValueError, match="at least one training example"):
        head_importance(tiny("bert"), [], lambda output, labels: output)
