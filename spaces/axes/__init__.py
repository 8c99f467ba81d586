"""Axes, one file each; importing this package registers them all."""

from paretoformer.spaces.axes import (
    attention,
    feed_forward,
    heads,
    layers,
    readout,
    recovery,
    runtime,
    vocabulary,
)
from paretoformer.spaces.axes.axis import axes, axis_of

__all__ = [
    "attention",
    "axes",
    "axis_of",
    "feed_forward",
    "heads",
    "layers",
    "readout",
    "recovery",
    "runtime",
    "vocabulary",
]
