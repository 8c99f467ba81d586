"""Texts for recovery: unlabelled, and in no split that is measured on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from paretoformer.evaluators.data.workload import Encoded, Workload
from paretoformer.spaces.recovery.teacher import Texts

RECOVERY_AT_LEAST = 128
"""With fewer texts of its own, recovery uses those that rank the heads."""
FIT_TOKENS = 16_384
"""Tokens that a repair is solved from: about ten for each unknown of a row."""
FIT_EXAMPLES = 512
HELD_TOKENS = 8_192
"""Tokens that show whether a repair helped."""
HELD_EXAMPLES = 128
BATCH = 16
BATCHES = 8
"""The least number of batches, if there are enough texts: some of them choose the ridge."""


def recovery_texts(workload: Workload, device: str, examples: int = FIT_EXAMPLES) -> Texts:
    """Texts to solve a repair from, at most `examples`, and texts held out from that."""
    every = recovery_pool(workload)
    held = _first(workload, every, _held(every), HELD_TOKENS)
    fit = _first(workload, every[held:], examples, FIT_TOKENS, least=2)
    return Texts(
        _batches(workload, every[held : held + fit], device),
        _batches(workload, every[:held], device),
    )


def recovery_pool(workload: Workload) -> Sequence[Encoded]:
    """The examples of the split `recovery`, or where those are too few, of the training split."""
    return workload.splits["recovery" if has_own_texts(workload) else "train"].examples


def has_own_texts(workload: Workload) -> bool:
    """Whether recovery has enough texts that nothing else uses."""
    return "recovery" in workload.splits and len(workload.splits["recovery"]) >= RECOVERY_AT_LEAST


def _held(every: Sequence[Encoded]) -> int:
    """The number of texts to hold out, at most."""
    return min(HELD_EXAMPLES, len(every) // 4)


def _first(
    workload: Workload, examples: Sequence[Encoded], most: int, tokens: int, least: int = 1
) -> int:
    """The number of first examples that have at most `tokens` tokens together; at least `least`."""
    count = total = 0
    for example in examples[:most]:
        total += workload.inputs.size(example)
        if count >= least and total > tokens:
            break
        count += 1
    return count


def _batches(
    workload: Workload, examples: Sequence[Encoded], device: str
) -> list[dict[str, torch.Tensor]]:
    size = min(BATCH, max(1, len(examples) // BATCHES))
    return [batch for _, batch in workload.batches_of(examples, device, size)]


CHUNK = 16
"""Batches whose examples are sorted by size together."""
TRAINING_BATCH = 32


def endless_batches(
    workload: Workload, device: str, seed: int
) -> Iterator[Sequence[Mapping[str, torch.Tensor]]]:
    """The texts that are not held out, again and again, each time in another order.

    Each element is for one step of training: a batch of `TRAINING_BATCH` texts or, where a batch of
    the workload holds fewer, as many batches as hold at least that many.
    """
    every = recovery_pool(workload)
    pool = every[_held(every) :]
    rng = np.random.default_rng(seed)
    parts = math.ceil(TRAINING_BATCH / workload.inputs.most)
    while True:
        order = rng.permutation(len(pool))
        for start in range(0, len(order), CHUNK * TRAINING_BATCH):
            chunk = [pool[i] for i in order[start : start + CHUNK * TRAINING_BATCH]]
            batches = [b for _, b in workload.batches_of(chunk, device, TRAINING_BATCH)]
            steps = [batches[i : i + parts] for i in range(0, len(batches), parts)]
            for index in rng.permutation(len(steps)):
                yield steps[index]
