"""Direction and role of a metric. Without torch: reading a run needs them."""

from __future__ import annotations

from typing import Literal

Direction = Literal["maximize", "minimize"]
Role = Literal["quality", "cost"]
"""`quality`: compression may reduce it; `cost`: compression should reduce it."""
