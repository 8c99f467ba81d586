"""Task `retrieval`: rank passages by the cosine of their embedding and the query's."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from torch import nn

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.data.examples import Examples, SplitName
from paretoformer.evaluators.tasks.feature_extraction import FeatureExtraction, prompts_of
from paretoformer.evaluators.tasks.queries import PassageOrder
from paretoformer.evaluators.tasks.task import register

PROMPTS = ("query", "document", "passage", "corpus")
"""Prompt names of sentence-transformers' `encode_query` and `encode_document`."""


class Retrieval(PassageOrder, FeatureExtraction):
    """Sentence embeddings of queries and passages, two texts per row.

    `ndcg` and `mrr` rank the passages that the data list for a query; `corpus_ndcg` and
    `corpus_recall`, where asked for, look for them among those of all scored queries. A passage of
    several queries may be in several splits.
    """

    name = "retrieval"
    tag = "sentence-similarity"
    more_scores: ClassVar[tuple[str, ...]] = ("corpus_ndcg", "corpus_recall")
    texts_of_row: ClassVar[int] = 2

    def adapted(self, model: nn.Module, path: str) -> tuple[nn.Module, tuple[Remark, ...]]:
        model, remarks = super().adapted(model, path)
        prompts, default = prompts_of(path)
        of_sides = {key: prompts.get(key) for key in PROMPTS if key != default}
        if not any(of_sides.values()):
            return model, remarks
        named = ", ".join(f"{key}: {prompt!r}" for key, prompt in of_sides.items() if prompt)
        remark = Remark(
            f"{path}: sentence-transformers puts prompts before queries and passages ({named}). "
            "Here texts are taken as they are: put them into the data."
        )
        return model, (*remarks, remark)

    def apart(self, name: SplitName, examples: Examples) -> Examples:
        """Unscored splits: shuffled, so that a prefix covers many queries, and each text only once
        if it needs no partner."""
        rng = np.random.default_rng(0)
        if name == "recovery":
            texts = list(dict.fromkeys(super().apart(name, examples).texts))
            texts = [texts[index] for index in rng.permutation(len(texts))]
            return Examples(tuple(texts), ("",) * len(texts), (None,) * len(texts))
        if name in ("train", "steer"):
            order = rng.permutation(len(examples))
            examples = examples.take(order.tolist())
        return super().apart(name, examples)


register(Retrieval())
