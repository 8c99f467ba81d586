"""A candidate: one point of the space, complete enough to rebuild a model from it.

Equal candidates have equal ids, today and in every later version: a field that a later version
adds is written only where it differs from its default.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from paretoformer.spaces.heads import HeadMask

Value = bool | int | float | str

VERSION = 1


@dataclass(frozen=True)
class AttentionChoice:
    """The attention mechanism of one layer, by its registered name, with its parameters."""

    name: str
    params: tuple[tuple[str, Value], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", tuple(sorted(self.params)))

    @classmethod
    def of(cls, name: str, **params: Value) -> AttentionChoice:
        """`AttentionChoice.of("window", window=32, global_tokens=1)`."""
        return cls(name, tuple(params.items()))

    def to_dict(self) -> dict[str, Any]:
        """As it is written in JSON."""
        return {"name": self.name, "params": dict(self.params)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AttentionChoice:
        return cls.of(data["name"], **data["params"])

    def __str__(self) -> str:
        if not self.params:
            return self.name
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in self.params)})"


FULL = AttentionChoice("full")


@dataclass(frozen=True)
class Candidate:
    """Which heads stay, and the attention mechanism of each layer.

    A layer without heads attends to nothing, so its mechanism is always `full`: otherwise one
    model would have several candidates.

    Raises:
        ValueError: the mechanisms are not one for each layer.
    """

    heads: HeadMask
    attention: tuple[AttentionChoice, ...] = field(default=())

    def __post_init__(self) -> None:
        chosen = tuple(self.attention) or (FULL,) * self.heads.layers
        if len(chosen) != self.heads.layers:
            raise ValueError(
                f"a candidate needs one attention for each of the {self.heads.layers} layers, "
                f"but got {len(chosen)}."
            )
        canonical = (
            choice if count else FULL
            for choice, count in zip(chosen, self.heads.counts, strict=True)
        )
        object.__setattr__(self, "attention", tuple(canonical))

    @classmethod
    def dense(cls, layers: int, heads: int) -> Candidate:
        """The uncompressed model."""
        return cls(HeadMask.all(layers, heads))

    @property
    def is_dense(self) -> bool:
        return self == Candidate.dense(self.heads.layers, self.heads.heads)

    @property
    def id(self) -> str:
        """16 hex digits of the SHA-256 of the canonical JSON text."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Canonical JSON: one text for one candidate."""
        return json.dumps(
            {
                "version": VERSION,
                "heads": ["".join("01"[keep] for keep in row) for row in self.heads.kept],
                "attention": [choice.to_dict() for choice in self.attention],
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> Candidate:
        """The candidate of a text that `to_json` wrote, in this version or an older one.

        Raises:
            ValueError: the text is no candidate, or was written by a newer version.
        """
        try:
            data = json.loads(text)
            version = data["version"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"not a candidate: {text[:80]!r}.") from error
        if version != VERSION:
            raise ValueError(
                f"this candidate has format version {version}, and this paretoformer reads "
                f"version {VERSION}. Install the version that wrote it."
            )
        try:
            attention = tuple(map(AttentionChoice.from_dict, data["attention"]))
            return cls(HeadMask(_rows(data["heads"])), attention)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a candidate: {text[:80]!r}.") from error


def _rows(rows: Iterable[str]) -> tuple[tuple[bool, ...], ...]:
    return tuple(tuple(bit == "1" for bit in row) for row in rows)
