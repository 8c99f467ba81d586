"""The mechanisms that a study tries, with the settings worth trying."""

from __future__ import annotations

from collections.abc import Sequence

from paretoformer.spaces.attention.base import attention_class, names
from paretoformer.spaces.common.attention_choice import FULL, AttentionChoice


def menu(
    wanted: Sequence[str] | None, length: int, *, causal: bool = False
) -> tuple[AttentionChoice, ...]:
    """The mechanisms, each with the settings worth trying at `length` tokens; `full` first.

    wanted: registered names; None takes every mechanism that is legal here.

    Raises:
        ValueError: an unknown name, or one that cannot be causal for a causal model.
    """
    choices = {FULL: None}
    for name in names() if wanted is None else wanted:
        mechanism = attention_class(name)
        if causal and not mechanism.causal:
            if wanted is None:
                continue
            raise ValueError(f"attention {name!r} cannot be causal, as this model needs it to be.")
        for params in mechanism.settings(length):
            choices[AttentionChoice.of(name, **params)] = None
    return tuple(choices)


def left_out(wanted: Sequence[str] | None, length: int, *, causal: bool = False) -> dict[str, str]:
    """Requested mechanisms that the menu omits -> why."""
    offered = {choice.name for choice in menu(wanted, length, causal=causal)}
    reasons = {}
    for name in names() if wanted is None else wanted:
        if name in offered:
            continue
        if causal and not attention_class(name).causal:
            reasons[name] = "cannot be causal, as this model needs it to be"
        else:
            reasons[name] = f"computes no less than full attention at {length} tokens"
    return reasons
