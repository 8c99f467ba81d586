"""F1 of entities: spans that are right as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.common.statistics import bootstrap_interval
from paretoformer.evaluators.data.workload import IGNORED
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.metric import Quality
from paretoformer.evaluators.metrics.predictions import predictions
from paretoformer.evaluators.metrics.registry import register
from paretoformer.evaluators.tasks.labels import titles

OUTSIDE = "O"
PREFIXES = ("B-", "I-", "E-", "S-")


class EntityF1(Quality):
    """Micro F1 over entities, as in CoNLL-2003 (Tjong Kim Sang and De Meulder 2003): an entity is
    right if its words and its type are. The interval is a percentile bootstrap over texts.

    seqeval extracts the entities. For labels without `B-` and `I-`, such as parts of speech, runs
    of equal labels are entities.
    """

    name = "f1"
    unit = "fraction"
    requirement = "f1>=dense-0.01"

    def measure(self, bench: Bench) -> Measurement:
        names = titles(bench.dense.config)
        counts = entity_counts(np.asarray(bench.split.labels), predictions(bench), names)
        low, high = bootstrap_interval(lambda rows: _f1(counts[rows]), len(counts))
        return Measurement(_f1(counts), low, high, self.unit)


def entity_counts(labels: np.ndarray, answers: np.ndarray, names: Mapping[int, str]) -> np.ndarray:
    """(rows, 3): correct, predicted and labelled entities.

    labels: (rows, tokens), `IGNORED` for unscored tokens. answers: (rows, tokens or fewer).
    """
    tags = {number: _tag(name) for number, name in names.items()}
    rows = []
    for wanted, given in zip(labels, answers, strict=True):
        places = np.flatnonzero(wanted != IGNORED)
        labelled, predicted = (_entities(classes[places], tags) for classes in (wanted, given))
        rows.append((len(labelled & predicted), len(predicted), len(labelled)))
    return np.array(rows)


def _entities(classes: Sequence[int], tags: Mapping[int, str]) -> set[tuple[str, int, int]]:
    from seqeval.metrics.sequence_labeling import get_entities  # a second in every worker process

    return set(get_entities([tags.get(int(number), OUTSIDE) for number in classes]))


def _tag(name: str) -> str:
    """The tag in a scheme that seqeval knows: BILOU's `L-` and `U-` are `E-` and `S-`."""
    name = {"L-": "E-", "U-": "S-"}.get(name[:2], name[:2]) + name[2:]
    return name if name == OUTSIDE or name.startswith(PREFIXES) else f"I-{name}"


def _f1(counts: np.ndarray) -> float:
    """Micro F1 of `entity_counts`; 1 if there are no entities, labelled or predicted."""
    right, predicted, labelled = counts.sum(axis=0)
    return 2 * float(right) / float(predicted + labelled) if predicted + labelled else 1.0


register(EntityF1())
