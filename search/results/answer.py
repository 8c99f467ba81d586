"""The answer of a finished run in words: the last line of `search`."""

from __future__ import annotations

import shlex
from pathlib import Path

from paretoformer.search.errors import NoAnswer
from paretoformer.search.results.best import DEFAULT_MINIMIZE, Best, load_best, usual_cost
from paretoformer.search.results.requirement import Requirement
from paretoformer.search.results.tables import in_words, number


def answer(folder: Path) -> str:
    """What `best` gives without options, and how to have it; or what comes nearest."""
    try:
        found = load_best(folder)
    except NoAnswer as error:
        reason = str(error)
        return reason[:1].upper() + reason[1:]
    gain = found.gain if usual_cost(found.facts) == DEFAULT_MINIMIZE else ""  # of prompts
    lines = [gain, found.warning, sentence(found)]
    return "\n".join(filter(None, lines))


def sentence(found: Best) -> str:
    """`Fastest with accuracy >= dense - 0.01: trial 6, 27 of 72 heads, 1.27x (...), 11.8 ms.`"""
    required = map(Requirement.parse, found.facts.requirements)
    asked = " and ".join(each.words for each in required) or "any quality"
    cost = usual_cost(found.facts)
    time = found.metrics[cost]
    faster = found.speedup_text
    if cost != DEFAULT_MINIMIZE:
        faster = f"{found.dense[cost].value / time.value:.2f}x by {cost}"
    parts = (
        f"trial {found.trial}",
        in_words(found.candidate),
        faster,
        f"{number(time.value)} {time.unit}",
    )
    command = f"paretoformer export {shlex.quote(str(found.run))} out/"
    return f"Fastest with {asked}: {', '.join(parts)}. `{command}`"
