"""Texts for recovery: unlabelled, and not in a split that is scored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from paretoformer.evaluators.data.workload import Encoded, Workload, leading_count
from paretoformer.spaces.recovery.teacher import Texts

RECOVERY_AT_LEAST = 128
"""With fewer texts of its own, recovery uses the training examples."""
FIT_TOKENS = 16_384
"""Tokens for solving a repair: about ten per unknown of a row."""
FIT_EXAMPLES = 512
HELD_TOKENS = 8_192
"""Held-out tokens that test whether a repair helped."""
HELD_EXAMPLES = 128
LEAST_SHARE = 0.5
"""Smallest share of these tokens: with fewer, repairs are worse."""
BATCH = 16
BATCHES = 8
"""Minimum number of batches, given enough texts: some of them select the ridge."""


def recovery_texts(workload: Workload, device: str, examples: int = FIT_EXAMPLES) -> Texts:
    """At most `examples` texts for solving a repair, and held-out texts."""
    every = recovery_pool(workload)
    share = repair_share(workload)
    held = leading_count(workload.inputs, every[: _held(every)], int(share * HELD_TOKENS))
    tokens = int(share * FIT_TOKENS)
    fit = leading_count(workload.inputs, every[held:][:examples], tokens, least=2)
    return Texts(
        _batches(workload, every[held : held + fit], device),
        _batches(workload, every[:held], device),
    )


def repair_share(workload: Workload) -> float:
    """Share of the usual tokens that repairs are solved from."""
    return max(LEAST_SHARE, workload.prepared)


def recovery_pool(workload: Workload) -> Sequence[Encoded]:
    """The split `recovery`, or the training split if that is too small."""
    return workload.splits["recovery" if has_own_texts(workload) else "train"].examples


def has_own_texts(workload: Workload) -> bool:
    """Whether recovery has enough texts of its own."""
    return "recovery" in workload.splits and len(workload.splits["recovery"]) >= RECOVERY_AT_LEAST


def _held(every: Sequence[Encoded]) -> int:
    """Maximum number of texts to hold out."""
    return min(HELD_EXAMPLES, len(every) // 4)


def _batches(
    workload: Workload, examples: Sequence[Encoded], device: str
) -> list[dict[str, torch.Tensor]]:
    size = min(BATCH, max(1, len(examples) // BATCHES))
    return [batch for _, batch in workload.batches_of(examples, device, size)]


REPEATED = 4096
"""Fewer texts are batched only once, so that a trainer may keep what the dense model answers."""
CHUNK = 16
"""Batches whose examples are sorted by size together."""
TRAINING_BATCH = 32


def endless_batches(
    workload: Workload, device: str, seed: int
) -> Iterator[Sequence[Mapping[str, torch.Tensor]]]:
    """The texts that are not held out, in endless epochs of random order.

    Each element is one training step: a batch of `TRAINING_BATCH` texts, or several batches if the
    workload limits their size. Each epoch of a few texts has the same batches.
    """
    every = recovery_pool(workload)
    pool = every[_held(every) :]
    rng = np.random.default_rng(seed)
    parts = math.ceil(TRAINING_BATCH / workload.inputs.most)

    def epoch() -> Iterator[Sequence[Mapping[str, torch.Tensor]]]:
        order = rng.permutation(len(pool))
        for start in range(0, len(order), CHUNK * TRAINING_BATCH):
            chunk = [pool[i] for i in order[start : start + CHUNK * TRAINING_BATCH]]
            batches = [b for _, b in workload.batches_of(chunk, device, TRAINING_BATCH)]
            steps = [batches[i : i + parts] for i in range(0, len(batches), parts)]
            for index in rng.permutation(len(steps)):
                yield steps[index]

    known = list(epoch()) if len(pool) <= REPEATED else []
    while True:
        for index in rng.permutation(len(known)):
            yield known[index]
        if not known:
            yield from epoch()
