"""Tasks, one file each; importing this package registers them all."""

from paretoformer.evaluators.tasks import (
    feature_extraction,
    image_classification,
    multi_label_classification,
    reranking,
    retrieval,
    text_classification,
    text_generation,
    text_regression,
    token_classification,
)
from paretoformer.evaluators.tasks.task import (
    Task,
    check_family,
    load_config,
    load_model,
    load_tokenizer,
    register,
    task_names,
    task_of,
)

__all__ = [
    "Task",
    "check_family",
    "feature_extraction",
    "image_classification",
    "load_config",
    "load_model",
    "load_tokenizer",
    "multi_label_classification",
    "register",
    "reranking",
    "retrieval",
    "task_names",
    "task_of",
    "text_classification",
    "text_generation",
    "text_regression",
    "token_classification",
]
