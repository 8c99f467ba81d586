"""Texts for recovery: unlabelled, and not in a split that is scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch

from paretoformer.evaluators.data.examples import SplitName
from paretoformer.evaluators.data.workload import (
    UNLABELLED,
    Encoded,
    Split,
    Workload,
    in_order,
    leading_count,
)
from paretoformer.spaces.models.tokens import Step
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
"""Fewer texts are batched only once, so that a trainer may keep what the dense model answers; every
second batch is then of new texts, spliced of two. After four minutes on 939 texts of 15 tokens,
MiniLM without two layers was 0.021 nats from dense on 500 others, without new texts 0.024."""
CHUNK = 16
"""Batches whose examples are sorted by size together."""
TRAINING_BATCH = 32
LabelLoss = Callable[[Any, torch.Tensor], torch.Tensor]
"""(output, labels of its rows) -> their mean loss."""
BatchLoss = Callable[[Any], torch.Tensor]


def endless_batches(
    workload: Workload, device: str, seed: int, loss: LabelLoss | None = None
) -> Iterator[Step]:
    """The texts that are not held out, and those that ranked the heads, in endless epochs of random
    order.

    Each step is a batch of `TRAINING_BATCH` texts, or several batches if the workload limits their
    size.

    loss: by the labels of a batch; None: they are not used. Spliced texts have none.
    """
    first, *others = _training_splits(workload)
    held = _held(first.examples)
    pools = [Split(first.examples[held:], first.labels[held:]), *others]
    texts = [text for pool in pools for text in pool.examples]
    labels = [row for pool in pools for row in pool.labels] if has_labels(workload) else None
    rng = np.random.default_rng(seed)

    def epoch(texts: Sequence[Encoded], labels: Sequence[Any] | None = None) -> Iterator[Step]:
        of_rows = None if loss is None or labels is None else partial(_label_loss, loss, labels)
        return _epoch(workload, texts, device, rng, of_rows)

    if len(texts) > REPEATED:
        while True:
            yield from epoch(texts, labels)
    again = [replace(step, repeats=True) for step in epoch(texts, labels)]
    while True:
        new = epoch(_spliced(workload, texts, rng))
        for index in rng.permutation(len(again)):
            yield again[index]
            yield from islice(new, 1)


def has_labels(workload: Workload) -> bool:
    """Whether the labels of all texts that train are known."""
    return not any((split.labels == UNLABELLED).all() for split in _training_splits(workload))


def _training_splits(workload: Workload) -> list[Split]:
    """Those that train; of the first, some texts are held out."""
    names: list[SplitName] = ["recovery", "train"] if has_own_texts(workload) else ["train"]
    return [workload.splits[name] for name in names]


def _label_loss(loss: LabelLoss, labels: Sequence[Any], rows: Sequence[int]) -> BatchLoss:
    """output -> its loss by the labels of these rows."""
    wanted = torch.from_numpy(in_order({i: labels[row] for i, row in enumerate(rows)}))
    return lambda output: loss(output, wanted.to(output.logits.device))


def _epoch(
    workload: Workload,
    texts: Sequence[Encoded],
    device: str,
    random: np.random.Generator,
    loss_of: Callable[[Sequence[int]], BatchLoss] | None = None,
) -> Iterator[Step]:
    """loss_of: indices of texts -> the loss of a batch of them by their labels."""
    order = random.permutation(len(texts))
    parts = math.ceil(TRAINING_BATCH / workload.inputs.most)
    for start in range(0, len(order), CHUNK * TRAINING_BATCH):
        chunk = order[start : start + CHUNK * TRAINING_BATCH]
        made = list(workload.batches_of([texts[i] for i in chunk], device, TRAINING_BATCH))
        losses = [loss_of(chunk[rows].tolist()) for rows, _ in made] if loss_of else []
        batches = [batch for _, batch in made]
        steps = [
            Step(batches[i : i + parts], losses=losses[i : i + parts])
            for i in range(0, len(batches), parts)
        ]
        for index in random.permutation(len(steps)):
            yield steps[index]


def _spliced(
    workload: Workload, texts: Sequence[Encoded], random: np.random.Generator
) -> list[Encoded]:
    """As many new texts; none if the inputs cannot be spliced."""
    others = random.permutation(len(texts))
    found = (
        workload.inputs.spliced(text, texts[other], random)
        for text, other in zip(texts, others, strict=True)
    )
    return [text for text in found if text is not None]
