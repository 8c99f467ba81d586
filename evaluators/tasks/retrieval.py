"""Task `retrieval`: which passages answer a query, as the cosines of their embeddings say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import nn

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.data.examples import Examples, Form, Labels, SplitName
from paretoformer.evaluators.data.workload import Encoded, Workload
from paretoformer.evaluators.tasks.feature_extraction import FeatureExtraction, prompts_of
from paretoformer.evaluators.tasks.queries import (
    check_order,
    doubts_about_order,
    relevance_of,
    with_query_numbers,
)
from paretoformer.evaluators.tasks.task import register
from paretoformer.evaluators.tasks.text import plainly

PROMPTS = ("query", "document", "passage", "corpus")
"""Names that sentence-transformers' `encode_query` and `encode_document` look for."""


class Retrieval(FeatureExtraction):
    """Sentence embeddings, over rows of a query (`data.text`), a passage (`data.text_pair`) and how
    relevant it is: 0 or more.

    What is scored is the order of the passages that the data have for each query, not a search in
    all of them. Rows of one query are in one split, so a split may be smaller than asked for. A
    passage of several queries may be in several splits.
    """

    name = "retrieval"
    tag = "sentence-similarity"
    scores: ClassVar[tuple[str, ...]] = ("ndcg", "mrr")
    guessed = False  # nothing tells it from another embedder
    form: ClassVar[Form] = "ranking"

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
        """In a random order where nothing is scored, or the first texts would be of few queries;
        each text once where it needs no partner."""
        rng = np.random.default_rng(0)
        if name == "recovery":
            texts = list(dict.fromkeys(super().apart(name, examples).texts))
            texts = [texts[index] for index in rng.permutation(len(texts))]
            return Examples(tuple(texts), ("",) * len(texts), ())
        if name in ("train", "steer"):
            order = rng.permutation(len(examples))
            columns = (examples.texts, examples.pairs, examples.labels)
            examples = Examples(
                *(tuple(each[i] for i in order) if each else () for each in columns)
            )
        return super().apart(name, examples)

    def encode(
        self, splits: Mapping[SplitName, Examples], tokenizer: Any, config: Any, target: Target
    ) -> Workload:
        """Labels are (rows, 2): the relevance, and the number of the query in its split."""
        workload = super().encode(splits, tokenizer, config, target)
        check_order(splits, {name: split.labels[::2] for name, split in workload.splits.items()})
        return workload

    def rows(
        self, examples: Examples, tokenizer: Any, target: Target
    ) -> tuple[list[Encoded], np.ndarray]:
        rows, relevance = plainly(examples, tokenizer, target)
        queries = [text for text in examples.texts[::2] for _ in range(2)]
        return rows, with_query_numbers(relevance, queries)

    def read_labels(self, labels: Sequence[Any], config: Any) -> Labels:
        return relevance_of(labels, self.name)

    def doubts(self, answers: np.ndarray, labels: np.ndarray, config: Any) -> list[Remark]:
        return doubts_about_order(*self.scored(answers, labels))


register(Retrieval())
