"""Neuron masks: which feed-forward neurons of each layer stay.

A layer has thousands of neurons, so a mask holds packed bits. A layer that keeps all or none needs
no bits, so the uncompressed model's mask needs no number of neurons.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

NeuronScores = npt.NDArray[np.float64]
"""Neuron scores: (layers, neurons), larger matters more."""

ALL = None
NONE = b""


@dataclass(frozen=True)
class NeuronMask:
    """The kept neurons of every layer.

    rows: per layer: None if all stay, b"" if none, else one bit per neuron.
    neurons: of one layer of the dense model; 0 where no row has bits.

    Raises:
        ValueError: a row's number of bits is not the number of neurons.
    """

    rows: tuple[bytes | None, ...]
    neurons: int = 0

    def __post_init__(self) -> None:
        rows = tuple(self._canonical(row) for row in self.rows)
        object.__setattr__(self, "rows", rows)
        if not any(rows):
            object.__setattr__(self, "neurons", 0)

    def _canonical(self, row: bytes | None) -> bytes | None:
        if not row:
            return row
        if len(row) != -(-self.neurons // 8):
            raise ValueError(
                f"a layer of {self.neurons} neurons needs {-(-self.neurons // 8)} bytes of bits, "
                f"but got {len(row)}."
            )
        kept = int(self._bits(row).sum())
        return ALL if kept == self.neurons else row if kept else NONE

    def _bits(self, row: bytes) -> npt.NDArray[np.bool_]:
        packed = np.frombuffer(row, dtype=np.uint8)
        bits: npt.NDArray[np.bool_] = np.unpackbits(packed, count=self.neurons).astype(bool)
        return bits

    @classmethod
    def all(cls, layers: int) -> NeuronMask:
        return cls((ALL,) * layers)

    @classmethod
    def ranked(cls, widths: Sequence[int], scores: NeuronScores) -> NeuronMask:
        """Keep the `widths[layer]` best neurons of each layer; ties go to the lower index.

        scores: (layers, neurons), larger matters more.

        Raises:
            ValueError: there is not one width per layer.
        """
        if len(widths) != len(scores):
            raise ValueError(
                f"widths need one number for each of the {len(scores)} layers, got {len(widths)}."
            )
        kept = np.zeros(scores.shape, dtype=bool)
        for row, width, order in zip(
            kept, widths, np.argsort(-scores, axis=1, kind="stable"), strict=True
        ):
            row[order[:width]] = True
        return cls(tuple(np.packbits(row).tobytes() for row in kept), scores.shape[1])

    @property
    def layers(self) -> int:
        return len(self.rows)

    def indices(self, layer: int, neurons: int) -> tuple[int, ...]:
        """The kept neurons of one layer, ascending; neurons: of the model's layers.

        Raises:
            ValueError: the mask is of a model with another number of neurons.
        """
        row = self.rows[layer]
        if row is ALL:
            return tuple(range(neurons))
        if row and neurons != self.neurons:
            raise ValueError(
                f"the candidate has {self.neurons} feed-forward neurons a layer, "
                f"but the model has {neurons}."
            )
        return tuple(np.flatnonzero(self._bits(row)).tolist()) if row else ()

    def width(self, layer: int) -> int | None:
        """Kept neurons of one layer; None where all stay."""
        row = self.rows[layer]
        return None if row is ALL else int(self._bits(row).sum()) if row else 0

    def share(self, layer: int) -> float:
        """Kept share of the neurons of one layer, 0 to 1."""
        width = self.width(layer)
        return 1.0 if width is None else width / self.neurons if width else 0.0

    @property
    def total_share(self) -> float:
        """Kept share of all neurons, 0 to 1."""
        return sum(map(self.share, range(self.layers))) / self.layers

    def to_dict(self) -> dict[str, Any]:
        """JSON form: bits in base64, the first neuron in the highest bit."""
        kept = [row if row is ALL else base64.b64encode(row).decode() for row in self.rows]
        return {"neurons": self.neurons, "kept": kept}

    @classmethod
    def from_dict(cls, data: Any) -> NeuronMask:
        """Raises ValueError, KeyError or TypeError when `data` is not what `to_dict` returned."""
        unknown = data.keys() - {"neurons", "kept"}
        if unknown:
            raise ValueError(f"unknown keys {sorted(unknown)} in the feed-forward neurons.")
        try:
            rows = [None if row is None else _bytes(row) for row in data["kept"]]
        except binascii.Error as error:
            raise ValueError(f"the bits of a layer's neurons are no base64: {error}.") from None
        return cls(tuple(rows), int(data["neurons"]))


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
