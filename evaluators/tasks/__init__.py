"""Tasks, one file each; importing this package registers them all."""

from paretoformer.evaluators.tasks import feature_extraction, text_classification
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
    "load_config",
    "load_model",
    "load_tokenizer",
    "register",
    "task_names",
    "task_of",
    "text_classification",
]
