"""Labels: which class of the model each label of a data file means.

If the model knows all labels of a study as names of its classes, they are names, even if they look
like numbers. Otherwise they are the numbers of classes.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.data.examples import Labels
from paretoformer.evaluators.data.table import ClassLabel, DataError

WHOLE = re.compile(r"[+-]?[0-9]+(\.0*)?")
NO_LABEL = frozenset({-1, -100})
"""Numbers that data sets give to examples without a label."""
GAIN = 0.2
"""If another order of the classes gains more accuracy than this, the labels are mixed up."""
SKEWED = 0.9
"""The share of one class, above which accuracy says little about the others."""
SHOWN = 6
"""Classes that are shown one by one; of more, the first of them."""


def class_numbers(labels: Sequence[Any], config: Any, unit: str = "row") -> Labels:
    """The class of each label; None for those that say that there is none.

    unit: what has one.

    Raises:
        DataError: a label that the model does not have.
    """
    classes, (names, remarks) = int(config.num_labels), class_names(config)
    counts = Counter(map(_plain, labels))
    ways: tuple[Callable[[Any], int | None], ...] = (
        _by_name(names),
        _by_number(classes),
    )
    without = [label for label in counts if _number(label) in NO_LABEL and ways[0](label) is None]
    known = [label for label in counts if label not in without]
    for way in ways:
        found = {label: way(label) for label in known}
        if None not in found.values():
            break
    else:
        raise DataError(_unknown(known, ways, classes, names))
    numbers = tuple(found.get(_plain(label)) for label in labels)
    said = [*remarks, *_mapping(counts, found, names, classes, unit)]
    if lost := sum(counts[label] for label in without):
        shown = ", ".join(map(str, without))
        said.append(
            Remark(f"Left out: {_count(lost, unit)} with the label {shown}, which means no label.")
        )
    return Labels(numbers, tuple(said))


def class_names(config: Any) -> tuple[dict[str, int], list[Remark]]:
    """The names of the model's classes: those of `id2label`, then what else `label2id` has.

    Raises:
        DataError: they are no names of numbers.
    """
    try:
        own = {str(name): int(number) for number, name in (config.id2label or {}).items()}
        more = {str(name): int(number) for name, number in (config.label2id or {}).items()}
    except (TypeError, ValueError):
        raise DataError(
            "the model's config maps labels to something else than numbers: mend its `id2label` "
            "and `label2id`."
        ) from None
    names = own | {name: number for name, number in more.items() if name not in own}
    if all(names[name] == number for name, number in more.items()):
        return names, []
    note = "The model's `label2id` contradicts its `id2label`: the names in `id2label` are used."
    return names, [Remark(note)]


def titles(names: Mapping[str, int]) -> dict[int, str]:
    """Class -> its first name."""
    return {number: name for name, number in reversed(list(names.items()))}


def doubts(
    answers: np.ndarray,
    labels: np.ndarray,
    names: Mapping[int, str],
    what: str = "training examples",
) -> list[Remark]:
    """Doubts about the model or its labels, from what the uncompressed model answers.

    answers, labels: (examples,) classes. names: of the model's classes. what: has one each.
    """
    if not len(labels):
        return []
    accuracy = float((answers == labels).mean())
    classes = int(max(answers.max(), labels.max())) + 1
    counts = np.bincount(labels, minlength=classes)
    found = _order_doubt(answers, labels, names, accuracy, classes, what)
    if not found and accuracy <= counts.max() / len(labels):
        most = names.get(int(counts.argmax()), str(counts.argmax()))
        found = [
            Remark(
                f"The uncompressed model is right on {accuracy:.0%} of {len(labels)} {what}, "
                f"and {counts.max() / len(labels):.0%} of them are {most!r}: always "
                "answering that would be as good. Is it the fine-tuned model, with its own "
                "tokenizer, and are data.text and data.label the right columns?",
                doubt=True,
            )
        ]
    return found


def _order_doubt(
    answers: np.ndarray,
    labels: np.ndarray,
    names: Mapping[int, str],
    accuracy: float,
    classes: int,
    what: str,
) -> list[Remark]:
    table = np.zeros((classes, classes), dtype=int)
    np.add.at(table, (labels, answers), 1)
    rows, columns = linear_sum_assignment(-table)
    best = float(table[rows, columns].sum() / len(labels))
    if best - accuracy <= GAIN:
        return []
    moved = [
        f"{names.get(int(a), a)!r} for {names.get(int(b), b)!r}"
        for a, b in zip(columns, rows, strict=True)
        if a != b and table[b, a]
    ]
    return [
        Remark(
            f"The uncompressed model is right on {accuracy:.0%} of {len(labels)} {what}, "
            f"and would be on {best:.0%} if its classes were in another order: it "
            f"answers {', '.join(moved[:SHOWN])}. Mend `id2label` in the model's config.json, or "
            "name the classes in the data as the model does.",
            doubt=True,
        )
    ]


Problem = Literal["single_label_classification", "multi_label_classification", "regression"]
"""What transformers calls a classifier's `problem_type`."""
KINDS: Mapping[Problem, tuple[str, str]] = {
    "single_label_classification": ("text-classification", "chooses one class"),
    "multi_label_classification": ("multi-label-classification", "gives several labels a text"),
    "regression": ("text-regression", "gives one number, a regression"),
}
"""The task of texts that scores it, and what the model does."""


def problem_of(config: Any) -> Problem:
    """What the model's output means: its own `problem_type`, or what its number of classes says."""
    if int(config.num_labels) == 1:
        return "regression"
    own = getattr(config, "problem_type", None)
    return next((known for known in KINDS if known == own), "single_label_classification")


def another_problem(config: Any, wanted: Problem) -> str:
    """Why a classifier of texts is for another task, and which; empty if its output means this."""
    if (found := problem_of(config)) != wanted:
        task, does = KINDS[found]
        return f'the model {does}: set model.task = "{task}"'
    if wanted == "regression" and int(config.num_labels) > 1:
        return f"the model gives {config.num_labels} numbers a text, and one can be scored"
    return ""


def not_single_label(config: Any) -> str:
    """Why a model that is not of texts does not choose one class; empty if it does."""
    if (found := problem_of(config)) != "single_label_classification":
        return f"the model {KINDS[found][1]} (`problem_type`), which no task scores yet"
    return ""


def numbers_of(labels: Sequence[Any], task: str) -> Labels:
    """Labels that are numbers.

    Raises:
        DataError: one is not.
    """
    return Labels(tuple(_score(label, task) for label in labels))


def _score(label: Any, task: str) -> float:
    try:
        found = float(label)
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(label, bool) or not math.isfinite(found):
        raise DataError(f"label {label!r} is no score: {task} compares with numbers.")
    return found


def _plain(label: Any) -> Any:
    """A label as something that can be counted: 1 and 1.0 are one, 1 and True are not."""
    if isinstance(label, list | dict):
        raise DataError(
            f"label {label!r} is no single label: a model that gives several a text is scored by "
            'model.task = "multi-label-classification", one that labels words by '
            '"token-classification".'
        )
    if isinstance(label, bool | np.bool_):
        return "true" if label else "false"
    if isinstance(label, float | np.floating) and float(label).is_integer():
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
    """Names as they are written, or but for case, spaces and hyphens."""
    alike: dict[str, set[int]] = {}
    for name, number in names.items():
        alike.setdefault(_folded(name), set()).add(number)

    def way(label: Any) -> int | None:
        if str(label) in names:
            return names[str(label)]
        found = alike.get(_folded(str(label)), set())
        return next(iter(found)) if len(found) == 1 else None

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
        f"such as {_shown(numbered)}: what is meant cannot be told for a model {known}."
    )


def _count(count: int, unit: str) -> str:
    return f"{count} {unit}{'' if count == 1 else 's'}"


def _shown(label: Any) -> str:
    return repr(label.name if isinstance(label, ClassLabel) else label)


def _mapping(
    counts: Mapping[Any, int],
    found: Mapping[Any, int | None],
    names: Mapping[str, int],
    size: int,
    unit: str,
) -> list[Remark]:
    """How labels map, with counts; and what is missing or rare."""
    own = titles(names)
    rows: Counter[int] = Counter()
    texts: dict[int, list[str]] = {}
    for label, number in found.items():
        if number is not None:
            rows[number] += counts[label]
            texts.setdefault(number, []).append(str(label))
    shown = [
        f"{' or '.join(texts[n])} is class {n}"
        f"{'' if own.get(n) in texts[n] else f', {own.get(n, n)!r}'} ({_count(rows[n], unit)})"
        for n in sorted(rows)
    ]
    more = f"; and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    said = [Remark(f"Labels: {'; '.join(shown[:SHOWN])}{more}.")] if shown else []
    absent = [repr(own.get(n, str(n))) for n in range(size) if n not in rows]
    if rows and absent:
        said.append(Remark(f"No example is of class {', '.join(absent[:SHOWN])}."))
    most = max(rows, key=rows.__getitem__, default=None)
    if most is not None and rows[most] > SKEWED * rows.total():
        said.append(
            Remark(
                f"{rows[most] / rows.total():.0%} of the labels are {own.get(most, str(most))!r}: "
                "accuracy says little about the others."
            )
        )
    return said
