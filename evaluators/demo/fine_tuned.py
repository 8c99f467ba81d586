"""Demonstration classifiers: MiniLM, fine-tuned once on real reviews."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from paretoformer.evaluators.common.progress import Progress
from paretoformer.evaluators.common.target import Target, physical_cores
from paretoformer.evaluators.data.examples import Examples
from paretoformer.evaluators.data.workload import Workload
from paretoformer.evaluators.demo.assets import DemoError, Source, minilm, reviews
from paretoformer.evaluators.demo.recipe import Recipe, split, write_splits
from paretoformer.evaluators.demo.training import fine_tune
from paretoformer.evaluators.tasks import task_of


@dataclass(frozen=True)
class FineTuned(Recipe):
    source: Source
    sequence_length: int
    train_examples: int
    epochs: int
    least_accuracy: float
    """Below this validation accuracy, training failed and the checkpoint is not kept."""
    batch_size: int = 32
    learning_rate: float = 2e-4
    attention_dropout: float = 0.0
    """Nonzero prevents torch's fused attention: at 512 tokens 2.6x the time, and 8 GB."""
    search: int = 500
    confirm: int = 1000
    validation: int = 500
    seed: int = 0

    def parts(self) -> dict[str, Examples]:
        """Disjoint parts of the reviews."""
        sizes = {
            "search": self.search,
            "confirm": self.confirm,
            "validation": self.validation,
            "train": self.train_examples,
        }
        return split(reviews(self.source, self.seed), sizes)

    def make(self, folder: Path, progress: Progress) -> Mapping[str, Any]:
        parts = self.parts()
        accuracy = _train(self, parts, folder / "model", progress)
        if accuracy < self.least_accuracy:
            raise DemoError(
                f"fine-tuning reached a validation accuracy of {accuracy:.3f}, "
                f"but {self.least_accuracy} is expected; nothing was kept."
            )
        write_splits(parts, folder)
        return {"validation_accuracy": accuracy}


def _train(
    recipe: FineTuned, parts: dict[str, Examples], folder: Path, progress: Progress
) -> float:
    """Fine-tune MiniLM, save it with its tokenizer, and return its validation accuracy."""
    import transformers

    base = minilm()
    transformers.utils.logging.set_verbosity_error()  # no warning about the new head
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(physical_cores())
    task = task_of("text-classification")
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = task.auto.from_pretrained(
        base,
        num_labels=2,
        id2label={0: "negative", 1: "positive"},
        attn_implementation="sdpa",
        attention_probs_dropout_prob=recipe.attention_dropout,
    )
    target = Target(sequence_length=recipe.sequence_length)
    splits: Any = {"train": parts["train"], "search": parts["validation"]}
    workload = task.encode(splits, tokenizer, model.config, target)
    fine_tune(
        model,
        task,
        workload,
        epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        progress=progress,
        what=f"Fine-tuning MiniLM on {len(workload.splits['train'])} reviews, once",
    )
    accuracy = _validation_accuracy(model, workload)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return accuracy


def _validation_accuracy(model: torch.nn.Module, workload: Workload) -> float:
    split = workload.splits["search"]
    right = 0
    with torch.inference_mode():
        for indices, inputs in workload.batches(split, "cpu"):
            predicted = model(**inputs).logits.argmax(dim=-1).numpy()
            right += int((predicted == split.labels[indices]).sum())
    return right / len(split)
