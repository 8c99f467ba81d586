"""F1 of entities: spans of labels that are right as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from scipy.stats import bootstrap
from seqeval.metrics.sequence_labeling import get_entities

from paretoformer.evaluators.answers import predictions
from paretoformer.evaluators.directions import Direction, Role
from paretoformer.evaluators.measurement import Measurement
from paretoformer.evaluators.metrics.metric import Bench, Metric
from paretoformer.evaluators.metrics.registry import register
from paretoformer.evaluators.metrics.score import RESAMPLES
from paretoformer.evaluators.tasks.labels import class_names, titles
from paretoformer.evaluators.tasks.token_classification import IGNORED

OUTSIDE = "O"
PREFIXES = ("B-", "I-", "E-", "S-")


class EntityF1(Metric):
    """Micro F1 over entities, as CoNLL-2003 scores them (Tjong Kim Sang and De Meulder 2003): one
    counts where its words and its kind are right. Its interval is a percentile bootstrap over
    texts.

    Entities are read by seqeval. A model whose labels have no `B-` and `I-`, such as parts of
    speech, is scored by runs of equal labels.
    """

    name = "f1"
    unit = "fraction"
    direction: ClassVar[Direction] = "maximize"
    role: ClassVar[Role] = "quality"
    requirement = "f1>=dense-0.01"

    def measure(self, bench: Bench) -> Measurement:
        names, _ = class_names(bench.dense.config)
        counts = entity_counts(np.asarray(bench.split.labels), predictions(bench), titles(names))
        value = float(_f1(*counts))
        drawn = bootstrap(
            counts,
            _f1,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        low, high = np.nan_to_num([drawn.low, drawn.high], nan=value)  # all resamples are alike
        return Measurement(value, min(value, float(low)), max(value, float(high)), self.unit)


def entity_counts(
    labels: np.ndarray, answers: np.ndarray, names: Mapping[int, str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows,) each: entities found and right, found, and there.

    labels: (rows, tokens), `IGNORED` where none is scored. answers: (rows, tokens or fewer).
    """
    tags = {number: _tag(name) for number, name in names.items()}
    rows = []
    for wanted, given in zip(labels, answers, strict=True):
        places = np.flatnonzero(wanted != IGNORED)
        there, found = (_entities(each[places], tags) for each in (wanted, given))
        rows.append((len(there & found), len(found), len(there)))
    right, found_count, there_count = np.array(rows).T
    return right, found_count, there_count


def _entities(classes: Sequence[int], tags: Mapping[int, str]) -> set[tuple[str, int, int]]:
    return set(get_entities([tags.get(int(each), OUTSIDE) for each in classes]))


def _tag(name: str) -> str:
    """In a scheme that seqeval reads: BILOU's `L-` and `U-` are its `E-` and `S-`."""
    name = {"L-": "E-", "U-": "S-"}.get(name[:2], name[:2]) + name[2:]
    return name if name == OUTSIDE or name.startswith(PREFIXES) else f"I-{name}"


def _f1(right: np.ndarray, found: np.ndarray, there: np.ndarray, axis: int = -1) -> np.ndarray:
    """1 where there is nothing to find, and nothing is found."""
    both = found.sum(axis=axis) + there.sum(axis=axis)
    score: np.ndarray = np.where(both == 0, 1.0, 2 * right.sum(axis=axis) / np.maximum(both, 1))
    return score


register(EntityF1())
