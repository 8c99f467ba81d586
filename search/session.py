"""A session: the state of one run that all its phases share."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from paretoformer.search.dispatch.artifacts import ArtifactFolder
from paretoformer.search.dispatch.baseline import baseline_of
from paretoformer.search.planning.prepare import Prepared
from paretoformer.search.proposers import alternatives
from paretoformer.search.proposers.distilling import Distilling
from paretoformer.search.records.facts import MetricFacts, RunFacts, compared_timing
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.records.scores import Scores
from paretoformer.search.report.display import Display
from paretoformer.search.study.budget import Budget
from paretoformer.search.study.optuna_study import ResumableStudy
from paretoformer.search.study.spec import Spec
from paretoformer.search.study.subject import Subject
from paretoformer.search.workers import Workers
from paretoformer.spaces.candidate import Candidate


@dataclass(frozen=True)
class Session:
    spec: Spec
    folder: RunFolder
    study: ResumableStudy
    subject: Subject
    prepared: Prepared
    budget: Budget
    workers: Workers
    display: Display

    @property
    def alternatives(self) -> Collection[Candidate]:
        return alternatives(self.prepared.space)

    def baseline(self, records: Iterable[TrialRecord]) -> TrialRecord | None:
        """The record with which timings in compiled runtimes alternate."""
        timing = compared_timing({m.name: m.unit for m in self.subject.objectives})
        return baseline_of(records, self.alternatives, timing)

    def compressed(self, records: Iterable[TrialRecord]) -> int:
        """The number of records of compressed candidates."""
        uncut = {self.prepared.space.dense, *self.alternatives}
        return sum(record.candidate not in uncut for record in records)

    @property
    def has_minutes(self) -> bool:
        return self.spec.search.minutes is not None

    @property
    def wanted(self) -> int:
        """The number of candidates that the search measures, if time allows."""
        space = self.prepared.space
        outside = sum(not space.holds(c) for c in (space.dense, *self.alternatives))
        return min(self.spec.trials, space.size + outside)

    @property
    def artifacts(self) -> ArtifactFolder:
        return ArtifactFolder(self.folder.models, self.subject.model_digest)

    @property
    def distilling(self) -> Distilling:
        minutes, trials = self.budget.distill_minutes, self.spec.trials
        rounds = self.budget.rounds(minutes)
        return Distilling(self.study, self.subject, minutes, rounds, trials)

    @property
    def scores(self) -> Scores:
        """Scores of single examples. Samples of timings are readings, and stay in the records."""
        subject = self.subject
        return Scores(
            self.folder.scores, [name for name in subject.metrics if name not in subject.sampled]
        )

    def facts(self, metrics: Collection[str]) -> RunFacts:
        """The metadata of a Parquet file that holds these metrics."""
        subject = self.subject
        return RunFacts(
            study=self.spec.model_dump(),
            machine=self.folder.read_machine(),
            objectives=tuple(metric.name for metric in subject.objectives),
            metrics={name: self._metric_facts(name) for name in metrics},
            model_digest=subject.model_digest,
            left_out=self.prepared.left_out,
            required=tuple(r.text for r in subject.requirements) if subject.required else (),
            remarks=tuple(remark.text for remark in subject.remarks),
            lengths=subject.lengths,
        )

    def _metric_facts(self, name: str) -> MetricFacts:
        metric = self.subject.metrics[name]
        requirement = metric.requirement if name in self.subject.reported else ""
        return MetricFacts(metric.unit, metric.direction, metric.role, requirement)
