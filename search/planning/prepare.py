"""The space of a study: prepared once, then part of what its stored parameters mean."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import optuna
import torch

from paretoformer.evaluators.common.progress import Progress
from paretoformer.evaluators.common.target import physical_cores
from paretoformer.search.planning import knapsack as solver
from paretoformer.search.planning.block_costs import block_costs
from paretoformer.search.planning.block_table import TooLate
from paretoformer.search.planning.knapsack import Kind, Programme
from paretoformer.search.planning.prediction import Priced, forecasts, spread
from paretoformer.search.planning.predictor import Predictor
from paretoformer.search.planning.screened import ScreenedByWorkers, StartsWorkers
from paretoformer.search.planning.structure_divergence import StructureDivergence
from paretoformer.search.planning.study_table import StudyTable
from paretoformer.search.records.errors import RunError
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.study.budget import is_short
from paretoformer.search.study.spec import Spec
from paretoformer.search.study.subject import Subject
from paretoformer.spaces.axes import axes
from paretoformer.spaces.axes.axis import Context, Evidence, Shape, Stage
from paretoformer.spaces.axes.block_options import Block
from paretoformer.spaces.axes.sensitivity import Batch, sensitivity
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.atomic import write_atomically
from paretoformer.spaces.common.malformed import MALFORMED, digest_of, json_object, one_line
from paretoformer.spaces.models.families import shape_of
from paretoformer.spaces.runtimes import parse
from paretoformer.spaces.space import Space

FORECASTS = 10
SCALING_EXAMPLES = 64
"""Training examples on which the damage of a block is measured once, to compare it with others'."""
ROUNDS = 6
"""In which candidates that the sums predict are tried as a whole, to correct the sums."""
FEWER_ROUNDS = 3
"""The same in a short study. Three more rounds take as long as one or two trials."""
BATCH = 16
BLOCK_TIMES = 4
"""Duration of timing the options of a layer, as a multiple of a trial's: the first candidates
depend on it."""

VERSION_1 = {"attention": "attention", "importance": "importance", "forecast": "forecast"}
"""User attributes of the study in which runs of version 1 kept what is now in `evidence.json`."""


@dataclass(frozen=True)
class Prepared:
    """The space of a study, and what was left out of it: axis -> value -> why.

    programme: predicts candidates; None where there is nothing to sum up.
    begun_without: axes that did not exist yet when the run was begun.
    notes: what else there is to say, one sentence each.
    mends: whether candidates are repaired.
    """

    space: Space
    left_out: dict[str, dict[str, str]]
    programme: Programme | None = None
    begun_without: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    mends: bool = False

    @property
    def predictor(self) -> Predictor | None:
        return None if self.programme is None else Predictor(self.space, self.programme)


def prepare(
    study: optuna.Study,
    spec: Spec,
    subject: Subject,
    folder: RunFolder,
    progress: Progress,
    is_late: Callable[[], bool] = lambda: False,
    workers: StartsWorkers | None = None,
) -> Prepared:
    """The space of a study on its model.

    is_late: whether there is no more time to measure a table of blocks. workers: for a table that
    takes long; None: it is measured here.

    A resumed study goes on with the evidence that it began with, even where a later version knows
    more axes, mechanisms or runtimes.

    Raises:
        RunError: the run has trials, but its evidence is lost or damaged.
    """
    shape = Shape(*shape_of(subject.model.config))
    if folder.evidence.exists():
        return _restored(folder, spec, shape)
    if VERSION_1["forecast"] in study.user_attrs:
        found = _read_version_1(study.user_attrs, shape)
    elif study.get_trials(deepcopy=False):
        raise RunError(f"{folder.evidence} is lost, without which the run cannot go on.")
    else:
        found = _gather(spec, subject, shape, folder, progress, is_late, workers)
        _write(folder, found)
    return _prepared(spec, shape, found)


def _prepared(spec: Spec, shape: Shape, found: _Found) -> Prepared:
    evidence = found.evidence
    return Prepared(
        replace(
            _space(spec, evidence, solved=found.programme is not None),
            forecasts=found.forecasts,
            kinds=found.kinds,
        ),
        {axis.name: dict(axis.left_out(evidence.of(axis.name))) for axis in axes()},
        found.programme,
        tuple(axis.name for axis in axes() if axis.name not in evidence.facts),
        found.notes,
        any(axis.mends(evidence) for axis in axes()),
    )


@dataclass(frozen=True)
class _Found:
    """What is kept of a preparation."""

    evidence: Evidence
    forecasts: tuple[Candidate, ...]
    kinds: tuple[Candidate, ...]
    programme: Programme | None
    notes: tuple[str, ...] = ()


def _space(spec: Spec, evidence: Evidence, *, solved: bool = True) -> Space:
    """solved: whether a programme will say what to try."""
    settings = {axis.name: spec.setting(axis.name) for axis in axes()}
    if solved:
        settings = {axis.name: axis.solved_setting(settings[axis.name]) for axis in axes()}
    return Space(
        evidence.shape,
        {axis.name: axis.domain(settings[axis.name], evidence) for axis in axes()},
    )


def _write(folder: RunFolder, found: _Found) -> None:
    kept = {
        "facts": found.evidence.facts,
        "forecasts": [each.to_json() for each in found.forecasts],
        "kinds": [each.to_json() for each in found.kinds],
        "programme": None if found.programme is None else found.programme.to_dict(),
    }
    # As it is read again: JSON knows no tuples.
    digest = digest_of(json.loads(json.dumps(kept)))
    write_atomically(folder.evidence, json.dumps({**kept, "digest": digest}) + "\n")


def _restored(folder: RunFolder, spec: Spec, shape: Shape) -> Prepared:
    """As an earlier run of the study left it.

    Raises:
        RunError: it is damaged.
    """
    try:
        prepared = _prepared(spec, shape, _read(json_object(folder.evidence.read_bytes()), shape))
        _try(prepared)
    except (OSError, *MALFORMED) as error:
        raise RunError(
            f"{folder.evidence} is damaged, without which the run cannot go on: {one_line(error)}. "
            "Choose another --out."
        ) from None
    return prepared


def _read(kept: dict[str, Any], shape: Shape) -> _Found:
    """Raises MALFORMED when it is not what `_write` wrote; older versions wrote no digest."""
    digest = kept.pop("digest", None)
    if digest is not None and digest != digest_of(kept):
        raise ValueError("it was changed since it was written")
    forecasts, kinds = (
        tuple(map(Candidate.from_json, kept[name])) for name in ("forecasts", "kinds")
    )
    evidence = Evidence(shape, kept["facts"])
    blocks = blocks_of_axes(evidence)
    programme = kept.get("programme")  # runs of before there was one have none
    if programme is not None:
        programme = Programme.from_dict(programme, shape, blocks)
    return _Found(evidence, forecasts, kinds, programme)


def _try(prepared: Prepared) -> None:
    """Raises MALFORMED when no candidate of the model comes out, or none can be predicted."""
    space = prepared.space
    starts = [each for of_axis in space.starts(*Stage).values() for each in of_axis]
    drawn = space.random(np.random.default_rng(0))
    for candidate in (drawn, space.dense, *starts, *space.forecasts, *space.kinds):
        if candidate.shape != space.shape:
            raise ValueError(f"a candidate has the shape {candidate.shape}")
        if prepared.programme is not None:
            prepared.programme.nats(candidate)
            prepared.programme.parts(candidate)


def _read_version_1(attributes: dict[str, Any], shape: Shape) -> _Found:
    """Its importance is normalised already, which changes no order."""
    facts = {
        "heads": {"removed": attributes[VERSION_1["importance"]]},
        "attention": {"choices": attributes[VERSION_1["attention"]]},
    }
    evidence = Evidence(shape, facts)
    domains = {axis.name: axis.domain(axis.setting_default, evidence) for axis in axes()}
    dense = Candidate.dense(shape.layers, shape.heads)
    kinds = tuple(
        dense.replaced(**{name: value}) for name, each in domains.items() for value in each.kinds()
    )
    forecasts = tuple(map(Candidate.from_json, attributes[VERSION_1["forecast"]]))
    return _Found(evidence, forecasts, kinds, None)


def _gather(
    spec: Spec,
    subject: Subject,
    shape: Shape,
    folder: RunFolder,
    progress: Progress,
    is_late: Callable[[], bool],
    workers: StartsWorkers | None,
) -> _Found:
    """What each axis finds out, and the candidates that should trade well."""
    torch.set_num_threads(physical_cores())
    context = _context(spec, subject, shape, progress)
    settings = {axis.name: spec.setting(axis.name) for axis in axes()}
    facts = {axis.name: axis.survey(settings[axis.name], context) for axis in axes()}
    probes = {
        axis.name: probe
        for axis in axes()
        if (probe := axis.probe(settings[axis.name], facts[axis.name], context)) is not None
    }
    batches = _training_batches(subject, progress)
    for name, found in sensitivity(subject.model, batches, subject.task.loss, probes).items():
        facts[name] |= found
    evidence = Evidence(shape, facts)
    blocks = blocks_of_axes(evidence)
    if not blocks:
        return _Found(evidence, (), (), None)
    seconds = BLOCK_TIMES * spec.timing.search_seconds
    if spec.search.table:
        try:
            return _forecast(
                spec, subject, evidence, blocks, folder, progress, is_late, workers, seconds
            )
        except TooLate:
            note = (
                "There was no time for the whole table of blocks: what is tried first is predicted "
                "from gradients."
            )
            return replace(
                _first_order(subject, evidence, blocks, progress, seconds), notes=(note,)
            )
    return _first_order(subject, evidence, blocks, progress, seconds)


def blocks_of_axes(evidence: Evidence) -> dict[str, Block]:
    """The kinds of blocks that a study may change, by the axis that speaks for each."""
    found = {axis.name: axis.block(evidence) for axis in axes()}
    return {name: block for name, block in found.items() if block is not None}


def _forecast(
    spec: Spec,
    subject: Subject,
    evidence: Evidence,
    blocks: dict[str, Block],
    folder: RunFolder,
    progress: Progress,
    is_late: Callable[[], bool],
    workers: StartsWorkers | None,
    seconds: float,
) -> _Found:
    """The best candidates that sums over blocks predict, tried as a whole before they are timed."""
    dense = Candidate.dense(evidence.shape.layers, evidence.shape.heads)
    given = _space(spec, evidence).completed(dense).of_stage(Stage.RECOVERY)
    torch.set_num_threads(subject.target.threads)
    costs = block_costs(
        subject.model,
        subject.workload,
        subject.target,
        list(blocks.values()),
        dense.replaced(**given),
        progress,
        seconds,
    )
    torch.set_num_threads(physical_cores())
    rounds = FEWER_ROUNDS if is_short(spec) else ROUNDS
    priced = {name: (b, c) for (name, b), c in zip(blocks.items(), costs.blocks, strict=True)}
    measuring = StudyTable(subject, evidence, priced, progress)
    with measuring.screened_by(workers) or nullcontext() as elsewhere:
        screens = measuring.screens(elsewhere, left=rounds * FORECASTS)
        table = measuring.measured(screens, folder, progress, is_late)
        kinds = tuple(Kind(block, table.nats[name], each) for name, (block, each) in priced.items())
        programme, found = solver.learn(
            Programme(dense, kinds, costs.layer, table.removed, rest=costs.rest, last=costs.last),
            screens,
            rounds,
            FORECASTS,
            progress=lambda done, total: progress("Trying what is predicted", done, total),
            is_late=is_late,
        )
    slower = [name for block, each in priced.values() for name in block.slower(each)]
    other = (values for each in kinds for values in each.block.kinds(each.costs))
    return _Found(
        evidence,
        tuple(solver.best_screened(found, FORECASTS)),
        tuple(dense.replaced(**values) for values in other),
        programme,
        tuple(filter(None, (_slower(slower), _alone(elsewhere)))),
    )


def _alone(elsewhere: ScreenedByWorkers | None) -> str:
    trouble = "" if elsewhere is None else elsewhere.trouble
    return trouble and f"A part of the block table was measured without workers: {trouble}"


def _slower(names: list[str]) -> str:
    if not names:
        return ""
    return (
        "Not in the table of blocks, since they take longer here than what they would replace: "
        f"{', '.join(names)}."
    )


def _first_order(
    subject: Subject,
    evidence: Evidence,
    blocks: dict[str, Block],
    progress: Progress,
    seconds: float,
) -> _Found:
    """Along the front that sums of first-order damage predict; the kinds that cost less than dense.

    Takes seconds, where the table takes a minute or more. seconds: for timing the blocks.
    """
    dense = Candidate.dense(evidence.shape.layers, evidence.shape.heads)
    divergence = StructureDivergence(
        subject.model, subject.task, subject.workload, SCALING_EXAMPLES
    )
    scales = []
    for done, block in enumerate(blocks.values(), start=1):
        scales.append(_scale(block, dense, divergence) if len(blocks) > 1 else 1.0)
        progress("Comparing blocks", done, len(blocks))
    torch.set_num_threads(subject.target.threads)
    costs = block_costs(
        subject.model,
        subject.workload,
        subject.target,
        list(blocks.values()),
        progress=progress,
        seconds=seconds,
    ).blocks
    priced = [Priced(*each) for each in zip(blocks.values(), costs, scales, strict=True)]
    kinds = (values for each in priced for values in each.block.kinds(each.costs))
    return _Found(
        evidence,
        tuple(spread(forecasts(dense, priced), FORECASTS)),
        tuple(dense.replaced(**values) for values in kinds),
        None,
    )


def _scale(block: Block, dense: Candidate, divergence: StructureDivergence) -> float:
    """Measured nats for each unit of predicted damage, where half of the block is cut."""
    options = block.halved()
    predicted = float(block.damage[range(len(options)), options].sum())
    measured = divergence.of(dense.replaced(**block.values(options)))
    return measured / predicted if predicted > 0 and measured > 0 else 1.0


def _context(spec: Spec, subject: Subject, shape: Shape, progress: Progress) -> Context:
    target = subject.target
    mixed = any(axis.changes_prompts(spec.setting(axis.name)) for axis in axes())

    def unmeasurable(value: Any) -> str:
        runtime, _ = parse(value)
        if subject.task.generates and not runtime.generates:
            return "it keeps no key-value cache here, without which no text is generated"
        if subject.task.generates and runtime.one_graph and mixed:
            return "its graph has one way with a key-value cache, and this study tries others"
        for metric in subject.objectives:
            if reason := metric.untold_by(value):
                return f"the objective {metric.name} cannot be measured in it: {reason}"
        return ""

    return Context(
        model=subject.model,
        shape=shape,
        device=target.device,
        threads=target.threads,
        batch_size=target.batch_size,
        sequence_length=target.sequence_length,
        dtype=target.dtype,
        batches=lambda count: subject.workload.training_batches(count, "cpu", BATCH),
        divergence=lambda output, dense, batch: float(
            subject.task.answers.divergence(output, dense, batch).sum()
        ),
        kept=subject.task.answers.kept,
        progress=progress,
        unmeasurable=unmeasurable,
        minutes=math.inf if spec.search.minutes is None else spec.search.minutes,
        generates=subject.task.generates,
    )


def _training_batches(subject: Subject, progress: Progress) -> Iterator[tuple[Batch, torch.Tensor]]:
    train = subject.workload.splits["train"]
    done = 0
    for indices, inputs in subject.workload.batches(train, "cpu", BATCH):
        labels = train.labels[indices]
        if not subject.labelled:
            with torch.inference_mode():
                labels = subject.task.as_labels(subject.model(**inputs), inputs)
        yield inputs, torch.from_numpy(labels)
        done += len(indices)
        progress("Ranking what may go", done, len(train))
