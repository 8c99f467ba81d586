"""Texts as model inputs: token ids, padded in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.data.examples import Examples, SplitName
from paretoformer.evaluators.data.table import DataError
from paretoformer.evaluators.data.workload import UNLABELLED, Encoded, Inputs, Split, Workload
from paretoformer.evaluators.tasks.task import Task


@dataclass(frozen=True)
class TextInputs(Inputs):
    """padding: input name -> padding value."""

    padding: Mapping[str, int]

    def size(self, example: Encoded) -> int:
        """Number of tokens."""
        return len(example["input_ids"])

    def collate(self, examples: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        lengths = torch.tensor([self.size(example) for example in examples])
        longest = int(lengths.max())
        inputs = {
            key: torch.from_numpy(np.stack([_padded(e[key], longest, filler) for e in examples]))
            for key, filler in self.padding.items()
        }
        return inputs | {"attention_mask": (torch.arange(longest) < lengths[:, None]).long()}

    def spliced(
        self, example: Encoded, other: Encoded, random: np.random.Generator
    ) -> Encoded | None:
        """No longer than the longer one; with the special tokens of both ends."""
        longest = max(self.size(example), self.size(other))
        stop = random.integers(1, max(2, self.size(example)))
        start = random.integers(1, max(2, self.size(other)))
        made = {k: np.concatenate((ids[:stop], other[k][start:])) for k, ids in example.items()}
        last = longest - 1
        return {k: np.concatenate((ids[:last], ids[last:][-1:])) for k, ids in made.items()}

    def timing(self, examples: Sequence[Encoded], target: Target) -> dict[str, torch.Tensor]:
        """Exactly (batch_size, sequence_length), without padding."""
        wanted = target.batch_size * target.sequence_length
        rows = {}
        for key in self.padding:
            stream = np.concatenate([example[key] for example in examples])
            rows[key] = torch.tensor(np.resize(stream, wanted).reshape(target.batch_size, -1))
        return rows | {"attention_mask": torch.ones_like(rows["input_ids"])}


def _padded(tokens: np.ndarray, length: int, filler: int) -> np.ndarray:
    return np.pad(tokens, (0, length - len(tokens)), constant_values=filler)


UNKNOWN = 0.5
"""Above this share of unknown tokens, the tokenizer is probably not the model's own."""
FEW_UNKNOWN = 0.01
"""Above this share of unknown tokens, a remark is made."""


def labels_of(examples: Examples) -> np.ndarray:
    """(rows,): classes as int64, scores as float64; `UNLABELLED` where one is missing."""
    labels = np.asarray(examples.labels if examples.labelled else (UNLABELLED,) * len(examples))
    return labels.astype(np.float64 if labels.dtype.kind == "f" else np.int64)


Encode = Callable[[Examples, Any, Target], tuple[list[Encoded], np.ndarray]]
"""(examples, tokenizer, target) -> encoded examples, and labels (rows, ...)."""


def encode_texts(
    examples: Examples, tokenizer: Any, target: Target
) -> tuple[list[Encoded], np.ndarray]:
    """An `Encode` for texts or pairs of texts with one label each."""
    encoded = tokenizer(
        list(examples.texts),
        list(examples.pairs) if any(examples.pairs) else None,
        truncation=True,
        max_length=target.sequence_length,
    )
    return rows_of(encoded, tokenizer), labels_of(examples)


@dataclass(frozen=True)
class Requests:
    """Inputs from texts, tokenised anew at each call. examples: those that give tokens."""

    examples: Examples
    encode: Encode
    tokenizer: Any
    target: Target
    inputs: Inputs

    def __call__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        rows, _ = self.encode(self.examples.take(indices), self.tokenizer, self.target)
        batch = self.inputs.collate(rows)
        return {key: value.to(self.target.device) for key, value in batch.items()}


class TextTask(Task):
    """A task whose inputs are the token ids of texts."""

    def encode(
        self, splits: Mapping[SplitName, Examples], tokenizer: Any, config: Any, target: Target
    ) -> Workload:
        return tokenize(splits, tokenizer, config, target, self.rows)

    def rows(
        self, examples: Examples, tokenizer: Any, target: Target
    ) -> tuple[list[Encoded], np.ndarray]:
        """An `Encode`."""
        return encode_texts(examples, tokenizer, target)


def rows_of(encoded: Any, tokenizer: Any) -> list[Encoded]:
    names = input_names(tokenizer)
    rows = zip(*(encoded[name] for name in names), strict=True)
    return [
        {key: np.asarray(ids, dtype=np.int64) for key, ids in zip(names, row, strict=True)}
        for row in rows
    ]


def input_names(tokenizer: Any) -> list[str]:
    return [name for name in tokenizer.model_input_names if name != "attention_mask"]


def tokenize(
    splits: Mapping[SplitName, Examples],
    tokenizer: Any,
    config: Any,
    target: Target,
    encode: Encode = encode_texts,
) -> Workload:
    """Tokenise and truncate every split; drop texts without tokens. DataError if none is left."""
    made: dict[SplitName, Split] = {}
    asked: Examples | None = None
    empty = 0
    for name, each in splits.items():
        rows, labels = encode(each, tokenizer, target)
        kept = [index for index, row in enumerate(rows) if len(row["input_ids"])]
        if not kept:
            raise DataError(
                f"no text of the split {name!r} gives a token: is this the model's own tokenizer?"
            )
        empty += len(rows) - len(kept)
        made[name] = Split(tuple(rows[i] for i in kept), labels[kept])
        if name == "search":
            asked = each.take(kept)
    remarks = _unknown_tokens(made.values(), tokenizer)
    if empty:
        remarks.append(Remark(f"Left out: texts that give no token, {empty} of them."))
    if full := _full(made.values(), target):
        remarks.append(full)
    padding = dict.fromkeys(input_names(tokenizer), 0) | {
        "input_ids": padding_id(tokenizer, config)
    }
    inputs = TextInputs(padding)
    requests = Requests(asked, encode, tokenizer, target, inputs) if asked else None
    special = tuple(tokenizer.all_special_ids)
    return Workload(made, inputs, tuple(remarks), special=special, requests=requests)


def _full(splits: Iterable[Split], target: Target) -> Remark | None:
    """Number of texts that reach the target's length, beyond which they are truncated."""
    sizes = [len(example["input_ids"]) for split in splits for example in split.examples]
    count = sum(size >= target.sequence_length for size in sizes)
    if not count:
        return None
    limit = "target.sequence_length"
    if target.follows_data:
        limit = "its positions end there, or the tools that serve it cut there"
    return Remark(
        f"{count} of {len(sizes)} texts fill all {target.sequence_length} tokens: anything longer "
        f"is cut ({limit})."
    )


def padding_id(tokenizer: Any, config: Any) -> int:
    """The model's, by which decoders find the last token; else the tokenizer's."""
    own = getattr(config, "pad_token_id", None)
    return int(own if own is not None else tokenizer.pad_token_id or 0)


def _unknown_tokens(splits: Iterable[Split], tokenizer: Any) -> list[Remark]:
    """Share of text tokens that the tokenizer does not know."""
    unknown = tokenizer.unk_token_id
    if unknown is None:
        return []
    special = [token for token in tokenizer.all_special_ids if token != unknown]
    ids = np.concatenate([example["input_ids"] for split in splits for example in split.examples])
    of_text = ids[~np.isin(ids, special)]
    share = float((of_text == unknown).mean()) if len(of_text) else 1.0
    if share < FEW_UNKNOWN:
        return []
    text = f"{share:.0%} of the tokens are unknown to the tokenizer."
    if share <= UNKNOWN:
        return [Remark(text)]
    advice = " It is not the model's own: put the files of that one into the model's folder."
    return [Remark(text + advice, doubt=True)]
