"""A candidate: one point of the space, from which a model can be rebuilt completely.

Equal candidates have equal ids in every version: an axis added later is written only where it
differs from its default.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

from paretoformer.spaces.axes import axes, axis_of
from paretoformer.spaces.axes.axis import Stage
from paretoformer.spaces.axes.evidence import Shape
from paretoformer.spaces.axes.head_mask import HeadMask
from paretoformer.spaces.common.attention_choice import FULL, AttentionChoice
from paretoformer.spaces.common.malformed import MALFORMED, json_object
from paretoformer.spaces.common.registry import did_you_mean

__all__ = ["FULL", "AttentionChoice", "Candidate"]

VERSION = max(axis.since for axis in axes())
"""The newest format that this version reads; a candidate is written in the oldest possible format.
"""


class Candidate:
    """One value for each axis; the shape is that of the head mask.

    `Candidate(heads, attention)` gives the first two axes by position, `others` the rest:
    `Candidate(heads, runtime="onnxruntime:int8")`. Missing axes are as in the uncompressed model.
    Frozen, hashable; `candidate["runtime"]` and `candidate.runtime` read a value.

    Raises:
        ValueError: a value does not fit the shape, or there is no such axis.
    """

    def __init__(self, heads: HeadMask, attention: Any = None, **others: Any) -> None:
        shape = Shape(heads.layers, heads.heads)
        for name in others:
            axis_of(name)
        given = {"heads": heads, "attention": attention or None, **others}
        raw = {
            axis.name: axis.default(shape)
            if given.get(axis.name) is None
            else axis.check(given[axis.name], shape)
            for axis in axes()
        }
        self.shape = shape
        self.values: Mapping[str, Any] = MappingProxyType(
            {axis.name: axis.canonical(raw[axis.name], raw) for axis in axes()}
        )

    @classmethod
    def dense(cls, layers: int, heads: int) -> Candidate:
        """The uncompressed model."""
        return cls(HeadMask.all(layers, heads))

    @property
    def heads(self) -> HeadMask:
        mask: HeadMask = self.values["heads"]
        return mask

    @property
    def attention(self) -> tuple[AttentionChoice, ...]:
        choices: tuple[AttentionChoice, ...] = self.values["attention"]
        return choices

    def __getitem__(self, axis: str) -> Any:
        return self.values[axis]

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__.get("values", {})
        if name not in values:
            raise AttributeError(f"a candidate has no {name!r}: {', '.join(values)}.")
        return values[name]

    def replaced(self, **values: Any) -> Candidate:
        """The same candidate with other values of some axes."""
        return Candidate(**{**self.values, **values})

    @property
    def seconds(self) -> float:
        """Deliberate build time, such as training."""
        return sum(axis.seconds(self.values[axis.name]) for axis in axes())

    def with_minutes(self, minutes: float) -> Candidate:
        """The candidate with this build time; unchanged where more time improves nothing."""
        return self.replaced(
            **{axis.name: axis.with_minutes(self.values[axis.name], minutes) for axis in axes()}
        )

    def of_stage(self, stage: Stage) -> dict[str, Any]:
        return {axis.name: self.values[axis.name] for axis in axes() if axis.stage is stage}

    def changes(self) -> Iterator[str]:
        """Names of the axes that differ from the uncompressed model."""
        for axis in axes():
            if self.values[axis.name] != axis.default(self.shape):
                yield axis.name

    @property
    def is_dense(self) -> bool:
        return not any(self.changes())

    @property
    def is_plain(self) -> bool:
        """Whether transformers computes the same from the rebuilt config and weights."""
        return all(axis_of(name).is_plain for name in self.changes())

    @property
    def stays(self) -> tuple[bool, ...]:
        """Whether each layer of the dense model is kept."""
        stays: tuple[bool, ...] = self.values["layers"]
        return stays

    @property
    def kept_layers(self) -> tuple[int, ...]:
        return tuple(layer for layer, stays in enumerate(self.stays) if stays)

    @property
    def cut_layers(self) -> tuple[bool, ...]:
        """Whether each kept layer is changed, is followed by removed layers, or is the first kept
        one after removed ones: so these are to be repaired."""
        layers, kept = self.shape.layers, self.kept_layers
        whole = self.without_layers([True] * layers).of_stage(Stage.STRUCTURE)

        def is_changed(layer: int) -> bool:
            own = ((axis_of(name), value) for name, value in whole.items())
            return any(
                axis.of_layers(value, [layer]) != axis.of_layers(axis.default(self.shape), [layer])
                for axis, value in own
            )

        behind = (*kept[1:], layers)
        return tuple(
            is_changed(layer) or behind[place] > layer + 1 or (place == 0 and layer > 0)
            for place, layer in enumerate(kept)
        )

    def without_layers(self, stays: Sequence[bool]) -> Candidate:
        """The same candidate with only the layers that stay."""
        return self.replaced(layers=tuple(stays))

    @property
    def mixes_tokens(self) -> bool:
        """Whether a remaining layer has attention heads."""
        return bool(self.of_kept_layers("heads").total)

    @property
    def reads_first(self) -> bool:
        return bool(self.values["readout"] == "first")

    def of_kept_layers(self, axis: str) -> Any:
        """The value of one axis, for the remaining layers only."""
        return axis_of(axis).of_layers(self.values[axis], self.kept_layers)

    def cell(self, axis: str) -> str:
        """One axis in a table, for the remaining layers only."""
        return axis_of(axis).cell(self.of_kept_layers(axis))

    @property
    def phrase(self) -> str:
        """The changed axes within a sentence: `12 of 36 heads, 3 of 6 layers`."""
        parts = (axis_of(name).phrase(self.of_kept_layers(name)) for name in self.changes())
        return ", ".join(parts) or "the uncompressed model"

    @property
    def techniques(self) -> list[str]:
        """Techniques that the uncompressed model does not use, axis by axis."""
        return [
            technique
            for name in self.changes()
            for technique in axis_of(name).techniques(self.values[name])
        ]

    @property
    def kept_shares(self) -> tuple[float, ...]:
        """Kept shares of the dense model: of layers, and of each part that an axis cuts."""
        depth = len(self.kept_layers) / self.shape.layers
        shares = (axis.kept_share(self.of_kept_layers(axis.name)) for axis in axes())
        return (*(depth * share for share in shares if share is not None), depth)

    @cached_property
    def id(self) -> str:
        """16 hex digits of the SHA-256 of the canonical JSON text."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Canonical JSON: one text per candidate.

        The axes of version 1 are always written, later ones where they differ from their default.
        """
        written = [
            axis
            for axis in axes()
            if axis.since == 1 or self.values[axis.name] != axis.default(self.shape)
        ]
        version = max(axis.since for axis in written)
        values = {axis.name: axis.encode(self.values[axis.name]) for axis in written}
        return json.dumps({"version": version, **values}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Candidate:
        """The candidate in a text that `to_json` wrote, in this version or an older one.

        Raises:
            ValueError: the text is no candidate, is of a newer version, or has an unknown key.
        """
        try:
            data = json_object(text)
            version = data.pop("version")
        except MALFORMED as error:
            raise ValueError(f"not a candidate: {text[:80]!r}.") from error
        if type(version) is not int or version not in range(1, VERSION + 1):
            raise ValueError(
                f"this candidate has format version {version}, and this paretoformer reads "
                f"version {VERSION}. Install the version that wrote it."
            )
        known = {axis.name: axis for axis in axes() if axis.since <= version}
        for key in data:
            if key not in known:
                raise ValueError(
                    f"a candidate of version {version} has no {key!r}."
                    f"{did_you_mean(key, known)} Known: {', '.join(known)}."
                )
        try:
            data = {"attention": [], **data}
            return cls(**{name: known[name].decode(value) for name, value in data.items()})
        except ValueError:
            raise
        except MALFORMED as error:
            raise ValueError(f"not a candidate: {text[:80]!r}.") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.values == other.values

    def __hash__(self) -> int:
        return hash(tuple(self.values.items()))

    def __repr__(self) -> str:
        cells = (f"{axis.name}={self.cell(axis.name)}" for axis in axes())
        return f"Candidate({', '.join(cells)}; {self.id})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (dict(self.values),)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            raise AttributeError("a candidate is frozen.")
        super().__setattr__(name, value)


def _restored(values: dict[str, Any]) -> Candidate:
    return Candidate(**values)
