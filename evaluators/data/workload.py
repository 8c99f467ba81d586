"""The workload: encoded splits, and the batches for measurements."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.data.examples import SplitName

Encoded = Mapping[str, np.ndarray]
"""One example: input name -> array, without padding."""

IGNORED = -100
"""Label of an unscored token, which torch's cross entropy ignores."""

STEERING_TOKENS, STEERING_LEAST = 16_384, 64
"""Limit of the tokens that steer a search, and the examples that there are at least: outputs are
compared token by token or as distributions, which scatter less than a score."""

SCORING_BATCH = 32
"""Examples per batch if the batch size does not change outputs."""


@dataclass(frozen=True)
class Split:
    """Encoded examples and their labels; all -1 if unknown.

    labels: (examples,), or (examples, tokens) for one label per token.
    """

    examples: tuple[Encoded, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


class Inputs(ABC):
    """Converts encoded examples to model inputs, on the CPU.

    most: maximum batch size, if outputs for more would not fit into memory.
    """

    most: int = 2**31

    @abstractmethod
    def size(self, example: Encoded) -> int:
        """The size of an example; similar sizes share a batch."""

    @abstractmethod
    def collate(self, examples: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """One batch, padded to its longest example."""

    @abstractmethod
    def timing(self, examples: Sequence[Encoded], target: Target) -> dict[str, torch.Tensor]:
        """Inputs of the target's batch size and length, made from real examples."""


@dataclass(frozen=True)
class Workload:
    """The data that every candidate is measured on."""

    splits: Mapping[SplitName, Split]
    inputs: Inputs
    remarks: tuple[Remark, ...] = ()

    @property
    def steering(self) -> Split:
        """The examples that steer a search: of the split `steer` if there is one, else `search`."""
        if "steer" not in self.splits:
            return self.splits["search"]
        return self.leading(self.splits["steer"], STEERING_TOKENS, least=STEERING_LEAST)

    def leading(self, split: Split, tokens: int, least: int) -> Split:
        """The leading examples with at most so many tokens in total; at least `least`."""
        count = leading(self.inputs, split.examples, tokens, least)
        return Split(split.examples[:count], split.labels[:count])

    @property
    def digest(self) -> str:
        """SHA-256 of inputs and labels, to detect data that changed during a run.

        Without the splits `steer` and `recovery`: results that depend on them are stored in the
        run.
        """
        digest = hashlib.sha256()
        for name in sorted(self.splits.keys() - {"steer", "recovery"}):
            split = self.splits[name]
            for example in split.examples:
                for key in sorted(example):
                    digest.update(example[key].tobytes())
            digest.update(split.labels.tobytes())
        return digest.hexdigest()

    def batches(
        self, split: Split, device: str, size: int = SCORING_BATCH
    ) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
        """(indices into the split, model inputs), grouped by size to reduce padding."""
        return self.batches_of(split.examples, device, size)

    def batches_of(
        self, examples: Sequence[Encoded], device: str, size: int = SCORING_BATCH
    ) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
        """As `batches`, without labels."""
        size = min(size, self.inputs.most)
        order = np.argsort([self.inputs.size(example) for example in examples], kind="stable")
        for start in range(0, len(order), size):
            indices = order[start : start + size]
            batch = self.inputs.collate([examples[i] for i in indices])
            yield indices, {key: value.to(device) for key, value in batch.items()}

    def timing_batch(self, target: Target) -> dict[str, torch.Tensor]:
        """Inputs of exactly (batch_size, sequence_length), on the target's device."""
        made = self.inputs.timing(self.splits["search"].examples, target)
        return {key: value.to(target.device) for key, value in made.items()}

    def training_batches(
        self, count: int, device: str, size: int = SCORING_BATCH
    ) -> list[dict[str, torch.Tensor]]:
        """Inputs of the first `count` training examples, in batches of similar size."""
        train = self.splits["train"]
        some = Split(train.examples[:count], train.labels[:count])
        return [inputs for _, inputs in self.batches(some, device, size)]


def leading(inputs: Inputs, examples: Sequence[Encoded], tokens: int, least: int = 1) -> int:
    """Number of leading examples with at most so many tokens in total; at least `least`."""
    sizes = np.cumsum([inputs.size(example) for example in examples])
    return min(len(examples), max(least, int((sizes <= tokens).sum())))


def in_order(rows: Mapping[int, np.ndarray]) -> np.ndarray:
    """(examples, ...): predictions in order of example, padded with `IGNORED`."""
    every = [np.asarray(rows[index]) for index in range(len(rows))]
    if every[0].ndim == 0 or all(len(row) == len(every[0]) for row in every):
        return np.stack(every)
    longest = max(map(len, every))
    return np.stack(
        [np.pad(row, (0, longest - len(row)), constant_values=IGNORED) for row in every]
    )
