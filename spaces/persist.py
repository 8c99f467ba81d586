"""Compressed models on disk: config, safetensors, the candidate and its runtime's files; no pickle.

A folder holds `config.json` and `model.safetensors` as transformers writes them, the files of the
candidate's runtime in the layout of optimum, and `compression.json`: format version, candidate,
architecture, dtype, and digests by which a changed file is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from paretoformer.spaces.axes import axes
from paretoformer.spaces.axis import Stage
from paretoformer.spaces.build import CANDIDATE, DENSE_CONFIG, Compressed, build, here, serve_saved
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.runtimes import Runnable, Tools

VERSION = 2
COMPRESSION = "compression.json"
WEIGHTS = "model.safetensors"
TORCH_MODEL = "paretoformer_model"
"""The attribute of a `Runnable` that `compress` returned: the torch model behind it."""
DTYPES = ("float32", "bfloat16", "float16", "float64")


def compress(model: nn.Module, candidate: Candidate, *, tools: Tools | None = None) -> Any:
    """The model that `candidate` describes, built from `model`, which is left as it was.

    Returns a torch module in evaluation mode; or where the candidate names another runtime, a
    `Runnable`, which is called in the same way: `compressed(input_ids=...).logits`. Unchanged
    tensors are shared between the two models.

    tools: threads, and the training examples that a runtime may need to calibrate.

    Raises:
        ValueError: unsupported family, a candidate of another shape, or a runtime that cannot run
            the model or needs a study's data.
        ImportError: the runtime is not installed; the message names the extra.
    """
    return served(build(candidate, model, tools or here()), candidate)


def served(compressed: Compressed, candidate: Candidate) -> Any:
    """What a user gets of a built candidate: the torch module, or what runs it."""
    if not is_served_elsewhere(candidate):
        return compressed.model
    setattr(compressed.runnable, TORCH_MODEL, compressed.model)
    return compressed.runnable


def is_served_elsewhere(candidate: Candidate) -> bool:
    """Whether something else than the rebuilt torch module runs it."""
    dense = Candidate.dense(candidate.shape.layers, candidate.shape.heads)
    return candidate.of_stage(Stage.RUNTIME) != dense.of_stage(Stage.RUNTIME)


def save_compressed(model: Any, folder: str | Path) -> Path:
    """Write what `compress` returned into `folder`, which is created if missing.

    Raises:
        ValueError: the model did not come from `compress` or `load_compressed`.
    """
    torch_model = getattr(model, TORCH_MODEL, model)
    candidate = getattr(torch_model, CANDIDATE, None)
    if candidate is None:
        raise ValueError("not a compressed model: pass one that `compress` returned.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config: Any = torch_model.config
    config.save_pretrained(folder)
    save_model(torch_model, str(folder / WEIGHTS), metadata={"format": "pt"})
    if isinstance(model, Runnable):
        model.save(folder)
    facts = {
        "version": VERSION,
        "architecture": type(torch_model).__name__,
        "dtype": str(next(torch_model.parameters()).dtype).removeprefix("torch."),
        "candidate": json.loads(candidate.to_json()),
        "candidate_id": candidate.id,
        "dense_config": _dense_config(torch_model),
        "sha256": {name: _sha256(folder / name) for name in _written(folder)},
    }
    (folder / COMPRESSION).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return folder


def _dense_config(model: nn.Module) -> dict[str, Any]:
    """The config of the uncompressed model, from which its architecture is made."""
    config: Any = getattr(model, DENSE_CONFIG)
    found: dict[str, Any] = json.loads(config.to_json_string(use_diff=True))
    return found


def _written(folder: Path) -> list[str]:
    """The files whose contents must not change: weights, and what a runtime reads."""
    inside = (p for sub in folder.iterdir() if sub.is_dir() for p in sub.rglob("*") if p.is_file())
    return [WEIGHTS, *sorted(path.relative_to(folder).as_posix() for path in inside)]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Saved:
    """What `compression.json` says of a folder."""

    folder: Path
    candidate: Candidate
    architecture: type[nn.Module]
    config: Any
    dtype: torch.dtype
    digests: Mapping[str, str]

    def check(self) -> None:
        """Raises ValueError when a file was changed since it was written."""
        for name, digest in self.digests.items():
            path = self.folder / name
            if not path.is_file() or _sha256(path) != digest:
                raise ValueError(f"{path} is missing or was changed since it was written.")


def load_compressed(folder: str | Path) -> Any:
    """The model in a folder that `save_compressed` wrote, in evaluation mode.

    A torch module, or where the candidate names another runtime a `Runnable`, as `compress` returns
    it. Runs no code that the folder may bring.

    Raises:
        FileNotFoundError: the folder holds no compressed model.
        ValueError: it was written by a newer version, its files were changed or do not fit
            together, or its runtime cannot run here.
    """
    saved = read_saved(Path(folder))
    saved.check()
    # Not on the meta device: buffers such as position ids are not saved and must be made.
    dense = saved.architecture(saved.config).to(saved.dtype)
    model = build(_rebuildable(saved.candidate), dense).model
    _load_weights(model, saved.folder / WEIGHTS)
    setattr(model, CANDIDATE, saved.candidate)
    if not is_served_elsewhere(saved.candidate):
        return model
    return served(_run_saved(saved, model), saved.candidate)


def _rebuildable(candidate: Candidate) -> Candidate:
    """As far as it can be built from nothing but the dense architecture."""
    later = {
        axis.name: axis.default(candidate.shape)
        for axis in axes()
        if axis.stage is Stage.RUNTIME or not axis.rebuilt(candidate[axis.name])
    }
    return candidate.replaced(**later)


def _load_weights(model: nn.Module, path: Path) -> None:
    try:
        load_model(model, str(path), strict=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} does not hold the weights of this model: {reason}") from None


def _run_saved(saved: Saved, model: nn.Module) -> Compressed:
    """The saved torch model in its runtime, from that runtime's files where it has some."""
    return serve_saved(saved.candidate, model, saved.folder, here())


def read_saved(folder: Path) -> Saved:
    """Read and check `compression.json`; see `load_compressed`."""
    path = folder / COMPRESSION
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        version = facts["version"]
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"{folder} holds no compressed model: it has no {COMPRESSION}."
        ) from None
    except (ValueError, KeyError, TypeError, OSError):
        raise ValueError(f"{path} is damaged.") from None
    if version not in range(1, VERSION + 1):
        raise ValueError(
            f"{folder} has format version {version}, and this paretoformer reads "
            f"version {VERSION}. Install the version that wrote it."
        )
    try:
        return _saved(folder, facts)
    except (KeyError, TypeError, AttributeError, OSError) as error:
        raise ValueError(f"{path} is damaged: {error!r}.") from None


def _saved(folder: Path, facts: Mapping[str, Any]) -> Saved:
    candidate = Candidate.from_json(json.dumps(facts["candidate"]))
    if facts.get("candidate_id", candidate.id) != candidate.id:
        raise ValueError(f"the candidate in {folder / COMPRESSION} was changed.")
    name, dtype = facts["architecture"], facts["dtype"]
    architecture = getattr(transformers, name, None)
    if not (isinstance(architecture, type) and issubclass(architecture, nn.Module)):
        raise ValueError(f"{folder}: transformers has no model {name!r}.")
    if dtype not in DTYPES:
        raise ValueError(f"{folder}: dtype is one of {', '.join(DTYPES)}, but got {dtype!r}.")
    if "dense_config" in facts:
        config = cast(Any, architecture).config_class.from_dict(facts["dense_config"])
    else:  # version 1, in which no layer could go
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    config._attn_implementation = "sdpa"
    digests = facts.get("sha256", {})
    return Saved(folder, candidate, architecture, config, getattr(torch, dtype), digests)
