"""Compressed models on disk: config, safetensors, the candidate and its runtime's files; no pickle.

A folder holds `config.json` and the weights as safetensors, the runtime's files in the layout of
optimum, and `compression.json`: see `saved`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn
from transformers import GenerationConfig

from paretoformer.spaces.axes.axis import Stage
from paretoformer.spaces.build import CANDIDATE, DENSE_CONFIG, Compressed, build, here, serve_saved
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.malformed import one_line
from paretoformer.spaces.models.embedder import POOLING, architecture_of, as_its_config_says
from paretoformer.spaces.models.surgery import ConstantOutput
from paretoformer.spaces.runtimes import Runnable, Tools
from paretoformer.spaces.saved import (
    Saved,
    config_of,
    read_saved,
    refuse_not_finite,
    structure,
    weights_name,
    write_config,
    write_facts,
)

GENERATION = "generation_config"
"""A language model's attribute, and the file, with its default generation settings."""


def compress(model: nn.Module, candidate: Candidate, *, tools: Tools | None = None) -> Any:
    """The model that `candidate` describes, built from `model`, which is not changed.

    Returns a torch module in evaluation mode; for another runtime a `Runnable`, which is called in
    the same way: `compressed(input_ids=...).logits`. Unchanged tensors are shared between the two
    models.

    tools: threads, and the training examples that a runtime may need to calibrate.

    Raises:
        ValueError: unsupported family, a candidate of another shape, or a runtime that cannot run
            the model or needs a study's data.
        ImportError: the runtime is not installed; the message names the extra.
    """
    return served(build(candidate, model, tools or here()), candidate)


def served(compressed: Compressed, candidate: Candidate) -> Any:
    """The user's view of a built candidate: the torch module, or the `Runnable`."""
    if not is_served_elsewhere(candidate):
        return compressed.model
    compressed.runnable.origin = compressed.model
    return compressed.runnable


def torch_model_of(model: Any) -> Any:
    """The torch module of a model from `compress`, whatever its runtime."""
    return (model.origin or model) if isinstance(model, Runnable) else model


def is_served_elsewhere(candidate: Candidate) -> bool:
    """Whether a `Runnable` other than the torch module runs it."""
    dense = Candidate.dense(candidate.shape.layers, candidate.shape.heads)
    return candidate.of_stage(Stage.RUNTIME) != dense.of_stage(Stage.RUNTIME)


def save_compressed(model: Any, folder: str | Path) -> Path:
    """Write a model from `compress` into `folder`, which is created if missing.

    Raises:
        ValueError: the model is not from `compress` or `load_compressed`.
    """
    torch_model = torch_model_of(model)
    candidate = getattr(torch_model, CANDIDATE, None)
    if candidate is None:
        raise ValueError("not a compressed model: pass one that `compress` returned.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dense_config = getattr(torch_model, DENSE_CONFIG)
    write_config(folder, torch_model.config, candidate, dense_config)
    weights = folder / weights_name(candidate, dense_config)
    save_model(torch_model, str(weights), metadata={"format": "pt"})
    if isinstance(model, Runnable):
        model.save(folder)
    if (generation := getattr(torch_model, GENERATION, None)) is not None:
        cast(Any, generation).save_pretrained(folder)
    dtype = str(next(torch_model.parameters()).dtype).removeprefix("torch.")
    write_facts(folder, architecture_of(torch_model).__name__, dtype, candidate, dense_config)
    return folder


def load_compressed(folder: str | Path) -> Any:
    """The model in a folder that `save_compressed` wrote, in evaluation mode.

    A torch module, or for another runtime a `Runnable`, as from `compress`. Never runs code from
    the folder.

    Raises:
        FileNotFoundError: the folder holds no compressed model.
        ValueError: it was written by a newer version, its files were changed or do not fit
            together, or its runtime cannot run here.
        ImportError: its runtime is not installed; the message names the extra.
    """
    saved = read_saved(Path(folder))
    saved.check()
    # Not on the meta device: buffers such as position ids are not saved, so they must be computed.
    dense = as_its_config_says(saved.architecture(saved.config)).to(saved.dtype)
    model = structure(saved.candidate, dense).eval()
    _load_weights(model, saved)
    setattr(model, CANDIDATE, saved.candidate)
    setattr(model, DENSE_CONFIG, cast(Any, dense).config)
    _set_generation(model, saved.folder)
    if not is_served_elsewhere(saved.candidate):
        return model
    return served(_run_saved(saved, model), saved.candidate)


def _set_generation(model: nn.Module, folder: Path) -> None:
    """Load the default generation settings: stop tokens, sampling."""
    if getattr(model, GENERATION, None) is None or not (folder / f"{GENERATION}.json").is_file():
        return
    try:
        setattr(model, GENERATION, GenerationConfig.from_pretrained(folder))
    except Exception as error:  # transformers may raise anything on invalid values
        raise ValueError(
            f"{folder / GENERATION}.json does not say how to generate: {one_line(error)}"
        ) from None


def become(model: nn.Module, candidate: Any, dense_config: Any) -> str:
    """Give a transformers model on the meta device the structure of a candidate.

    model: changed in place. candidate, dense_config: from an export's `config.json`.

    Returns the runtime in which the candidate was measured; empty for plain torch.

    Raises:
        ValueError: they are damaged, or do not belong together.
    """
    architecture: Any = type(model)
    old: Any = cast(Any, model).config
    try:
        found = Candidate.from_json(json.dumps(candidate))
        config = config_of(architecture, dense_config)
        config._attn_implementation = old._attn_implementation
        rebuilt = structure(found, architecture(config))
    # Config classes of transformers may raise anything on invalid values.
    except Exception as error:
        raise ValueError(
            f"config.json does not describe a compressed model: {one_line(error)}"
        ) from None
    for module in rebuilt.modules():
        if any(isinstance(child, ConstantOutput) for child in module.children()):
            # Else GPT-2 would initialise the weight of the removed projection; there is no public
            # flag.
            module._is_hf_initialized = True  # type: ignore[assignment]
    if hasattr(config, POOLING) and getattr(rebuilt, "pooler", None) is not None:
        rebuilt.pooler = None  # type: ignore[assignment]  # as in `as_embedder`: it has no weights
    vars(model).update(vars(rebuilt))
    cast(Any, model).config.name_or_path = old.name_or_path
    setattr(model, CANDIDATE, found)
    setattr(model, DENSE_CONFIG, config)
    return str(found.runtime) if is_served_elsewhere(found) else ""


def _load_weights(model: nn.Module, saved: Saved) -> None:
    path = saved.folder / saved.weights
    try:
        load_model(model, str(path), strict=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = one_line(error)
        raise ValueError(f"{path} does not hold the weights of this model: {reason}") from None
    refuse_not_finite(saved, model)


def _run_saved(saved: Saved, model: nn.Module) -> Compressed:
    """The saved torch model in its runtime, from that runtime's files where it has some."""
    try:
        return serve_saved(saved.candidate, model, saved.folder, here())
    except (ValueError, ImportError):
        raise
    except Exception as error:  # the errors of runtimes differ
        raise ValueError(
            f"{saved.folder} does not run in {saved.candidate.runtime} here: {one_line(error)}"
        ) from None
