"""A candidate: one point of the space, complete enough to rebuild a model from it.

Equal candidates have equal ids, today and in every later version: an axis that a later version adds
is written only where it differs from its default.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

from paretoformer.spaces.axes import axes, axis_of
from paretoformer.spaces.axes.axis import Shape, Stage
from paretoformer.spaces.axes.head_mask import HeadMask
from paretoformer.spaces.common.attention_choice import FULL, AttentionChoice
from paretoformer.spaces.common.malformed import MALFORMED, json_object
from paretoformer.spaces.common.registry import did_you_mean

__all__ = ["FULL", "AttentionChoice", "Candidate"]

VERSION = max(axis.since for axis in axes())
"""The newest format that this version reads; a candidate is written in the oldest that holds it."""


class Candidate:
    """One value for each axis; the shape is that of the head mask.

    `Candidate(heads, attention)` names the first two axes by position, `others` any further ones:
    `Candidate(heads, runtime="onnxruntime:int8")`. What is left out is as in the uncompressed
    model. Frozen, hashable; `candidate["runtime"]` and `candidate.runtime` read a value.

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
        """How long building it takes on purpose, such as training it."""
        return sum(axis.seconds(self.values[axis.name]) for axis in axes())

    def given(self, minutes: float) -> Candidate:
        """The candidate built with so much time; itself where time buys nothing."""
        return self.replaced(
            **{axis.name: axis.given(self.values[axis.name], minutes) for axis in axes()}
        )

    def of_stage(self, stage: Stage) -> dict[str, Any]:
        """The values of the axes of one stage."""
        return {axis.name: self.values[axis.name] for axis in axes() if axis.stage is stage}

    def changes(self) -> Iterator[str]:
        """The axes that differ from the uncompressed model."""
        for axis in axes():
            if self.values[axis.name] != axis.default(self.shape):
                yield axis.name

    @property
    def is_dense(self) -> bool:
        return not any(self.changes())

    @property
    def is_plain(self) -> bool:
        """Whether transformers itself computes the same from the rebuilt config and weights."""
        return all(axis.is_plain(self.values[axis.name], self.shape) for axis in axes())

    @cached_property
    def id(self) -> str:
        """16 hex digits of the SHA-256 of the canonical JSON text."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Canonical JSON: one text for one candidate.

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
        """The candidate of a text that `to_json` wrote, in this version or an older one.

        Raises:
            ValueError: the text is no candidate, was written by a newer version, or holds a key
                that this version does not know.
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
        cells = (f"{axis.name}={axis.cell(self.values[axis.name])}" for axis in axes())
        return f"Candidate({', '.join(cells)}; {self.id})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (dict(self.values),)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            raise AttributeError("a candidate is frozen.")
        super().__setattr__(name, value)


def _restored(values: dict[str, Any]) -> Candidate:
    return Candidate(**values)
