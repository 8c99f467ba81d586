"""Where the examples come from, and how they fall into splits that never overlap."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.data.reading import (
    Columns,
    DataError,
    image_bytes,
    is_data_file,
    is_plain_text,
    joined_lines,
    read_columns,
    read_hub,
    read_image_folder,
)
from paretoformer.spaces.common.registry import did_you_mean

SplitName = Literal["train", "search", "confirm", "steer", "recovery"]
Form = Literal["text", "passage", "words", "image", "ranking"]
"""What a row of the data is: a text, a passage, to which the lines of a txt file are joined, a list
of words with a label for each, an image, or a query with a text, of which rows with the same query
stay together."""
TEXTS = ("text", "passage", "ranking")
"""Forms whose rows hold plain texts."""
TRAIN_EXAMPLES = 256
"""Training examples that rank the heads; more are not read."""
TRAIN_AT_LEAST = 32
STEER_EXAMPLES = 256
"""Further training examples, on which a search sees how far answers are from the dense model's."""
RECOVERY_EXAMPLES = 20_000
"""Further texts that candidates are repaired from, and distilled on; more are not read."""
RECOVERY_AT_LEAST = 128
"""With fewer of its own, a repair uses those that rank the heads."""


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
    """Raw rows: texts, second texts ("" where there is none) and labels (None where unknown).

    texts: of the form `words`, each a tuple of them, and so is its label; of the form `image`, each
    the bytes of a file.
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
        """With these labels, one a row; without the rows whose label is None."""
        kept = [index for index, label in enumerate(labels) if label is not None]
        return replace(self, labels=tuple(labels)).take(kept)

    def joined(self, more: Examples) -> Examples:
        return Examples(self.texts + more.texts, self.pairs + more.pairs, self.labels + more.labels)

    def take(self, indices: Sequence[int]) -> Examples:
        return Examples(
            tuple(self.texts[i] for i in indices),
            tuple(self.pairs[i] for i in indices),
            tuple(self.labels[i] for i in indices),
        )

    def identities(self) -> list[str]:
        """What makes two rows duplicates: their texts, without case and spacing, or their bytes."""
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
    """values: one label for each row, as the task uses it; None for a row without a label."""

    values: tuple[Any, ...]
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True)
class Splits:
    """Examples that never overlap, and what was noticed on the way."""

    examples: dict[SplitName, Examples]
    remarks: tuple[Remark, ...] = ()


LabelReader = Callable[[Sequence[Any]], Labels]
"""All the labels of a study, as they are in its files -> as the task uses them."""


def as_they_are(labels: Sequence[Any]) -> Labels:
    return Labels(tuple(labels))


def read_splits(
    source: DataSource,
    seed: int,
    recovery_texts: str = "",
    read_labels: LabelReader = as_they_are,
    form: Form = "text",
    characters: int = 0,
) -> Splits:
    """The splits, shuffled by `seed`, without duplicates within or across them.

    What is left over, or is left of the training file, steers the search and is for recovery.

    recovery_texts: a file of further texts for recovery, which needs no labels. characters: of a
    passage, to which lines are joined.

    Raises:
        DataError: a file is missing, unreadable or empty, lacks a column, or has too few examples.
    """
    pools, remarks = _pools(source, seed, read_labels, form, characters)
    cut = _between_groups if form == "ranking" else _at
    if source.path:
        splits, left = _from_one(source, pools[""], cut)
    else:
        splits, left = _from_three(source, pools, cut)
    steer = min(STEER_EXAMPLES, len(left) // 4)
    splits["steer"] = left.take(range(steer))
    recovery = left.take(range(steer, len(left)))
    if recovery_texts:
        unlabelled = source.model_copy(update={"label": ""})
        more, remark = _read(recovery_texts, unlabelled, form, characters)
        seen = {key for pool in pools.values() for key in pool.identities()}
        recovery = _shuffled(_unseen(more, seen), seed).joined(recovery)
        remarks = (*remarks, *remark)
    if form == "ranking":
        remarks = (*remarks, *_smaller(source, splits))
    splits["recovery"] = recovery.take(range(min(RECOVERY_EXAMPLES, len(recovery))))
    return Splits({name: each for name, each in splits.items() if len(each)}, remarks)


def _pools(
    source: DataSource, seed: int, read_labels: LabelReader, form: Form, characters: int
) -> tuple[dict[str, Examples], tuple[Remark, ...]]:
    """The usable rows of each file, in the order in which they are taken; the training file gives
    way to the others."""
    names = ("",) if source.path else ("confirm", "search", "train")
    paths = {name: getattr(source, name or "path") for name in names}
    read = {name: _read(path, source, form, characters) for name, path in paths.items()}
    every = [each for examples, _ in read.values() for each in examples.labels]
    labels = read_labels(every) if source.label else as_they_are(every)
    remarks = [each for _, said in read.values() for each in said]
    pools: dict[str, Examples] = {}
    seen: set[str] = set()
    queries: set[str] = set()
    start = 0
    for name, (examples, _) in read.items():
        rows = labels.values[start : start + len(examples)]
        start += len(examples)
        whole = examples.relabelled(rows) if source.label else examples
        if form == "ranking":
            whole, elsewhere = _other_queries(whole, queries)
            if elsewhere:
                remarks.append(_shared_queries(paths[name], elsewhere))
        fresh = _unseen(whole, seen)
        pools[name] = _shuffled(fresh, seed)
        if form == "ranking":
            pools[name] = _grouped(pools[name])
        elif source.stratify:
            pools[name] = _stratified(pools[name], seed)
        if repeated := len(whole) - len(fresh):
            remarks.append(_repeated(paths[name], repeated))
    return pools, (*remarks, *labels.remarks)


def _other_queries(examples: Examples, seen: set[str]) -> tuple[Examples, int]:
    """The rows of queries that no earlier file has, and how many others there were; adds the
    queries to `seen`."""
    kept = [index for index, text in enumerate(examples.texts) if text not in seen]
    seen |= set(examples.texts)
    return examples.take(kept), len(examples) - len(kept)


def _shared_queries(path: str, rows: int) -> Remark:
    return Remark(
        f"{Path(path).name}: left out {rows} rows of queries that another file of the study has: "
        "the rows of one query stay in one split."
    )


def _repeated(path: str, count: int) -> Remark:
    rows = "1 row repeats" if count == 1 else f"{count} rows repeat"
    return Remark(f"{Path(path).name}: {rows} an earlier text; each text is used once.")


Cut = Callable[[Examples, int, int], int]
"""(rows, first, how many) -> the row behind the last of a split."""


def _at(pool: Examples, start: int, size: int) -> int:
    return min(start + size, len(pool))


def _between_groups(pool: Examples, start: int, size: int) -> int:
    """As `_at`, but not within the rows of one query: those that do not fit go to the next split;
    where not one query fits, all of its rows are taken."""
    texts, wanted = pool.texts, _at(pool, start, size)
    places = [i for i in range(start + 1, len(pool)) if texts[i] != texts[i - 1]] + [len(pool)]
    return max((i for i in places if i <= wanted), default=places[0])


def _from_one(
    source: DataSource, pool: Examples, cut: Cut
) -> tuple[dict[SplitName, Examples], Examples]:
    """The splits of one file; and what is left over."""
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
    for name, size in _sizes(source).items():
        end = cut(pool, start, size)
        splits[name] = pool.take(range(start, end))
        start = end
    _check_sizes(splits)
    return splits, pool.take(range(start, len(pool)))


def _sizes(source: DataSource) -> dict[SplitName, int]:
    return {
        "confirm": source.confirm_examples,
        "search": source.search_examples,
        "train": TRAIN_EXAMPLES,
    }


def _from_three(
    source: DataSource, pools: Mapping[str, Examples], cut: Cut
) -> tuple[dict[SplitName, Examples], Examples]:
    """The splits of three files; and what is left of the training file."""
    splits: dict[SplitName, Examples] = {}
    for name, wanted in _sizes(source).items():
        found = pools[name]
        least = TRAIN_AT_LEAST if name == "train" else wanted
        if len(found) < least:
            advice = "" if name == "train" else f" Lower data.{name}_examples."
            raise DataError(
                f"{getattr(source, name)} has {len(found)} examples of its own after duplicates "
                f"are removed, but `{name}` needs {least}.{advice}"
            )
        splits[name] = found.take(range(cut(found, 0, wanted)))
    _check_sizes(splits)
    train = pools["train"]
    return splits, train.take(range(len(splits["train"]), len(train)))


LEAST: Mapping[SplitName, int] = {"confirm": 1, "search": 1, "train": TRAIN_AT_LEAST}
"""Rows that a split needs, where whole queries make it smaller than asked for."""


def _smaller(source: DataSource, splits: Mapping[SplitName, Examples]) -> list[Remark]:
    """Where splits have another number of rows than the study asks for."""
    wanted = {"search": source.search_examples, "confirm": source.confirm_examples}
    found = [
        f"{len(examples)} instead of {wanted[name]} rows to {name}"
        for name, examples in splits.items()
        if len(examples) != wanted.get(name, len(examples))
    ]
    if not found:
        return []
    return [Remark(f"Rows of one query stay together, which gives {' and '.join(found)}.")]


def _check_sizes(splits: Mapping[SplitName, Examples]) -> None:
    """Raises DataError where whole queries left too little to a split."""
    for name, least in LEAST.items():
        if (found := len(splits[name])) < least:
            raise DataError(
                f"rows of one query stay together, which leaves {found} to {name!r}, and it needs "
                f"{least}: there are too few queries for their number of passages. Lower "
                "data.search_examples or data.confirm_examples, or add queries."
            )


def _read(
    path: str, source: DataSource, form: Form, characters: int
) -> tuple[Examples, list[Remark]]:
    """The rows that have text and label, or text where no label is wanted."""
    if form == "ranking" and not source.text_pair:
        raise DataError("queries need passages: name their column as data.text_pair.")
    columns = {"text": source.text, "label": source.label, "text_pair": source.text_pair}
    if form == "image":
        columns |= {"text": source.image, "text_pair": ""}
    columns = {key: column for key, column in columns.items() if column}
    if form == "image" and Path(path).is_dir():
        table = read_image_folder(path, columns["text"], columns.get("label", ""))
    elif is_data_file(path) or Path(path).is_file():
        table = read_columns(path, columns.values(), source.encoding)
        if form == "passage" and is_plain_text(path):
            table = joined_lines(table, characters)
    else:
        table = read_hub(path, columns.values(), source.subset, source.split)
    others = {"label": ', or set data.label = "" if you have no labels'}
    for key, column in columns.items():
        if column not in table.values:
            raise DataError(
                f"{path} has no column {column!r}.{did_you_mean(column, table.names)} "
                f"It has: {', '.join(table.names)}. Name yours as "
                f"data.{'image' if key == 'text' and form == 'image' else key}"
                f"{others.get(key, '')}."
            )
    return _usable(path, table, columns, form)


def _usable(
    path: str, table: Columns, columns: Mapping[str, str], form: Form
) -> tuple[Examples, list[Remark]]:
    values = {key: table.values[column] for key, column in columns.items()}
    lacking = {"text": "image" if form == "image" else "text"}
    lacking |= {"text_pair": "second text", "label": "label"}
    rows: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    for number, cells in enumerate(zip(*values.values(), strict=True), start=1):
        row = dict(zip(values, cells, strict=True))
        if form == "words":
            row |= _tagged(path, number, columns, row)
        elif form == "image":
            row["text"] = image_bytes(path, number, row["text"])
        for key in row.keys() - {"label"} if form in TEXTS else ():
            _check_text(path, number, columns[key], row[key])
        missing = next((key for key in lacking if key in row and _is_missing(row[key])), None)
        if missing is None:
            rows.append(row)
        else:
            dropped[lacking[missing]] += 1
    if not rows:
        wanted = " and ".join(repr(column) for column in columns.values())
        raise DataError(f"{path} has no row with {wanted}.")
    examples = Examples(
        tuple(str(row["text"]) if form in TEXTS else row["text"] for row in rows),
        tuple(str(row.get("text_pair", "")) for row in rows),
        tuple(row.get("label") for row in rows),
    )
    remarks = list(table.remarks)
    if dropped:
        counts = ", ".join(f"{count} without a {what}" for what, count in dropped.items())
        whole = len(rows) + dropped.total()
        remarks.append(Remark(f"{Path(path).name}: left out of {whole} rows: {counts}."))
    return examples, remarks


def _check_text(path: str, row: int, column: str, value: Any) -> None:
    if isinstance(value, list | dict | bytes):
        kind = {list: "a list", dict: "an object", bytes: "bytes"}[type(value)]
        raise DataError(
            f"{path}: {column!r} of row {row} is {kind}, not a text. For chat messages, apply "
            "the chat template first."
        )


def _tagged(
    path: str, number: int, columns: Mapping[str, str], row: Mapping[str, Any]
) -> dict[str, Any]:
    """The words of a row as a tuple, and their labels as one, where there are any; None each where
    there are none. A text without labels may be a plain one: its words stand between spaces."""
    words, labels = row["text"], row.get("label")
    if isinstance(words, str) and "label" not in row:
        words = words.split()
    if words is not None and not (
        isinstance(words, list) and all(isinstance(x, str) for x in words)
    ):
        raise DataError(
            f"{path}: {columns['text']!r} of row {number} is no list of words, with a label for "
            "each. A csv cannot hold lists: use jsonl, Parquet or CoNLL, such as rows.conll."
        )
    if not words or "label" not in row:
        return {"text": tuple(words) if words else None}
    if labels is not None and not isinstance(labels, list):
        raise DataError(f"{path}: {columns['label']!r} of row {number} is no list of labels.")
    if labels and len(labels) != len(words):
        raise DataError(f"{path}: row {number} has {len(words)} words, but {len(labels)} labels.")
    return {"text": tuple(words), "label": tuple(labels) if labels else None}


def _is_missing(value: Any) -> bool:
    """None, NaN, or nothing but spaces."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


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


def _grouped(examples: Examples) -> Examples:
    """Rows of the same first text together, in the order of the first of each."""
    members: dict[str, list[int]] = defaultdict(list)
    for index, text in enumerate(examples.texts):
        members[text].append(index)
    return examples.take([index for rows in members.values() for index in rows])


def _stratified(examples: Examples, seed: int) -> Examples:
    """In an order of which any stretch has its share of each class, give or take one example."""
    members: dict[Any, list[int]] = defaultdict(list)
    for index, label in enumerate(examples.labels):
        members[label].append(index)
    places = np.empty(len(examples))
    rng = np.random.default_rng(seed)
    for indices in members.values():
        places[indices] = (np.arange(len(indices)) + rng.random()) / len(indices)
    return examples.take(np.argsort(places, kind="stable").tolist())
