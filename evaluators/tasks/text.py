"""Texts as inputs of a model: token ids, padded in batches of like lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from paretoformer.evaluators.data import Examples, SplitName
from paretoformer.evaluators.target import Target
from paretoformer.evaluators.workload import Encoded, Inputs, Split, Workload


@dataclass(frozen=True)
class TextInputs(Inputs):
    """padding: input name -> the number that fills it up."""

    padding: Mapping[str, int]

    def size(self, example: Encoded) -> int:
        """Tokens."""
        return len(example["input_ids"])

    def collate(self, examples: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        lengths = torch.tensor([self.size(example) for example in examples])
        longest = int(lengths.max())
        inputs = {
            key: torch.from_numpy(np.stack([_padded(e[key], longest, filler) for e in examples]))
            for key, filler in self.padding.items()
        }
        return inputs | {"attention_mask": (torch.arange(longest) < lengths[:, None]).long()}

    def timing(self, examples: Sequence[Encoded], target: Target) -> dict[str, torch.Tensor]:
        """Exactly (batch_size, sequence_length), every token real."""
        wanted = target.batch_size * target.sequence_length
        rows = {}
        for key in self.padding:
            stream = np.concatenate([example[key] for example in examples])
            rows[key] = torch.tensor(np.resize(stream, wanted).reshape(target.batch_size, -1))
        return rows | {"attention_mask": torch.ones_like(rows["input_ids"])}


def _padded(tokens: np.ndarray, length: int, filler: int) -> np.ndarray:
    return np.pad(tokens, (0, length - len(tokens)), constant_values=filler)


def unlabelled(examples: Examples) -> np.ndarray:
    """The labels of examples that have none."""
    return np.full(len(examples), -1, dtype=np.int64)


def tokenize(
    splits: Mapping[SplitName, Examples],
    labels: Mapping[SplitName, np.ndarray],
    tokenizer: Any,
    target: Target,
) -> Workload:
    """Every split tokenised, cut to the target's sequence length."""
    names = [name for name in tokenizer.model_input_names if name != "attention_mask"]

    def encode(examples: Examples) -> tuple[Encoded, ...]:
        encoded = tokenizer(
            list(examples.texts),
            list(examples.pairs) if any(examples.pairs) else None,
            truncation=True,
            max_length=target.sequence_length,
        )
        rows = zip(*(encoded[name] for name in names), strict=True)
        return tuple(
            {key: np.asarray(ids, dtype=np.int64) for key, ids in zip(names, row, strict=True)}
            for row in rows
        )

    padding = dict.fromkeys(names, 0) | {"input_ids": int(tokenizer.pad_token_id or 0)}
    made = {name: Split(encode(each), labels[name]) for name, each in splits.items()}
    return Workload(made, TextInputs(padding))
