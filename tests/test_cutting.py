"""Cutting: heads, neurons and layers are gone, and the model answers as if they did nothing."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_model, save_model
from torch import nn

from paretoformer.spaces.models.families import (
    FAMILIES,
    blocks_of,
    family_of,
    implementation_of,
    layers_of,
    neurons_of,
)
from paretoformer.spaces.models.surgery import (
    ConstantOutput,
    count_parameters,
    fold_scales,
    keep_heads,
    keep_layers,
    keep_neurons,
    share,
)
from tests import test_surgery
from tests.test_surgery import every_family, inputs, logits

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS, HEADS, NEURONS = 5, 4, 64
SOME = (0, 3, 4, 17, 30, 63)
WIDTHS = (SOME, (), tuple(range(NEURONS)), (5,), tuple(range(0, NEURONS, 3)))
"""The neurons that each layer keeps."""
HEADS_KEPT = ((1,), (), (0, 2), (0, 1, 2, 3), (0, 2, 3))

STANDS_FOR: dict[tuple[bool, ...], Mapping[int, int]] = {
    (True, False, False, True, True): {0: 2, 3: 3, 4: 4},
    (True, True, False, True, False): {0: 0, 1: 2, 3: 4},
    (False, False, True, False, False): {2: 4},
    (False, True, False, False, True): {1: 3, 4: 4},
}
"""Mask -> each kept layer with the last layer that it stands for."""
every_mask = pytest.mark.parametrize("kept", STANDS_FOR, ids=str)
KEPT = (False, True, False, False, True)

POST_NORM = {"bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert"}
POST_NORM |= {"ernie", "mpnet", "deberta-v2", "nomic_bert", "gte"}
GATED = {*test_surgery.GROUPED, "modernbert", "nomic_bert", "gte"}
NEURON_PARAMETERS = {family: 3 * 32 if family in GATED else 2 * 32 + 1 for family in FAMILIES}
"""Input rows, their biases, output columns."""


def tiny(family: str, head: str = "", **settings: Any) -> Any:
    """As in `test_surgery`, but with five layers of 64 neurons."""
    model: Any = test_surgery.tiny(family, head)
    settings = {"num_hidden_layers": LAYERS} | settings
    if family == "gpt2":
        settings |= {"n_inner": NEURONS}
    if kinds := getattr(model.config, "layer_types", None):
        settings |= {"layer_types": (kinds * LAYERS)[:LAYERS]}
    for name, value in settings.items():
        setattr(model.config, name, value)
    model = type(model)(model.config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    fold_scales(model)
    return model.eval()


def narrow(model: nn.Module, widths: Sequence[tuple[int, ...]] = WIDTHS) -> nn.Module:
    """A copy whose layers keep these neurons."""
    cut = share(model)
    for block, kept in zip(blocks_of(cut), widths, strict=True):
        keep_neurons(block, kept, neurons_of(cut.config))
    return cut


def shallow(model: nn.Module, kept: Sequence[bool]) -> Any:
    """A copy that keeps these layers."""
    cut = share(model)
    keep_layers(cut, kept)
    return cut


def mixed(model: nn.Module) -> Any:
    """A copy cut in every way: the first layer that stays has no heads and no neurons."""
    cut = narrow(model)
    for block, heads in zip(blocks_of(cut), HEADS_KEPT, strict=True):
        keep_heads(block, heads, HEADS)
    keep_layers(cut, KEPT)
    return cut


def zeroed(model: nn.Module, widths: Sequence[tuple[int, ...]] = WIDTHS) -> nn.Module:
    """A copy with the activations of the other neurons set to zero."""

    def zero(kept: tuple[int, ...]) -> Callable[..., Any]:
        keep = torch.zeros(NEURONS)
        keep[list(kept)] = 1
        return lambda module, arguments: (arguments[0] * keep,)

    reference = share(model)
    for block, kept in zip(blocks_of(reference), widths, strict=True):
        block.feed_forward_output.register_forward_pre_hook(zero(kept))
    return reference


def skipped(model: nn.Module, kept: tuple[bool, ...]) -> nn.Module:
    """A copy whose removed layers are the identity, and whose kept ones take over norms."""
    reference = share(model)
    in_tuples = model.config.model_type in ("mpnet", "deberta-v2")  # as layers give their output
    for layer, last in STANDS_FOR[kept].items():
        if path := family_of(model.config).output_norm:
            blocks_of(reference)[layer].set(path, blocks_of(model)[last].get(path))
    for block, stays in zip(blocks_of(reference), kept, strict=True):
        if not stays:
            block.layer.forward = lambda hidden_states, *rest, **named: (
                (hidden_states, None) if in_tuples else hidden_states
            )
    return reference


def same_answers(model: nn.Module, reference: nn.Module) -> None:
    torch.testing.assert_close(logits(model), logits(reference), atol=1e-5, rtol=1e-5)


@every_family
def test_removed_neuron_and_zeroed_neuron_give_equal_outputs(family: str) -> None:
    model = tiny(family)
    same_answers(narrow(model), zeroed(model))
    assert (logits(model) - logits(zeroed(model))).abs().max() > 1e-3


@every_family
def test_block_without_neurons_in_every_layer_keeps_its_bias(family: str) -> None:
    model = tiny(family)
    cut = narrow(model, [()] * LAYERS)
    same_answers(cut, zeroed(model, [()] * LAYERS))
    for before, after in zip(blocks_of(model), blocks_of(cut), strict=True):
        assert isinstance(after.feed_forward_output, ConstantOutput)
        assert after.feed_forward_output.bias is before.feed_forward_output.bias


@every_family
def test_cutting_neurons_takes_away_exactly_their_weights(family: str) -> None:
    model = tiny(family)
    removed = count_parameters(model) - count_parameters(narrow(model))
    gone = sum(NEURONS - len(kept) for kept in WIDTHS)
    assert removed == gone * NEURON_PARAMETERS[family]


@every_family
def test_no_linear_layer_has_width_zero(family: str) -> None:
    weights = [parameter.numel() for parameter in mixed(tiny(family)).parameters()]
    assert min(weights) > 0


@every_family
def test_cut_block_shares_the_tensors_that_did_not_change(family: str) -> None:
    model = tiny(family)
    original = {id(parameter) for parameter in model.parameters()}
    cut = narrow(model, [SOME, *[tuple(range(NEURONS))] * (LAYERS - 1)])
    own = [name for name, each in cut.named_parameters() if id(each) not in original]
    # Weight and bias in front, or gate and up, or both in one; and the weight behind.
    assert len(own) == (2 if family == "modernbert" else 3)


@every_family
@every_mask
def test_removed_layer_and_identity_give_equal_outputs(family: str, kept: tuple[bool, ...]) -> None:
    model = tiny(family)
    same_answers(shallow(model, kept), skipped(model, kept))


@every_family
def test_removing_layers_takes_away_exactly_their_weights(family: str) -> None:
    model = tiny(family)
    cut = shallow(model, KEPT)
    removed = itertools.compress(layers_of(model), map(operator.not_, KEPT))
    sizes = sum(map(count_parameters, removed))
    assert count_parameters(model) - count_parameters(cut) == sizes
    original = {id(parameter) for parameter in model.parameters()}
    assert all(id(parameter) in original for parameter in cut.parameters())


@every_family
def test_heads_neurons_and_layers_are_cut_in_any_order(family: str) -> None:
    model = tiny(family)
    other = shallow(model, KEPT)
    for block, layer in zip(blocks_of(other), (1, 4), strict=True):
        keep_heads(block, HEADS_KEPT[layer], HEADS)
        keep_neurons(block, WIDTHS[layer], NEURONS)
    first = mixed(model)
    assert count_parameters(first) == count_parameters(other)
    torch.testing.assert_close(logits(first), logits(other), atol=0, rtol=0)


@every_family
def test_the_original_is_left_as_it_was(family: str) -> None:
    model = tiny(family)
    before, count, config = logits(model), count_parameters(model), model.config.to_dict()
    modules = [name for name, _ in model.named_modules()]
    mixed(model)
    torch.testing.assert_close(logits(model), before, atol=0, rtol=0)
    assert (count_parameters(model), model.config.to_dict()) == (count, config)
    assert [name for name, _ in model.named_modules()] == modules


@every_family
def test_every_config_of_the_copy_has_its_number_of_layers(family: str) -> None:
    cut = shallow(tiny(family), KEPT)
    held = [module.config for module in cut.modules() if hasattr(module, "config")]
    assert all(config.num_hidden_layers == 2 == len(layers_of(cut)) for config in held)
    assert all(len(getattr(config, "layer_types", None) or (1, 2)) == 2 for config in held)


@every_family
def test_layers_are_numbered_from_zero(family: str) -> None:
    for number, layer in enumerate(layers_of(mixed(tiny(family)))):
        held = (getattr(module, "layer_idx", None) for module in layer.modules())
        assert {index for index in held if index is not None} <= {number}


@every_family
def test_hidden_states_are_those_of_the_kept_layers(family: str) -> None:
    model = tiny(family)
    with torch.no_grad():
        model(**inputs(model), output_hidden_states=True)  # leaves hooks in the layers
        states = shallow(model, KEPT)(**inputs(model), output_hidden_states=True).hidden_states
    assert len(states) == 3


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_feed_forward_in_chunks_gives_equal_outputs(family: str) -> None:
    model = tiny(family, chunk_size_feed_forward=8)
    same_answers(narrow(model), zeroed(model))


@every_family
def test_dense_config_with_the_same_cuts_loads_the_weights(family: str, tmp_path: Path) -> None:
    """A saved config says how many layers stay; cutting starts from how many there were."""
    model = tiny(family)
    saved = mixed(model)
    save_model(saved, str(tmp_path / "weights"))
    saved.config.save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    config._attn_implementation = implementation_of(config)
    config.num_hidden_layers = LAYERS
    if getattr(config, "layer_types", None):
        config.layer_types = ["full_attention"] * LAYERS
    loaded = mixed(type(model)(config))
    load_model(loaded, str(tmp_path / "weights"), strict=True)
    torch.testing.assert_close(logits(loaded.eval()), logits(saved), atol=0, rtol=0)


def test_removed_layer_keeps_the_scale_of_those_behind_it() -> None:
    model = tiny("gpt2", scale_attn_by_inverse_layer_idx=True)
    same_answers(shallow(model, KEPT), skipped(model, KEPT))


@every_family
def test_gradients_reach_every_projection_of_a_cut_model(family: str) -> None:
    model = mixed(tiny(family))
    model(**inputs(model)).logits.square().sum().backward()
    left = [name for name, each in layers_of(model).named_parameters() if each.grad is None]
    # A norm in front of an empty block is left out; it has no effect.
    assert all("norm" in name or ".ln_" in name for name in left)


@pytest.mark.parametrize(
    ("settings", "neurons"), [({}, 128), ({"n_inner": 48}, 48), ({"n_inner": None}, 128)]
)
def test_gpt2_has_four_times_its_width_unless_it_says_otherwise(
    settings: dict[str, Any], neurons: int
) -> None:
    assert neurons_of(transformers.GPT2Config(n_embd=32, **settings)) == neurons


@every_family
def test_families_that_normalise_after_the_sum_name_the_norm(family: str) -> None:
    norm = FAMILIES[family].output_norm
    assert bool(norm) == (family in POST_NORM)
    assert all(not norm or isinstance(b.get(norm), nn.LayerNorm) for b in blocks_of(tiny(family)))


def test_last_layer_cannot_be_removed() -> None:
    model = tiny("bert")
    with pytest.raises(ValueError, match="at least one layer must stay, but all 5 would be"):
        keep_layers(model, [False] * LAYERS)
    assert len(layers_of(model)) == LAYERS


def test_mask_of_another_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="2 layers were given, but the model has 5"):
        keep_layers(tiny("bert"), [True, False])


def test_block_of_another_width_is_refused() -> None:
    block = blocks_of(narrow(tiny("bert")))[0]
    with pytest.raises(ValueError, match="should have 64 neurons, but has 6"):
        keep_neurons(block, (0, 1), NEURONS)


@pytest.mark.parametrize("kept", [SOME, ()])
@pytest.mark.parametrize("path", ["intermediate.dense", "output.dense"])
def test_projection_that_is_no_plain_linear_layer_is_refused(
    path: str, kept: tuple[int, ...]
) -> None:
    block = blocks_of(tiny("bert"))[0]

    class Adapted(nn.Linear):
        pass

    block.set(path, Adapted(*reversed(block.get(path).weight.shape)))
    with pytest.raises(ValueError, match=f"{path} is a Adapted, but surgery cuts plain"):
        keep_neurons(block, kept, NEURONS)
    keep_neurons(block, tuple(range(NEURONS)), NEURONS)  # cuts nothing
