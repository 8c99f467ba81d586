"""Compressed models on disk: config, safetensors, and the candidate; no pickle.

A folder holds `config.json` and `model.safetensors` as transformers writes them, and
`compression.json`: format version, candidate, architecture and dtype.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_model, save_model
from torch import nn

from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.surgery import CANDIDATE, apply

VERSION = 1
COMPRESSION = "compression.json"
WEIGHTS = "model.safetensors"


def compress(model: nn.Module, candidate: Candidate) -> nn.Module:
    """The model that `candidate` describes, built from `model`, which is left as it was.

    Unchanged tensors are shared between the two. Returned in evaluation mode.

    Raises:
        ValueError: unsupported family, or a candidate of another shape.
    """
    return apply(candidate, model).model.eval()


def save_compressed(model: nn.Module, folder: str | Path) -> Path:
    """Write a model that `compress` returned into `folder`, which is created if missing.

    Raises:
        ValueError: the model did not come from `compress` or `load_compressed`.
    """
    candidate = getattr(model, CANDIDATE, None)
    if candidate is None:
        raise ValueError("not a compressed model: pass one that `compress` returned.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config: Any = model.config
    config.save_pretrained(folder)
    save_model(model, str(folder / WEIGHTS), metadata={"format": "pt"})
    facts = {
        "version": VERSION,
        "architecture": type(model).__name__,
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "candidate": json.loads(candidate.to_json()),
    }
    (folder / COMPRESSION).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return folder


def load_compressed(folder: str | Path) -> nn.Module:
    """The model in a folder that `save_compressed` wrote, in evaluation mode.

    Raises:
        FileNotFoundError: the folder holds no compressed model.
        ValueError: it was written by a newer version, or its files do not fit together.
    """
    folder = Path(folder)
    try:
        facts = json.loads((folder / COMPRESSION).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder} holds no compressed model: it has no {COMPRESSION}."
        ) from None
    if facts["version"] != VERSION:
        raise ValueError(
            f"{folder} has format version {facts['version']}, and this paretoformer reads "
            f"version {VERSION}. Install the version that wrote it."
        )
    architecture = getattr(transformers, facts["architecture"], None)
    if not (isinstance(architecture, type) and issubclass(architecture, nn.Module)):
        raise ValueError(f"{folder}: transformers has no model {facts['architecture']!r}.")
    config = transformers.AutoConfig.from_pretrained(folder)
    config._attn_implementation = "sdpa"
    # Not on the meta device: buffers such as position ids are not saved and must be made.
    dense = architecture(config).to(getattr(torch, facts["dtype"]))
    candidate = Candidate.from_json(json.dumps(facts["candidate"]))
    model = apply(candidate, dense).model
    load_model(model, str(folder / WEIGHTS), strict=True)
    return model.eval()
