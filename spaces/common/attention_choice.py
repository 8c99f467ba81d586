"""A layer's attention mechanism as a value: a registered name with its parameters.

This file imports no torch, so that reading a run folder stays fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Value = bool | int | float | str


@dataclass(frozen=True)
class AttentionChoice:
    """A layer's attention mechanism: its registered name and its parameters."""

    name: str
    params: tuple[tuple[str, Value], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", tuple(sorted(self.params)))

    @classmethod
    def of(cls, name: str, **params: Value) -> AttentionChoice:
        """`AttentionChoice.of("window", window=32, global_tokens=1)`."""
        return cls(name, tuple(params.items()))

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "params": dict(self.params)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AttentionChoice:
        """Raises ValueError, KeyError or TypeError when `data` is not what `to_dict` returned."""
        unknown = data.keys() - {"name", "params"}
        if unknown:
            raise ValueError(f"unknown keys {sorted(unknown)} in the attention of a layer.")
        name, params = data["name"], dict(data["params"])
        if not isinstance(name, str) or not all(isinstance(v, Value) for v in params.values()):
            raise ValueError(
                "the attention of a layer is a name with parameters that are numbers or texts, "
                f"but got {name!r} with {params!r}."
            )
        return cls(name, tuple(params.items()))

    def __str__(self) -> str:
        if not self.params:
            return self.name
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in self.params)})"


FULL = AttentionChoice("full")
