"""The block table: what each option of each block damages by itself, mended, in nats from dense.

First-order sensitivities say which heads and neurons an option keeps; a forward of the whole model
says what that costs in quality. It is kept in a file, which another study of the same model finds.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
from torch import nn

from paretoformer.evaluators.progress import Progress, silent
from paretoformer.spaces.block import Block, Costs, Damage
from paretoformer.spaces.build import build
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.families import shape_of
from paretoformer.spaces.recovery.block_repair import BlockRepairs
from paretoformer.spaces.recovery.teacher import Teacher

FORMAT = 2
"""Raise it whenever the same model and texts would give other numbers."""
EXAMPLES = 64
"""Texts that damage is measured on, about; of the teacher's held-out ones."""
LAYER = "layer"
"""The row of a whole layer that is gone."""


class Screen:
    """Nats between the answers of a candidate's structure and dense, in torch.

    repairs: mend each block; None: blocks stay as the cut left them.
    """

    def __init__(self, teacher: Teacher, repairs: BlockRepairs | None) -> None:
        self._teacher, self._repairs = teacher, repairs
        self._model: nn.Module = teacher.model
        texts = sum(len(next(iter(batch.values()))) for batch in teacher.texts.held)
        self._every = max(1, texts // EXAMPLES)

    def of(self, candidate: Candidate) -> float:
        """Mean over the texts."""
        with torch.no_grad():
            model = build(candidate, self._model).model.eval()
            if self._repairs is not None:
                self._repairs.mend(model, candidate)
        return self._teacher.divergence(model, every=self._every)


@dataclass(frozen=True)
class Row:
    """One block's option in one layer, or the layer's removal."""

    layer: int
    block: str
    option: int


@dataclass(frozen=True)
class BlockTable:
    """nats: of each kind of block, (layers, options); inf where it was not to be tried.

    removed: (layers,) of the model without that layer; inf where layers must stay.
    """

    nats: Mapping[str, Damage]
    removed: Damage


def block_table(
    screen: Screen,
    model: nn.Module,
    blocks: Mapping[str, tuple[Block, Costs]],
    removable: bool,
    known: KnownRows,
    progress: Progress = silent,
    is_late: Callable[[], bool] = lambda: False,
) -> BlockTable:
    """Measure what is not known yet.

    is_late: whether there is no more time for it.

    Raises:
        TooLate: time was over; what was measured is kept.

    blocks: name -> kind of block, and what its options cost. removable: whether layers may go.
    """
    dense = Candidate.dense(*shape_of(model.config))
    layers = dense.shape.layers
    rows = list(_rows(blocks, layers, removable))
    for done, row in enumerate(rows, start=1):
        if row not in known:
            if is_late():
                known.write()
                raise TooLate
            known.add(row, _nats(screen, _candidate(dense, blocks, row)))
        if row.layer != rows[min(done, len(rows) - 1)].layer:
            known.write()
        progress("Measuring blocks", done, len(rows))
    known.write()
    found = {}
    for name, (block, costs) in blocks.items():
        columns = {
            option: np.array([known[Row(layer, name, option)] for layer in range(layers)])
            for option in block.measured(costs)
        }
        found[name] = block.filled(columns)
    gone = [known[Row(layer, LAYER, 0)] if removable else np.inf for layer in range(layers)]
    return BlockTable(found, np.array(gone))


class TooLate(Exception):
    """There was no time for the whole table."""


def _nats(screen: Screen, candidate: Candidate) -> float:
    """Infinite where the block cannot be mended, or the model has no answer."""
    try:
        found = screen.of(candidate)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        return float("inf")
    return found if np.isfinite(found) else float("inf")


def _rows(blocks: Mapping[str, tuple[Block, Costs]], layers: int, removable: bool) -> Iterator[Row]:
    for layer in range(layers):
        for name, (block, costs) in blocks.items():
            for option in block.measured(costs):
                yield Row(layer, name, option)
        if removable:
            yield Row(layer, LAYER, 0)


def _candidate(dense: Candidate, blocks: Mapping[str, tuple[Block, Costs]], row: Row) -> Candidate:
    """The dense model with one option in one layer."""
    layers = dense.shape.layers
    if row.block == LAYER:
        return dense.replaced(layers=tuple(layer != row.layer for layer in range(layers)))
    block, _ = blocks[row.block]
    options = [row.option if layer == row.layer else block.uncut for layer in range(layers)]
    return dense.replaced(**block.values(options))


class KnownRows:
    """Rows that were measured, kept in a Parquet file.

    path: None keeps them in memory alone. key: what the numbers depend on; a file of other things
    is not read.
    """

    def __init__(self, path: Path | None = None, key: str = "") -> None:
        self._path, self._key = path, key
        self._nats: dict[Row, float] = {}
        self.new = 0
        if path is not None and path.exists():
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            table = pq.read_table(path)
            metadata = json.loads((table.schema.metadata or {})[b"paretoformer"])
            if metadata["key"] != self._key:
                return
            for each in table.to_pylist():
                self._nats[Row(each["layer"], each["block"], each["option"])] = each["nats"]
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
            self._nats.clear()  # what cannot be read is measured again

    def __len__(self) -> int:
        return len(self._nats)

    def __contains__(self, row: Row) -> bool:
        return row in self._nats

    def __getitem__(self, row: Row) -> float:
        return self._nats[row]

    def add(self, row: Row, nats: float) -> None:
        self._nats[row] = nats
        self.new += 1

    def write(self, path: Path | None = None) -> None:
        """Whole or not at all. path: instead of its own."""
        path = path or self._path
        if path is None:
            return
        rows = [
            {"layer": row.layer, "block": row.block, "option": row.option, "nats": nats}
            for row, nats in self._nats.items()
        ]
        columns = {"layer": pa.int32(), "block": pa.string(), "option": pa.int32()}
        own = {b"paretoformer": json.dumps({"key": self._key}).encode()}
        schema = pa.schema([*columns.items(), ("nats", pa.float64())], metadata=own)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with suppress(OSError):  # the table is as good without its file
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows, schema), part)
            part.replace(path)


def table_key(parts: Sequence[str], texts: Iterable[torch.Tensor]) -> str:
    """One text for all that the numbers of a table depend on."""
    own = (str(FORMAT), str(EXAMPLES), torch.__version__, transformers.__version__)
    digest = hashlib.sha256("\n".join((*own, *parts)).encode())
    for each in texts:
        digest.update(each.contiguous().numpy().data)
    return digest.hexdigest()[:32]
