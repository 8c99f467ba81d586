"""Where the examples come from, and how they fall into splits that never overlap."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from paretoformer.spaces.suggestions import did_you_mean

SplitName = Literal["train", "search", "confirm", "steer", "recovery"]
TRAIN_EXAMPLES = 256
"""Training examples that rank the heads; more are not read."""
TRAIN_AT_LEAST = 32
STEER_EXAMPLES = 256
"""Further training examples, on which a search sees how far answers are from the dense model's."""
RECOVERY_EXAMPLES = 20_000
"""Further texts that candidates are repaired from, and distilled on; more are not read."""
RECOVERY_AT_LEAST = 128
"""With fewer of its own, a repair uses those that rank the heads."""

READERS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".txt": "text",
}


class DataError(ValueError):
    """The data cannot be used as it is; the message says what to change."""


class DataSource(BaseModel):
    """The `[data]` section of a study file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(
        default="",
        description="Hub id, or a csv, jsonl, Parquet or txt file, split into disjoint parts.",
    )
    train: str = Field(default="", description="File that ranks the heads.")
    search: str = Field(default="", description="File that the search measures on.")
    confirm: str = Field(default="", description="File that the front is confirmed on.")
    text: str = Field(default="text", description="Column of the text.")
    text_pair: str = Field(default="", description="Column of the second text, for pairs.")
    label: str = Field(
        default="label", description='Column of the label; "" for none: dense sets the answers.'
    )
    subset: str = Field(default="", description="Configuration of a Hub data set.")
    split: str = Field(default="train", description="Split of a Hub data set.")
    search_examples: int = Field(default=500, ge=1)
    confirm_examples: int = Field(default=1000, ge=1)


@dataclass(frozen=True)
class Examples:
    """Raw rows: texts, second texts ("" where there is none) and labels (None where unknown)."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...]
    labels: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled(self) -> bool:
        """Whether every label is known."""
        return all(label is not None for label in self.labels)

    def joined(self, more: Examples) -> Examples:
        return Examples(self.texts + more.texts, self.pairs + more.pairs, self.labels + more.labels)

    def take(self, indices: Sequence[int]) -> Examples:
        return Examples(
            tuple(self.texts[i] for i in indices),
            tuple(self.pairs[i] for i in indices),
            tuple(self.labels[i] for i in indices),
        )

    def identities(self) -> list[str]:
        """What makes two rows duplicates: their texts, without case and spacing."""
        return [
            " ".join(text.split()).casefold() + "\0" + " ".join(pair.split()).casefold()
            for text, pair in zip(self.texts, self.pairs, strict=True)
        ]


def read_splits(
    source: DataSource, seed: int, recovery_texts: str = ""
) -> dict[SplitName, Examples]:
    """The splits, shuffled by `seed`, without duplicates within or across them.

    What is left over, or is left of the training file, steers the search and is for recovery.

    recovery_texts: a file of further texts for recovery, which needs no labels.

    Raises:
        DataError: a file is missing, unreadable or empty, lacks a column, or has too few examples.
    """
    seen: set[str] = set()
    splits, left = _measured_splits(source, seed, seen)
    steer = min(STEER_EXAMPLES, len(left) // 4)
    splits["steer"] = left.take(range(steer))
    recovery = left.take(range(steer, len(left)))
    if recovery_texts:
        more = _read(recovery_texts, source.model_copy(update={"label": ""}))
        recovery = _shuffled(_unseen(more, seen), seed).joined(recovery)
    splits["recovery"] = recovery.take(range(min(RECOVERY_EXAMPLES, len(recovery))))
    return {name: each for name, each in splits.items() if len(each)}


def _measured_splits(
    source: DataSource, seed: int, seen: set[str]
) -> tuple[dict[SplitName, Examples], Examples]:
    """What is ranked and measured on; and what is left over. Adds all of them to `seen`."""
    sizes: dict[SplitName, int] = {
        "confirm": source.confirm_examples,
        "search": source.search_examples,
        "train": TRAIN_EXAMPLES,
    }
    if source.path:
        pool = _shuffled(_unseen(_read(source.path, source), seen), seed)
        needed = source.search_examples + source.confirm_examples + TRAIN_AT_LEAST
        if len(pool) < needed:
            raise DataError(
                f"{source.path} has {len(pool)} different examples, but the splits need {needed}: "
                f"{source.search_examples} to search, {source.confirm_examples} to confirm and "
                f"{TRAIN_AT_LEAST} to rank heads. Lower data.search_examples or "
                "data.confirm_examples."
            )
        splits: dict[SplitName, Examples] = {}
        start = 0
        for name, size in sizes.items():
            splits[name] = pool.take(range(start, min(start + size, len(pool))))
            start += size
        return splits, pool.take(range(min(start, len(pool)), len(pool)))
    paths: dict[SplitName, str] = {
        "confirm": source.confirm,
        "search": source.search,
        "train": source.train,
    }
    splits = {}
    for name, path in paths.items():  # the training file last, which gives way to the others
        found = _shuffled(_unseen(_read(path, source), seen), seed)
        wanted = sizes[name]
        least = TRAIN_AT_LEAST if name == "train" else wanted
        if len(found) < least:
            advice = "" if name == "train" else f" Lower data.{name}_examples."
            raise DataError(
                f"{path} has {len(found)} examples of its own after duplicates are removed, "
                f"but `{name}` needs {least}.{advice}"
            )
        splits[name] = found.take(range(min(wanted, len(found))))
    return splits, found.take(range(len(splits["train"]), len(found)))


def _read(path: str, source: DataSource) -> Examples:
    import datasets  # slow to import, and only a starting study needs it

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what fails is raised, and said once
    reader = READERS.get(Path(path).suffix.lower())
    is_file = Path(path).is_file()
    if not is_file and reader:
        raise DataError(f"no data file {path}.")
    if is_file and not reader:
        raise DataError(f"cannot read {path}: use a file that ends in {', '.join(READERS)}.")
    if is_file and Path(path).stat().st_size == 0:
        raise DataError(f"{path} is empty.")
    try:
        if is_file:
            options = {"sep": "\t"} if path.endswith(".tsv") else {}
            table = datasets.load_dataset(reader, data_files=path, split="train", **options)
        else:
            table = datasets.load_dataset(path, source.subset or None, split=source.split)
    except Exception as error:  # the readers raise what their parsers raise
        raise DataError(f"cannot read {path}: {_reason(error)}") from error
    return _columns(table, path, source)


def _reason(error: BaseException) -> str:
    """The innermost cause in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _columns(table: Any, path: str, source: DataSource) -> Examples:
    """The rows that have text and label, or text where no label is wanted."""
    columns = {"text": source.text}
    if source.label:
        columns["label"] = source.label
    if source.text_pair:
        columns["text_pair"] = source.text_pair
    for key, column in columns.items():
        if column not in table.column_names:
            raise DataError(
                f"{path} has no column {column!r}.{did_you_mean(column, table.column_names)} "
                f"It has: {', '.join(table.column_names)}. Name yours as data.{key}."
            )
    texts = table[source.text][:]
    labels = table[source.label][:] if source.label else [None] * len(texts)
    pairs = table[source.text_pair][:] if source.text_pair else [""] * len(texts)
    rows = [
        (str(text), str(pair), label)
        for text, pair, label in zip(texts, pairs, labels, strict=True)
        if text is not None
        and str(text).strip()
        and pair is not None
        and (label is not None or not source.label)
    ]
    if not rows:
        wanted = " and ".join(repr(column) for column in columns.values())
        raise DataError(f"{path} has no row with {wanted}.")
    return Examples(*(tuple(column) for column in zip(*rows, strict=True)))


def _unseen(examples: Examples, seen: set[str]) -> Examples:
    """The first of each group of duplicates that is not in `seen` yet; adds them to it."""
    fresh = []
    for index, key in enumerate(examples.identities()):
        if key not in seen:
            seen.add(key)
            fresh.append(index)
    return examples.take(fresh)


def _shuffled(examples: Examples, seed: int) -> Examples:
    order = np.random.default_rng(seed).permutation(len(examples))
    return examples.take(order.tolist())
