"""Which way a metric is better, and what it is for; without torch, as reading a run needs them."""

from __future__ import annotations

from typing import Literal

Direction = Literal["maximize", "minimize"]
Role = Literal["quality", "cost"]
"""`quality`: what compression may harm; `cost`: what it is to lower."""
