"""The workload: tokenised splits, and the batches that measurements run on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from paretoformer.evaluators.data import Examples, SplitName
from paretoformer.evaluators.target import Target
from paretoformer.evaluators.tasks import Task

Encoded = Mapping[str, np.ndarray]
"""One example: input name -> (tokens,) integers, without padding."""

ACCURACY_BATCH = 32


@dataclass(frozen=True)
class Split:
    """Tokenised examples and their labels."""

    examples: tuple[Encoded, ...]
    labels: np.ndarray  # (examples,)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Workload:
    """What the model is measured on, the same for every candidate.

    padding: input name -> the number that fills it up.
    """

    splits: Mapping[SplitName, Split]
    padding: Mapping[str, int]

    @property
    def digest(self) -> str:
        """SHA-256 over every token and label, to notice data that changed under a run."""
        digest = hashlib.sha256()
        for name in sorted(self.splits):
            split = self.splits[name]
            for example in split.examples:
                for key in sorted(example):
                    digest.update(example[key].tobytes())
            digest.update(split.labels.tobytes())
        return digest.hexdigest()

    def batches(
        self, split: Split, device: str, size: int = ACCURACY_BATCH
    ) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
        """(indices into the split, inputs of the model) in batches of like lengths.

        Examples of like lengths share a batch, so little of it is padding.
        """
        lengths = [len(example["input_ids"]) for example in split.examples]
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), size):
            indices = order[start : start + size]
            yield indices, self._collate([split.examples[i] for i in indices], device)

    def timing_batch(self, target: Target) -> dict[str, torch.Tensor]:
        """Inputs of exactly (batch_size, sequence_length), every token real."""
        wanted = target.batch_size * target.sequence_length
        rows = {}
        for key in self.padding:
            stream = np.concatenate([example[key] for example in self.splits["search"].examples])
            rows[key] = np.resize(stream, wanted).reshape(target.batch_size, -1)
        inputs = {key: torch.tensor(row, device=target.device) for key, row in rows.items()}
        return inputs | {"attention_mask": torch.ones_like(inputs["input_ids"])}

    def _collate(self, examples: list[Encoded], device: str) -> dict[str, torch.Tensor]:
        lengths = torch.tensor([len(example["input_ids"]) for example in examples])
        longest = int(lengths.max())
        inputs = {
            key: torch.from_numpy(
                np.stack(
                    [
                        np.pad(each[key], (0, longest - len(each[key])), constant_values=filler)
                        for each in examples
                    ]
                )
            )
            for key, filler in self.padding.items()
        }
        mask = (torch.arange(longest) < lengths[:, None]).long()
        return {key: value.to(device) for key, value in (inputs | {"attention_mask": mask}).items()}


def tokenize(
    splits: Mapping[SplitName, Examples], task: Task, tokenizer: Any, config: Any, target: Target
) -> Workload:
    """Tokenise every split, cut to the target's sequence length.

    Raises:
        DataError: a label that the model does not have.
    """
    inputs = [name for name in tokenizer.model_input_names if name != "attention_mask"]

    def encode(examples: Examples) -> Split:
        encoded = tokenizer(
            list(examples.texts),
            list(examples.pairs) if any(examples.pairs) else None,
            truncation=True,
            max_length=target.sequence_length,
        )
        rows = zip(*(encoded[name] for name in inputs), strict=True)
        return Split(
            tuple(
                {key: np.asarray(ids, dtype=np.int64) for key, ids in zip(inputs, row, strict=True)}
                for row in rows
            ),
            task.encode_labels(examples.labels, config),
        )

    padding = dict.fromkeys(inputs, 0) | {"input_ids": int(tokenizer.pad_token_id or 0)}
    return Workload({name: encode(examples) for name, examples in splits.items()}, padding)
