"""Offline, and quiet about what is not ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

EXAMPLE = Path(__file__).parent.parent / "runs" / "example"


@pytest.fixture(scope="session")
def example() -> Path:
    """The committed run, made by a real search."""
    return EXAMPLE
