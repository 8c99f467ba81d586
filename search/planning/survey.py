"""Survey: the facts that every axis collects about the model when a study begins."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from paretoformer.evaluators.common.progress import Progress
from paretoformer.search.study.spec import Spec
from paretoformer.search.study.subject import Subject, token_weights
from paretoformer.spaces.axes import axes
from paretoformer.spaces.axes.evidence import Context, Evidence, Shape
from paretoformer.spaces.axes.sensitivity import Batch, sensitivity
from paretoformer.spaces.models.families import shape_of
from paretoformer.spaces.runtimes import parse

BATCH = 16
USUAL_WEIGHTS = 25_000_000
"""Weights that each token is multiplied by, up to which a model is not large."""
USUAL_TOKENS = 40_000
"""Tokens that each candidate is scored on, up to which they are not many. 200 reviews of up to 512
tokens, with those that steer, are 95,000: to score an uncompressed MiniLM took a minute on a core
with AVX2, and six of fifteen minutes were spent on alternatives."""
RANKED_TOKENS, RANKED_LEAST = 32_768, 64
"""Limit of the tokens that rank what may go, and the texts that there are at least."""


def survey(spec: Spec, subject: Subject, progress: Progress) -> Evidence:
    """One forward and one backward pass over the training examples serve all axes."""
    context = context_of(spec, subject, progress)
    settings = {axis.name: spec.setting(axis.name) for axis in axes()}
    facts = {axis.name: axis.survey(settings[axis.name], context) for axis in axes()}
    probes = {
        axis.name: probe
        for axis in axes()
        if (probe := axis.probe(settings[axis.name], context)) is not None
    }
    if probes:
        batches = _training_batches(subject, progress)
        for name, found in sensitivity(subject.model, batches, subject.task.loss, probes).items():
            facts[name] = replace(facts[name], **found)
    return Evidence(context.shape, facts)


def context_of(spec: Spec, subject: Subject, progress: Progress) -> Context:
    target = subject.target
    mixed = any(axis.changes_prompts(spec.setting(axis.name)) for axis in axes())

    def unmeasurable(value: Any) -> str:
        runtime, _ = parse(value)
        if subject.task.generates and not runtime.generates:
            return "it keeps no key-value cache here, without which no text is generated"
        if subject.task.generates and runtime.one_graph and mixed:
            return "its graph has one way with a key-value cache, and this study tries others"
        for metric in subject.objectives:
            if reason := metric.unmeasurable_reason(value):
                return f"the objective {metric.name} cannot be measured in it: {reason}"
        return ""

    return Context(
        model=subject.model,
        shape=Shape(*shape_of(subject.model.config)),
        device=target.device,
        sequence_length=subject.workload.timed_length(target),
        dtype=target.dtype,
        batches=lambda count: subject.workload.training_batches(count, "cpu", BATCH),
        divergence=lambda output, dense, batch: float(
            subject.task.answers.divergence(output, dense, batch).sum()
        ),
        texts=subject.workload.unscored,
        special=subject.workload.special,
        kept=subject.task.answers.kept,
        progress=progress,
        unmeasurable=unmeasurable,
        minutes=math.inf if spec.search.minutes is None else spec.search.minutes,
        slowness=slowness_of(subject),
        generates=subject.task.generates,
        sized=asks_for_size(subject),
    )


def asks_for_size(subject: Subject) -> bool:
    """Whether an objective or a requirement says how large the model may be."""
    required = (subject.metrics[requirement.metric] for requirement in subject.requirements)
    return any(metric.of_size for metric in (*subject.objectives, *required))


def slowness_of(subject: Subject) -> float:
    """As in `Circumstances`, of what a candidate's scores take."""
    workload = subject.workload
    scored = (*workload.splits["search"].examples, *workload.steering.examples)
    tokens = sum(map(workload.inputs.size, scored))
    larger = token_weights(subject.model) / USUAL_WEIGHTS, tokens / USUAL_TOKENS
    return math.prod(max(1.0, each) for each in larger)


def _training_batches(subject: Subject, progress: Progress) -> Iterator[tuple[Batch, torch.Tensor]]:
    workload = subject.workload
    tokens, least = (int(workload.prepared * count) for count in (RANKED_TOKENS, RANKED_LEAST))
    train = workload.leading(workload.splits["train"], tokens, least)
    done = 0
    for indices, inputs in workload.batches(train, "cpu", BATCH):
        labels = train.labels[indices]
        if not subject.labelled:
            with torch.inference_mode():
                labels = subject.task.as_labels(subject.model(**inputs), inputs)
        yield inputs, torch.from_numpy(labels)
        done += len(indices)
        progress("Ranking what may go", done, len(train))
