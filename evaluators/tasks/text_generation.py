"""Task `text-generation`: causal language models, which predict the next token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from transformers.models.auto import modeling_auto

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.data.examples import Examples, Form, Labels, SplitName
from paretoformer.evaluators.data.workload import IGNORED, SCORING_BATCH, Encoded, Workload
from paretoformer.evaluators.tasks.task import register
from paretoformer.evaluators.tasks.text import TextInputs
from paretoformer.evaluators.tasks.token_labels import TokenLabels, scored_tokens
from paretoformer.spaces.models.families import FAMILIES
from paretoformer.spaces.models.next_tokens import NextTokens

LOGITS = 2**25
"""Maximum number of logits in a batch: 128 MiB in float32."""


@dataclass(frozen=True)
class Prompts(TextInputs):
    """most: texts per batch, limited by the size of the logits."""

    most: int

    def timing(self, examples: Sequence[Encoded], target: Target) -> dict[str, torch.Tensor]:
        """A prompt; as in generation, only the last token's logits are computed."""
        last = torch.tensor([target.sequence_length - 1])
        return super().timing(examples, target) | {"logits_to_keep": last}


class TextGeneration(TokenLabels):
    """Each token of a text is the label of the previous one.

    Texts are truncated to the target's sequence length; lines of a txt file are joined to passages
    of about that length. `latency_ms` is the prefill of a prompt of that length, up to the last
    token's logits; `decode_ms` the time of the next token. Attention mechanisms approximate whole
    sequences: a token that uses a key-value cache attends to all of it exactly.
    """

    name = "text-generation"
    auto = transformers.AutoModelForCausalLM
    architectures: ClassVar[Mapping[str, Any]] = {
        name: architecture
        for name, architecture in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()
        if name in FAMILIES and FAMILIES[name].causal
    }
    answers: ClassVar[NextTokens] = NextTokens()
    scores = ("perplexity",)
    form: ClassVar[Form] = "passage"
    generates = True

    def encode(
        self, splits: Mapping[SplitName, Examples], tokenizer: Any, config: Any, target: Target
    ) -> Workload:
        made = super().encode(splits, tokenizer, config, target)
        assert isinstance(made.inputs, TextInputs)
        most = max(1, LOGITS // (target.sequence_length * int(config.vocab_size)))
        note = (
            f"Batches hold {most} texts at most, since each token has {config.vocab_size} logits: "
            "distillation adds up the gradients of several."
        )
        return replace(
            made,
            inputs=Prompts(made.inputs.padding, most),
            remarks=(*made.remarks, *((Remark(note),) if most < SCORING_BATCH else ())),
        )

    def read_labels(self, labels: Sequence[Any], config: Any) -> Labels:
        """Unchanged: there are none."""
        return Labels(tuple(labels))

    def doubts(self, answers: np.ndarray, labels: np.ndarray, config: Any) -> list[Remark]:
        given, wanted = scored_tokens(answers, labels)
        right = float((given == wanted).mean()) if len(wanted) else 0.0
        usual = float(np.bincount(wanted).max() / len(wanted)) if len(wanted) else 1.0
        if right > usual:
            return []
        return [
            Remark(
                f"The uncompressed model predicts {right:.1%} of {len(wanted)} next tokens, and "
                f"{usual:.1%} of them are the same token: always predicting that one would be as "
                "good. Is it a trained model, with its own tokenizer, and is data.text the right "
                "column?",
                doubt=True,
            )
        ]

    def same(self, output: Any, dense: Any) -> np.ndarray:
        """(rows, tokens): whether the most likely next token is the dense model's."""
        same: np.ndarray = self.answers.same(output, dense).cpu().numpy()
        return same

    def rows(
        self, examples: Examples, tokenizer: Any, target: Target
    ) -> tuple[list[Encoded], np.ndarray]:
        """labels: (rows, tokens of the longest row): the next token; `IGNORED` for the last."""
        rows, _ = super().rows(examples, tokenizer, target)
        labels = np.full((len(rows), max(len(row["input_ids"]) for row in rows)), IGNORED)
        for index, row in enumerate(rows):
            tokens = row["input_ids"]
            labels[index, : max(0, len(tokens) - 1)] = tokens[1:]
        return rows, labels


register(TextGeneration())
