"""The workload: encoded splits, and the batches that measurements run on."""

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
"""One example: input name -> its numbers, without padding."""

IGNORED = -100
"""The label of a token that is not scored: torch's cross entropy leaves it out."""

SCORING_BATCH = 32
"""Examples of a batch where their number changes no answer."""


@dataclass(frozen=True)
class Split:
    """Encoded examples and their labels, all of them -1 where they are not known.

    labels: (examples,), or (examples, tokens) of a task that labels each token.
    """

    examples: tuple[Encoded, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


class Inputs(ABC):
    """How encoded examples become the inputs of a model, on the CPU.

    most: examples of a batch, where the answers to more would not fit into memory.
    """

    most: int = 2**31

    @abstractmethod
    def size(self, example: Encoded) -> int:
        """The size of an example; those of similar sizes share a batch."""

    @abstractmethod
    def collate(self, examples: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """One batch, padded to its longest example."""

    @abstractmethod
    def timing(self, examples: Sequence[Encoded], target: Target) -> dict[str, torch.Tensor]:
        """Inputs of the target's batch size and length, made of real ones."""


@dataclass(frozen=True)
class Workload:
    """The data that every candidate is measured on."""

    splits: Mapping[SplitName, Split]
    inputs: Inputs
    remarks: tuple[Remark, ...] = ()

    @property
    def steering(self) -> Split:
        """The examples that steer a search: its own, or those that it measures on."""
        return self.splits.get("steer", self.splits["search"])

    @property
    def digest(self) -> str:
        """SHA-256 of every number and label, to notice data that changed during a run.

        Without the texts that steer the search or are for recovery: results that depend on them
        are kept with the run.
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
        """(indices into the split, inputs of the model): examples of similar sizes share a batch,
        so little of it is padding."""
        return self.batches_of(split.examples, device, size)

    def batches_of(
        self, examples: Sequence[Encoded], device: str, size: int = SCORING_BATCH
    ) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
        """As `batches`, of examples without their labels."""
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
        """The inputs of the first `count` training examples, in batches of like sizes."""
        train = self.splits["train"]
        some = Split(train.examples[:count], train.labels[:count])
        return [inputs for _, inputs in self.batches(some, device, size)]


def in_order(rows: Mapping[int, np.ndarray]) -> np.ndarray:
    """(examples, ...) the answer to each example by its number; shorter ones end in `IGNORED`."""
    every = [np.asarray(rows[index]) for index in range(len(rows))]
    if every[0].ndim == 0 or all(len(each) == len(every[0]) for each in every):
        return np.stack(every)
    longest = max(map(len, every))
    return np.stack(
        [np.pad(each, (0, longest - len(each)), constant_values=IGNORED) for each in every]
    )
