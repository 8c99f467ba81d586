"""The teacher: the dense model's residual stream on unlabelled texts, computed once per study."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from paretoformer.spaces.models.divergence import Answers
from paretoformer.spaces.models.tokens import Batch, token_mask
from paretoformer.spaces.recovery.dense_outputs import DenseAnswers, answer_of
from paretoformer.spaces.recovery.layerwise import Part, watched_sums

Key = tuple[int, Part]
Float32s = npt.NDArray[np.float32]

MASSIVE = 3.0
"""Massive: residual-stream deviation over 3x the text's median."""
EXAMPLES, TOKENS = 64, 4096
"""Approximate number of the held-out texts, or of their tokens, that repairs and screened
candidates are judged by."""
HARDLY = 1e-6
"""Relative weight of a token with massive activations."""


@dataclass(frozen=True)
class Texts:
    """Model inputs in batches. fit: for the repair. held: held out, to evaluate the repair.

    Raises:
        ValueError: fewer than two batches to repair from; one of them chooses the ridge.
    """

    fit: Sequence[Batch]
    held: Sequence[Batch]

    def __post_init__(self) -> None:
        if len(self.fit) < 2 or not self.held:
            raise ValueError("a repair needs texts in two batches, and some to judge it by.")


class Teacher:
    """The dense model's residual stream at each block, a weight for each token, and its outputs.

    A token's weight is half the inverse variance of the residual stream (because a norm removes its
    size) and half the squared gradient of `Answers.probe`, both of mean one over a text's tokens.
    So tokens without effect on the output, as most in a classifier's last layer, count less. Tokens
    with massive activations hardly count (`MASSIVE`).

    The residual streams are memory-mapped from files: 8·L·N·D bytes for L layers, N tokens and
    width D. The files are unlinked, so they vanish with the process. Processes on one machine can
    share the arrays of a teacher that is sent to them.

    model: dense, in evaluation mode. answers: the kind of predictions. held: its outputs on the
        held-out texts. held_sample: on some of them.
    """

    def __init__(
        self,
        model: nn.Module,
        texts: Texts,
        answers: Answers,
        seed: int = 0,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.model = model.eval()
        self.texts = texts
        self.answers = answers
        self._sums: dict[Key, Float32s] = {}
        self._weights: dict[Key, Float32s] = {}
        self._starts = [0]
        self.masks: list[torch.Tensor] = []
        with TemporaryDirectory(prefix="paretoformer-") as folder:  # mapped files stay readable
            self._watch(Path(folder), torch.Generator().manual_seed(seed), progress)
        self.held = DenseAnswers.of(self.model, texts.held, answers)
        self.held_sample = self.held.sample(EXAMPLES, TOKENS)

    def sums(self, layer: int, part: Part, batch: int) -> torch.Tensor:
        """(tokens, hidden) of a batch's real tokens, float32 on the CPU, as a copy."""
        return self._of(self._sums[layer, part], batch)

    def weights(self, layer: int, part: Part, batch: int) -> torch.Tensor:
        """(tokens,) of a batch's real tokens, as a copy."""
        return self._of(self._weights[layer, part], batch)

    def streams(self, layer: int, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The residual stream after a layer, of each batch, in the shape and type of `like`; zeros
        at padding."""
        found = []
        for index, (mask, each) in enumerate(zip(self.masks, like, strict=True)):
            stream = torch.zeros_like(each)
            stream[mask] = self.sums(layer, Part.FEED_FORWARD, index).to(each)
            found.append(stream)
        return found

    def _of(self, array: Float32s, batch: int) -> torch.Tensor:
        # A copy: shared arrays are read-only, and tensors cannot express that.
        return torch.from_numpy(array[self._starts[batch] : self._starts[batch + 1]].copy())

    @property
    def nbytes(self) -> int:
        """Bytes of the residual streams and weights."""
        return sum(each.nbytes for d in (self._sums, self._weights) for each in d.values())

    @property
    def known(self) -> Iterable[Key]:
        """Every block of the dense model."""
        return self._sums.keys()

    def divergence(self, model: nn.Module) -> float:
        """Mean nats between a model's predictions and the dense model's, on some held-out texts."""
        return self.held_sample.divergence(model)

    def _watch(
        self, folder: Path, generator: torch.Generator, progress: Callable[[int, int], None]
    ) -> None:
        weights: dict[Key, list[Float32s]] = {}
        width = 0
        for mask, found, gradients in self._passes(generator):
            self.masks.append(mask)
            self._starts.append(self._starts[-1] + int(mask.sum()))
            for key, total in found.items():
                width = total.shape[-1]
                with _file(folder, key).open("ab") as file:
                    total.detach()[mask].float().cpu().numpy().tofile(file)
                of_tokens = _weights(gradients[key], total.detach(), mask)
                weights.setdefault(key, []).append(of_tokens[mask].float().cpu().numpy())
            progress(len(self.masks), len(self.texts.fit))
        self._weights = {key: np.concatenate(each) for key, each in weights.items()}
        shape = self._starts[-1], width
        for key in weights:
            mapped = np.memmap(_file(folder, key), np.float32, mode="r+", shape=shape)
            self._sums[key] = np.asarray(mapped)  # an array, unlike a map, can be shared

    def _passes(
        self, generator: torch.Generator
    ) -> Iterator[tuple[torch.Tensor, dict[Key, torch.Tensor], dict[Key, Any]]]:
        """For each batch: mask, residual streams, and the gradients of the output by them."""
        with watched_sums(self.model) as found, torch.enable_grad():
            for batch in self.texts.fit:
                output = answer_of(self.model, batch)
                probe = self.answers.probe(output, generator, batch)
                gradients = torch.autograd.grad(probe, list(found.values()), allow_unused=True)
                mask = token_mask(batch, next(iter(found.values())))
                yield mask, dict(found), dict(zip(found, gradients, strict=True))


def _file(folder: Path, key: Key) -> Path:
    return folder / f"{key[0]}.{key[1].name.lower()}"


def _weights(
    gradient: torch.Tensor | None, total: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """(batch, length): half inverse variance, half squared gradient, each of mean one per text;
    nearly zero for tokens with massive activations, unless the output depends on nothing else.

    A norm removes the size of the residual stream, so relative error counts. Massive activations
    (Sun et al. 2024, arXiv:2402.17762) of a few tokens would otherwise dominate the solution,
    though a cut mostly changes them in their own direction, which the norm removes. Measured on
    MiniLM, half of the neurons of the first layer cut and repaired: 0.062 nats with uniform
    weights, 0.008 with these weights, 0.012 without repair.

    gradient, total: (batch, length, hidden). mask: (batch, length).
    """
    deviation = total.float().std(dim=-1).clamp_min(1e-12)
    usual = deviation.masked_fill(~mask, torch.nan).nanmedian(dim=1, keepdim=True).values
    counts = mask * torch.where(deviation > MASSIVE * usual, HARDLY, 1.0)
    weights = _of_mean_one(counts / deviation**2, mask)
    if gradient is None:  # the output does not depend on it
        return weights
    squares = gradient.float().square().sum(dim=-1)
    return 0.5 * weights + 0.5 * _of_mean_one(counts * squares, mask)


def _of_mean_one(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(batch, length): scaled to mean one over the real tokens of each text."""
    mean = values.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True)
    return values / mean.clamp_min(1e-30)
