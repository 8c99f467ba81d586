"""Attention mechanisms, one file each; importing this package registers them all."""

from paretoformer.spaces.attention import (
    clustered,
    full,
    linear,
    lowrank,
    lsh,
    nystrom,
    random_features,
    routing,
    strided,
    window,
)
from paretoformer.spaces.attention.base import (
    Attention,
    IntDomain,
    attention_class,
    build,
    card,
    names,
    register,
)

__all__ = [
    "Attention",
    "IntDomain",
    "attention_class",
    "build",
    "card",
    "clustered",
    "full",
    "linear",
    "lowrank",
    "lsh",
    "names",
    "nystrom",
    "random_features",
    "register",
    "routing",
    "strided",
    "window",
]
