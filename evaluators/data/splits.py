"""Splits: disjoint parts of a study's examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.data.examples import (
    OTHER,
    DataSource,
    Examples,
    Form,
    Labels,
    SplitName,
)
from paretoformer.evaluators.data.reading import is_plain_text
from paretoformer.evaluators.data.rows import read_examples
from paretoformer.evaluators.data.table import DataError

TRAIN_EXAMPLES = 256
"""Maximum number of training examples, which rank the heads."""
TRAIN_AT_LEAST = 32
STEER_EXAMPLES = 256
"""Further training examples, on which a search compares outputs with the dense model's."""
RECOVERY_EXAMPLES = 20_000
"""Maximum number of further texts, for repair and distillation."""


@dataclass(frozen=True)
class Splits:
    """Disjoint examples, and remarks on them."""

    examples: dict[SplitName, Examples]
    remarks: tuple[Remark, ...] = ()


LabelReader = Callable[[Sequence[Any]], Labels]
"""Labels of a study as in its files -> in the task's form."""


def as_they_are(labels: Sequence[Any]) -> Labels:
    return Labels(tuple(labels))


def read_splits(
    source: DataSource,
    seed: int,
    recovery_texts: Sequence[str] = (),
    read_labels: LabelReader = as_they_are,
    form: Form = "text",
    characters: int = 0,
) -> Splits:
    """The splits, shuffled by `seed`, without duplicates within or across them.

    The rest of the file (of the training file, if there are several) steers the search and serves
    recovery.

    recovery_texts: files of further unlabelled texts for recovery. characters: minimum length of a
    passage of joined lines.

    Raises:
        DataError: a file is missing, unreadable or empty, lacks a column, or has too few
        examples.
    """
    pools, remarks = _pools(source, seed, read_labels, form, characters)
    _check_counts(source, pools)
    splits, left = _cut(source, pools, whole_queries=form == "ranking")
    if form == "ranking":
        remarks += _smaller(source, splits)
    steer = min(STEER_EXAMPLES, len(left) // 4)
    splits["steer"], recovery = left.cut(steer)
    more = Examples((), (), ())
    measured = pools.values() if recovery_texts else ()
    seen = {key for pool in measured for key in pool.identities()}
    for path in recovery_texts:
        read, added = read_examples(path, _unlabelled(source, path), form, characters)
        more = more.joined(_unseen(read, seen))
        remarks += added
    splits["recovery"], _ = _shuffled(more, seed).joined(recovery).cut(RECOVERY_EXAMPLES)
    if source.other:
        splits[OTHER], _ = pools[OTHER].cut(source.confirm_examples)
    return Splits({name: part for name, part in splits.items() if len(part)}, tuple(remarks))


def _unlabelled(source: DataSource, path: str) -> DataSource:
    """As `source`, for texts without labels."""
    own = {"label": ""}
    if is_plain_text(path):
        if source.text_pair:
            raise DataError(
                f"recovery.texts: {path} has texts alone, but those of this study are pairs: use "
                f"a file with the columns {source.text!r} and {source.text_pair!r}."
            )
        own["text"] = "text"
    return source.model_copy(update=own)


def _sizes(source: DataSource) -> dict[SplitName, int]:
    """Sizes of the main splits, in order of priority: a duplicate stays in the first of its
    splits."""
    return {
        "confirm": source.confirm_examples,
        "search": source.search_examples,
        "train": TRAIN_EXAMPLES,
    }


def _file_keys(source: DataSource) -> dict[SplitName, str]:
    """Split -> key of the study file for its data: a shared one, or its own."""
    return {name: "path" if source.path else name for name in _sizes(source)}


def _pools(
    source: DataSource, seed: int, read_labels: LabelReader, form: Form, characters: int
) -> tuple[dict[str, Examples], list[Remark]]:
    """File key -> usable rows, in order of priority."""
    keys = [*_file_keys(source).values(), *([OTHER] if source.other else [])]
    paths = {key: getattr(source, key) for key in keys}
    read = {key: read_examples(path, source, form, characters) for key, path in paths.items()}
    remarks = [remark for _, added in read.values() for remark in added]
    labels = Labels(())
    if source.label:
        labels = read_labels([label for examples, _ in read.values() for label in examples.labels])
    values = iter(labels.values)
    pools: dict[str, Examples] = {}
    seen: set[str] = set()
    queries: set[str] = set()
    for key, (examples, _) in read.items():
        if source.label:
            examples = examples.relabelled([next(values) for _ in range(len(examples))])
        if form == "ranking":
            examples, added = _other_queries(paths[key], examples, queries)
            remarks += added
        fresh = _unseen(examples, seen)
        if repeated := len(examples) - len(fresh):
            rows = "1 row repeats" if repeated == 1 else f"{repeated} rows repeat"
            each_once = "an earlier text; each text is used once."
            remarks.append(Remark(f"{Path(paths[key]).name}: {rows} {each_once}"))
        pools[key] = _in_order(fresh, seed, form, stratify=bool(source.stratify))
    return pools, [*remarks, *labels.remarks]


def _in_order(examples: Examples, seed: int, form: Form, *, stratify: bool) -> Examples:
    shuffled = _shuffled(examples, seed)
    if form == "ranking":
        return _grouped(shuffled)
    return _stratified(shuffled, seed) if stratify else shuffled


def _other_queries(path: str, examples: Examples, seen: set[str]) -> tuple[Examples, list[Remark]]:
    """The rows of queries that no earlier file has; adds these queries to `seen`."""
    kept = [index for index, text in enumerate(examples.texts) if text not in seen]
    seen |= set(examples.texts)
    if len(kept) == len(examples):
        return examples, []
    remark = Remark(
        f"{Path(path).name}: left out {len(examples) - len(kept)} rows of queries that another "
        "file of the study has: the rows of one query stay in one split."
    )
    return examples.take(kept), [remark]


def _check_counts(source: DataSource, pools: Mapping[str, Examples]) -> None:
    """Raises DataError if a file has too few examples."""
    needed = {**_sizes(source), "train": TRAIN_AT_LEAST}
    if source.other and not len(pools[OTHER]):
        raise DataError(
            f"data.other: {source.other} has no example that is not in the other files."
        )
    for key, pool in pools.items():
        parts = {name: n for name, n in needed.items() if key in ("path", name)}
        if len(pool) < sum(parts.values()):
            wanted = ", ".join(f"{count} to {USES[name]}" for name, count in parts.items())
            raise DataError(
                f"{getattr(source, key)} has {len(pool)} examples of its own that are complete, "
                f"each counted once, but needs {sum(parts.values())}: {wanted}. {_remedy(parts)}"
            )


def _remedy(parts: Mapping[SplitName, int]) -> str:
    least = sum(TRAIN_AT_LEAST if name == "train" else 1 for name in parts)
    keys = [f"data.{name}_examples" for name in ("search", "confirm") if name in parts]
    lower = f"Lower {' or '.join(keys)}, or add examples" if keys else "Add examples"
    return f"{lower}: at least {least}."


USES = {"confirm": "confirm", "search": "search", "train": "rank heads"}


def _cut(
    source: DataSource, pools: Mapping[str, Examples], *, whole_queries: bool
) -> tuple[dict[SplitName, Examples], Examples]:
    """The splits, and the rest of the file of the training examples."""
    splits: dict[SplitName, Examples] = {}
    rest, keys = dict(pools), _file_keys(source)
    for name, size in _sizes(source).items():
        pool = rest[keys[name]]
        end = _end_of_query(pool, size) if whole_queries else size
        splits[name], rest[keys[name]] = pool.cut(end)
    return splits, rest[keys["train"]]


def _end_of_query(pool: Examples, size: int) -> int:
    """Number of rows up to the end of a query: at most `size`, or the first query."""
    texts = pool.texts
    ends = [i for i in range(1, len(pool)) if texts[i] != texts[i - 1]] + [len(pool)]
    return max((end for end in ends if end <= size), default=ends[0])


def _smaller(source: DataSource, splits: Mapping[SplitName, Examples]) -> list[Remark]:
    """Remarks on splits made smaller to keep queries whole; DataError if one is too small."""
    at_least: Mapping[SplitName, int] = {"confirm": 1, "search": 1, "train": TRAIN_AT_LEAST}
    for name, least in at_least.items():
        if (count := len(splits[name])) < least:
            raise DataError(
                f"rows of one query stay together, which leaves {count} to {name!r}, and it needs "
                f"{least}: there are too few queries for their number of passages. Lower "
                "data.search_examples or data.confirm_examples, or add queries."
            )
    sizes = _sizes(source)
    other = [
        f"{len(splits[name])} instead of {sizes[name]} rows to {name}"
        for name in ("confirm", "search")
        if len(splits[name]) != sizes[name]
    ]
    text = f"Rows of one query stay together, which gives {' and '.join(other)}."
    return [Remark(text)] if other else []


def _unseen(examples: Examples, seen: set[str]) -> Examples:
    """Rows without duplicates, within them or in `seen`; adds them to `seen`."""
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
    """Rows of the same first text together, in order of first occurrence."""
    members: dict[str, list[int]] = defaultdict(list)
    for index, text in enumerate(examples.texts):
        members[text].append(index)
    return examples.take([index for rows in members.values() for index in rows])


def _stratified(examples: Examples, seed: int) -> Examples:
    """An order in which every stretch has the share of each class, up to one example."""
    members: dict[Any, list[int]] = defaultdict(list)
    for index, label in enumerate(examples.labels):
        members[label].append(index)
    places = np.empty(len(examples))
    rng = np.random.default_rng(seed)
    for indices in members.values():
        places[indices] = (np.arange(len(indices)) + rng.random()) / len(indices)
    return examples.take(np.argsort(places, kind="stable").tolist())
