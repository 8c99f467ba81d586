"""Head importance: how much the loss would move if a head's output shrank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from paretoformer.spaces.families import blocks_of, shape_of
from paretoformer.spaces.heads import Scores

Batch = Mapping[str, torch.Tensor]
Loss = Callable[[Any, torch.Tensor], torch.Tensor]


def head_importance(
    model: nn.Module,
    batches: Iterable[tuple[Batch, torch.Tensor]],
    loss: Loss,
    progress: Callable[[int], None] = lambda examples: None,
) -> Scores:
    """Score every attention head by the gradient of the loss with respect to a gate on its output.

    I(h) = mean over examples of |∂ loss(x) / ∂ gate(h)| at gate = 1, then divided by the layer's
    l2 norm, so that scores compare across layers.

    Source: Michel, Levy, Neubig 2019 (arXiv:1905.10650), eq. 2 and section 4.1. Differs in: the
    gate stands in front of the output projection, one for each example of a batch, so the absolute
    value is taken for each example and not for the batch.

    model: a transformers model of a supported family; left in evaluation mode.
    batches: (inputs of the model, labels), at least one.
    loss: (model output, labels) -> the sum of the examples' losses.
    progress: called with the number of examples after each batch.

    Returns (layers, heads), larger matters more.

    Raises:
        ValueError: the family is not supported, or there was no batch.
    """
    layers, heads = shape_of(model.config)
    total = np.zeros((layers, heads))
    examples = 0
    gates: list[torch.Tensor] = []

    def gate(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden = inputs[0]  # (batch, length, heads * head_dim)
        ones = hidden.new_ones(hidden.shape[0], 1, heads, 1, requires_grad=True)
        gates.append(ones)
        gated = hidden.unflatten(-1, (heads, -1)) * ones
        return (gated.flatten(-2), *inputs[1:])

    model.eval()
    hooks = [block.output.register_forward_pre_hook(gate) for block in blocks_of(model)]
    try:
        for batch, labels in batches:
            gates.clear()
            with torch.enable_grad():
                value = loss(model(**batch), labels)
            gradients = torch.autograd.grad(value, gates)  # layers x (batch, 1, heads, 1)
            for layer, gradient in enumerate(gradients):
                total[layer] += gradient.abs().sum(dim=(0, 1, 3)).double().cpu().numpy()
            examples += len(labels)
            progress(len(labels))
    finally:
        for hook in hooks:
            hook.remove()
    if not examples:
        raise ValueError("head importance needs at least one training example.")
    scores = total / examples
    norms = np.linalg.norm(scores, axis=1, keepdims=True)
    normed: Scores = np.divide(scores, norms, out=np.zeros_like(scores), where=norms > 0)
    return normed
