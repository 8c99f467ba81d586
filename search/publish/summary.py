"""The answer of a finished run in words: the last line of `search`."""

from __future__ import annotations

import shlex
from pathlib import Path

from paretoformer.evaluators.data.examples import elsewhere
from paretoformer.search.publish.best import Best, load_best
from paretoformer.search.records.errors import NoAnswer
from paretoformer.search.records.requirement import Requirement
from paretoformer.search.report.cells import number


def answer(folder: Path) -> str:
    """The answer of `best` without options, and how to export it; or the nearest point."""
    try:
        found = load_best(folder)
    except NoAnswer as error:
        reason = str(error)
        return reason[:1].upper() + reason[1:]
    lines = [found.gain, found.warning, on_other_texts(found), sentence(found)]
    return "\n".join(filter(None, lines))


def sentence(found: Best) -> str:
    """`Fastest with accuracy >= dense - 0.01: trial 6, 27 of 72 heads, 1.27x (...), 11.8 ms.`"""
    required = map(Requirement.parse, found.facts.requirements)
    asked = " and ".join(requirement.phrase for requirement in required) or "any quality"
    time = found.metrics[found.facts.timing]
    parts = (
        f"trial {found.trial}",
        found.candidate.phrase,
        found.speedup_text,
        f"{number(time.value)} {time.unit}",
    )
    command = f"paretoformer export {shlex.quote(str(found.run))} out/"
    return f"Fastest with {asked}: {', '.join(parts)}. `{command}`"


def on_other_texts(found: Best) -> str:
    """`On data.other: accuracy 0.803 (uncompressed 0.821).`; empty if there are none."""
    known = found.metrics.keys()
    parts = [
        f"{name} {number(found.metrics[elsewhere(name)].value)} "
        f"(uncompressed {number(found.dense[elsewhere(name)].value)})"
        for name in known
        if elsewhere(name) in known
    ]
    return f"On data.other: {', '.join(parts)}." if parts else ""
