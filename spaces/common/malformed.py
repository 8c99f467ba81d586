"""Reading files that may have been edited by hand: JSON objects, digests, short error messages."""

from __future__ import annotations

import hashlib
import json
from typing import Any

MALFORMED = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""Raised by code that unpacks plain values of an unexpected shape."""


def json_object(text: str | bytes) -> dict[str, Any]:
    """The object in a JSON text.

    Raises:
        ValueError: the text is no JSON, is nested too deeply, or holds something else.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__} where an object belongs")
    return found


def digest_of(values: Any) -> str:
    """SHA-256 of plain values, independent of their text layout."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def one_line(error: BaseException, most: int = 200, *, with_type: bool = False) -> str:
    """The message of an error in one line of at most `most` characters."""
    name = type(error).__name__
    text = " ".join(f"{name}: {error}".split() if with_type else str(error).split())
    return text[:most] or name
