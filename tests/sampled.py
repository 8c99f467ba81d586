"""Parametrised tests: some values every day, all of them at night."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def sampled(
    names: str, values: Iterable[Any], daily: Collection[Any], **options: Any
) -> pytest.MarkDecorator:
    """`parametrize` over all values; those that are not in `daily` carry `nightly`."""
    every = list(values)
    assert all(value in every for value in daily), "daily values are some of all"
    marked = [
        pytest.param(
            *(value if "," in names else (value,)),
            marks=[] if value in daily else [pytest.mark.nightly],
        )
        for value in every
    ]
    return pytest.mark.parametrize(names, marked, **options)
