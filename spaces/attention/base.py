"""What every attention mechanism promises, and the registry of those that keep the promise."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn

from paretoformer.spaces.candidate import AttentionChoice
from paretoformer.spaces.suggestions import did_you_mean


@dataclass(frozen=True)
class IntDomain:
    """A whole number of at least `low`; a search tries the values of `grid`, `default` first."""

    low: int
    grid: tuple[int, ...]
    default: int

    def check(self, name: str, value: object) -> int:
        """Raises ValueError unless `value` is a whole number of the domain."""
        if isinstance(value, bool) or not isinstance(value, int) or value < self.low:
            raise ValueError(f"{name} is a whole number of at least {self.low}, but got {value!r}.")
        return value


class Attention(nn.Module, ABC):
    """One attention mechanism with its parameters, for one layer.

    Laws, run over every registered mechanism by `tests/test_attention.py`:

    - a padded key changes no output, and a row whose keys are all padded gives zeros, never NaN;
    - at its exact setting the mechanism equals softmax attention;
    - neither time nor memory grows with length x length (`full` excepted);
    - any length works.

    It is a module, so that what it stores as tensors travels with the model's weights.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    """In the terms of Tay et al., Efficient Transformers: A Survey (arXiv:2009.06732)."""
    complexity: ClassVar[str]
    source: ClassVar[str]
    causal: ClassVar[bool]
    """Whether `forward(causal=True)` is possible."""
    domains: ClassVar[Mapping[str, IntDomain]]
    """Parameter name -> what it may be."""

    @abstractmethod
    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        mask: torch.Tensor | None,
        causal: bool,
        scale: float,
    ) -> torch.Tensor:
        """Attention of `query` over `key` and `value`.

        query, key, value: (batch, heads, length, head_dim).
        mask: (batch, length), True for a real token; None when every token is real.
        scale: factor on the scores before the softmax.

        Returns (batch, heads, length, head_dim).
        """

    @classmethod
    def default(cls) -> dict[str, int]:
        """The setting to try first: the cheapest one that rarely costs accuracy."""
        return {name: domain.default for name, domain in cls.domains.items()}

    @classmethod
    def settings(cls, length: int) -> Iterator[dict[str, int]]:
        """The parameter settings that a search tries on sequences of `length` tokens.

        A mechanism overrides this to drop settings that do not differ from `full` there.
        """
        grids = (domain.grid for domain in cls.domains.values())
        for values in itertools.product(*grids):
            yield dict(zip(cls.domains, values, strict=True))


_REGISTRY: dict[str, type[Attention]] = {}

A = TypeVar("A", bound=type[Attention])


def register(mechanism: A) -> A:
    """Make a mechanism known by its name; the last line of its file.

    Raises:
        ValueError: the name is taken.
    """
    if mechanism.name in _REGISTRY:
        raise ValueError(f"attention {mechanism.name!r} is registered already.")
    _REGISTRY[mechanism.name] = mechanism
    return mechanism


def names() -> tuple[str, ...]:
    """The registered names, `full` first."""
    return tuple(sorted(_REGISTRY, key=lambda name: (name != "full", name)))


def attention_class(name: str) -> type[Attention]:
    """The mechanism of that name.

    Raises:
        ValueError: there is none; the message names those there are.
    """
    try:
        return _REGISTRY[name]
    except KeyError:
        raise ValueError(
            f"Unknown attention {name!r}.{did_you_mean(name, _REGISTRY)} "
            f"Available: {', '.join(names())}."
        ) from None


def build(choice: AttentionChoice) -> Attention:
    """The mechanism that a choice names, with its parameters checked.

    Raises:
        ValueError: unknown name, or parameters that the mechanism does not have.
    """
    mechanism = attention_class(choice.name)
    params: dict[str, Any] = dict(choice.params)
    if params.keys() != mechanism.domains.keys():
        raise ValueError(
            f"attention {choice.name!r} has the parameters {sorted(mechanism.domains)}, "
            f"but got {sorted(params)}."
        )
    for key, domain in mechanism.domains.items():
        domain.check(key, params[key])
    return mechanism(**params)
