"""The block table: the damage of every option of every block alone, after repair, in nats.

Sensitivities decide which heads and neurons an option keeps; a forward of the whole model measures
the damage. The table is cached in a file for other studies of the same model.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
from torch import nn

from paretoformer.evaluators.common.progress import Progress, silent
from paretoformer.search.planning.screen import EXAMPLES
from paretoformer.search.planning.screener import Screener
from paretoformer.spaces.axes.block_options import BlockKind, Costs, Damage
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.atomic import atomic_file
from paretoformer.spaces.models.families import shape_of

FORMAT = 2
"""Raise it when the same model and texts would give other numbers."""
WRITE_SECONDS = 10.0
"""Interval between writes to the file: a killed process loses no more than this."""
LAYER = "layer"
"""Name of the row for the removal of a whole layer."""


TimedBlocks = Mapping[str, tuple[BlockKind, Costs]]
"""Name -> a block of every layer, and the costs of its options."""


@dataclass(frozen=True)
class Row:
    """An option of a block in one layer, or the removal of the layer."""

    layer: int
    block: str
    option: int


@dataclass(frozen=True)
class BlockTable:
    """nats: block name -> (layers, options); inf: not to be tried.

    removed: (layers,) nats of the model without that layer; inf: must stay.
    """

    nats: Mapping[str, Damage]
    removed: Damage


def block_table(
    screener: Screener,
    model: nn.Module,
    blocks: TimedBlocks,
    removable: bool,
    known: KnownRows,
    progress: Progress = silent,
    is_late: Callable[[], bool] = lambda: False,
) -> BlockTable:
    """Measure the rows that are not known yet.

    screener: called with candidates that differ from dense in one block. removable: whether layers
    may be removed. known: rows not to measure again; gets the new ones. is_late: whether there is
    no time left for the table.

    Raises:
        TooLate: time was over; measured rows are kept.
    """
    dense = Candidate.dense(*shape_of(model.config))
    layers = dense.shape.layers
    rows = list(_rows(blocks, layers, removable))
    missing: dict[Candidate, list[Row]] = {}
    for row in rows:
        if row not in known:
            missing.setdefault(_candidate(dense, blocks, row), []).append(row)
    try:
        with closing(screener(list(missing))) as screened:
            while missing:
                if is_late():
                    raise TooLate
                candidate, nats = next(screened)
                for row in missing.pop(candidate):
                    known.add(row, nats)
                done = len(rows) - sum(map(len, missing.values()))
                progress("Measuring blocks", done, len(rows))
    finally:
        known.write()
    progress("Measuring blocks", len(rows), len(rows))
    return _table(blocks, layers, removable, known)


def _table(blocks: TimedBlocks, layers: int, removable: bool, known: KnownRows) -> BlockTable:
    nats = {}
    for name, (block, costs) in blocks.items():
        columns = {
            option: np.array([known[Row(layer, name, option)] for layer in range(layers)])
            for option in block.measured(costs)
        }
        nats[name] = block.filled(columns)
    gone = [known[Row(layer, LAYER, 0)] if removable else np.inf for layer in range(layers)]
    return BlockTable(nats, np.array(gone))


class TooLate(Exception):
    """There was no time for the whole table."""


def _rows(blocks: TimedBlocks, layers: int, removable: bool) -> Iterator[Row]:
    for layer in range(layers):
        for name, (block, costs) in blocks.items():
            for option in block.measured(costs):
                yield Row(layer, name, option)
        if removable:
            yield Row(layer, LAYER, 0)


def _candidate(dense: Candidate, blocks: TimedBlocks, row: Row) -> Candidate:
    """The dense model with one option in one layer."""
    layers = dense.shape.layers
    if row.block == LAYER:
        return dense.replaced(layers=tuple(layer != row.layer for layer in range(layers)))
    block, _ = blocks[row.block]
    options = [row.option if layer == row.layer else block.uncut for layer in range(layers)]
    return dense.replaced(**block.values(options))


class KnownRows:
    """Measured rows, kept in a Parquet file.

    path: None keeps them in memory only. key: what the numbers depend on; a file with another key
    is ignored.
    """

    def __init__(self, path: Path | None = None, key: str = "") -> None:
        self._path, self._key = path, key
        self._nats: dict[Row, float] = {}
        self._written = time.monotonic()
        self.new = 0
        if path is not None and path.exists():
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            table = pq.read_table(path)
            metadata = json.loads((table.schema.metadata or {})[b"paretoformer"])
            if metadata["key"] != self._key:
                return
            for cells in table.to_pylist():
                self._nats[Row(cells["layer"], cells["block"], cells["option"])] = cells["nats"]
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
            self._nats.clear()  # an unreadable file: measure again

    def __len__(self) -> int:
        return len(self._nats)

    def __contains__(self, row: Row) -> bool:
        return row in self._nats

    def __getitem__(self, row: Row) -> float:
        return self._nats[row]

    def add(self, row: Row, nats: float) -> None:
        self._nats[row] = nats
        self.new += 1
        if time.monotonic() - self._written > WRITE_SECONDS:
            self.write()

    def write(self, path: Path | None = None) -> None:
        """Complete or not at all. path: overrides the own one."""
        self._written = time.monotonic()
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
        with suppress(OSError):  # the file is only a cache
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as part:
                pq.write_table(pa.Table.from_pylist(rows, schema), part)


def table_key(parts: Sequence[str], texts: Iterable[torch.Tensor]) -> str:
    """A digest of everything that the numbers of a table depend on."""
    own = (str(FORMAT), str(EXAMPLES), torch.__version__, transformers.__version__)
    digest = hashlib.sha256("\n".join((*own, *parts)).encode())
    for text in texts:
        digest.update(text.contiguous().numpy().data)
    return digest.hexdigest()[:32]
