"""Attention mechanisms, one file each; importing this package registers them all."""

from paretoformer.spaces.attention import full, window
from paretoformer.spaces.attention.base import (
    Attention,
    IntDomain,
    attention_class,
    build,
    names,
    register,
)

__all__ = [
    "Attention",
    "IntDomain",
    "attention_class",
    "build",
    "full",
    "names",
    "register",
    "window",
]
