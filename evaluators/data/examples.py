"""Examples: the raw rows of a study, and the `[data]` section of its study file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from paretoformer.evaluators.common.remark import Remark

SplitName = Literal["train", "search", "confirm", "steer", "recovery", "other"]
OTHER: SplitName = "other"
"""The split of texts of another origin, on which quality is measured but nothing is chosen."""
Form = Literal["text", "passage", "words", "image", "ranking"]
"""The content of a row: a text; a passage, made of joined lines of a txt file; a list of words with
one label per word; an image; or a query with a text, where rows of one query stay together."""


def elsewhere(metric: str) -> str:
    """The name of a quality metric on the split `other`."""
    return f"{metric}_{OTHER}"


class DataSource(BaseModel):
    """The `[data]` section of a study file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(
        default="",
        description="Hub id, or a csv, jsonl, Parquet or txt file, split into disjoint parts.",
    )
    train: str = Field(default="", description="File for ranking heads and for repair.")
    search: str = Field(default="", description="File for scoring candidates in the search.")
    confirm: str = Field(default="", description="File for confirming the front.")
    other: str = Field(
        default="",
        description="File with examples of another origin: quality is confirmed on them, too, and "
        "nothing is chosen by it.",
    )
    text: str = Field(default="text", description="Column of the text.")
    text_pair: str = Field(default="", description="Column of the second text, for pairs.")
    image: str = Field(default="image", description="Column of the image, for images.")
    label: str = Field(
        default="label", description='Column of the label; "": none, compare answers with dense.'
    )
    subset: str = Field(default="", description="Configuration of a Hub data set.")
    split: str = Field(default="train", description="Split of a Hub data set.")
    encoding: str = Field(default="utf-8", description="Encoding of a csv, jsonl or txt file.")
    search_examples: int = Field(
        default=500, ge=1, description="Examples for scoring candidates in the search."
    )
    confirm_examples: int = Field(
        default=1000, ge=1, description="Other examples, for confirming the front."
    )
    stratify: bool | None = Field(
        default=None,
        description="Same share of each class in every split; default: in new runs.",
        examples=[True],
    )
    check: bool = Field(
        default=True, description="Stop if the numbers would be meaningless; false: continue."
    )


@dataclass(frozen=True)
class Examples:
    """Raw rows: texts, second texts ("" if none) and labels (None if unknown).

    For the form `words`, a text is a tuple of words and its label a tuple of labels; for `image`, a
    text is the bytes of a file.
    """

    texts: tuple[Any, ...]
    pairs: tuple[str, ...]
    labels: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled(self) -> bool:
        """Whether every label is known."""
        return all(label is not None for label in self.labels)

    def relabelled(self, labels: Sequence[Any]) -> Examples:
        """With these labels, one per row; rows whose label is None are dropped."""
        kept = [index for index, label in enumerate(labels) if label is not None]
        return replace(self, labels=tuple(labels)).take(kept)

    def cut(self, size: int) -> tuple[Examples, Examples]:
        """The first `size` rows, and the rest."""
        every = range(len(self))
        return self.take(every[:size]), self.take(every[size:])

    def joined(self, more: Examples) -> Examples:
        return Examples(self.texts + more.texts, self.pairs + more.pairs, self.labels + more.labels)

    def take(self, indices: Sequence[int]) -> Examples:
        return Examples(
            tuple(self.texts[i] for i in indices),
            tuple(self.pairs[i] for i in indices),
            tuple(self.labels[i] for i in indices),
        )

    def identities(self) -> list[str]:
        """Keys that are equal for duplicate rows: text without case and spacing, or a hash of the
        bytes."""
        return [
            " ".join(_words(text)).casefold() + "\0" + " ".join(_words(pair)).casefold()
            for text, pair in zip(self.texts, self.pairs, strict=True)
        ]


def _words(text: str | Sequence[str] | bytes) -> Sequence[str]:
    if isinstance(text, bytes):
        return [hashlib.sha256(text).hexdigest()]
    return text.split() if isinstance(text, str) else text


@dataclass(frozen=True)
class Labels:
    """values: one label per row, in the task's form; None for a missing label."""

    values: tuple[Any, ...]
    remarks: tuple[Remark, ...] = ()
