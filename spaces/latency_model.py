"""The latency of candidates in one runtime, predicted as a sum over blocks and refitted as it is
measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.solver import Programme

RIDGE = 0.01
"""How strongly factors are held at the runtime's speed-up of dense, against one measurement. The
square of what a block's share of the time may well differ by, against the square of the noise."""

LEAST_REST = 0.03
"""Share of the dense model's time that is outside its layers, at least: embeddings and head."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LatencyModel:
    """Milliseconds = constant + Σ factor · part, the parts being those of a programme in torch."""

    programme: Programme
    constant: float
    factors: Floats

    @classmethod
    def fitted(
        cls,
        programme: Programme,
        torch_dense: float,
        dense: float,
        measured: Sequence[tuple[Candidate, float]],
    ) -> LatencyModel:
        """By ridge regression on proportions, from what the runtime makes of the dense model.

        torch_dense: milliseconds of the dense model in torch; what its blocks do not take is the
        constant. dense: in this runtime. measured: candidates in it, with milliseconds.
        """
        blocks = programme.parts(programme.dense)
        assert blocks is not None
        speed = dense / torch_dense
        rest = max(torch_dense - blocks.sum(), LEAST_REST * torch_dense)
        start = speed * np.array([rest, *np.ones(len(blocks))])
        rows, wanted = [np.array([1.0, *blocks])], [dense]
        for candidate, milliseconds in measured:
            parts = programme.parts(candidate)
            if parts is not None:
                rows.append(np.array([1.0, *parts]))
                wanted.append(milliseconds)
        # In units of the start, so that the ridge holds each at its own size.
        scales = np.maximum(start, 1e-9)
        design = np.stack(rows) * scales / np.array(wanted)[:, None]
        left = design.T @ design + RIDGE * np.eye(len(scales))
        right = design.T @ np.ones(len(wanted)) + RIDGE * np.ones(len(scales))
        solved = np.maximum(np.linalg.solve(left, right), 0.05) * scales
        return cls(programme, float(solved[0]), solved[1:])

    def predict(self, candidate: Candidate) -> float:
        """NaN where the programme does not know what the candidate has."""
        parts = self.programme.parts(candidate)
        return float("nan") if parts is None else self.constant + float(self.factors @ parts)

    def solver(self) -> Programme:
        """The programme in this runtime's milliseconds."""
        return self.programme.scaled(self.factors)
