"""Remarks: facts about data and model that a user should know before trusting a number."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Remark:
    """One or two sentences.

    doubt: the results would probably be meaningless, so the study should not start.
    """

    text: str
    doubt: bool = False
