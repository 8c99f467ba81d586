"""paretoformer: the Pareto-optimal compressed versions of your transformer, on your hardware.

    import paretoformer as pf

    pf.search("study.toml", out="runs/mine")
    front = pf.load_front("runs/mine")
    best = pf.load_best("runs/mine", minimize="latency_ms", require=["accuracy >= dense - 0.01"])
    model = best.load_model()

Names are imported when they are first used: reading a front loads neither torch nor Ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wrapt import register_post_import_hook

if TYPE_CHECKING:
    from paretoformer.evaluators.common.measurement import Measurement
    from paretoformer.evaluators.outcome import Outcome
    from paretoformer.search.publish.best import Best, load_best
    from paretoformer.search.records.errors import ParetoformerError
    from paretoformer.search.records.parquet import load_front
    from paretoformer.search.run import search
    from paretoformer.spaces.axes.head_mask import HeadMask
    from paretoformer.spaces.candidate import Candidate
    from paretoformer.spaces.common.attention_choice import AttentionChoice
    from paretoformer.spaces.persist import compress, load_compressed, save_compressed

__version__ = "0.1.0"

# Lets `from_pretrained` open an export, in whichever order the two packages are imported.
register_post_import_hook("paretoformer.native:register", "transformers.quantizers.auto")

_HOMES = {
    "AttentionChoice": "spaces.common.attention_choice",
    "Best": "search.publish.best",
    "Candidate": "spaces.candidate",
    "HeadMask": "spaces.axes.head_mask",
    "Measurement": "evaluators.common.measurement",
    "Outcome": "evaluators.outcome",
    "ParetoformerError": "search.records.errors",
    "compress": "spaces.persist",
    "load_best": "search.publish.best",
    "load_compressed": "spaces.persist",
    "load_front": "search.records.parquet",
    "save_compressed": "spaces.persist",
}

__all__ = [
    "AttentionChoice",
    "Best",
    "Candidate",
    "HeadMask",
    "Measurement",
    "Outcome",
    "ParetoformerError",
    "compress",
    "load_best",
    "load_compressed",
    "load_front",
    "save_compressed",
    "search",
]


def __getattr__(name: str) -> Any:
    if name == "search":  # the package, which is callable: see its docstring
        return import_module("paretoformer.search")
    if name not in _HOMES:
        raise AttributeError(f"module 'paretoformer' has no attribute {name!r}")
    value = getattr(import_module(f"paretoformer.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
