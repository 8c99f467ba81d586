"""Which sampler a study gets, once it is known what there is to learn from."""

from __future__ import annotations

from collections.abc import Sequence

from paretoformer.evaluators.metrics import Metric
from paretoformer.search.errors import StudyError
from paretoformer.search.predictor import Predictor
from paretoformer.search.proposers import predicts
from paretoformer.search.study.optuna_study import AUTO, SURROGATE

MODELLED = 2
"""Objectives that the surrogate models: a quality and the latency."""


def uses_surrogate(name: str, predictor: Predictor | None, objectives: Sequence[Metric]) -> bool:
    """Whether it is the surrogate: where it is named, or `auto`, there is a block table, and it
    models all the objectives.

    Raises:
        StudyError: it is named, and has nothing to learn from.
    """
    if name not in (SURROGATE, AUTO):
        return False
    if name == AUTO:
        return predictor is not None and predicts(objectives) and len(objectives) == MODELLED
    if predictor is not None and predicts(objectives):
        return True
    if predictor is None:
        raise StudyError(
            f"search.sampler = {SURROGATE!r} needs a table of blocks, and here there is none: "
            "nothing of the model may be cut, or there was no time for it."
        )
    raise StudyError(
        f"search.sampler = {SURROGATE!r} predicts a quality and latency_ms: "
        "have both among the objectives."
    )
