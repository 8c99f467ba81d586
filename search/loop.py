"""The loop: ask proposers and the sampler for candidates, measure them, record the results."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.trial import TrialState

from paretoformer.evaluators.outcome import Outcome, Result
from paretoformer.search.dispatch.pipeline import Pipeline
from paretoformer.search.proposers import Proposer, Records
from paretoformer.search.records.errors import StudyFailed
from paretoformer.search.records.record import RECORD, TrialRecord
from paretoformer.search.records.requirement import Requirement
from paretoformer.search.study.optuna_study import ResumableStudy
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.space import Space

DUPLICATE = "duplicate_of"
"""User attribute of a trial that repeats a measured candidate: the number of the first trial."""
CANDIDATE = "candidate"
"""User attribute of a trial: its candidate as JSON, if the space's parameters cannot express it."""
UNMEASURED_VIOLATION = 1e6
"""Constraint violation where the required metric could not be measured."""
PATIENCE = 20
"""Duplicates in a row before the loop asks `fallback` for a candidate."""


@dataclass
class _UnderWay:
    """duplicates: trials that wait for the same candidate's result."""

    trial: optuna.Trial
    candidate: Candidate
    predicted: Mapping[str, float]
    duplicates: list[optuna.Trial] = field(default_factory=list)


@dataclass
class Search:
    """A search of a space; it continues where its study stopped.

    proposers: asked before the sampler; every candidate they propose is tried once.
    fallback: asked when the sampler keeps repeating itself.
    names: the objectives, in the study's order.
    on_record: called after every candidate, with all records so far; it must not change them.
    requirements: the sampler's constraints.
    is_over: whether time is over, so that no more candidates begin.
    predict: predicted metrics of a candidate, kept with its result.
    trimmed: removes from a record what is stored elsewhere.
    earlier: the records of earlier runs; None: read from the study.
    """

    study: ResumableStudy
    space: Space
    proposers: Sequence[Proposer]
    fallback: Proposer
    pipeline: Pipeline
    names: Sequence[str]
    on_record: Callable[[Sequence[TrialRecord]], None] = lambda records: None
    requirements: Sequence[Requirement] = ()
    is_over: Callable[[], bool] = lambda: False
    predict: Callable[[Candidate, Records], Mapping[str, float]] | None = None
    trimmed: Callable[[TrialRecord], TrialRecord] = lambda record: record
    earlier: Sequence[TrialRecord] | None = None
    _records: dict[str, TrialRecord] = field(default_factory=dict)
    _by_trial: list[TrialRecord] = field(default_factory=list)
    _uncounted: int = 0
    _under_way: dict[int, _UnderWay] = field(default_factory=dict)
    _duplicates: int = 0

    def run(self, trials: int) -> list[TrialRecord]:
        """Measure until there are `trials` candidates, the space has no more, or time is over.

        Candidates that their runtime turned out unable to run do not count. Unfinished trials of
        an interrupted run come first, under their numbers.

        Returns one record per candidate, the dense model's first.

        Raises:
            StudyFailed: the dense model cannot be measured.
        """
        self._resume()
        if self._dense is None:
            self._measure_dense()
        while True:
            while self._has_room(trials) and (trial := self._next_trial()) is not None:
                self._take(trial)
            finished = self.pipeline.finished()
            if not finished:
                return self.records
            for number, result in finished:
                self._finish(number, result)

    def measure(self, candidates: Iterable[Candidate]) -> list[TrialRecord]:
        """Measure these candidates in addition to the wanted trials.

        Trials of an interrupted run continue under their numbers.
        """
        self._resume()
        for candidate in candidates:
            if self._is_new(candidate):
                self._take(self._planted(candidate))
        while finished := self.pipeline.finished():
            for number, result in finished:
                self._finish(number, result)
        return self.records

    @property
    def known(self) -> Records:
        return self._records

    @property
    def under_way(self) -> list[Candidate]:
        return [entry.candidate for entry in self._under_way.values()]

    @property
    def records(self) -> list[TrialRecord]:
        return list(self._by_trial)

    @property
    def _dense(self) -> TrialRecord | None:
        return self._records.get(self.space.dense.id)

    def _resume(self) -> None:
        """Take over the records of earlier runs, once, and continue the unfinished trials."""
        if not self._records:
            earlier = stored_records(self.study) if self.earlier is None else self.earlier
            for record in {r.candidate.id: r for r in earlier}.values():
                self._add(record)
        for _ in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self.study.tell(self.study.ask(), state=TrialState.FAIL)  # will be proposed again
        for trial in self.study.unfinished():
            self._take(trial)

    def _add(self, record: TrialRecord) -> None:
        self._records[record.candidate.id] = record
        insort(self._by_trial, record, key=lambda known: known.trial)
        self._uncounted += not record.counts

    def _measure_dense(self) -> None:
        """Measure the dense model first: every other measurement is compared with it."""
        if not self._under_way:
            self._take(self._planted(self.space.dense))
        while self._dense is None:
            for number, result in self.pipeline.finished():
                if result.outcome is not Outcome.OK:
                    raise StudyFailed(
                        "the uncompressed model cannot be measured: "
                        f"{result.message or result.outcome.label}. {result.outcome.value}"
                    )
                self._finish(number, result)

    def _has_room(self, trials: int) -> bool:
        """Whether another candidate is wanted and may begin now."""
        under_way = len(self._under_way)
        counted = len(self._records) - min(self._uncounted, trials) + under_way
        waiting = sum(len(entry.duplicates) for entry in self._under_way.values())
        room = under_way + waiting < self.pipeline.capacity
        return counted < trials and room and not self.is_over()

    def _next_trial(self) -> optuna.Trial | None:
        """None if it is better to wait for results, and if no candidate is left."""
        under_way = self.under_way
        for proposer in self.proposers:
            for candidate in proposer.propose(self._records, under_way):
                if self._is_new(candidate):
                    return self._planted(candidate)
        waits = any(proposer.waits(self._records, under_way) for proposer in self.proposers)
        if (under_way and waits) or self._is_exhausted:
            return None
        if self._duplicates < PATIENCE:
            return self.study.ask()
        unseen = self.fallback.propose(self._records, under_way)
        return self._planted(unseen[0]) if unseen else None

    def _is_new(self, candidate: Candidate) -> bool:
        return candidate.id not in self._records and candidate not in self.under_way

    @property
    def _is_exhausted(self) -> bool:
        """Whether every candidate of the space was measured or is under way."""
        if len(self._records) + len(self._under_way) < self.space.size:
            return False
        seen = [record.candidate for record in self._by_trial] + self.under_way
        return sum(map(self.space.holds, seen)) >= self.space.size

    def _planted(self, candidate: Candidate) -> optuna.Trial:
        attributes = {} if self.space.holds(candidate) else {CANDIDATE: candidate.to_json()}
        self.study.enqueue_trial(self.space.params(candidate), user_attrs=attributes)
        return self.study.ask()

    def _take(self, trial: optuna.Trial) -> None:
        """Measure a trial's candidate, unless it is known or under way."""
        if RECORD in trial.user_attrs:  # interrupted before the trial was closed
            self._close(trial, TrialRecord.from_json(trial.user_attrs[RECORD]))
            return
        candidate = self._candidate(trial)
        known = self._records.get(candidate.id)
        same = [entry for entry in self._under_way.values() if entry.candidate == candidate]
        if known is not None:
            self._duplicates += 1
            self._close_duplicate(trial, known)
        elif same:
            self._duplicates += 1
            same[0].duplicates.append(trial)
        else:
            self._duplicates = 0
            predicted = self.predict(candidate, self._records) if self.predict else {}
            self._under_way[trial.number] = _UnderWay(trial, candidate, predicted)
            dense = self._dense
            self.pipeline.start(trial.number, candidate, dense.measurements if dense else None)

    def _candidate(self, trial: optuna.Trial) -> Candidate:
        suggested = self.space.suggest(trial)
        text = trial.user_attrs.get(CANDIDATE)
        return suggested if text is None else Candidate.from_json(text)

    def _finish(self, number: int, result: Result) -> None:
        done = self._under_way.pop(number)
        record = self.trimmed(TrialRecord(number, done.candidate, result, done.predicted))
        self._add(record)
        done.trial.set_user_attr(RECORD, record.to_json())
        done.trial.set_user_attr("keeps", done.candidate.phrase)  # for readers of a dashboard
        self._close(done.trial, record)
        for trial in done.duplicates:
            self._close_duplicate(trial, record)
        self.on_record(self._by_trial)

    def _close(self, trial: optuna.Trial, record: TrialRecord) -> None:
        values = record.values(self.names)
        if record.ok and all(value == value for value in values):  # NaN: not measured
            for requirement in self.requirements:
                trial.set_constraint(requirement.text, self._violation(requirement, record))
            self.study.tell(trial, values)
        else:
            self.study.tell(trial, state=TrialState.FAIL)

    def _violation(self, requirement: Requirement, record: TrialRecord) -> float:
        """By how much the requirement is missed; 0 if it is satisfied."""
        dense = self._dense or record  # the first record is the dense model's
        if requirement.metric not in record.measurements:
            return UNMEASURED_VIOLATION
        found, reference = (r.measurements[requirement.metric].value for r in (record, dense))
        return requirement.shortfall(found, reference)

    def _close_duplicate(self, trial: optuna.Trial, known: TrialRecord) -> None:
        trial.set_user_attr(DUPLICATE, known.trial)
        self._close(trial, known)


def stored_records(study: optuna.Study) -> list[TrialRecord]:
    return [
        TrialRecord.from_json(trial.user_attrs[RECORD])
        for trial in study.get_trials(deepcopy=False)
        if RECORD in trial.user_attrs
    ]
