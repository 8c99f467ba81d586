"""Predictions of a candidate, and their comparison with the dense model's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from paretoformer.evaluators.data.workload import SCORING_BATCH, Split, in_order
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.spaces.build import CANDIDATE


def predictions(bench: Bench) -> np.ndarray:
    """(examples, ...): the candidate's predictions as from `Task.predict`; computed once."""
    if "predictions" not in bench.memo:
        rows: dict[int, np.ndarray] = {}
        with torch.inference_mode():
            for indices, batch in batches(bench, bench.split):
                answers = bench.task.predict(bench.runnable(**batch))
                rows |= zip(indices.tolist(), answers, strict=True)
        bench.memo["predictions"] = in_order(rows)
    outputs: np.ndarray = bench.memo["predictions"]
    return outputs


@dataclass(frozen=True)
class Compared:
    """A candidate's outputs compared with the dense model's.

    likeness: (examples,), 1 if equal. divergence: (examples,). vectors: the candidate's and the
    dense model's, (2, examples, width); None unless the task embeds.
    """

    likeness: npt.NDArray[np.float64]
    divergence: npt.NDArray[np.float64]
    vectors: npt.NDArray[np.float32] | None = None


def compared(bench: Bench) -> Compared:
    """Compare on the examples that steer the search, or on those of the confirmation; computed
    once."""
    if "compared" not in bench.memo:
        split = bench.split if bench.steering is None else bench.steering
        with torch.inference_mode():
            bench.memo["compared"] = _compared(bench, split)
    comparison: Compared = bench.memo["compared"]
    return comparison


def _compared(bench: Bench, split: Split) -> Compared:
    likeness, divergence = np.empty(len(split)), np.empty(len(split))
    task, vectors = bench.task, dict[int, np.ndarray]()
    candidate = getattr(bench.model, CANDIDATE, None)
    is_dense = task.answers.by_row and candidate is not None and candidate.is_dense
    for (indices, batch), dense in zip(
        batches(bench, split), _dense_outputs(bench, split), strict=True
    ):
        output = dense if is_dense else bench.runnable(**batch)  # the same: once is enough
        likeness[indices] = task.likeness(output, dense, batch)
        divergence[indices] = task.answers.divergence(output, dense, batch).double().cpu().numpy()
        if task.embeds:
            pairs = np.stack((task.predict(output), task.predict(dense)), axis=1)
            vectors |= zip(indices.tolist(), pairs, strict=True)
    found = in_order(vectors).swapaxes(0, 1) if vectors else None
    return Compared(likeness, divergence.clip(min=0.0), found)  # below 0 only by rounding


def _dense_outputs(bench: Bench, split: Split) -> list[Any]:
    """In the same batches as the candidate's; computed once per process, in larger batches where
    outputs do not depend on the batch."""
    kept, size, answers = bench.dense_outputs, _size(bench), bench.task.answers
    key = id(split), size
    if key not in kept:
        at_once = max(size, SCORING_BATCH) if answers.by_row else size
        made = bench.workload.batches(split, bench.target.device, at_once)
        outputs = [answers.kept(bench.dense(**batch)) for _, batch in made]
        if at_once != size:
            rows = torch.cat([getattr(output, answers.output) for output in outputs])
            outputs = [SimpleNamespace(**{answers.output: part}) for part in rows.split(size)]
        kept[key] = outputs
    return kept[key]


def batches(bench: Bench, split: Split) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
    """(indices into the split, model inputs), in the candidate's batch size."""
    return bench.workload.batches(split, bench.target.device, _size(bench))


def _size(bench: Bench) -> int:
    """Examples per batch.

    If a row's output depends on its batch, as with dynamic quantisation, the target's batch size is
    used, so that scores are those of the served model.
    """
    size = bench.target.batch_size if bench.runnable.couples_rows else SCORING_BATCH
    return min(size, bench.workload.inputs.most)
