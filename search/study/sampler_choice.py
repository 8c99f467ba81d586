"""Which sampler a study gets, once it is known what there is to learn from."""

from __future__ import annotations

from collections.abc import Sequence

from paretoformer.evaluators.metrics import Metric
from paretoformer.search.records.errors import StudyError
from paretoformer.search.study.optuna_study import AUTO, SURROGATE

LATENCY = "latency_ms"
MODELLED = 2
"""Objectives that the surrogate models: a quality and the latency."""


def quality_and_latency(objectives: Sequence[Metric]) -> tuple[Metric | None, Metric | None]:
    """The quality and the cost that the sums predict, where they are objectives."""
    quality = next((m for m in objectives if m.role == "quality"), None)
    return quality, next((m for m in objectives if m.name == LATENCY), None)


def predicts(objectives: Sequence[Metric]) -> bool:
    """Whether candidates can be solved for these objectives."""
    return None not in quality_and_latency(objectives)


def check_sampler(name: str, objectives: Sequence[Metric]) -> None:
    """Raises ValueError when a sampler cannot propose anything for these objectives."""
    if name == SURROGATE and not predicts(objectives):
        raise ValueError(
            f"search.sampler = {SURROGATE!r} predicts a quality and latency_ms: have both among "
            f"the objectives, or write {AUTO!r}."
        )


def uses_surrogate(name: str, objectives: Sequence[Metric], *, has_table: bool) -> bool:
    """Whether a study uses the surrogate: it is named; or `auto`, where there is a block table and
    the surrogate models all the objectives.

    Raises:
        StudyError: it is named, and there is no block table.
    """
    if name == AUTO:
        return has_table and predicts(objectives) and len(objectives) == MODELLED
    if name == SURROGATE and not has_table:
        raise StudyError(
            f"search.sampler = {SURROGATE!r} needs a table of blocks, and here there is none: "
            f"nothing of the model may be cut, or there was no time for it. Write {AUTO!r}."
        )
    return name == SURROGATE
