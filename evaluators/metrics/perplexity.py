"""Perplexity: the exponential of a language model's mean loss per token."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from paretoformer.evaluators.common.directions import Direction
from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.common.statistics import bootstrap_interval
from paretoformer.evaluators.data.workload import IGNORED
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.metric import Quality
from paretoformer.evaluators.metrics.predictions import batches
from paretoformer.evaluators.metrics.registry import register


class Perplexity(Quality):
    """The exponential of the mean cross entropy per token, in nats. The interval is a percentile
    bootstrap over texts.

    Texts are evaluated separately, without overlap: their first tokens have little context, so the
    value is higher than with a sliding window.
    """

    name = "perplexity"
    unit = "tokens"
    direction: ClassVar[Direction] = "minimize"
    requirement = "perplexity<=1.05*dense"

    def measure(self, bench: Bench) -> Measurement:
        """Raises ValueError if outputs are not finite, as after overflow in a low precision."""
        nats = nats_of_texts(bench)
        if not np.isfinite(nats).all():
            raise ValueError("the model's answers are not finite")
        low, high = bootstrap_interval(lambda rows: _perplexity(nats[rows]), len(nats))
        return Measurement(_perplexity(nats), low, high, self.unit)


def nats_of_texts(bench: Bench) -> np.ndarray:
    """(texts, 2): summed cross entropy of a text's tokens, in nats, and their number."""
    labels = torch.from_numpy(bench.split.labels)
    result = np.zeros((len(labels), 2))
    with torch.inference_mode():
        for indices, batch in batches(bench, bench.split):
            logits = bench.runnable(**batch).logits.float()
            wanted = labels[indices][:, : logits.shape[1]].to(logits.device)
            nats = F.cross_entropy(
                logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="none"
            ).view_as(wanted)
            counts = (wanted != IGNORED).sum(dim=1)
            result[indices] = torch.stack((nats.sum(dim=1), counts), dim=1).cpu().numpy()
    return result


def _perplexity(found: np.ndarray) -> float:
    nats, tokens = found.sum(axis=0)
    return float(np.exp(nats / max(tokens, 1)))


register(Perplexity())
