"""Task `token-classification`: one label per word, such as entities in a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import transformers
from transformers.models.auto import modeling_auto

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.data.examples import Examples, Form, Labels, SplitName
from paretoformer.evaluators.data.table import DataError
from paretoformer.evaluators.data.workload import IGNORED, Encoded, Workload
from paretoformer.evaluators.tasks.classifier import not_single_label
from paretoformer.evaluators.tasks.labels import class_numbers, doubts, titles
from paretoformer.evaluators.tasks.task import load_tokenizer, register
from paretoformer.evaluators.tasks.text import rows_of
from paretoformer.evaluators.tasks.token_labels import TokenLabels, scored_tokens
from paretoformer.spaces.models.divergence import TokenDistributions
from paretoformer.spaces.models.tokens import Batch, token_mask


class TokenClassification(TokenLabels):
    """A text is a list of words with labels; entities are spans of `B-` and `I-` labels.

    A word's first subword token carries its prediction; other subword and special tokens are not
    scored. Words beyond the target's sequence length are truncated, and their entities not scored.
    """

    name = "token-classification"
    auto = transformers.AutoModelForTokenClassification
    architectures: ClassVar[Mapping[str, Any]] = (
        modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES
    )
    answers = TokenDistributions()
    scores = ("f1",)
    supervised = True
    form: ClassVar[Form] = "words"

    def unsuitable(self, config: Any) -> str:
        return not_single_label(config)

    def processor(self, path: str, *, trust_remote_code: bool = False) -> Any:
        """A tokenizer of bytes marks a word by the space before it, so each gets one."""
        tokenizer = super().processor(path, trust_remote_code=trust_remote_code)
        if getattr(tokenizer, "add_prefix_space", None) is False:
            return load_tokenizer(path, trust_remote_code=trust_remote_code, add_prefix_space=True)
        return tokenizer

    def encode(
        self, splits: Mapping[SplitName, Examples], tokenizer: Any, config: Any, target: Target
    ) -> Workload:
        if not tokenizer.is_fast:
            raise DataError(
                f"{type(tokenizer).__name__} cannot tell which word a token belongs to: save the "
                "tokenizer with its tokenizer.json."
            )
        made = super().encode(splits, tokenizer, config, target)
        return replace(made, remarks=(*made.remarks, *_unscored(splits, made)))

    def read_labels(self, labels: Sequence[Any], config: Any) -> Labels:
        """(rows, words) -> classes; `IGNORED` for a word without a label."""
        lengths = [0 if row is None else len(row) for row in labels]
        every = [IGNORED if x is None else x for row in labels for x in row or ()]
        classes = class_numbers(every, config, "word")
        words = iter(classes.values)
        rows = (
            tuple(IGNORED if (number := next(words)) is None else number for _ in range(length))
            for length in lengths
        )
        return Labels(tuple(row or None for row in rows), classes.remarks)

    def doubts(self, answers: np.ndarray, labels: np.ndarray, config: Any) -> list[Remark]:
        names = titles(config)
        remarks = doubts(*scored_tokens(answers, labels), names, "training words")
        if all(name.startswith("LABEL_") for name in names.values()):
            remarks.append(
                Remark(
                    "The labels of the model have no names, so nothing says which are entities: "
                    "set `id2label` in its config.json.",
                    doubt=True,
                )
            )
        return remarks

    def as_labels(self, output: Any, batch: Batch) -> np.ndarray:
        """(rows, tokens)"""
        mask = token_mask(batch, output.logits).cpu().numpy()
        return np.where(mask, self.predict(output), IGNORED)

    def varies(self, answers: np.ndarray) -> bool:
        return len(np.unique(answers[answers != IGNORED])) > 1

    def rows(
        self, examples: Examples, tokenizer: Any, target: Target
    ) -> tuple[list[Encoded], np.ndarray]:
        """The first subword token of each word has its label.

        labels: (rows, tokens of the longest row).
        """
        encoded = tokenizer(
            [list(words) for words in examples.texts],
            is_split_into_words=True,
            truncation=True,
            max_length=target.sequence_length,
        )
        rows = rows_of(encoded, tokenizer)
        labels = np.full((len(rows), max(len(row["input_ids"]) for row in rows)), IGNORED)
        for index, of_words in enumerate(examples.labels):
            before = None
            for place, word in enumerate(encoded.word_ids(index) if of_words is not None else ()):
                if word is not None and word != before:
                    labels[index, place] = of_words[word]
                before = word
        return rows, labels


def _unscored(splits: Mapping[SplitName, Examples], made: Workload) -> list[Remark]:
    """Number of labelled words without a token, in the splits that are scored."""
    words = scored = 0
    for name in ("search", "confirm"):
        if name in splits:
            words += sum(x != IGNORED for row in splits[name].labels for x in row or ())
            scored += int((made.splits[name].labels != IGNORED).sum())
    if words == scored:
        return []
    lost = f"{words - scored} of {words} labelled words are not scored"
    return [Remark(f"{lost}: they are cut off, or give no token.")]


register(TokenClassification())
