"""Sensitivity: the change of the loss when a part of the model is removed.

To first order: the gradient of the loss with respect to the part's output, times its change. One
forward and one backward pass over the training examples serve the probes of all axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from paretoformer.spaces.axes.evidence import Probe
from paretoformer.spaces.models.families import Block, blocks_of
from paretoformer.spaces.models.surgery import share

Batch = Mapping[str, torch.Tensor]
Loss = Callable[[Any, torch.Tensor], torch.Tensor]


def sensitivity(
    model: nn.Module,
    batches: Iterable[tuple[Batch, torch.Tensor]],
    loss: Loss,
    probes: Mapping[str, Probe],
    progress: Callable[[int], None] = lambda examples: None,
) -> dict[str, dict[str, Any]]:
    """The findings of each probe, by its name.

    model: a transformers model of a supported family; in evaluation mode, not changed.
    batches: (inputs of the model, labels), at least one.
    loss: (model output, labels) -> the sum of the examples' losses.
    progress: called with the number of examples after each batch.

    Raises:
        ValueError: the family is not supported, or there was no batch.
    """
    model.eval()
    probed = share(model)
    for probe in probes.values():
        probe.install(probed)
    examples = 0
    for batch, labels in batches:
        with torch.enable_grad():
            value = loss(probed(**batch), labels)
        _differentiate(value, list(probes.values()))
        examples += len(labels)
        progress(len(labels))
    if not examples:
        raise ValueError("sensitivity needs at least one training example.")
    return {name: probe.found(examples) for name, probe in probes.items()}


def _differentiate(value: torch.Tensor, probes: Sequence[Probe]) -> None:
    """One backward pass; each probe gets the gradients of its own leaves."""
    leaves = [list(probe.leaves()) for probe in probes]
    flat = [leaf for each in leaves for leaf in each]
    gradients = iter(torch.autograd.grad(value, flat) if flat else ())
    for probe, own in zip(probes, leaves, strict=True):
        probe.update([next(gradients) for _ in own])


class OutputProbe(Probe):
    """Scores groups of a projection's inputs: heads, or neurons.

    I(g) = mean over examples of |Σ ∂ loss(x) / ∂ a(g) · a(g)|, the sum over tokens and width, which
    is the gradient of a gate on the group's activations a(g).

    Source: Michel, Levy, Neubig 2019 (arXiv:1905.10650), eq. 2, for heads; Molchanov et al. 2017
    (arXiv:1611.06440), eq. 8, for neurons. Differs in: absolute value per example, not per batch.

    projection: block -> the projection whose inputs are scored. groups: of equal width.
    """

    def __init__(self, projection: Callable[[Block], nn.Module], groups: int) -> None:
        self._projection = projection
        self._groups = groups
        self._inputs: dict[int, torch.Tensor] = {}
        self._totals: list[np.ndarray] = []

    def install(self, model: nn.Module) -> None:
        for layer, block in enumerate(blocks_of(model)):
            self._totals.append(np.zeros(self._groups))
            self._projection(block).register_forward_pre_hook(self._hook(layer))

    def _hook(self, layer: int) -> Callable[[nn.Module, Any], Any]:
        def keep(module: nn.Module, arguments: Any) -> Any:
            hidden = arguments[0]
            if not hidden.requires_grad:
                hidden = hidden.detach().requires_grad_()
            self._inputs[layer] = hidden
            return (hidden, *arguments[1:])

        return keep

    def leaves(self) -> Sequence[torch.Tensor]:
        return [self._inputs[layer] for layer in range(len(self._totals))]

    def update(self, gradients: Sequence[torch.Tensor]) -> None:
        for layer, (hidden, gradient) in enumerate(zip(self.leaves(), gradients, strict=True)):
            products = hidden.detach().double() * gradient.double()  # (batch, length, inputs)
            each = products.flatten(1, -2).sum(dim=1).unflatten(-1, (self._groups, -1)).sum(dim=-1)
            self._totals[layer] += each.abs().sum(dim=0).cpu().numpy()

    def found(self, examples: int) -> dict[str, Any]:
        """`removed`: (layers, groups), in units of the loss."""
        return {"removed": tuple(tuple((total / examples).tolist()) for total in self._totals)}
