"""Reading what someone may have changed by hand: JSON objects, digests, what damage raises."""

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
"""What code raises that takes plain values apart which have another shape than it expects."""


def json_object(text: str | bytes) -> dict[str, Any]:
    """The object that a JSON text holds.

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
    """SHA-256 of plain values, however their text is laid out."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def one_line(error: BaseException, most: int = 200, *, with_type: bool = False) -> str:
    """The message of an error in one line of at most `most` characters."""
    name = type(error).__name__
    text = " ".join(f"{name}: {error}".split() if with_type else str(error).split())
    return text[:most] or name
