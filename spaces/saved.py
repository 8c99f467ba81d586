"""The folder of a compressed model: `compression.json`, written and checked.

It holds format version, architecture, dtype, candidate and its id, the dense model's config,
digests of all files of the model, and its own digest. So changes by hand are detected, and sizes
are compared with the weights' header before memory is allocated.

Without paretoformer, a folder must not silently load as another model. Where transformers alone
cannot rebuild the structure, the weights have a file name that it does not look for, and
`transformers_weights` in the config, which transformers reads as a file name, says what is
required.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import nn

from paretoformer.spaces.attention.interface import MECHANISM
from paretoformer.spaces.axes import axes
from paretoformer.spaces.axes.axis import Built, Stage
from paretoformer.spaces.build import shaped
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.malformed import MALFORMED, digest_of, json_object, one_line
from paretoformer.spaces.models.embedder import as_its_config_says
from paretoformer.spaces.models.families import family_of, implementation_of, shape_of

VERSION = 3
COMPRESSION = "compression.json"
CONFIG = "config.json"
PLAIN_WEIGHTS = "model.safetensors"
OWN_WEIGHTS = "paretoformer.safetensors"
"""Weights of a structure that transformers alone cannot rebuild."""
REFUSAL = (
    "none, for this model was compressed by paretoformer: load it with "
    "paretoformer.load_compressed, after `pip install paretoformer`"
)
DTYPES = ("float32", "bfloat16", "float16", "float64")
METHOD = "paretoformer"
"""The quantisation method registered with transformers: see `paretoformer.native`."""
MOST_LABELS = 1_000_000
"""Limit, because a config creates a name for each label when it is read."""
MEND = "Export the model again, or put the file back."


def weights_name(candidate: Candidate, dense_config: Any) -> str:
    """The weights file of this candidate's export: transformers alone reads the plain one."""
    starts_otherwise = family_of(dense_config).starts_apart and not candidate.layers[0]
    return PLAIN_WEIGHTS if candidate.is_plain and not starts_otherwise else OWN_WEIGHTS


def write_config(folder: Path, config: Any, candidate: Candidate, dense_config: Any) -> None:
    """`config.json` as transformers writes it; if transformers alone cannot rebuild the structure,
    also the refusal and the data for `paretoformer.native`."""
    config.save_pretrained(folder)
    weights = weights_name(candidate, dense_config)
    if weights == OWN_WEIGHTS:
        path = folder / CONFIG
        native = {
            "quant_method": METHOD,
            "candidate": json.loads(candidate.to_json()),
            "dense_config": json.loads(dense_config.to_json_string(use_diff=True)),
            "weights": weights,
        }
        facts = json_object(path.read_bytes())
        facts |= {"transformers_weights": REFUSAL, "quantization_config": native}
        path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def write_facts(
    folder: Path, architecture: str, dtype: str, candidate: Candidate, dense_config: Any
) -> None:
    """`compression.json`, written last: it holds digests of the other files."""
    weights = weights_name(candidate, dense_config)
    facts = {
        "version": VERSION,
        "architecture": architecture,
        "dtype": dtype,
        "candidate": json.loads(candidate.to_json()),
        "candidate_id": candidate.id,
        "dense_config": json.loads(dense_config.to_json_string(use_diff=True)),
        "weights": weights,
        "config": digest_of(json_object((folder / CONFIG).read_bytes())),
        "sha256": {name: _sha256(folder / name) for name in _written(folder, weights)},
    }
    text = json.dumps({**facts, "digest": digest_of(facts)}, indent=2)
    (folder / COMPRESSION).write_text(text + "\n", encoding="utf-8")


def _written(folder: Path, weights: str) -> list[str]:
    """The files with digests: weights, and the runtime's files."""
    inside = (p for sub in folder.iterdir() if sub.is_dir() for p in sub.rglob("*") if p.is_file())
    return [weights, *sorted(path.relative_to(folder).as_posix() for path in inside)]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Saved:
    """The content of `compression.json`.

    weights: file name. digests: file -> SHA-256; empty in version 1.
    config_digest: of the content of `config.json`; empty before version 3.
    """

    folder: Path
    candidate: Candidate
    architecture: type[nn.Module]
    config: Any
    dtype: torch.dtype
    weights: str
    digests: Mapping[str, str]
    config_digest: str

    def check(self) -> None:
        """Raises ValueError when a file was changed after writing, or is of another model. Compares
        names and shapes only; no tensor is read or allocated."""
        for name, digest in self.digests.items():
            path = self.folder / name
            if not path.is_file() or _sha256(path) != digest:
                raise ValueError(f"{path} is missing or was changed since it was written. {MEND}")
        if self.config_digest and self.config_digest != self._found_config():
            path = self.folder / CONFIG
            raise ValueError(f"{path} is missing or was changed since it was written. {MEND}")
        _check_sizes(self)

    def _found_config(self) -> str:
        try:
            return digest_of(json_object((self.folder / CONFIG).read_bytes()))
        except (OSError, ValueError):
            return ""


def read_saved(folder: Path) -> Saved:
    """Read `compression.json`.

    Raises:
        FileNotFoundError: the folder holds no compressed model.
        ValueError: the file is damaged, or was written by a newer version.
    """
    path = folder / COMPRESSION
    try:
        facts = json_object(path.read_bytes())
        version, digest = facts["version"], facts.pop("digest", "")
        intact = digest == digest_of(facts)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"{folder} holds no compressed model: it has no {COMPRESSION}."
        ) from None
    except (OSError, *MALFORMED) as error:
        raise ValueError(f"{path} is damaged: {_reason(error)}. {MEND}") from None
    if type(version) is not int or version not in range(1, VERSION + 1):
        raise ValueError(
            f"{folder} has format version {version!r}, and this paretoformer reads "
            f"version {VERSION}. Install the version that wrote it."
        )
    if version >= 3 and not intact:
        raise ValueError(f"{path} was changed since it was written. {MEND}")
    try:
        return _saved(folder, facts)
    # Config classes of transformers may raise anything on invalid values.
    except Exception as error:
        raise ValueError(f"{path} is damaged: {_reason(error)}. {MEND}") from None


def _reason(error: Exception) -> str:
    """An error's text, with its type unless a ValueError: a `KeyError`'s text is only its key."""
    text = one_line(error).rstrip(".")
    return text if isinstance(error, ValueError) else f"{type(error).__name__} {text}"


def _saved(folder: Path, facts: Mapping[str, Any]) -> Saved:
    version = facts["version"]
    candidate = Candidate.from_json(json.dumps(facts["candidate"]))
    if version >= 2 and facts["candidate_id"] != candidate.id:
        raise ValueError("its candidate is not the one that was saved")
    if facts["dtype"] not in DTYPES:
        raise ValueError(f"dtype is one of {', '.join(DTYPES)}, but got {facts['dtype']!r}")
    architecture = _architecture(facts["architecture"])
    if version == 1:  # version 1 could not remove layers
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    else:
        config = config_of(architecture, facts["dense_config"])
    config._attn_implementation = implementation_of(config)
    if shape_of(config) != (candidate.shape.layers, candidate.shape.heads):
        raise ValueError(
            f"the candidate has (layers, heads) = {(candidate.shape.layers, candidate.shape.heads)}"
            f", but the model has {shape_of(config)}"
        )
    weights = facts["weights"] if version >= 3 else PLAIN_WEIGHTS
    return Saved(
        folder=folder,
        candidate=candidate,
        architecture=architecture,
        config=config,
        dtype=getattr(torch, facts["dtype"]),
        weights=weights,
        digests=_digests(facts["sha256"], weights) if version >= 2 else {},
        config_digest=facts["config"] if version >= 3 else "",
    )


def _architecture(name: Any) -> type[nn.Module]:
    found = getattr(transformers, name, None) if isinstance(name, str) else None
    known = isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    if not known or getattr(found, "config_class", None) is None:
        raise ValueError(f"transformers has no model {name!r}")
    return found  # type: ignore[return-value]


def config_of(architecture: Any, data: Mapping[str, Any]) -> Any:
    """The config of the uncompressed model, from its saved form.

    Raises:
        ValueError: it would exhaust the memory. Other errors: it is damaged.
    """
    labels = data.get("num_labels", 0)
    if not isinstance(labels, int) or labels > MOST_LABELS:
        raise ValueError(f"num_labels is a number up to {MOST_LABELS:,}, but got {labels!r}")
    return architecture.config_class.from_dict(dict(data))


def _digests(digests: Any, weights: Any) -> Mapping[str, str]:
    """Raises ValueError unless these are digests of files in the folder, including the weights."""
    if weights not in (PLAIN_WEIGHTS, OWN_WEIGHTS) or weights not in digests:
        raise ValueError(f"it has no digest of the weights {weights!r}")
    for name in digests:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"it names a file outside of the folder, {name!r}")
    return dict(digests)


def _check_sizes(saved: Saved) -> None:
    """Raises ValueError unless the weights file has the names and shapes of the described model,
    and memory suffices."""
    path = saved.folder / saved.weights
    there = _shapes(path)
    try:
        wanted, needed = _skeleton(saved)
    except Exception as error:
        place = saved.folder / (COMPRESSION if saved.digests else CONFIG)
        raise ValueError(f"no model can be made of {place}: {_reason(error)}. {MEND}") from None
    for names, shape in wanted:
        found = [there.pop(name) for name in names if name in there]
        if not found or any(each != shape for each in found):
            got = f"the shape {found[0]}" if found else "nothing"
            raise ValueError(
                f"{path} does not hold the weights of this model: {names[0]} should have the shape "
                f"{shape}, and there is {got}. {MEND}"
            )
    if others := [name for name in there if f".{MECHANISM}." not in f".{name}"]:
        raise ValueError(
            f"{path} does not hold the weights of this model, which has no {others[0]}. {MEND}"
        )
    free = psutil.virtual_memory().available + psutil.swap_memory().free
    if needed > free:
        raise ValueError(
            f"{saved.folder} needs {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} are free."
        )


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of each tensor, from the header of a safetensors file."""
    try:
        with safe_open(str(path), "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, *MALFORMED) as error:
        raise ValueError(f"{path} holds no weights: {_reason(error)}. {MEND}") from None


def structure(candidate: Candidate, dense: nn.Module) -> nn.Module:
    """The torch model of a candidate with every saved tensor, whose values are to be loaded."""
    built = Built(shaped(candidate, dense))
    for axis in axes():
        if axis.stage is not Stage.RUNTIME:
            built = axis.empty(built, candidate[axis.name])
    return built.model


def _skeleton(saved: Saved) -> tuple[list[tuple[list[str], tuple[int, ...]]], int]:
    """(names, shape) of each saved tensor, except those of mechanisms; and the bytes of the dense
    model. Built on the meta device, without allocation."""
    with torch.device("meta"):
        dense = as_its_config_says(saved.architecture(saved.config))
    needed = sum(each.numel() * each.element_size() for each in dense.parameters())
    model = structure(saved.candidate.replaced(attention=None), dense)
    tensors: dict[int, tuple[list[str], tuple[int, ...]]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        tensors.setdefault(id(tensor), ([], tuple(tensor.shape)))[0].append(name)
    return list(tensors.values()), needed


def refuse_not_finite(saved: Saved, model: nn.Module) -> None:
    """Raises ValueError where a model without digests has weights that are not finite."""
    if saved.digests:
        return
    for name, tensor in model.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{saved.folder / saved.weights}: {name} is not finite. {MEND}")
