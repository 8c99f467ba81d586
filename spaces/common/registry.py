"""A registry: implementations of one extension point by name, with 'Did you mean' for typos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from typing import Any, Generic, Protocol, TypeVar


class Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'linear'?` with a leading blank; empty when no name is similar."""
    near = get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    known = tuple(known)
    return f"unknown {kind} {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}."


class Registry(Generic[T]):
    """Registered items, sorted by `order` if given, else in order of registration.

    kind: the word for an item in messages, such as `runtime`.
    """

    def __init__(self, kind: str, order: Callable[[T], Any] | None = None) -> None:
        self.kind = kind
        self._order = order
        self._items: dict[str, T] = {}

    def register(self, item: T) -> T:
        """Register an item by its name; the last line of the item's file.

        Raises:
            ValueError: the name is taken.
        """
        if item.name in self._items:
            raise ValueError(f"{self.kind} {item.name!r} is registered already.")
        self._items[item.name] = item
        return item

    def __getitem__(self, name: str) -> T:
        """Raises ValueError for an unknown name; the message lists the known ones."""
        if name not in self._items:
            raise ValueError(unknown(self.kind, name, self.names()))
        return self._items[name]

    def __iter__(self) -> Iterator[T]:
        items = self._items.values()
        return iter(items if self._order is None else sorted(items, key=self._order))

    def names(self) -> tuple[str, ...]:
        return tuple(item.name for item in self)
