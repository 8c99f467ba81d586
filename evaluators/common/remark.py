"""Remarks: what a user should know of their data and model before they trust a number."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Remark:
    """One sentence or two.

    doubt: the numbers of a study would probably mean nothing, so it should not begin.
    """

    text: str
    doubt: bool = False
