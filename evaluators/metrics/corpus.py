"""Retrieval from a corpus: each query's passages are looked for among those of all queries."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from paretoformer.evaluators.common.statistics import CUTOFF
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.predictions import predictions
from paretoformer.evaluators.metrics.ranking import OfQueries
from paretoformer.evaluators.metrics.registry import register

FOUND = 100
"""Passages that a first stage hands on."""


class _OfCorpus(OfQueries):
    """Of queries with a relevant passage.

    The corpus is every passage of the scored examples, once. What the data do not list for a query
    counts as not relevant, as in BEIR (Thakur et al. 2021, arXiv:2104.08663). A larger corpus is
    harder.
    """

    @abstractmethod
    def of_query(self, found: np.ndarray, relevance: np.ndarray) -> float:
        """found: (100 or fewer,) relevances of the first passages of the ranking. relevance: those
        above 0 of all passages, the highest first."""

    def of_queries(self, bench: Bench) -> np.ndarray:
        vectors, labels = predictions(bench), np.asarray(bench.split.labels)[::2]
        texts = [tuple(example["input_ids"]) for example in bench.split.examples[1::2]]
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        of_rows = np.array([places[text] for text in texts])
        passages = vectors[1::2][np.unique(of_rows, return_index=True)[1]]
        scores = []
        for query in np.unique(labels[:, 1]):
            rows = np.flatnonzero(labels[:, 1] == query)
            relevance = np.zeros(len(passages))
            np.maximum.at(relevance, of_rows[rows], labels[rows, 0])
            if relevance.any():
                likeness = passages @ vectors[2 * rows[0]]
                order = np.argsort(-likeness, kind="stable")[:FOUND]
                best = -np.sort(-relevance[relevance > 0])
                scores.append(self.of_query(relevance[order], best))
        return np.array(scores)


class CorpusNdcg(_OfCorpus):
    """nDCG@10 with linear gain in a corpus of all scored passages."""

    name = "corpus_ndcg"
    requirement = "corpus_ndcg>=dense-0.01"

    def of_query(self, found: np.ndarray, relevance: np.ndarray) -> float:
        return _gain(found) / _gain(relevance)


class CorpusRecall(_OfCorpus):
    """Share of a query's relevant passages among the first 100 of all scored passages."""

    name = "corpus_recall"
    requirement = "corpus_recall>=dense-0.01"

    def of_query(self, found: np.ndarray, relevance: np.ndarray) -> float:
        return float((found > 0).sum() / len(relevance))


def _gain(relevance: np.ndarray) -> float:
    first = relevance[:CUTOFF]
    return float(first @ (1 / np.log2(np.arange(len(first)) + 2)))


register(CorpusNdcg())
register(CorpusRecall())
