"""The space of a study: made once, then part of what its stored parameters mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import optuna
import torch

from paretoformer.evaluators.block_costs import block_costs
from paretoformer.evaluators.target import physical_cores
from paretoformer.search.spec import Spec
from paretoformer.search.subject import Subject
from paretoformer.spaces.candidate import AttentionChoice, Candidate
from paretoformer.spaces.families import family_of, shape_of
from paretoformer.spaces.forecast import forecast
from paretoformer.spaces.importance import Batch, sensitivity
from paretoformer.spaces.space import AllHeads, Bits, HeadEncoding, Ranked, Space, menu

CHOICES = "attention"
"""User attribute of the study: the mechanisms, with their settings, that a layer may have."""
IMPORTANCE = "importance"
"""User attribute of the study: the head scores that its parameters are ranked by."""
FORECAST = "forecast"
"""User attribute of the study: the candidates that the search begins with, of those forecast."""
FORECASTS = 6
BATCH = 16

Progress = Callable[[str, int, int], None]
"""(what is going on, steps done, steps in all)."""


def prepared_space(study: optuna.Study, spec: Spec, subject: Subject, progress: Progress) -> Space:
    """The space of a study on its model.

    A resumed study goes on with the mechanisms, the ranking and the forecast that it began with,
    even where a later version knows other mechanisms.
    """
    layers, heads = shape_of(subject.model.config)
    if FORECAST not in study.user_attrs:  # the last one that is written
        _prepare(study, spec, subject, progress)
    facts = study.user_attrs
    choices = tuple(map(AttentionChoice.from_dict, facts[CHOICES]))
    scores = np.asarray(facts[IMPORTANCE])
    encoding: HeadEncoding
    if spec.space.heads == "off":
        encoding = AllHeads(layers, heads)
    elif spec.space.heads == "mask":
        encoding = Bits(layers, heads)
    else:
        encoding = Ranked(scores)
    begin = tuple(map(Candidate.from_json, facts[FORECAST]))
    return Space(encoding, layers, heads, choices, scores, begin)


def _prepare(study: optuna.Study, spec: Spec, subject: Subject, progress: Progress) -> None:
    length, config = subject.target.sequence_length, subject.model.config
    choices = menu(spec.space.names, length, causal=family_of(config).causal)
    prune = spec.space.heads != "off"
    torch.set_num_threads(physical_cores())
    scored = sensitivity(
        subject.model,
        _training_batches(subject, progress),
        subject.task.loss,
        choices,
    )
    torch.set_num_threads(subject.target.threads)
    costs = block_costs(
        subject.model,
        subject.workload,
        subject.target,
        choices,
        lambda done, total: progress("Timing one layer", done, total),
    )
    begin = forecast(scored, costs, FORECASTS, prune=prune)
    study.set_user_attr(CHOICES, [choice.to_dict() for choice in choices])
    study.set_user_attr(IMPORTANCE, scored.importance.tolist())
    study.set_user_attr(FORECAST, [candidate.to_json() for candidate in begin])


def _training_batches(subject: Subject, progress: Progress) -> Iterator[tuple[Batch, torch.Tensor]]:
    train = subject.workload.splits["train"]
    done = 0
    for indices, inputs in subject.workload.batches(train, "cpu", BATCH):
        yield inputs, torch.from_numpy(train.labels[indices])
        done += len(indices)
        progress("Ranking heads and mechanisms", done, len(train))
