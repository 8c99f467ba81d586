"""Build a candidate from the dense model, axis by axis."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from paretoformer.spaces.axes import axes
from paretoformer.spaces.axes.axis import Built, Stage
from paretoformer.spaces.axes.evidence import Shape
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.models.families import blocks_of, shape_of
from paretoformer.spaces.models.surgery import share
from paretoformer.spaces.runtimes import Runnable, Tools
from paretoformer.spaces.runtimes.torch_runtime import TorchRunnable

CANDIDATE = "paretoformer_candidate"
"""Attribute of a rebuilt model: the candidate."""
DENSE_CONFIG = "paretoformer_dense_config"
"""Attribute of a rebuilt model: the config of the model it was rebuilt from."""


@dataclass(frozen=True)
class Compressed:
    """A built candidate. model: its torch model. runnable: that model in its runtime.

    built: the result of its axes, from which they save it.
    """

    model: nn.Module
    runnable: Runnable
    built: Built

    def save(self, candidate: Candidate, folder: Path) -> None:
        for axis in axes():
            axis.save(self.built, candidate[axis.name], folder)


def here() -> Tools:
    """Tools for this process: its own number of threads."""
    return Tools(threads=torch.get_num_threads())


def build(candidate: Candidate, model: nn.Module, tools: Tools | None = None) -> Compressed:
    """The candidate's torch model and what runs it; `model` itself is not changed.

    Unchanged tensors are shared between the two models.

    Raises:
        ValueError: the family is not supported, the candidate's numbers of layers or heads differ
            from the model's, the model is already compressed, or a runtime cannot run it.
    """
    built = Built(shaped(candidate, model), cut=candidate.cut_layers)
    for axis in axes():
        built = axis.apply(built, candidate[axis.name], tools or here())
    return _finished(candidate, built, cast(Any, model).config)


def load_built(
    candidate: Candidate, model: nn.Module, folder: Path, tools: Tools | None = None
) -> Compressed:
    """As `build`, from the files that `Compressed.save` wrote into `folder`.

    Raises:
        ValueError: as `build`, or the files do not belong together.
    """
    built = Built(shaped(candidate, model))
    for axis in axes():
        built = axis.restore(built, candidate[axis.name], folder, tools or here())
    return _finished(candidate, built, cast(Any, model).config)


def serve_saved(candidate: Candidate, model: nn.Module, folder: Path, tools: Tools) -> Compressed:
    """A rebuilt torch model in the candidate's runtime, from the files in `folder`."""
    built = Built(model)
    for axis in axes():
        if axis.stage is Stage.RUNTIME:
            built = axis.restore(built, candidate[axis.name], folder, tools)
    return _finished(candidate, built, getattr(model, DENSE_CONFIG))


def _finished(candidate: Candidate, built: Built, dense_config: Any) -> Compressed:
    setattr(built.model, CANDIDATE, candidate)
    setattr(built.model, DENSE_CONFIG, dense_config)
    model = built.model.eval()
    return Compressed(model, built.runnable or TorchRunnable(model), built)


def shaped(candidate: Candidate, model: nn.Module) -> nn.Module:
    """A copy of the model to cut, after checking that the candidate fits it."""
    blocks_of(model)  # raises on an unsupported family before anything is copied
    config = cast(Any, model).config
    expected, got = Shape(*shape_of(config)), candidate.shape
    if got != expected:
        raise ValueError(
            f"the candidate has (layers, heads) = {(got.layers, got.heads)}, "
            f"but the model has {(expected.layers, expected.heads)}."
        )
    before = getattr(model, CANDIDATE, None)
    if before is not None and not before.is_dense:
        raise ValueError("the model was compressed already: apply candidates to the original.")
    return share(model)
