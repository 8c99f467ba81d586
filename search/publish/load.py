"""Loading a chosen point, with a check that its weights are the measured ones."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from paretoformer.evaluators.artifact import needs_artifact
from paretoformer.evaluators.common.target import DTYPES
from paretoformer.search.dispatch.artifacts import read_artifact
from paretoformer.search.records.errors import RunError, StudyError, UncheckedWarning
from paretoformer.search.records.facts import RunFacts
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.study.spec import stored_spec
from paretoformer.search.study.subject import load_dense, model_digest
from paretoformer.spaces.build import Compressed, build, load_built
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.persist import served
from paretoformer.spaces.runtimes import Tools


def load_point(candidate: Candidate, run: Path, facts: RunFacts) -> Any:
    """See `Best.load_model`."""
    return served(built_point(candidate, run, facts), candidate)


def built_point(candidate: Candidate, run: Path, facts: RunFacts) -> Compressed:
    """The point as it was measured: its torch model, and what runs it.

    Raises:
        StudyError: the dense model is missing or has other weights.
        RunError: the point's files are lost or have changed.
    """
    dense = checked_dense(run, facts)
    target = facts.study["target"]
    tools = Tools(device=target["device"], threads=_threads(facts))
    dense = dense.to(target["device"])
    if not needs_artifact(candidate):
        return build(candidate, dense, tools)
    return load_built(candidate, dense, artifact_folder(candidate, run), tools)


def artifact_folder(candidate: Candidate, run: Path) -> Path:
    """The run's folder with a point's files, unchanged since they were measured."""
    folder = RunFolder(run).models / candidate.id
    try:
        read_artifact(folder)
    except ValueError as error:
        raise RunError(str(error)) from None
    return folder


def _threads(facts: RunFacts) -> int:
    """The study's threads; in runs that did not record them, this process's."""
    return int(facts.machine.get("threads") or torch.get_num_threads())


def checked_dense(run: Path, facts: RunFacts) -> nn.Module:
    """The study's dense model in the target's dtype, checked to be the measured one.

    Raises:
        StudyError: it is missing or has other weights.
    """
    spec = stored_spec(facts.study, str(run))
    model = load_dense(spec)
    if not facts.model_digest:
        warnings.warn(
            f"{run} was written before runs kept a digest of the model's weights: whether "
            f"{spec.model.path} still is the model that was measured cannot be checked.",
            UncheckedWarning,
            stacklevel=4,
        )
    elif model_digest(model) != facts.model_digest:
        raise StudyError(
            f"the weights in {spec.model.path} are not those that {run} measured: put the "
            "measured model back, or run the study again with another --out."
        )
    return model.to(DTYPES[spec.target.dtype])
