"""Forecast: the candidates to try first.

    time the blocks of a layer -> measure the damage of every option -> repeat: solve, screen whole
    candidates, correct the sums -> the best screened candidates

Sources: SPDY (Frantar & Alistarh 2022, arXiv:2201.13096), ZipLM (Kurtic et al. 2023,
arXiv:2302.04089).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from paretoformer.evaluators.common.progress import Progress
from paretoformer.evaluators.common.target import physical_cores
from paretoformer.evaluators.demo import cache_folder
from paretoformer.search.planning.block_costs import ForwardCosts, block_costs
from paretoformer.search.planning.block_repair import BlockRepairs
from paretoformer.search.planning.block_table import (
    BlockTable,
    KnownRows,
    TimedBlocks,
    TooLate,
    block_table,
    table_key,
)
from paretoformer.search.planning.knapsack import BlockOptions, KnapsackProblem
from paretoformer.search.planning.learn import best_screened, learn
from paretoformer.search.planning.plan import Plan, blocks_of_axes, kinds_of, study_space
from paretoformer.search.planning.screen import Screen
from paretoformer.search.planning.screener import Screener, StartsWorkers
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.study.budget import is_short, timing_seconds
from paretoformer.search.study.spec import Spec
from paretoformer.search.study.subject import Subject
from paretoformer.spaces.axes import axis_of
from paretoformer.spaces.axes.axis import Stage
from paretoformer.spaces.axes.block_options import BlockKind
from paretoformer.spaces.axes.evidence import Evidence
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.space import Space

FORECASTS = 10
TABLE = 0.75
"""Share of the time for preparation after which no more options are measured; the rest is for the
rounds of screening, which correct them."""
ROUNDS = 6
"""Rounds of solving and screening, to correct the sums."""
FEWER_ROUNDS = 3
"""The same in a short study. Three more rounds take as long as one or two trials."""
BLOCK_TIMES = 4
"""Duration of timing the options of a layer, as a multiple of a trial's timing; the first
candidates depend on it."""

TOO_LATE = "There was no time for a table of blocks: the search begins with evenly spaced cuts."


@dataclass(frozen=True)
class Forecaster:
    """Forecasts for one study.

    is_late: whether a share of the time for preparation is spent. workers: screen if it would take
    long here; None: never.
    """

    spec: Spec
    subject: Subject
    folder: RunFolder
    progress: Progress
    is_late: Callable[[float], bool]
    workers: StartsWorkers | None

    def plan(self, evidence: Evidence) -> Plan:
        """Uses a block table if the study wants one and there is time for it."""
        blocks = blocks_of_axes(evidence)
        space = study_space(self.spec, evidence, solved=False)
        if not (blocks and self.spec.search.table):
            return Plan(evidence, kinds=kinds_of(space))
        try:
            return self._solved(evidence, blocks)
        except TooLate:
            return Plan(evidence, kinds=kinds_of(space), notes=(TOO_LATE,))

    def _solved(self, evidence: Evidence, blocks: Mapping[str, BlockKind]) -> Plan:
        space = study_space(self.spec, evidence, solved=True)
        costs = self._costs(space, blocks)
        timed = {name: (block, costs.blocks[name]) for name, block in blocks.items()}
        screen = self._screen(space, timed)
        rounds = FEWER_ROUNDS if is_short(self.spec) else ROUNDS
        with Screener(screen, self.workers, left=rounds * FORECASTS) as screener:
            table = self._table(space, timed, screener)
            problem, found = learn(
                _problem(space.dense, timed, costs, table),
                screener,
                rounds,
                FORECASTS,
                progress=lambda done, total: self.progress("Trying what is predicted", done, total),
                is_late=lambda: self.is_late(1.0),
            )
        staying = _staying(table) if space.removes_layers else ""
        return Plan(
            evidence,
            tuple(best_screened(found, FORECASTS)),
            tuple(kind for kind in kinds_of(space) if np.isfinite(problem.nats(kind))),
            problem,
            tuple(filter(None, (_slower(timed), staying, _alone(screener.trouble)))),
        )

    def _costs(self, space: Space, blocks: Mapping[str, BlockKind]) -> ForwardCosts:
        """Costs, timed with as many threads as trials."""
        subject = self.subject
        of_all = space.completed(space.dense).of_stage(Stage.RECOVERY).items()
        free = {name: value for name, value in of_all if axis_of(name).is_free(value)}
        torch.set_num_threads(subject.target.threads)
        found = block_costs(
            subject.model,
            subject.workload,
            subject.target,
            blocks,
            space.dense.replaced(**free),
            self.progress,
            BLOCK_TIMES * timing_seconds(self.spec)[0],
        )
        torch.set_num_threads(physical_cores())
        return found

    def _screen(self, space: Space, timed: TimedBlocks) -> Screen:
        teacher = self.subject.teacher(self.progress)
        if not space.repairs:
            return Screen(teacher, None)
        choices = [choice for block, costs in timed.values() for choice in block.mechanisms(costs)]
        return Screen(teacher, BlockRepairs.of(teacher, choices))

    def _table(self, space: Space, timed: TimedBlocks, screener: Screener) -> BlockTable:
        """The block table, with known rows from other runs on the same model and texts."""
        removable = space.removes_layers
        key = self._table_key(space, timed)
        known = KnownRows(cache_folder() / "blocks" / f"{key}.parquet", key)
        model = self.subject.model
        late = partial(self.is_late, TABLE)
        table = block_table(screener, model, timed, removable, known, self.progress, late)
        known.write(self.folder.blocks)
        return table

    def _table_key(self, space: Space, timed: TimedBlocks) -> str:
        texts = self.subject.teacher(self.progress).texts
        used = [tensor for batch in (*texts.fit, *texts.held) for tensor in batch.values()]
        config: Any = self.subject.model.config
        meanings = (block.meaning for block, _ in timed.values())
        repaired = str(space.repairs)
        parts = (self.subject.model_digest, config.to_json_string(), repaired, *meanings)
        return table_key(parts, used)


def _problem(
    dense: Candidate, timed: TimedBlocks, costs: ForwardCosts, table: BlockTable
) -> KnapsackProblem:
    blocks = (BlockOptions(block, table.nats[name], own) for name, (block, own) in timed.items())
    return KnapsackProblem(
        dense, tuple(blocks), costs.layer, table.removed, rest=costs.rest, last=costs.last
    )


def _slower(timed: TimedBlocks) -> str:
    slower = (name for block, costs in timed.values() for name in block.slower(costs))
    settings = Counter(name.partition("(")[0] for name in slower)
    if not settings:
        return ""
    names = (f"{name} ({n} settings)" if n > 1 else name for name, n in settings.items())
    return (
        "Not in the table of blocks, since they take longer here than what they would replace: "
        f"{', '.join(names)}."
    )


def _staying(table: BlockTable) -> str:
    unknown = int(np.isinf(table.removed).sum())
    if not unknown:
        return ""
    return (
        f"{unknown} of {len(table.removed)} layers are not removed, since there was no time to try "
        "the model without them, or it could not be repaired. More --minutes may change that."
    )


def _alone(trouble: str) -> str:
    return trouble and f"A part of the block table was measured without workers: {trouble}"
