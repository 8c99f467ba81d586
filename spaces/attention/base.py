"""The contract of an attention mechanism, and the registry of mechanisms."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from paretoformer.spaces.attention.padding import compacted, tracing
from paretoformer.spaces.attention.short_cache import ShortLayer
from paretoformer.spaces.common.attention_choice import AttentionChoice
from paretoformer.spaces.common.registry import Registry


@dataclass(frozen=True)
class IntDomain:
    """An integer of at least `low`; a search tries the values of `grid`, `default` first."""

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

    - padding, whatever its content and amount, changes no output of a real token; the output of a
      padded query is zero, so a row without real tokens gives zeros, never NaN;
    - at its exact setting, if any, the mechanism equals softmax attention;
    - neither time nor memory grows with length x length (`full` excepted);
    - any length works, and any number of query heads that is a multiple of the key heads;
    - a causal mechanism's output does not depend on later tokens;
    - equal inputs give equal outputs: random values are drawn once, from a seed, and stored.

    It is a module, so that its tensors are saved with the model's weights.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    """In the taxonomy of Tay et al., Efficient Transformers: A Survey (arXiv:2009.06732)."""
    complexity: ClassVar[str]
    """Time and memory, in the length n and the parameters."""
    source: ClassVar[str]
    exact: ClassVar[str]
    """The setting at which it equals softmax attention."""
    causal: ClassVar[bool]
    """Whether `forward(causal=True)` is supported."""
    domains: ClassVar[Mapping[str, IntDomain]]
    tile: ClassVar[int | None] = None
    """On a CPU: tokens x heads per thread that are processed together; None for all.

    Heads are independent; a cache-sized tile is up to 2x faster and has a lower peak.
    """

    def __init__(self, head_dim: int, **params: int) -> None:
        """head_dim: of the queries and keys. params: one for each of `domains`."""
        super().__init__()
        self.head_dim = head_dim
        for name in self.domains:
            setattr(self, name, params[name])

    @abstractmethod
    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        lengths: torch.Tensor | None,
        causal: bool,
        scale: float,
    ) -> torch.Tensor:
        """The mechanism itself, on rows padded at their end.

        query, key, value: (batch, heads, length, head_dim), equal numbers of heads.
        lengths: (batch,) real tokens of each row, at least 1; None when every token is real.
        causal: only if the mechanism supports it.

        Returns (batch, heads, length, head_dim); values at padded positions are ignored.
        """

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

        query: (batch, heads, length, head_dim).
        key, value: the same, or with fewer heads, each for a group of adjacent query heads.
        mask: (batch, length), True for a real token; None when every token is real.
        causal: a token sees no later token.
        scale: factor on the scores before the softmax.

        Returns (batch, heads, length, head_dim), zeros at padded positions.

        Raises:
            ValueError: causal is not supported, or the numbers of heads do not fit.
        """
        if causal and not self.causal:
            raise ValueError(f"attention {self.name!r} cannot be causal.")
        groups, rest = divmod(query.shape[1], key.shape[1])
        if rest:
            raise ValueError(
                f"{query.shape[1]} query heads cannot share {key.shape[1]} key heads evenly."
            )
        if groups > 1:
            key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
        if mask is None:
            return self._by_tile(query, key, value, None, causal, scale)
        rows = compacted(mask)
        query, key, value = (rows.compact(each) for each in (query, key, value))
        return rows.restore(self._by_tile(query, key, value, rows.lengths, causal, scale))

    def cache_layer(self, scale: float) -> ShortLayer | None:
        """An empty key-value cache layer, causal, that keeps less than every token.

        None: every token is kept, and generated tokens attend to all of them exactly.
        """
        return None

    def unexportable(self) -> str:
        """Why an exported graph of any length cannot contain this; empty when it can."""
        return ""

    def _by_tile(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        lengths: torch.Tensor | None,
        causal: bool,
        scale: float,
    ) -> torch.Tensor:
        """`attend`, in tiles of sequences or heads where that is faster."""
        batch, heads, length, _ = query.shape
        rows = batch * heads
        if self.tile is not None and query.device.type == "cpu" and not tracing():
            rows = max(1, self.tile * torch.get_num_threads() // length)
        if rows >= batch * heads:
            return self.attend(query, key, value, lengths=lengths, causal=causal, scale=scale)
        # Laid out as (batch, length, heads, d), as a model needs it.
        output = value.new_empty(batch, length, heads, value.shape[-1]).transpose(1, 2)
        for some in _cuts(batch, max(1, rows // heads)):
            theirs = None if lengths is None else lengths[some]
            for few in _cuts(heads, min(heads, rows)):
                q, k, v = (each[some, few] for each in (query, key, value))
                output[some, few] = self.attend(q, k, v, lengths=theirs, causal=causal, scale=scale)
        return output

    @classmethod
    def default(cls, length: int) -> dict[str, int]:
        """The setting to try first on `length` tokens: the cheapest that rarely costs accuracy."""
        return {name: domain.default for name, domain in cls.domains.items()}

    @classmethod
    def settings(cls, length: int) -> Iterator[dict[str, int]]:
        """The worthwhile settings for sequences of `length` tokens, the default first."""
        grids = (domain.grid for domain in cls.domains.values())
        grid = (dict(zip(cls.domains, each, strict=True)) for each in itertools.product(*grids))
        default = cls.default(length)
        candidates = (default, *(each for each in grid if each != default))
        return (each for each in candidates if cls.worthwhile(length, **each))

    @classmethod
    def worthwhile(cls, length: int, **params: int) -> bool:
        """Whether a setting computes less than `full` at `length` tokens."""
        return True

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in self.domains)


def _cuts(count: int, most: int) -> Iterator[slice]:
    """Split range(count) into near-equal slices of at most `most`."""
    pieces = -(-count // most)
    bounds = [count * piece // pieces for piece in range(pieces + 1)]
    return itertools.starmap(slice, itertools.pairwise(bounds))


_REGISTRY: Registry[type[Attention]] = Registry(
    "attention", order=lambda mechanism: (mechanism.name != "full", mechanism.name)
)
register = _REGISTRY.register
names = _REGISTRY.names


def attention_class(name: str) -> type[Attention]:
    """The mechanism of that name.

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    return _REGISTRY[name]


def card(name: str) -> dict[str, Any]:
    """A mechanism's facts for users, as plain values; `parameters` are those a search tries.

    Raises:
        ValueError: unknown name.
    """
    mechanism = attention_class(name)
    return {
        "name": name,
        "family": mechanism.family,
        "complexity": mechanism.complexity,
        "causal": mechanism.causal,
        "parameters": {key: list(domain.grid) for key, domain in mechanism.domains.items()},
        "exact": mechanism.exact,
        "exports": not mechanism(16, **mechanism.default(512)).unexportable(),
        "source": mechanism.source,
    }


def build(choice: AttentionChoice, head_dim: int) -> Attention:
    """The mechanism that a choice names, for heads of width `head_dim`.

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
    return mechanism(head_dim, **params)
