"""One run of a study, from its file to its published front."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
import transformers
from optuna.trial import TrialState
from torch import nn

from paretoformer.evaluators import demo
from paretoformer.evaluators.data import DataError, read_splits
from paretoformer.evaluators.evaluator import Evaluator
from paretoformer.evaluators.metric import Metric
from paretoformer.evaluators.metrics import available, metrics_of
from paretoformer.evaluators.target import Target, fingerprint, physical_cores
from paretoformer.evaluators.tasks import Task, check_family, load_model, task_of
from paretoformer.evaluators.workload import Workload, tokenize
from paretoformer.search.confirm import chosen, confirm, front_table
from paretoformer.search.dispatch import Dispatcher
from paretoformer.search.display import Display
from paretoformer.search.errors import RunError, StudyError
from paretoformer.search.loop import Search, stored_records
from paretoformer.search.pipeline import Pipeline
from paretoformer.search.ray_dispatch import (
    RayDispatcher,
    import_ray,
    interruptible,
    ray_session,
)
from paretoformer.search.record import TrialRecord
from paretoformer.search.report import write_report
from paretoformer.search.spec import Spec, load_spec
from paretoformer.search.store import RunFolder, TrialsFile, write_table
from paretoformer.search.study import check_storage, open_study
from paretoformer.spaces.candidate import AttentionChoice
from paretoformer.spaces.families import family_of, longest, shape_of
from paretoformer.spaces.heads import Scores
from paretoformer.spaces.importance import head_importance
from paretoformer.spaces.space import AllHeads, Bits, HeadEncoding, Ranked, Space, menu
from paretoformer.spaces.suggestions import did_you_mean

IMPORTANCE = "importance"
"""User attribute of the study: the head scores that its parameters are ranked by."""
CHOICES = "attention"
"""User attribute of the study: the mechanisms, with their settings, that a layer may have."""
RUN = "run"
"""User attribute of the study: the id of its run folder, as in `machine.json`."""
FINGERPRINT = "fingerprint"
"""User attribute of the study: a digest of model and data."""
IMPORTANCE_BATCH = 16
PATIENCE_SECONDS = 60
"""How long to wait for the workers of a killed run before they are ended."""


def search(
    study: str | Path = "reviews",
    *,
    out: str | Path | None = None,
    trials: int | None = None,
    seed: int | None = None,
    address: str | None = None,
    quiet: bool = False,
) -> Path:
    """Run a study, or go on with it where an interrupted run left it.

    study: a .toml file or a built-in name. out: the run folder; default `runs/<name>`.
    trials, seed: override the file. address: an existing Ray cluster; default a local one.

    Returns the run folder, with `trials.parquet`, `front.parquet` and `report.html`.

    Raises:
        UserError: something about the study, its data, this machine or the folder must be mended.
        StudyFailed: the uncompressed model itself cannot be measured.
        Interrupted: SIGINT or SIGTERM; what was finished is kept.
    """
    with interruptible(), Display(quiet=quiet) as display:
        spec = load_spec(study, trials=trials, seed=seed)
        folder = RunFolder(out if out is not None else Path("runs") / spec.name)
        _Run(spec, folder, address, display).execute()
    return folder.path


@dataclass
class _Subject:
    """What a study is about, loaded and checked."""

    task: Task
    target: Target
    model: nn.Module
    workload: Workload
    metrics: dict[str, Metric]
    objectives: list[Metric]

    @property
    def digest(self) -> str:
        digest = hashlib.sha256(self.workload.digest.encode())
        for name, tensor in self.model.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()


class _Run:
    def __init__(
        self, spec: Spec, folder: RunFolder, address: str | None, display: Display
    ) -> None:
        self.spec = spec
        self.folder = folder
        self.address = address
        self.display = display

    def execute(self) -> None:
        """Check everything, then write; measure; publish."""
        self._check_folder()
        subject = load_subject(self.spec, self.display.progress)
        machine = fingerprint(subject.target) | {"threads": subject.target.threads}
        with ExitStack() as stack:
            if self.address:  # a wrong address must be known before anything is written
                stack.enter_context(ray_session(self.address, physical_cores()))
            if self.spec.search.storage:
                new = not self.folder.machine.exists()
                check_storage(self.spec.search.storage, self.spec.name if new else "")
            self.folder.path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(self.folder.locked())
            self._check_folder()  # again: another process may have had the folder until now
            if self.folder.exists:
                self.folder.check_machine(machine)
            self.folder.write_machine(machine)
            study = open_study(
                self.spec.name,
                self.folder.storage_url(self.spec.search.storage),
                subject.objectives,
                self.spec.search.sampler,
                self.spec.seed,
            )
            self._claim(study, subject)
            self.folder.write_study(self.spec)
            self._publish(study, subject, self._measure(stack, study, subject))

    def _check_folder(self) -> None:
        if self.folder.exists:
            self.folder.check_study(self.spec)
            if not (self.spec.search.storage or self.folder.storage.exists()):
                raise RunError(
                    f"{self.folder.path} has lost its {self.folder.storage.name}, without which "
                    "it cannot go on. Choose another --out."
                )
        else:
            self.folder.check_free()

    def _claim(self, study: optuna.Study, subject: _Subject) -> None:
        """Make a new Optuna study this folder's, or see that it is, and about the same subject."""
        own = {RUN: self.folder.read_machine()["run"], FINGERPRINT: subject.digest}
        for key, value in own.items():
            if key not in study.user_attrs:
                study.set_user_attr(key, value)
        if study.user_attrs[RUN] != own[RUN]:
            raise RunError(
                f"the storage of {self.folder.path} holds the study {self.spec.name!r} of another "
                "run: choose another name."
            )
        if study.user_attrs[FINGERPRINT] != own[FINGERPRINT]:
            raise RunError(
                f"the model or the data changed since {self.folder.path} was begun. "
                "Choose another --out."
            )

    def _measure(
        self, stack: ExitStack, study: optuna.Study, subject: _Subject
    ) -> list[TrialRecord]:
        """Search, then confirm."""
        spec = self.spec
        scores = None if spec.space.heads == "off" else self._importance(study, subject)
        space = make_space(spec, subject, scores, self._choices(study, subject))
        wanted = min(spec.trials, space.size)
        sampled = [name for name, metric in subject.metrics.items() if metric.exclusive]
        file = TrialsFile(self.folder.trials, list(subject.metrics), sampled, self._facts(subject))
        dispatcher = self._dispatchers(stack, subject)
        records = stored_records(study)
        begun = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if len(records) < wanted or begun:
            self.display.trials(records, wanted, subject.objectives)

            def on_record(records: Any) -> None:
                file.update(records)
                self.display.trials(records, wanted, subject.objectives)

            with dispatcher(fresh=False) as workers:
                search = Search(
                    study,
                    space,
                    Pipeline(workers, "search"),
                    [metric.name for metric in subject.objectives],
                    spec.seed,
                    on_record,
                )
                records = search.run(spec.trials)
        file.update(records, now=True)
        confirm(
            study,
            chosen(records, subject.objectives),
            lambda: Pipeline(stack.enter_context(dispatcher(fresh=True)), "confirm"),
            spec.seed,
            lambda done, total: self.display.progress("Confirming the front", done, total),
        )
        return records

    def _publish(self, study: optuna.Study, subject: _Subject, records: list[TrialRecord]) -> None:
        """Write the front and the report."""
        from paretoformer.search.confirm import confirmations

        sampled = [name for name, metric in subject.metrics.items() if metric.exclusive]
        table = front_table(
            chosen(records, subject.objectives),
            confirmations(study),
            subject.objectives,
            list(subject.metrics),
            sampled,
        )
        write_table(table, self.folder.front, self._facts(subject))
        write_report(self.folder)

    def _facts(self, subject: _Subject) -> dict[str, Any]:
        """The metadata of the Parquet files."""
        return {
            "study": self.spec.model_dump(),
            "machine": self.folder.read_machine(),
            "objectives": [metric.name for metric in subject.objectives],
            "metrics": {
                name: {"unit": metric.unit, "direction": metric.direction}
                for name, metric in subject.metrics.items()
            },
        }

    def _choices(self, study: optuna.Study, subject: _Subject) -> tuple[AttentionChoice, ...]:
        """The mechanisms of this study: a later version, which knows others, goes on with these."""
        stored = study.user_attrs.get(CHOICES)
        if stored is None:
            causal = family_of(subject.model.config).causal
            length = subject.target.sequence_length
            choices = menu(self.spec.space.names, length, causal=causal)
            stored = [choice.to_dict() for choice in choices]
            study.set_user_attr(CHOICES, stored)
        return tuple(map(AttentionChoice.from_dict, stored))

    def _importance(self, study: optuna.Study, subject: _Subject) -> Scores:
        """The head scores of this study: computed once, then part of what its parameters mean."""
        stored = study.user_attrs.get(IMPORTANCE)
        if stored is not None:
            return np.asarray(stored)
        train = subject.workload.splits["train"]
        done = 0

        def advance(examples: int) -> None:
            nonlocal done
            done += examples
            self.display.progress("Ranking the heads", done, len(train))

        torch.set_num_threads(physical_cores())
        batches = (
            (inputs, torch.from_numpy(train.labels[indices]))
            for indices, inputs in subject.workload.batches(train, "cpu", IMPORTANCE_BATCH)
        )
        scores = head_importance(subject.model, batches, subject.task.loss, advance)
        study.set_user_attr(IMPORTANCE, scores.tolist())
        return scores

    def _dispatchers(self, stack: ExitStack, subject: _Subject) -> Callable[..., Any]:
        """Makes dispatchers; the first one starts Ray, which then lives as long as `stack`."""
        started: list[tuple[int, float]] = []
        evaluator = Evaluator(subject.model, subject.workload, subject.target, subject.metrics)
        cores = physical_cores()

        def on_worker(process: tuple[int, float]) -> None:
            started.append(process)
            self.folder.record_workers(started)

        @contextmanager
        def make(*, fresh: bool) -> Iterator[Dispatcher]:
            ray = import_ray()
            if not ray.is_initialized():
                self._outlive_old_workers()
                stack.enter_context(ray_session(self.address, cores))
            on_gpu = not subject.target.device.startswith("cpu")
            with RayDispatcher(
                evaluator,
                workers=1 if on_gpu else max(1, int(ray.cluster_resources().get("CPU", cores))),
                threads=subject.target.threads,
                seconds=self.spec.search.trial_seconds,
                fresh=fresh,
                on_worker=on_worker,
            ) as dispatcher:
                yield dispatcher

        return make

    def _outlive_old_workers(self) -> None:
        """Nothing may be timed while workers of a killed run still compute."""
        start = time.monotonic()
        living = self.folder.living_workers()
        if living:
            self.display.note("Waiting for the workers of the interrupted run to end.")
        while living and time.monotonic() - start < PATIENCE_SECONDS:
            time.sleep(0.5)
            living = self.folder.living_workers()
        for process in living:
            process.kill()


def load_subject(spec: Spec, progress: demo.Progress) -> _Subject:
    """The model, data and metrics of a study, each checked before anything slower is begun.

    Raises:
        StudyError: says what cannot be used, and how to mend it.
    """
    section = spec.target
    try:
        task = task_of(spec.model.task)
        target = Target(
            section.device,
            section.threads or physical_cores(),
            section.batch_size,
            section.sequence_length,
            section.dtype,
        )
        objectives = _objectives(spec, task, target)
        menu(spec.space.names, target.sequence_length)
        if demo.is_demo(spec.model.path):
            demo.recipe_of(spec.model.path)
        else:
            _check_config(spec, task, _load_config(spec))
        if not demo.is_demo(spec.data.path):
            splits = read_splits(spec.data, spec.seed)
        else:
            prepared = demo.prepare(spec.data.path, progress)
            splits = read_splits(prepared.data(spec.data), spec.seed)
        path = spec.model.path
        if demo.is_demo(path):
            path = demo.prepare(path, progress).model
        tokenizer, model = _load(task, path, spec)
        _check_config(spec, task, model.config)
        workload = tokenize(splits, task, tokenizer, model.config, target)
        _check_vocabulary(workload, model)
    except (ValueError, DataError, demo.DemoError) as error:
        raise StudyError(str(error)) from None
    return _Subject(task, target, model, workload, available(task, target), objectives)


def make_space(
    spec: Spec, subject: _Subject, scores: Scores | None, choices: tuple[AttentionChoice, ...]
) -> Space:
    """The space of a study on its model."""
    layers, heads = shape_of(subject.model.config)
    encoding: HeadEncoding
    if scores is None:
        encoding = AllHeads(layers, heads)
    elif spec.space.heads == "mask":
        encoding = Bits(layers, heads)
    else:
        encoding = Ranked(scores)
    return Space(encoding, layers, heads, choices, scores)


def load_dense(spec: Spec) -> nn.Module:
    """The uncompressed model of a study.

    Raises:
        StudyError: it is not where the study says.
    """
    try:
        task = task_of(spec.model.task)
        path = spec.model.path
        if demo.is_demo(path):
            path = demo.prepare(path).model
        return load_model(task, path, trust_remote_code=spec.model.trust_remote_code)
    except (ValueError, OSError, demo.DemoError) as error:
        raise StudyError(f"cannot load the model {spec.model.path}: {_line(error)}") from None


def _objectives(spec: Spec, task: Task, target: Target) -> list[Metric]:
    known = metrics_of(task)
    for name in spec.objectives:
        if name not in known:
            raise StudyError(
                f"unknown objective {name!r}.{did_you_mean(name, known)} "
                f"Known for {task.name}: {', '.join(known)}."
            )
        reason = known[name].unavailable(target)
        if reason:
            raise StudyError(f"objective {name!r} cannot be measured here: {reason}.")
    return [known[name] for name in spec.objectives]


def _load_config(spec: Spec) -> Any:
    try:
        return transformers.AutoConfig.from_pretrained(
            spec.model.path, trust_remote_code=spec.model.trust_remote_code
        )
    except Exception as error:
        raise StudyError(f"cannot load the model {spec.model.path}: {_line(error)}") from None


def _load(task: Task, path: str, spec: Spec) -> tuple[Any, nn.Module]:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    remote = spec.model.trust_remote_code
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=remote)
        return tokenizer, load_model(task, path, trust_remote_code=remote)
    except Exception as error:
        raise StudyError(f"cannot load the model {spec.model.path}: {_line(error)}") from None


def _check_config(spec: Spec, task: Task, config: Any) -> None:
    family = check_family(task, config)
    menu(spec.space.names, spec.target.sequence_length, causal=family.causal)
    room = longest(config)
    if spec.target.sequence_length > room:
        raise StudyError(
            f"target.sequence_length is {spec.target.sequence_length}, "
            f"but the model has room for {room} tokens."
        )
    if family.causal and config.pad_token_id is None:
        raise StudyError(
            f"the config of {spec.model.path} has no pad_token_id, without which a model that "
            "reads its answer off the last token cannot find it in a padded batch: set it."
        )


def _check_vocabulary(workload: Workload, model: Any) -> None:
    known = model.get_input_embeddings().num_embeddings
    for split in workload.splits.values():
        largest = max(int(example["input_ids"].max()) for example in split.examples)
        if largest >= known:
            raise StudyError(
                f"the tokenizer gives the id {largest}, but the model knows {known} tokens: "
                "they do not belong together."
            )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
