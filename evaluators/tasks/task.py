"""Tasks: how a model is asked, and how its answers are read and scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.data.examples import Examples, Form, Labels, SplitName
from paretoformer.evaluators.data.workload import Workload
from paretoformer.spaces.common.registry import Registry
from paretoformer.spaces.models.divergence import Answers
from paretoformer.spaces.models.families import FAMILIES, Family, family_of, longest
from paretoformer.spaces.models.surgery import fold_scales
from paretoformer.spaces.models.tokens import Batch

BUFFERS = ("position_ids", "token_type_ids", ".attn.bias", "masked_bias", "rotary_emb.inv_freq")
"""Endings of what older versions of transformers saved along with the weights."""
DERIVED = {"use_return_dict"}
"""Keys that a config.json may hold, but that transformers derives and refuses to set."""


class Task(ABC):
    """One kind of model and data. Stateless.

    Laws, checked for every registered task by `paretoformer.testing.check_task`: `predict` gives
    one answer for each row; the loss of a batch is the sum of those of its rows; a model diverges
    from itself by 0.
    """

    name: ClassVar[str]
    auto: ClassVar[Any]
    """The transformers class that loads such a model."""
    architectures: ClassVar[Mapping[str, Any]]
    """Model family -> the class that `auto` would make."""
    scores: ClassVar[tuple[str, ...]]
    """Names of its quality metrics that every study measures and reports."""
    answers: ClassVar[Answers]
    """The content of a model's output, and how it compares with the dense model's."""
    unread: ClassVar[tuple[str, ...]] = ()
    """Beginnings of the names of weights that it does not use, so that they may be missing."""
    files: ClassVar[tuple[str, ...]] = ()
    """Patterns of files of the model's folder that other libraries need, for an export."""
    tag: ClassVar[str] = ""
    """Its name on the Hub (`pipeline_tag` of a model card), if that is another one."""
    more_scores: ClassVar[tuple[str, ...]] = ()
    """Of those that a study measures where it asks for them."""
    guessed: ClassVar[bool] = True
    """Whether it can be guessed from the config of a model."""
    form: ClassVar[Form] = "text"
    """The content of a row of its data."""
    generates: ClassVar[bool] = False
    """Whether it continues texts, with a key-value cache; then texts are their own labels."""

    def labelled(self, column: str) -> bool:
        """Whether its examples have labels. column: `data.label` of the study."""
        return self.generates or bool(column)

    def unsuitable(self, config: Any) -> str:
        """Why a model of its class with this config does another task, and which; empty if not."""
        return ""

    @abstractmethod
    def encode(
        self, splits: Mapping[SplitName, Examples], tokenizer: Any, config: Any, target: Target
    ) -> Workload:
        """The examples as inputs and labels, cut to the target's sequence length.

        splits: with labels as `read_labels` returns them. tokenizer: as `processor` returns it.
        """

    def processor(self, path: str, *, trust_remote_code: bool = False) -> Any:
        """The tokenizer of a folder or Hub id, or whatever else prepares raw rows for the model.

        Raises:
            OSError, ValueError: it cannot be loaded.
        """
        return load_tokenizer(path, trust_remote_code=trust_remote_code)

    def room(self, config: Any) -> int:
        """The most tokens of a timed input; a language model generates one more."""
        return longest(config) - (1 if self.generates else 0)

    def length(self, config: Any, wanted: int) -> int:
        """Tokens of a timed input. wanted: the target's.

        Raises:
            ValueError: the model has no room for so many.
        """
        if wanted > (room := self.room(config)):
            more = " and the next one" if self.generates else ""
            raise ValueError(
                f"target.sequence_length is {wanted}, but the model has room for {room} tokens"
                f"{more}."
            )
        return wanted

    def shown(self, length: int) -> str:
        """How long a timed input is, in words. length: as the study file has it."""
        return f"{length} tokens"

    @abstractmethod
    def read_labels(self, labels: Sequence[Any], config: Any) -> Labels:
        """All the labels of a study as this task uses them, and what was assumed.

        Raises:
            DataError: a label that the model does not have.
        """

    def adapted(self, model: nn.Module, path: str) -> tuple[nn.Module, tuple[Remark, ...]]:
        """The model of a folder or Hub id as the task uses it, made of what transformers loads.

        Raises:
            ValueError: the folder asks for what is not known here.
        """
        return model, ()

    def doubts(self, answers: np.ndarray, labels: np.ndarray, config: Any) -> list[Remark]:
        """Doubts about the model or its labels, from the uncompressed model's answers."""
        return []

    @abstractmethod
    def loss(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        """The sum of the rows' losses, a scalar."""

    @abstractmethod
    def predict(self, output: Any) -> np.ndarray:
        """(rows, ...) the answers; of classes as the labels are written."""

    def as_labels(self, output: Any, batch: Batch) -> np.ndarray:
        """Labels made of the dense model's own answers, for data without labels.

        output: the dense model's for a batch. Returns labels as `loss` takes them.
        """
        return self.predict(output)

    def varies(self, answers: np.ndarray) -> bool:
        """Whether a model says anything, since it does not say the same to every example.

        answers: (examples, ...), as `as_labels` gives them.
        """
        return len(np.unique(answers, axis=0)) > 1

    def scored(self, answers: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The answers and labels that a score compares: by default those of each row.

        answers: (rows, ...), as `predict` gives them. labels: (rows,).
        """
        return answers, labels

    def likeness(self, output: Any, dense: Any, batch: Batch) -> np.ndarray:
        """(rows,) how like the dense model's each answer is: 1 where it is the same, else 0.

        batch: the inputs that both are answers to.
        """
        same: np.ndarray = self.predict(output) == self.predict(dense)
        return same.astype(np.float64)


_REGISTRY: Registry[Task] = Registry("task")
register = _REGISTRY.register
task_names = _REGISTRY.names


def task_of(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: there is none; the message names those there are.
    """
    return _REGISTRY[name]


WRITERS = ("ForCausalLM", "LMHeadModel")
"""Endings of the classes of language models, from which others are fine-tuned."""
HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", *WRITERS)
"""Endings of classes whose weights may have names in common, though they were trained for another
task."""


def check_family(task: Task, config: Any) -> Family:
    """The family of a config, if this task knows it.

    Raises:
        ValueError: it does not, or the model was trained for another task.
    """
    family = family_of(config)
    if config.model_type not in task.architectures:
        known = ", ".join(name for name in FAMILIES if name in task.architectures)
        raise ValueError(
            f"A {config.model_type!r} model does no {task.name}. Families that do: {known}."
        )
    wanted, trained = str(task.architectures[config.model_type]), (config.architectures or [""])[0]
    heads = [next((end for end in HEADS if each.endswith(end)), "") for each in (wanted, trained)]
    writes = heads[0] in WRITERS
    if heads[1] not in ("", *WRITERS) and (writes or heads[0] not in ("", heads[1])):
        raise ValueError(f"the model is a {trained}, but {task.name} needs a {wanted}.")
    return family


def load_config(path: str, *, trust_remote_code: bool = False) -> Any:
    """The config of a folder or Hub id; a forward returns an object with the answers alone.

    Raises:
        OSError, ValueError: it cannot be loaded.
    """
    plain = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
    found, _ = transformers.PreTrainedConfig.get_config_dict(path)
    kind = str(found.get("model_type"))
    if kind in CONFIG_MAPPING and DERIVED & found.keys():
        kept = {key: value for key, value in found.items() if key not in DERIVED | {"model_type"}}
        return transformers.AutoConfig.for_model(kind, **{**kept, **plain})
    return transformers.AutoConfig.from_pretrained(
        path, trust_remote_code=trust_remote_code, **plain
    )


def load_tokenizer(path: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a folder or Hub id.

    Raises:
        OSError, ValueError: it cannot be loaded.
    """
    config = load_config(path, trust_remote_code=trust_remote_code)
    return transformers.AutoTokenizer.from_pretrained(
        path, config=config, trust_remote_code=trust_remote_code
    )


def load_model(
    task: Task, path: str, *, trust_remote_code: bool = False
) -> tuple[nn.Module, tuple[Remark, ...]]:
    """The model of a folder or Hub id as a user would run it: `sdpa`, evaluation mode.

    Raises:
        ValueError: some of its weights are not there, such as those of a classifier that was never
            trained.
        OSError: it cannot be loaded, or has no weights as safetensors: other formats are pickles.
    """
    model: nn.Module
    model, info = task.auto.from_pretrained(
        path,
        config=load_config(path, trust_remote_code=trust_remote_code),
        attn_implementation="sdpa",
        trust_remote_code=trust_remote_code,
        use_safetensors=True,
        output_loading_info=True,
    )
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(task.unread))
    if missing:
        raise ValueError(
            f"it has no weights for {_some(missing)}: fine-tune it for {task.name} first."
        )
    if cast(Any, model).config.model_type in FAMILIES:
        fold_scales(model)
    model, remarks = task.adapted(model, path)
    return model.eval(), (*remarks, *_unused(sorted(info["unexpected_keys"])))


def _unused(names: Sequence[str]) -> tuple[Remark, ...]:
    """Buffers that older versions of transformers saved are not needed; the rest was trained."""
    trained = [name for name in names if not name.endswith(BUFFERS)]
    if not trained:
        return ()
    return (
        Remark(
            f"The checkpoint holds weights that its architecture has no place for, "
            f"{_some(trained)}: the model that is measured is not the one that was trained. "
            "Correct the `model_type` of its config.json, or save it without them.",
            doubt=True,
        ),
    )


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{' and others' if names[3:] else ''}"
