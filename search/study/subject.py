"""The subject of a study: its model, data, target and metrics, loaded and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
import transformers
from torch import nn

from paretoformer.evaluators import demo
from paretoformer.evaluators.common.progress import Progress, silent
from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.common.target import (
    DATA,
    Target,
    check_device,
    check_threads,
    physical_cores,
)
from paretoformer.evaluators.data.examples import DataSource
from paretoformer.evaluators.data.recovery_texts import has_labels, recovery_texts
from paretoformer.evaluators.data.splits import read_splits
from paretoformer.evaluators.data.table import DataError
from paretoformer.evaluators.data.workload import Workload
from paretoformer.evaluators.dense_check import check_dense, labels_are_new
from paretoformer.evaluators.metrics import Elsewhere, Metric, available, metrics_of
from paretoformer.evaluators.tasks import (
    Task,
    check_family,
    load_config,
    load_model,
    task_of,
)
from paretoformer.search.records.errors import StudyError, UserError
from paretoformer.search.records.requirement import Requirement
from paretoformer.search.study.budget import PREPARATION
from paretoformer.search.study.samplers import check_sampler
from paretoformer.search.study.spec import Spec
from paretoformer.spaces.axes import axes
from paretoformer.spaces.common.malformed import one_line
from paretoformer.spaces.common.registry import did_you_mean
from paretoformer.spaces.models.surgery import count_parameters
from paretoformer.spaces.recovery import Teacher

FIDELITY = "fidelity"
PASS_WORK = 4 * 10**9
"""Multiply-adds of a timed pass over texts of different lengths: for MiniLM 0.1 s on 2 CPU cores,
0.4 s on slow ones. A timing has 32 passes or more."""
PREPARED_TOKENS = 196_000
"""Work of a full preparation but for the block table, in tokens of a forward: 32,768 that rank and
16,384 that repairs are solved from, each with a backward pass, the moments of the latter, and
8,192 that judge."""
PREPARED_SHARE = 0.35
"""Share of the time for preparation that this work may take."""
SPEED = 13 * 10**9
"""Multiply-adds per second of a CPU core, to choose that work: the same in each run of a study, so
no timing."""
LEAST_PREPARED = 0.25
CHARACTERS = 4
"""Approximate characters per token of a passage."""


@dataclass
class Subject:
    task: Task
    target: Target
    model: nn.Module
    """In float32; workers convert it to the target's precision."""
    workload: Workload
    metrics: dict[str, Metric]
    objectives: list[Metric]
    digest: str
    """SHA-256 of the data and the model's weights, as they are stored."""
    model_digest: str
    required: tuple[Requirement, ...] = ()
    """Requirements in the study file."""
    remarks: tuple[Remark, ...] = ()
    """Remarks on the data and the model, for the user."""
    _teacher: Teacher | None = field(default=None, init=False, repr=False, compare=False)

    def teacher(self, progress: Progress = silent) -> Teacher:
        """The dense model on the texts for repairs, computed on the CPU at the first call."""
        if self._teacher is None:
            self._teacher = Teacher(
                self.model,
                recovery_texts(self.workload, "cpu"),
                self.task.answers,
                progress=partial(progress, "Computing what repairs aim at"),
            )
        return self._teacher

    def forget_teacher(self) -> None:
        """Free its memory, up to gigabytes, once workers have it or nobody needs it."""
        self._teacher = None

    @property
    def lengths(self) -> tuple[int, float, int]:
        """Tokens of the shortest timed text, of the mean, and of the longest."""
        return self.workload.lengths(self.target)

    @property
    def labelled(self) -> bool:
        """Whether the examples have labels; if not, the dense model's answers replace them."""
        return any(name in self.metrics for name in self.task.scores)

    @property
    def learns_labels(self) -> bool:
        """Whether distillation learns from labels, too: not where likeness to the dense model is
        required."""
        required = (self.metrics[r.metric] for r in self.requirements)
        known = self.task.supervised and self.labelled and has_labels(self.workload)
        return known and not any(metric.likeness for metric in required)

    @cached_property
    def learns_new_labels(self) -> bool:
        """Whether the dense model does not know these labels from its own training."""
        return self.learns_labels and labels_are_new(self.model, self.task, self.workload)

    @property
    def reported(self) -> tuple[str, ...]:
        """The metrics with a default requirement: the task's scores among the objectives, or else
        all that it always has; fidelity without labels."""
        own = (*self.task.scores, *self.task.more_scores, *_of_vectors(self.metrics))
        chosen = tuple(metric.name for metric in self.objectives if metric.name in own)
        return chosen or (self.task.scores if self.labelled else (FIDELITY,))

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """Requirements on an answer: the study's, and the defaults unless the study requires some
        quality itself."""
        asked = [r for r in self.required if self.metrics[r.metric].role == "quality"]
        default = [] if asked else [self.metrics[name].requirement for name in self.reported]
        return (*map(Requirement.parse, filter(None, default)), *self.required)

    @property
    def confirmed(self) -> list[str]:
        """The metrics that a confirmation measures: of the likeness to dense, which only steers the
        search, just the objectives and reported ones."""
        asked = {metric.name for metric in self.objectives} | set(self.reported)
        asked |= {r.metric for r in self.required}
        return [n for n, metric in self.metrics.items() if n in asked or not metric.likeness]

    @property
    def sampled(self) -> list[str]:
        """The metrics that keep their samples in the tables: the timings."""
        return [name for name, metric in self.metrics.items() if metric.exclusive]


def model_digest(model: nn.Module, before: str = "") -> str:
    """SHA-256 of a text, and the names and values of a model's state."""
    digest = hashlib.sha256(before.encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_subject(spec: Spec, progress: Progress = silent) -> Subject:
    """The model, data and metrics of a study, checked in order of cost.

    Raises:
        StudyError: names the unusable part, and how to correct it.
    """
    try:
        return _loaded(spec, progress)
    except (ValueError, DataError, demo.DemoError) as error:
        raise StudyError(str(error)) from None


def try_dense(subject: Subject, spec: Spec, progress: Progress = silent) -> Subject:
    """The subject, with remarks on the uncompressed model's answers.

    Raises:
        StudyError: the study's numbers would probably mean nothing (with `data.check = false` only
            a remark), or the model cannot run on its data.
    """
    if spec.data.check:
        _stop_at(subject.remarks)
    try:
        found = check_dense(
            subject.model,
            subject.task,
            subject.workload,
            labelled=subject.labelled,
            progress=progress,
        )
    except DataError as error:
        raise StudyError(str(error)) from None
    if spec.data.check:
        _stop_at(found)
    return replace(subject, remarks=(*subject.remarks, *found))


def _loaded(spec: Spec, progress: Progress) -> Subject:
    task = task_of(spec.model.task)
    target = _target(spec)
    objectives = _objectives(spec, task, target)
    required = _required(spec, task, target)
    check_sampler(spec.search.sampler, objectives)
    _check_settings(spec)
    path, config, length = _model(spec, task, progress)
    follows_data = task.has_lengths and spec.target.sequence_length == DATA
    target = replace(target, sequence_length=length, follows_data=follows_data)
    source: DataSource = demo.with_files(spec.data, progress)
    read_labels = partial(task.read_labels, config=config)
    if task.generates:
        if source.text_pair:
            raise StudyError(f"{task.name} takes single texts: leave out data.text_pair.")
        if source.label not in ("", DataSource.model_fields["label"].default):
            raise StudyError(f"{task.name} needs texts alone: leave out data.label.")
        source = source.model_copy(update={"label": ""})
    characters = CHARACTERS * length
    splits = read_splits(
        source, spec.seed, spec.recovery.text_files, read_labels, task.form, characters
    )
    tokenizer, model, unused = _load(task, path, spec)
    workload = task.encode(splits.examples, tokenizer, model.config, target)
    _check_vocabulary(workload, model)
    if target.follows_data:
        workload = replace(workload, pass_tokens=PASS_WORK // token_weights(model))
    workload = replace(workload, prepared=_prepared_share(model, spec.search.minutes))
    remarks = (*splits.remarks, *unused, *workload.remarks, *_cut_elsewhere(task, path, target))
    asked = {*(metric.name for metric in objectives), *(r.metric for r in required)}
    metrics = available(task, target, labelled=task.labelled(source.label), asked=asked)
    digests = model_digest(model, workload.digest), model_digest(model)
    remarks += _converted(model, target)
    subject = Subject(
        task, target, model.float(), workload, metrics, objectives, *digests, required, remarks
    )
    if source.other:
        names = dict.fromkeys((*subject.reported, *_of_vectors(metrics)))
        others = [Elsewhere(metrics[name]) for name in names]
        metrics.update({metric.name: metric for metric in others})
    return subject


def _converted(model: nn.Module, target: Target) -> tuple[Remark, ...]:
    stored = str(next(model.parameters()).dtype).removeprefix("torch.")
    if stored == target.dtype:
        return ()
    return (Remark(f"Its weights are stored in {stored}, and measured in {target.dtype}."),)


def _of_vectors(metrics: Mapping[str, Metric]) -> list[str]:
    return [name for name, metric in metrics.items() if metric.of_vectors]


def _target(spec: Spec) -> Target:
    section = spec.target
    if not section.resource:  # else the target is another machine
        check_device(section.device)
        check_threads(section.threads or 1)
    elif section.threads is None:
        raise StudyError(
            "target.resource names another machine, of which this one does not know the cores: "
            "set target.threads."
        )
    return Target(
        section.device,
        section.threads or physical_cores(),
        section.batch_size,
        dtype=section.dtype,
    )


def _model(spec: Spec, task: Task, progress: Progress) -> tuple[str, Any, int]:
    """The model's path, its checked config, and the most tokens of an input."""
    path = demo.model_path(spec.model.path, progress)
    config = _load_config(path, spec)
    length = _checked_length(spec, task, config)
    if spec.target.sequence_length == DATA:
        length = min(length, task.cut_at(path) or length)
    return path, config, length


def _cut_elsewhere(task: Task, path: str, target: Target) -> tuple[Remark, ...]:
    limit, length = task.cut_at(path), target.sequence_length
    if target.follows_data or not 0 < limit < length:
        return ()
    return (
        Remark(
            f"{path}: texts have up to {length} tokens here (target.sequence_length); other tools "
            f"that serve this model cut them at {limit}."
        ),
    )


def _stop_at(remarks: Iterable[Remark]) -> None:
    """Raises StudyError at the first doubt."""
    for remark in remarks:
        if remark.doubt:
            raise StudyError(f"{remark.text} (To continue anyway: data.check = false.)")


def load_dense(spec: Spec) -> nn.Module:
    """The uncompressed model of a study.

    Raises:
        StudyError: it cannot be loaded from the study's path.
    """
    try:
        task = task_of(spec.model.task)
        path = demo.model_path(spec.model.path)
        return load_model(task, path, trust_remote_code=spec.model.trust_remote_code)[0]
    except (ValueError, OSError, demo.DemoError) as error:
        raise StudyError(f"cannot load the model {spec.model.path}: {one_line(error)}") from None


def _check_settings(spec: Spec, causal: bool | None = None) -> None:
    device = None if spec.target.resource else spec.target.device  # else another machine's
    for axis in axes():
        axis.check_setting(spec.setting(axis.name), causal=causal, device=device)


def _objectives(spec: Spec, task: Task, target: Target) -> list[Metric]:
    return [_metric(name, "objective", spec, task, target) for name in spec.objectives]


def _required(spec: Spec, task: Task, target: Target) -> tuple[Requirement, ...]:
    try:
        found = tuple(map(Requirement.parse, spec.search.require))
    except UserError as error:
        raise StudyError(f"search.require: {error}") from None
    for requirement in found:
        _metric(requirement.metric, "required metric", spec, task, target)
    return found


def _metric(name: str, what: str, spec: Spec, task: Task, target: Target) -> Metric:
    """The metric of that name, if this study can measure it."""
    labelled = task.labelled(spec.data.label)
    known = metrics_of(task, labelled=labelled)
    if name not in known:
        without = "" if labelled else " without labels"
        raise StudyError(
            f"unknown {what} {name!r}.{did_you_mean(name, known)} "
            f"Known for {task.name}{without}: {', '.join(known)}."
        )
    if reason := known[name].unavailable(target):
        raise StudyError(f"{what} {name!r} cannot be measured here: {reason}.")
    return known[name]


def _load_config(path: str, spec: Spec) -> Any:
    try:
        return load_config(path, trust_remote_code=spec.model.trust_remote_code)
    except Exception as error:
        raise StudyError(f"cannot load the model {spec.model.path}: {one_line(error)}") from None


def _load(task: Task, path: str, spec: Spec) -> tuple[Any, nn.Module, tuple[Remark, ...]]:
    """The tokenizer or another processor, the model, and remarks, such as on unused weights."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    remote = spec.model.trust_remote_code
    try:
        return task.processor(path, trust_remote_code=remote), *load_model(
            task, path, trust_remote_code=remote
        )
    except Exception as error:
        raise StudyError(f"cannot load the model {spec.model.path}: {one_line(error)}") from None


def _checked_length(spec: Spec, task: Task, config: Any) -> int:
    """Most tokens of an input; checks that the model can be searched."""
    family = check_family(task, config)
    if reason := task.unsuitable(config):
        raise StudyError(f"{reason}.")
    _check_settings(spec, causal=family.causal)
    length = task.length(config, spec.target.sequence_length)
    reads_last = family.causal and not (task.generates or task.embeds)
    if reads_last and config.pad_token_id is None:
        raise StudyError(
            f"the config of {spec.model.path} has no pad_token_id, without which a model that "
            "reads its answer off the last token cannot find it in a padded batch: set it."
        )
    return length


def token_weights(model: Any) -> int:
    """Weights that each token is multiplied by: all but the tokens' embeddings."""
    embeddings = getattr(model.get_input_embeddings(), "weight", None)  # images have patches
    return max(1, count_parameters(model) - (0 if embeddings is None else embeddings.numel()))


def _prepared_share(model: nn.Module, minutes: float | None) -> float:
    """Share of the usual tokens that there is time to prepare on."""
    if minutes is None:
        return 1.0
    work = PREPARED_SHARE * PREPARATION * 60 * minutes * physical_cores() * SPEED
    return min(1.0, max(LEAST_PREPARED, work / (PREPARED_TOKENS * token_weights(model))))


def _check_vocabulary(workload: Workload, model: Any) -> None:
    if "input_ids" not in workload.splits["train"].examples[0]:
        return
    known = model.get_input_embeddings().num_embeddings
    inputs: Any = workload.inputs
    filler = inputs.padding["input_ids"]
    if not 0 <= filler < known:
        raise StudyError(
            f"pad_token_id is {filler} in the model's config.json, or in its tokenizer, but the "
            f"model knows {known} tokens: set it to one of these."
        )
    for split in workload.splits.values():
        largest = max(int(example["input_ids"].max()) for example in split.examples)
        if largest >= known:
            raise StudyError(
                f"the tokenizer gives the id {largest}, but the model knows {known} tokens: "
                "they do not belong together."
            )
