"""The block table of a study: measured here or on workers, or taken from another run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from paretoformer.evaluators.block_table import BlockTable, KnownRows, block_table, table_key
from paretoformer.evaluators.demo import cache_folder
from paretoformer.evaluators.progress import Progress
from paretoformer.evaluators.screening import Screen, Screening, Screens
from paretoformer.search.dispatch.ray_session import STORED, available_memory
from paretoformer.search.dispatch.screened import ScreenedByWorkers, StartsFewWorkers
from paretoformer.search.results.run_folder import RunFolder
from paretoformer.search.study.subject import Subject
from paretoformer.spaces.axes import axes
from paretoformer.spaces.axis import Evidence
from paretoformer.spaces.block import Block, Costs
from paretoformer.spaces.recovery.block_repair import BlockRepairs


class StudyTable:
    """What each option damages by itself, in the model of one study.

    blocks: name -> kind of block, and what its options cost.
    """

    def __init__(
        self,
        subject: Subject,
        evidence: Evidence,
        blocks: dict[str, tuple[Block, Costs]],
        progress: Progress,
    ) -> None:
        self._subject, self._blocks = subject, blocks
        self._mends = any(axis.mends(evidence) for axis in axes())
        self._removable = any(axis.removes_layers(evidence) for axis in axes())
        teacher = subject.teacher(progress)
        self._texts = teacher.texts
        choices = [each for block, costs in blocks.values() for each in block.mechanisms(costs)]
        repairs = BlockRepairs.of(teacher, choices) if self._mends else None
        self._screen = Screen(teacher, repairs)

    def screens(self, stack: ExitStack, workers: StartsFewWorkers | None, left: int) -> Screens:
        """workers: used where it takes long, until `stack` is closed; as many as have room. left:
        candidates that are screened after the table."""
        others, screen = None, self._screen
        fitting = available_memory() - STORED * screen.nbytes
        most = fitting // screen.worker_bytes
        if workers is not None and most > 1:
            few = partial(workers, most=most)
            others = stack.enter_context(ScreenedByWorkers(screen, few))
        return Screening(self._screen, others, left=left)

    def measured(
        self,
        screens: Screens,
        folder: RunFolder,
        progress: Progress,
        is_late: Callable[[], bool],
    ) -> BlockTable:
        """From another run's where that is of the same."""
        subject = self._subject
        used = [each for b in (*self._texts.fit, *self._texts.held) for each in b.values()]
        config: Any = subject.model.config
        meanings = (block.meaning for block, _ in self._blocks.values())
        parts = (subject.model_digest, config.to_json_string(), str(self._mends), *meanings)
        key = table_key(parts, used)
        known = KnownRows(cache_folder() / "blocks" / f"{key}.parquet", key)
        model, removable = subject.model, self._removable
        table = block_table(screens, model, self._blocks, removable, known, progress, is_late)
        known.write(folder.blocks)
        return table
