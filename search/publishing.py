"""Publishing: confirm the search's front, then write it with its report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from paretoformer.search.dispatch.pipeline import Pipeline
from paretoformer.search.measuring import dispatcher
from paretoformer.search.publish import confirm as confirmation
from paretoformer.search.publish.choose import by_importance, chosen, dropped
from paretoformer.search.publish.front import published_table
from paretoformer.search.records.parquet import write_table
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.report.page import write_report
from paretoformer.search.session import Session


@dataclass(frozen=True)
class Confirmed:
    """picked: the search's records of the points to publish, the dense model's first.

    again: candidate id -> its confirmation; missing for points that time did not allow.
    """

    picked: list[TrialRecord]
    again: dict[str, TrialRecord]


def confirm(session: Session, records: Sequence[TrialRecord]) -> Confirmed:
    """Measure the front again, on unseen data and in fresh processes, while there is time.

    Raises:
        StudyFailed: the dense model cannot be measured.
    """
    subject = session.subject
    known = confirmation.confirmed_ids(session.study)
    wanted = subject.objectives, session.alternatives
    picked = chosen(records, *wanted, subject.requirements, known)
    kept = {record.candidate for record in picked}
    near = sum(record.candidate not in kept for record in chosen(records, *wanted))
    if near:
        asked = " and ".join(r.phrase for r in subject.requirements)
        session.display.note(
            f"Not confirmed: {near} of the points that may be as good as the front, since even "
            f"the better end of their intervals does not satisfy {asked}."
        )
    first = session.baseline(records)
    order: list[TrialRecord] = picked
    seed: int | None = session.spec.seed
    if session.has_minutes:  # the most important first, since time may run out
        order = by_importance(
            picked, subject.objectives, subject.requirements, session.alternatives
        )
        seed = None
    with ExitStack() as stack:

        def started() -> Pipeline:  # only if there is something left to measure
            workers = stack.enter_context(dispatcher(session, fresh=True))
            return Pipeline(
                workers,
                "confirm",
                session.artifacts,
                lambda: session.baseline(
                    again
                    for key, again in confirmation.confirmations(session.study).items()
                    if first is not None and key in (picked[0].candidate.id, first.candidate.id)
                ),
            )

        again = confirmation.confirm(
            session.study,
            order,
            started,
            seed,
            session.display.progress,
            lambda: session.budget.is_over,
            session.scores,
            None if first is None else first.candidate,
        )
    session.budget.keep()
    confirmed = Confirmed(picked, again)
    for note in _notes(session, confirmed):
        session.display.note(note)
    return confirmed


def publish(session: Session, records: Sequence[TrialRecord], confirmed: Confirmed) -> None:
    """Write `front.parquet` and the report; drop the artifacts of points that are not on it."""
    subject = session.subject
    again = session.scores.restored(confirmed.again, "confirm")
    table = published_table(
        [record for record in confirmed.picked if record.candidate.id in again],
        again,
        subject.objectives,
        subject.confirmed,
        subject.sampled,
        session.alternatives,
    )
    write_table(table, session.folder.front, session.facts(subject.confirmed))
    write_report(session.folder)
    session.artifacts.drop(dropped(records, confirmed.picked))


def _notes(session: Session, confirmed: Confirmed) -> Iterator[str]:
    again = confirmed.again
    if missing := sum(record.candidate.id not in again for record in confirmed.picked):
        yield (
            f"The {session.budget.minutes:g} minutes are over. Points of the search's front that "
            f"were not confirmed, and are left out: {missing}. More --minutes go on."
        )
    if disturbed := sum(record.disturbed for record in again.values()):
        yield (
            f"{disturbed} of {len(again)} confirmed points were timed while other work ran: they "
            "are marked. The same command times them anew."
        )
