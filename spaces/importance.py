"""Sensitivity: how much the loss would move if a head went, or a layer's mechanism changed.

To first order: the gradient of the loss with respect to a head's output, times the change of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from paretoformer.spaces.attention import build
from paretoformer.spaces.attention.interface import IMPLEMENTATION, MECHANISM
from paretoformer.spaces.candidate import FULL, AttentionChoice
from paretoformer.spaces.families import blocks_of, head_dim_of, shape_of
from paretoformer.spaces.heads import Scores
from paretoformer.spaces.surgery import share

Batch = Mapping[str, torch.Tensor]
Loss = Callable[[Any, torch.Tensor], torch.Tensor]

SWAP_EXAMPLES = 32
"""Examples on which mechanisms are tried: every setting in every layer, so a few must do."""


@dataclass(frozen=True)
class Sensitivity:
    """Mean over examples of the absolute first-order change of the loss.

    removed: (layers, heads), if a head's output were zero.
    swapped: (choices, layers, heads), if a head attended by another mechanism.
    """

    removed: Scores
    swapped: npt.NDArray[np.float64]

    @property
    def importance(self) -> Scores:
        """`removed`, divided by the layer's l2 norm, so that heads compare across layers."""
        norms = np.linalg.norm(self.removed, axis=1, keepdims=True)
        normed: Scores = np.divide(
            self.removed, norms, out=np.zeros_like(self.removed), where=norms > 0
        )
        return normed


def sensitivity(
    model: nn.Module,
    batches: Iterable[tuple[Batch, torch.Tensor]],
    loss: Loss,
    choices: Sequence[AttentionChoice] = (),
    progress: Callable[[int], None] = lambda examples: None,
) -> Sensitivity:
    """Score every attention head, and every choice of a mechanism for it.

    I(h) = mean over examples of |Σ ∂ loss(x) / ∂ out(h) · Δ out(h)|, the sum over tokens and width;
    Δ out(h) = -out(h) when the head is removed, which makes I(h) the gradient of a gate on it.

    Source: Michel, Levy, Neubig 2019 (arXiv:1905.10650), eq. 2 and section 4.1. Differs in: the
    absolute value is taken for each example and not for a batch; and a change of mechanism is
    scored in the same way as a removal, with the change that it makes to this head's output.

    model: a transformers model of a supported family; left as it was, in evaluation mode.
    batches: (inputs of the model, labels), at least one.
    loss: (model output, labels) -> the sum of the examples' losses.
    choices: mechanisms to try, on the first `SWAP_EXAMPLES` examples.
    progress: called with the number of examples after each batch.

    Raises:
        ValueError: the family is not supported, or there was no batch.
    """
    shape = shape_of(model.config)
    removed, swapped = np.zeros(shape), np.zeros((len(choices), *shape))
    examples = tried = 0
    model.eval()
    probed = share(model)
    probes = [_Probe() for _ in blocks_of(probed)]
    for block, probe in zip(blocks_of(probed), probes, strict=True):
        block.attention.add_module(MECHANISM, probe)
    cast(Any, probed).set_attn_implementation(IMPLEMENTATION)
    mechanisms = [build(choice, head_dim_of(model.config)) for choice in choices]
    for batch, labels in batches:
        with torch.enable_grad():
            value = loss(probed(**batch), labels)
        gradients = torch.autograd.grad(value, [probe.shift for probe in probes])
        trying = tried < SWAP_EXAMPLES
        with torch.no_grad():
            for layer, (probe, gradient) in enumerate(zip(probes, gradients, strict=True)):
                removed[layer] += _effect(gradient, probe.output, shape[1])
                for index, mechanism in enumerate(mechanisms if trying else ()):
                    change = mechanism.to(gradient.device)(*probe.inputs, **probe.call)
                    change = change - probe.output
                    swapped[index, layer] += _effect(gradient, change, shape[1])
        examples += len(labels)
        tried += len(labels) if trying else 0
        progress(len(labels))
    if not examples:
        raise ValueError("head importance needs at least one training example.")
    return Sensitivity(removed / examples, swapped / tried)


def head_importance(
    model: nn.Module,
    batches: Iterable[tuple[Batch, torch.Tensor]],
    loss: Loss,
    progress: Callable[[int], None] = lambda examples: None,
) -> Scores:
    """(layers, heads), larger matters more: `sensitivity(...).importance`."""
    return sensitivity(model, batches, loss, progress=progress).importance


class _Probe(nn.Module):
    """Exact attention that keeps what went in and came out, and a zero to differentiate by."""

    inputs: tuple[torch.Tensor, ...]
    call: dict[str, Any]
    output: torch.Tensor
    shift: torch.Tensor

    def forward(self, *inputs: torch.Tensor, **call: Any) -> torch.Tensor:
        output: torch.Tensor = build(FULL, inputs[0].shape[-1])(*inputs, **call)
        self.shift = torch.zeros_like(output, requires_grad=True)
        self.inputs = tuple(each.detach() for each in inputs)
        self.call, self.output = call, output.detach()
        return output + self.shift


def _effect(gradient: torch.Tensor, change: torch.Tensor, heads: int) -> npt.NDArray[np.float64]:
    """(heads,) sum over examples of |gradient · change|; query heads that share a key are one.

    gradient, change: (batch, query heads, length, head_dim).
    """
    products = (gradient.double() * change.double()).sum(dim=(2, 3))  # (batch, query heads)
    effect: npt.NDArray[np.float64] = (
        products.view(len(products), heads, -1).sum(dim=2).abs().sum(dim=0).cpu().numpy()
    )
    return effect
