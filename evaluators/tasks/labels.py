"""Labels: maps labels of a data file to classes of the model.

If all labels of a study are names of the model's classes, they are names, even if they look like
numbers. Otherwise they are class numbers.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.data.examples import Labels
from paretoformer.evaluators.data.table import ClassLabel, DataError

WHOLE = re.compile(r"[+-]?[0-9]+(\.0*)?")
NO_LABEL = frozenset({-1, -100})
"""Numbers that data sets use for a missing label."""
GAIN = 0.2
"""If another order of the classes gains more accuracy than this, labels are probably mixed up."""
SKEWED = 0.9
"""Above this share of one class, accuracy says little about the others."""
SHOWN = 6
"""Maximum number of classes in a remark."""


def class_numbers(labels: Sequence[Any], config: Any, unit: str = "row") -> Labels:
    """The class of each label; None for a missing label.

    unit: what a label belongs to, such as a row.

    Raises:
        DataError: the model does not have the label.
    """
    classes, (names, remarks) = int(config.num_labels), class_names(config)
    counts = Counter(map(_countable, labels))
    by_name, by_number = _by_name(names), _by_number(classes)
    without = [label for label in counts if _number(label) in NO_LABEL and by_name(label) is None]
    known = [label for label in counts if label not in without]
    classes_of = {label: by_name(label) for label in known}
    if None in classes_of.values():
        classes_of = {label: by_number(label) for label in known}
    if None in classes_of.values():
        raise DataError(_unknown(known, (by_name, by_number), classes, names))
    numbers = tuple(classes_of.get(_countable(label)) for label in labels)
    notes = [*remarks, *_mapping(counts, classes_of, titles(config), classes, unit)]
    if lost := sum(counts[label] for label in without):
        shown = ", ".join(map(str, without))
        notes.append(
            Remark(f"Left out: {_count(lost, unit)} with the label {shown}, which means no label.")
        )
    return Labels(numbers, tuple(notes))


def class_names(config: Any) -> tuple[dict[str, int], list[Remark]]:
    """Names of the model's classes: those of `id2label`, then others of `label2id`. Raises
    DataError if they do not map names to the numbers of its classes."""
    try:
        own = {str(name): int(number) for number, name in (config.id2label or {}).items()}
        more = {str(name): int(number) for name, number in (config.label2id or {}).items()}
    except (TypeError, ValueError):
        raise DataError(
            "the model's config maps labels to something else than numbers: correct its "
            "`id2label` and `label2id`."
        ) from None
    last = int(config.num_labels) - 1
    if outside := [number for number in own.values() if not 0 <= number <= last]:
        raise DataError(
            f"the model's `id2label` names a class {outside[0]}, but its classes are 0 to {last}: "
            "correct it in the model's config.json."
        )
    more = {name: number for name, number in more.items() if 0 <= number <= last}
    names = own | {name: number for name, number in more.items() if name not in own}
    if all(names[name] == number for name, number in more.items()):
        return names, []
    note = "The model's `label2id` contradicts its `id2label`: the names in `id2label` are used."
    return names, [Remark(note)]


def titles(config: Any) -> dict[int, str]:
    names, _ = class_names(config)
    return {number: name for name, number in reversed(names.items())}


def doubts(
    answers: np.ndarray,
    labels: np.ndarray,
    names: Mapping[int, str],
    what: str = "training examples",
) -> list[Remark]:
    """Check model and labels by the uncompressed model's predictions.

    answers, labels: (examples,) classes. names: of the model's classes. what: name of the examples.
    """
    if not len(labels):
        return []
    seen, places = np.unique([labels, answers], return_inverse=True)  # a model may have thousands
    table = np.zeros((len(seen), len(seen)), dtype=int)  # (labels, answers)
    np.add.at(table, tuple(places.reshape(2, -1)), 1)
    rows, columns = linear_sum_assignment(-table)
    most = int(table.sum(axis=1).argmax())
    right, reordered, always_usual = (
        float(count / len(labels))
        for count in (table.trace(), table[rows, columns].sum(), table[most].sum())
    )
    usual = int(seen[most])
    begin = f"The uncompressed model is right on {right:.0%} of {len(labels)} {what}, and"
    if reordered - right > GAIN:
        classes = seen.tolist()
        moved = [
            f"{names.get(classes[a], classes[a])!r} for {names.get(classes[b], classes[b])!r}"
            for a, b in zip(columns, rows, strict=True)
            if a != b and table[b, a]
        ]
        text = (
            f"{begin} would be on {reordered:.0%} if its classes were in another order: it answers "
            f"{', '.join(moved[:SHOWN])}. Correct `id2label` in the model's config.json, or name "
            "the classes in the data as the model does."
        )
        return [Remark(text, doubt=True)]
    if right <= always_usual:
        text = (
            f"{begin} {always_usual:.0%} of them are {names.get(usual, str(usual))!r}: always "
            "answering that would be as good. Is it the fine-tuned model, with its own tokenizer, "
            "and are data.text and data.label the right columns?"
        )
        return [Remark(text, doubt=True)]
    return []


def numbers_of(labels: Sequence[Any], task: str) -> Labels:
    """Labels as numbers; DataError if one is not a number."""
    return Labels(tuple(_score(label, task) for label in labels))


def _score(label: Any, task: str) -> float:
    try:
        number = float(label)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(label, bool) or not math.isfinite(number):
        raise DataError(f"label {label!r} is no score: {task} compares with numbers.")
    return number


def _countable(label: Any) -> Any:
    """A hashable key: 1, 1.0 and a decimal 1 are equal, 1 and True are not."""
    if isinstance(label, list | dict):
        raise DataError(
            f"label {label!r} is no single label: a model that gives several a text is scored by "
            'model.task = "multi-label-classification", one that labels words by '
            '"token-classification".'
        )
    if isinstance(label, bool | np.bool_):
        return "true" if label else "false"
    if isinstance(label, float | np.floating | Decimal) and float(label).is_integer():
        return int(label)
    return label


def _number(label: Any) -> int | None:
    if isinstance(label, ClassLabel):
        return label.number
    if isinstance(label, int | np.integer):
        return int(label)
    is_number = isinstance(label, str) and WHOLE.fullmatch(label.strip())
    return int(float(label)) if is_number else None


def _by_name(names: Mapping[str, int]) -> Callable[[Any], int | None]:
    """Look up names exactly, or ignoring case, spaces and hyphens."""
    alike: dict[str, set[int]] = {}
    for name, number in names.items():
        alike.setdefault(_folded(name), set()).add(number)

    def way(label: Any) -> int | None:
        if str(label) in names:
            return names[str(label)]
        matches = alike.get(_folded(str(label)), set())
        return next(iter(matches)) if len(matches) == 1 else None

    return way


def _folded(name: str) -> str:
    return " ".join(re.split(r"[\s_-]+", name.strip())).casefold()


def _by_number(classes: int) -> Callable[[Any], int | None]:
    truth = {"false": 0, "true": 1} if classes == 2 else {}

    def way(label: Any) -> int | None:
        number = truth.get(_folded(label)) if isinstance(label, str) else None
        number = _number(label) if number is None else number
        return number if number is not None and 0 <= number < classes else None

    return way


def _unknown(
    labels: Sequence[Any],
    ways: Sequence[Callable[[Any], int | None]],
    classes: int,
    names: Mapping[str, int],
) -> str:
    known = f"which has {classes} labels: 0 to {classes - 1}, named {', '.join(names)}"
    for label in labels:
        if all(way(label) is None for way in ways):
            return f"label {_shown(label)} is unknown to the model, {known}."
    named, numbered = (next(x for x in labels if way(x) is not None) for way in ways)
    return (
        f"some labels are names of the model, such as {_shown(named)}, and others only numbers, "
        f"such as {_shown(numbered)}: which is meant is not known for a model {known}."
    )


def _count(count: int, unit: str) -> str:
    return f"{count} {unit}{'' if count == 1 else 's'}"


def _shown(label: Any) -> str:
    return repr(label.name if isinstance(label, ClassLabel) else label)


def _mapping(
    counts: Mapping[Any, int],
    classes_of: Mapping[Any, int | None],
    own: Mapping[int, str],
    size: int,
    unit: str,
) -> list[Remark]:
    """How labels map to classes, with counts; and missing or rare classes.

    own: the model's name of each class.
    """
    rows: Counter[int] = Counter()
    texts: dict[int, list[str]] = {}
    for label, number in classes_of.items():
        if number is not None:
            rows[number] += counts[label]
            texts.setdefault(number, []).append(str(label))
    shown = [
        f"{' or '.join(texts[n])} is class {n}"
        f"{'' if own.get(n) in texts[n] else f', {own.get(n, n)!r}'} ({_count(rows[n], unit)})"
        for n in sorted(rows)
    ]
    more = f"; and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    notes = [Remark(f"Labels: {'; '.join(shown[:SHOWN])}{more}.")] if shown else []
    absent = [repr(own.get(n, str(n))) for n in range(size) if n not in rows]
    if rows and absent:
        notes.append(Remark(f"No example is of class {', '.join(absent[:SHOWN])}."))
    for most, count in rows.most_common(1):
        if count > SKEWED * rows.total():
            share = f"{count / rows.total():.0%} of the labels are {own.get(most, str(most))!r}"
            notes.append(Remark(f"{share}: accuracy says little about the others."))
    return notes
