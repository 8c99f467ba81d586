"""The block table: the damage of every option of every block alone, after repair, in nats.

Sensitivities decide which heads and neurons an option keeps; a forward of the whole model measures
the damage. The table is cached in a file for other studies of the same model.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
from torch import nn

from paretoformer.evaluators.common.progress import Progress, silent
from paretoformer.search.planning.screener import Screener
from paretoformer.spaces.axes.block_options import BlockKind, Costs, Damage
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.atomic import atomic_file
from paretoformer.spaces.models.families import shape_of
from paretoformer.spaces.recovery.teacher import EXAMPLES, TOKENS

FORMAT = 4
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
    """Measure the rows that are not known yet, the most informative options first.

    If time is over, the other options are interpolated from those that are known in all layers; a
    mechanism is then not to be tried, and a layer without a row of its own must stay.

    screener: called with candidates that differ from dense in one block. removable: whether layers
    may be removed. known: rows not to measure again; gets the new ones. is_late: whether there is
    no time left for the table.

    Raises:
        TooLate: time was over before one option of every block was measured; measured rows are
            kept.
    """
    dense = Candidate.dense(*shape_of(model.config))
    layers = dense.shape.layers
    first, others = _columns(blocks)
    whole = [(LAYER, 0)] if removable else []
    rows = _rows([*first, *whole, *others], range(layers))

    def measure(wanted: Sequence[Row]) -> None:
        missing: dict[Candidate, list[Row]] = {}
        for row in wanted:
            if row not in known:
                missing.setdefault(_candidate(dense, blocks, row), []).append(row)
        with closing(screener(list(missing))) as screened:
            while missing and not is_late():
                candidate, nats = next(screened)
                for row in missing.pop(candidate):
                    known.add(row, nats)
                progress("Measuring blocks", sum(row in known for row in rows), len(rows))

    try:
        measure(_rows(first, range(layers)))
        measure(_rows(whole, _least_damage_first(known, first, layers)))
        measure(_rows(others, range(layers)))
    finally:
        known.write()
    found = [c for c in (*first, *others) if all(Row(n, *c) in known for n in range(layers))]
    if {name for name, _ in first} - {name for name, _ in found}:
        raise TooLate
    progress("Measuring blocks", len(rows), len(rows))
    return _table(found, blocks, layers, known)


Column = tuple[str, int]
"""A block and one of its options, in every layer."""


def _columns(blocks: TimedBlocks) -> tuple[list[Column], list[Column]]:
    """The options to measure, the most informative first: the first of every block, and the
    others. Between them come whole layers, whose rows take longest, since all other layers are
    repaired."""
    of_blocks = [
        [(name, option) for option in block.measured(costs)]
        for name, (block, costs) in blocks.items()
    ]
    first, *others = [*zip_longest(*of_blocks)] or [()]
    return list(filter(None, first)), list(filter(None, chain.from_iterable(others)))


def _rows(columns: Iterable[Column], layers: Iterable[int]) -> list[Row]:
    return [Row(layer, *column) for column in columns for layer in layers]


def _least_damage_first(known: KnownRows, first: Sequence[Column], layers: int) -> list[int]:
    """The layers, those first that can best do without their blocks: there may not be time for
    all."""
    damage = [sum(known.get(row, np.inf) for row in _rows(first, [n])) for n in range(layers)]
    return sorted(range(layers), key=damage.__getitem__)


def _table(
    columns: Sequence[Column], blocks: TimedBlocks, layers: int, known: KnownRows
) -> BlockTable:
    found = {
        column: np.array([known[Row(layer, *column)] for layer in range(layers)])
        for column in columns
    }
    nats = {
        name: block.filled({option: each for (of, option), each in found.items() if of == name})
        for name, (block, _) in blocks.items()
    }
    rows = (Row(layer, LAYER, 0) for layer in range(layers))
    removed = [known.get(row, np.inf) for row in rows]
    return BlockTable(nats, np.array(removed))


class TooLate(Exception):
    """There was no time for one option of every block."""


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

    def get(self, row: Row, default: float) -> float:
        return self._nats.get(row, default)

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
    own = (str(FORMAT), str(EXAMPLES), str(TOKENS), torch.__version__, transformers.__version__)
    digest = hashlib.sha256("\n".join((*own, *parts)).encode())
    for text in texts:
        digest.update(text.contiguous().numpy().data)
    return digest.hexdigest()[:32]
