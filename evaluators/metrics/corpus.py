"""Retrieval from a corpus: each query's passages are looked for among those of all queries."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.common.statistics import CUTOFF, bootstrap_interval
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.metric import Quality
from paretoformer.evaluators.metrics.predictions import predictions
from paretoformer.evaluators.metrics.registry import register

FOUND = 100
"""Passages that a first stage hands on."""


class _OfCorpus(Quality):
    """Mean over queries with a relevant passage, which are the samples; the interval is a
    percentile bootstrap over them.

    The corpus is every passage of the scored examples, once. What the data do not list for a query
    counts as not relevant, as in BEIR (Thakur et al. 2021, arXiv:2104.08663). A larger corpus is
    harder.
    """

    unit = "fraction"

    @abstractmethod
    def of_queries(self, found: np.ndarray, relevance: np.ndarray) -> np.ndarray | None:
        """(queries,); None where the corpus is too small.

        found: (queries, passages), relevances in the order of the ranking. relevance: in any order.
        """

    def measure(self, bench: Bench) -> Measurement | None:
        vectors, labels = predictions(bench), np.asarray(bench.split.labels)[::2]
        texts = [tuple(example["input_ids"]) for example in bench.split.examples[1::2]]
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        passages = np.array([places[text] for text in texts])
        _, queries = np.unique(labels[:, 1], return_inverse=True)
        relevance = np.zeros((queries.max() + 1, len(places)))
        np.maximum.at(relevance, (queries, passages), labels[:, 0])
        likeness = vectors[::2][_first(queries)] @ vectors[1::2][_first(passages)].T
        order = np.argsort(-likeness, axis=1, kind="stable")
        some = relevance.max(axis=1) > 0
        if some.sum() < 2:  # without an interval
            return None
        found = np.take_along_axis(relevance, order, axis=1)[some]
        scores = self.of_queries(found, relevance[some])
        if scores is None:
            return None
        low, high = bootstrap_interval(lambda rows: float(scores[rows].mean()), len(scores))
        samples = tuple(scores.tolist())
        return Measurement(float(scores.mean()), low, high, self.unit, samples=samples)


def _first(numbers: np.ndarray) -> np.ndarray:
    """The place of each number's first occurrence."""
    return np.unique(numbers, return_index=True)[1]


class CorpusNdcg(_OfCorpus):
    """nDCG@10 with linear gain in a corpus of all scored passages."""

    name = "corpus_ndcg"
    requirement = "corpus_ndcg>=dense-0.01"

    def of_queries(self, found: np.ndarray, relevance: np.ndarray) -> np.ndarray:
        best = -np.sort(-relevance, axis=1)[:, :CUTOFF]
        discount = 1 / np.log2(np.arange(best.shape[1]) + 2)
        ratio: np.ndarray = (found[:, :CUTOFF] @ discount) / (best @ discount)
        return ratio


class CorpusRecall(_OfCorpus):
    """Share of a query's relevant passages among the first 100 of all scored passages; not measured
    where there are no more than these."""

    name = "corpus_recall"
    requirement = "corpus_recall>=dense-0.01"

    def of_queries(self, found: np.ndarray, relevance: np.ndarray) -> np.ndarray | None:
        if found.shape[1] <= FOUND:
            return None
        share: np.ndarray = (found[:, :FOUND] > 0).sum(axis=1) / (relevance > 0).sum(axis=1)
        return share


register(CorpusNdcg())
register(CorpusRecall())
