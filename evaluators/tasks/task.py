"""Tasks: a model's inputs, and how its outputs are read and scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
import transformers
from torch import nn
from transformers import CONFIG_MAPPING
from transformers.utils.peft_utils import find_adapter_config_file

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.common.target import Length, Target
from paretoformer.evaluators.data.examples import Examples, Form, Labels, SplitName
from paretoformer.evaluators.data.workload import IGNORED, Workload
from paretoformer.evaluators.tasks.model_files import check_fetched
from paretoformer.spaces.common.registry import Registry
from paretoformer.spaces.models.divergence import Answers
from paretoformer.spaces.models.families import (
    FAMILIES,
    Family,
    family_of,
    implementation_of,
    longest,
)
from paretoformer.spaces.models.surgery import fold_scales
from paretoformer.spaces.models.tokens import Batch

SHOWN = 60
"""Most characters of a wrong value in a message."""
BUFFERS = ("position_ids", "token_type_ids", ".attn.bias", "masked_bias", "rotary_emb.inv_freq")
"""Name endings of buffers that older versions of transformers saved with the weights."""
PROMPT = 512
"""Most tokens of a prompt whose length no study gives."""
DERIVED = {"use_return_dict"}
"""Keys in a config.json that transformers derives and refuses to set."""


class Task(ABC):
    """One kind of model and data. Stateless.

    Laws, checked by `paretoformer.testing.check_task`: `predict` returns one prediction per row;
    the loss of a batch is the sum over its rows; the divergence of a model from itself is 0.
    """

    name: ClassVar[str]
    auto: ClassVar[Any]
    """The transformers class that loads the model."""
    architectures: ClassVar[Mapping[str, Any]]
    """Model family -> the class that `auto` creates."""
    scores: ClassVar[tuple[str, ...]]
    """Names of the quality metrics that every study reports."""
    answers: ClassVar[Answers]
    """The kind of a model's output, and its comparison with the dense model's."""
    unread: ClassVar[tuple[str, ...]] = ()
    """Prefixes of weights that the task does not use, so they may be missing."""
    files: ClassVar[tuple[str, ...]] = ()
    """Patterns of further files of the model's folder to copy into an export."""
    tag: ClassVar[str] = ""
    """Its `pipeline_tag` on the Hub, if different from its name."""
    more_scores: ClassVar[tuple[str, ...]] = ()
    """Names of further quality metrics, measured if a study asks for them."""
    guessed: ClassVar[bool] = True
    """Whether the task can be guessed from a model's config."""
    form: ClassVar[Form] = "text"
    generates: ClassVar[bool] = False
    """Whether it generates text with a key-value cache; texts are then their own labels."""

    supervised: ClassVar[bool] = False
    """Whether distillation may learn from labels, too, by `supervised_loss`."""
    embeds: ClassVar[bool] = False
    """Whether predictions are vectors, by which texts are compared."""

    def labelled(self, column: str) -> bool:
        """Whether examples have labels. column: `data.label` of the study."""
        return self.generates or bool(column)

    def unsuitable(self, config: Any) -> str:
        """Why a model with this config does another task, and which; empty if it does not."""
        return ""

    @abstractmethod
    def encode(
        self, splits: Mapping[SplitName, Examples], tokenizer: Any, config: Any, target: Target
    ) -> Workload:
        """Examples as inputs and labels, truncated to the target's sequence length.

        splits: with labels from `read_labels`. tokenizer: from `processor`.
        """

    def processor(self, path: str, *, trust_remote_code: bool = False) -> Any:
        """The tokenizer or other preprocessor; OSError or ValueError if it cannot be loaded."""
        return load_tokenizer(path, trust_remote_code=trust_remote_code)

    def room(self, config: Any) -> int:
        """Maximum tokens of a timed input; a language model generates one more."""
        return longest(config) - (1 if self.generates else 0)

    @property
    def has_lengths(self) -> bool:
        """Whether inputs can be timed at the lengths that they have in the data."""
        return self.form != "image" and not self.generates

    def length(self, config: Any, wanted: Length) -> int:
        """Most tokens of an input; ValueError if the model supports fewer than `wanted`."""
        room = self.room(config)
        if isinstance(wanted, str):
            return room if self.has_lengths else min(PROMPT, room)
        if wanted > room:
            more = " and the next one" if self.generates else ""
            raise ValueError(
                f"target.sequence_length is {wanted}, but the model has room for {room} tokens"
                f"{more}."
            )
        return wanted

    def marks(self, path: str) -> bool:
        """Whether a file beside the model says that it is for this task, whatever class its config
        names. path: a folder or Hub id."""
        return False

    def cut_at(self, path: str) -> int:
        """Tokens at which other tools that serve the model of this folder or Hub id cut its texts;
        0: no earlier than where it has no more room."""
        return 0

    def shown(self, lengths: tuple[int, float, int]) -> str:
        """Text for the lengths of timed inputs: the shortest, the mean and the longest."""
        shortest, mean, longest = lengths
        if shortest == longest:
            return f"{longest} tokens"
        return f"texts of {shortest} to {longest} tokens (mean {mean:.0f})"

    @abstractmethod
    def read_labels(self, labels: Sequence[Any], config: Any) -> Labels:
        """The labels in the task's form, with remarks; DataError for a label unknown to the
        model."""

    def adapted(self, model: nn.Module, path: str) -> tuple[nn.Module, tuple[Remark, ...]]:
        """Adapt the loaded model; ValueError if the folder needs something unsupported."""
        return model, ()

    def doubts(self, answers: np.ndarray, labels: np.ndarray, config: Any) -> list[Remark]:
        """Check model and labels by the uncompressed model's predictions."""
        return []

    def usage(self, path: str, measured: Mapping[str, float]) -> str:
        """Advice on a compressed model for its card; empty if there is none.

        path: of the uncompressed model. measured: values of the compressed model's metrics.
        """
        return ""

    @abstractmethod
    def loss(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        """Sum of the rows' losses, a scalar."""

    def supervised_loss(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        """Mean loss of a batch by its labels, for distillation."""
        return self.loss(output, labels) / max(1, int((labels != IGNORED).sum()))

    @abstractmethod
    def predict(self, output: Any) -> np.ndarray:
        """(rows, ...): predictions; classes in the same form as labels."""

    def as_labels(self, output: Any, batch: Batch) -> np.ndarray:
        """Labels from the dense model's outputs, for data without labels.

        output: the dense model's for a batch. Returns labels for `loss`.
        """
        return self.predict(output)

    def varies(self, answers: np.ndarray) -> bool:
        """Whether predictions differ between examples.

        answers: (examples, ...), from `as_labels`.
        """
        return len(np.unique(answers, axis=0)) > 1

    def scored(self, answers: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predictions and labels that a score compares; default: those of each row.

        answers: (rows, ...), from `predict`. labels: (rows,).
        """
        return answers, labels

    def likeness(self, output: Any, dense: Any, batch: Batch) -> np.ndarray:
        """(rows,): similarity to the dense model's outputs; default: 1 if equal, else 0.

        batch: the inputs of both outputs.
        """
        same: np.ndarray = self.predict(output) == self.predict(dense)
        return same.astype(np.float64)


_REGISTRY: Registry[Task] = Registry("task")
register = _REGISTRY.register
task_names = _REGISTRY.names


def task_of(name: str) -> Task:
    """The registered task; ValueError, with the known names, if there is none."""
    return _REGISTRY[name]


WRITERS = ("ForCausalLM", "LMHeadModel")
"""Class name endings of language models, from which others are fine-tuned."""
HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", *WRITERS)
"""Class name endings of models for one task, whose weights may share names with those of
another."""


def check_family(task: Task, config: Any) -> Family:
    """The family of a config.

    Raises:
        ValueError: this task does not support it, or the model was trained for another task.
    """
    family = family_of(config)
    if config.model_type not in task.architectures:
        known = ", ".join(name for name in FAMILIES if name in task.architectures)
        raise ValueError(
            f"A {config.model_type!r} model does no {task.name}. Families that do: {known}."
        )
    wanted, trained = str(task.architectures[config.model_type]), (config.architectures or [""])[0]
    heads = [next((end for end in HEADS if name.endswith(end)), "") for name in (wanted, trained)]
    writes = heads[0] in WRITERS
    if heads[1] not in ("", *WRITERS) and (writes or heads[0] not in ("", heads[1])):
        raise ValueError(f"the model is a {trained}, but {task.name} needs a {wanted}.")
    return family


def load_config(path: str, *, trust_remote_code: bool = False) -> Any:
    """The config; forwards then return only outputs. OSError or ValueError if it cannot be
    loaded."""
    plain = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
    check_fetched(path)
    raw: dict[str, Any] = {}
    with suppress(OSError):  # it is raised again below
        raw, _ = transformers.PreTrainedConfig.get_config_dict(path)
    if not raw:
        _check_adapter(path)
    _check_names(raw.get("id2label") or {})
    kind = str(raw.get("model_type"))
    if kind in CONFIG_MAPPING and DERIVED & raw.keys():
        kept = {key: value for key, value in raw.items() if key not in DERIVED | {"model_type"}}
        return transformers.AutoConfig.for_model(kind, **{**kept, **plain})
    return transformers.AutoConfig.from_pretrained(
        path, trust_remote_code=trust_remote_code, **plain
    )


def _check_adapter(path: str) -> None:
    """Raises ValueError if a folder or Hub id has an adapter, with or without its model."""
    if adapter := find_adapter_config_file(path):
        raise ValueError(
            f"it has an adapter ({Path(adapter).name}), which would be left out: merge it into the "
            "model (`merge_and_unload` of peft), and save that."
        )


def _check_names(names: Any) -> None:
    """Raises ValueError if `id2label` does not map the numbers of classes to names."""
    numbers = names if isinstance(names, dict) else {}
    known = all(str(n).isdecimal() and isinstance(name, str) for n, name in numbers.items())
    if numbers is not names or not known:
        raise ValueError(
            "`id2label` in its config.json must map the number of each class to its name, such as "
            f'{{"0": "no", "1": "yes"}}, but is {str(names)[:SHOWN]}.'
        )


def load_tokenizer(path: str, *, trust_remote_code: bool = False, **options: Any) -> Any:
    """The tokenizer of a folder or Hub id; OSError or ValueError if it cannot be loaded."""
    config = load_config(path, trust_remote_code=trust_remote_code)
    return transformers.AutoTokenizer.from_pretrained(
        path, config=config, trust_remote_code=trust_remote_code, **options
    )


def load_model(
    task: Task, path: str, *, trust_remote_code: bool = False
) -> tuple[nn.Module, tuple[Remark, ...]]:
    """The model of a folder or Hub id, in evaluation mode, with `sdpa` where its family has it.

    Raises:
        ValueError: weights are missing, such as those of an untrained classifier; or there is an
            adapter besides.
        OSError: it cannot be loaded, or has no safetensors weights: other formats are pickles.
    """
    model: nn.Module
    _check_adapter(path)
    config = load_config(path, trust_remote_code=trust_remote_code)
    try:
        model, info = task.auto.from_pretrained(
            path,
            config=config,
            attn_implementation=implementation_of(config),
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
        )
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise ValueError(
            "its weights have other sizes than its config.json says, which has "
            f"{config.num_labels} classes (`id2label`) and a hidden size of {config.hidden_size}."
        ) from None
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(task.unread))
    if missing:
        raise ValueError(
            f"it has no weights for {_some(missing)}: fine-tune it for {task.name} first."
        )
    for parameter in model.parameters():
        if parameter.untyped_storage().nbytes() > parameter.nbytes:  # a part of a fused one
            parameter.data = parameter.data.clone()
    if cast(Any, model).config.model_type in FAMILIES:
        fold_scales(model)
    model, remarks = task.adapted(model, path)
    return model.eval(), (*remarks, *_unused(sorted(info["unexpected_keys"])))


def _unused(names: Sequence[str]) -> tuple[Remark, ...]:
    """Remark on unused weights, apart from buffers that older versions of transformers saved."""
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
