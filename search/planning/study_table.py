"""The block table of a study: measured here or on workers, or taken from another run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paretoformer.evaluators.common.progress import Progress
from paretoformer.evaluators.demo import cache_folder
from paretoformer.search.dispatch.memory import room_beside
from paretoformer.search.planning.block_repair import BlockRepairs
from paretoformer.search.planning.block_table import BlockTable, KnownRows, block_table, table_key
from paretoformer.search.planning.screened import ScreenedByWorkers, StartsWorkers
from paretoformer.search.planning.screening import Screen, Screening, Screens
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.study.subject import Subject
from paretoformer.spaces.axes import axes
from paretoformer.spaces.axes.axis import Evidence
from paretoformer.spaces.axes.block_options import Block, Costs


class StudyTable:
    """How much each option of each block damages the model of one study by itself.

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

    def screened_by(self, workers: StartsWorkers | None) -> ScreenedByWorkers | None:
        """As many workers as there is memory for; None if that is fewer than two."""
        most = room_beside(self._screen.nbytes) // self._screen.worker_bytes
        if workers is None or most < 2:
            return None
        return ScreenedByWorkers(self._screen, workers, most)

    def screens(self, elsewhere: Screens | None, left: int) -> Screens:
        """left: how many candidates are screened after the table."""
        return Screening(self._screen, elsewhere, left)

    def measured(
        self,
        screens: Screens,
        folder: RunFolder,
        progress: Progress,
        is_late: Callable[[], bool],
    ) -> BlockTable:
        """Rows that another run measured on the same model and texts are taken from it."""
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
