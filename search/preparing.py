"""Preparing: from an opened run to a session that knows what to try."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from paretoformer.evaluators.data.recovery_texts import has_own_texts, repair_share
from paretoformer.search.first_screen import first_screen
from paretoformer.search.opening import Opening
from paretoformer.search.planning import prepare as planning
from paretoformer.search.records.errors import StudyError
from paretoformer.search.session import Session
from paretoformer.search.study.samplers import uses_surrogate


def prepare(run: Opening) -> Session:
    """Show the plan, survey the model, and report what is left out.

    Raises:
        StudyError: on this model and machine nothing can vary, or the sampler has nothing to learn.
    """
    display, budget, workers = run.display, run.budget, run.workers
    display.facts(first_screen(run.spec, run.subject, run.folder))
    for remark in run.subject.remarks:
        display.note(remark.text)
    prepared = planning.prepare(
        run.study,
        run.spec,
        run.subject,
        run.folder,
        display.progress,
        budget.is_preparation_over,
        workers.screening if workers.many else None,
    )
    budget.keep()
    for note in _notes(run, prepared):
        display.note(note)
    if prepared.space.size == 1 and not run.study.get_trials(deepcopy=False):
        raise StudyError(
            "there is nothing to search: on this model and machine, every axis of [space] has one "
            "value. The notes say what was left out, and why."
        )
    has_table = prepared.predictor is not None
    uses_surrogate(run.spec.search.sampler, run.subject.objectives, has_table=has_table)
    return Session(run.spec, run.folder, run.study, run.subject, prepared, budget, workers, display)


def not_tried(axis: str, reasons: Mapping[str, str]) -> str:
    """One sentence on the values that were left out; reasons: value -> reason."""
    values: dict[str, list[str]] = {}
    for value, reason in reasons.items():
        values.setdefault(reason, []).append(value)
    parts = (f"{', '.join(names)}: {reason}" for reason, names in values.items())
    return f"Not tried: {axis} {'; '.join(parts)}."


def _notes(run: Opening, prepared: planning.Prepared) -> Iterator[str]:
    for axis in prepared.begun_without:
        yield f"This run was begun before there was {axis!r}: it stays as it is."
    yield from (not_tried(*facts) for facts in prepared.left_out.items() if facts[1])
    yield from prepared.notes
    workload = run.subject.workload
    if workload.prepared < 1:
        yield (
            f"{run.budget.minutes:g} minutes are short for this model: parts are ranked on at most "
            f"{workload.prepared:.0%} of the usual tokens, and repairs solved from "
            f"{repair_share(workload):.0%}."
        )
    if run.spec.recovery.least_squares and not has_own_texts(workload):
        yield "Repairs use the texts that ranked the heads: there are too few others."
    if "steer" not in workload.splits:
        yield (
            "Fidelity and divergence are those on the search examples: there are too few others."
        )
