"""The workload: encoded splits, and the batches for measurements."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.data.examples import OTHER, SplitName

Encoded = Mapping[str, np.ndarray]
"""One example: input name -> array, without padding."""

UNLABELLED = -1
"""Label of an example without one, in a split where all are."""
IGNORED = -100
"""Label of an unscored token, which torch's cross entropy ignores."""

STEERING_TOKENS, STEERING_LEAST = 32_768, 128
"""Limit of the tokens that steer a search, and the fewest examples."""

SCORING_BATCH = 32
"""Examples per batch if the batch size does not change outputs."""

BATCHES = (4, 8)
"""Fewest and most batches in a timed pass over texts of different lengths. A timing has eight or
more rounds, each of two passes of the uncompressed model."""


@dataclass(frozen=True)
class Split:
    """Encoded examples and their labels; all `UNLABELLED` if they are.

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

    def spliced(
        self, example: Encoded, other: Encoded, random: np.random.Generator
    ) -> Encoded | None:
        """A new example, made of the beginning of one and the end of another; None: none is."""
        return None

    @abstractmethod
    def timing(self, examples: Sequence[Encoded], target: Target) -> dict[str, torch.Tensor]:
        """Inputs of the target's batch size and length, made from real examples."""


@dataclass(frozen=True)
class Workload:
    """The data that every candidate is measured on.

    pass_tokens: tokens in a timed pass over texts of different lengths, as far as `BATCHES` allows.
    prepared: share of the usual tokens from which parts are ranked and repairs are solved, for a
        short study of a large model.
    special: tokens that are no text, such as padding.
    requests: indices into the split `search` -> inputs, made from the texts as for a request; None
        for images.
    """

    splits: Mapping[SplitName, Split]
    inputs: Inputs
    remarks: tuple[Remark, ...] = ()
    pass_tokens: int = 512
    prepared: float = 1.0
    special: tuple[int, ...] = ()
    requests: Callable[[Sequence[int]], Mapping[str, torch.Tensor]] | None = None

    @cached_property
    def steering(self) -> Split:
        """The examples that steer a search: of the split `steer` if there is one, else `search`."""
        if "steer" not in self.splits:
            return self.splits["search"]
        return self.leading(self.splits["steer"], STEERING_TOKENS, least=STEERING_LEAST)

    @property
    def unscored(self) -> list[Encoded]:
        """The examples that rank, steer and repair."""
        scored = ("search", "confirm", OTHER)
        others = (split for name, split in self.splits.items() if name not in scored)
        return [example for split in others for example in split.examples]

    def leading(self, split: Split, tokens: int, least: int) -> Split:
        """A shorter split. tokens, least: as for `leading_count`."""
        count = leading_count(self.inputs, split.examples, tokens, least)
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
        """Inputs of exactly (batch_size, `timed_length`), on the target's device."""
        at = replace(target, sequence_length=self.timed_length(target))
        made = self.inputs.timing(self.splits["search"].examples, at)
        return {key: value.to(target.device) for key, value in made.items()}

    def timing_batches(self, target: Target) -> list[dict[str, torch.Tensor]]:
        """The batches of a timed pass, on the target's device: `timing_batch` alone, or real texts
        whose lengths are those of the search split, in an order as random as that of requests.

        Texts of different lengths are padded only to the longest of their batch.
        """
        if not target.follows_data:
            return [self.timing_batch(target)]
        texts = self.splits["search"].examples
        batches = [[texts[index] for index in rows] for rows in self.stream(target)]
        made = map(self.inputs.collate, batches)
        return [{key: value.to(target.device) for key, value in batch.items()} for batch in made]

    def timed_length(self, target: Target) -> int:
        """Tokens per text of a timed batch; their mean over the batches of a pass."""
        if not target.follows_data:
            return target.sequence_length
        sizes = [self.inputs.size(example) for example in self.splits["search"].examples]
        longest = [max(sizes[index] for index in rows) for rows in self.stream(target)]
        return round(sum(longest) / len(longest))

    def lengths(self, target: Target) -> tuple[int, float, int]:
        """Tokens of the shortest timed text, of the mean, and of the longest."""
        if not target.follows_data:
            return (target.sequence_length,) * 3
        sizes = [self.inputs.size(example) for example in self.splits["search"].examples]
        return min(sizes), round(sum(sizes) / len(sizes), 1), max(sizes)

    def stream(self, target: Target) -> list[list[int]]:
        """Batches of texts, as indices into the split `search`, at the midpoint quantiles of
        length, shuffled."""
        sizes = [self.inputs.size(example) for example in self.splits["search"].examples]
        order = sorted(range(len(sizes)), key=sizes.__getitem__)
        mean = sum(sizes) / len(sizes)
        rows = target.batch_size
        batches = int(np.clip(self.pass_tokens / (mean * rows), *BATCHES))
        places = (np.arange(batches * rows) + 0.5) / (batches * rows) * len(order)
        np.random.default_rng(0).shuffle(places)
        found = [order[int(place)] for place in places]
        return [found[start : start + rows] for start in range(0, len(found), rows)]

    def training_batches(
        self, count: int, device: str, size: int = SCORING_BATCH
    ) -> list[dict[str, torch.Tensor]]:
        """Inputs of the first `count` training examples, in batches of similar size."""
        train = self.splits["train"]
        some = Split(train.examples[:count], train.labels[:count])
        return [inputs for _, inputs in self.batches(some, device, size)]


def leading_count(inputs: Inputs, examples: Sequence[Encoded], tokens: int, least: int = 1) -> int:
    """The number of leading examples with at most `tokens` tokens in total; at least `least`."""
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
