"""The model card of an export: the model, its origin, and its measurements."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from paretoformer.evaluators.common.target import describe_machine
from paretoformer.evaluators.tasks import task_of
from paretoformer.search.publish.best import Best
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.report.cells import build_notes, cells, number
from paretoformer.spaces.common.malformed import json_object
from paretoformer.spaces.recovery.repair_report import Recovered


def model_card(best: Best, base: str, served: Sequence[str] = (), *, plain: bool) -> str:
    """`README.md` of an export.

    base: folder or Hub id of the dense model, whose licence the card names if it is known.
    served: the files of the candidate's runtime, relative to the export.
    plain: whether transformers alone opens it.
    """
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(
        files("paretoformer.search.publish").joinpath("card.md.jinja").read_text("utf-8")
    )
    task = task_of(best.study["model"]["task"])
    kept = RunFolder(best.run).models / best.candidate.id
    recovered = Recovered.read(kept)
    return template.render(
        form=task.form,
        generates=task.generates,
        output=f".{task.answers.output}",
        size=task.shown(best.facts.timed_lengths),
        name=best.study["name"],
        base=best.study["model"]["path"],
        task=best.study["model"]["task"],
        tag=task.tag or task.name,
        licence=licence_of(base),
        by_labels=recovered is not None and recovered.by_labels,
        files=[f"`{name}`" for name in served],
        plain=plain,
        keeps=cells(best.candidate),
        build_notes=build_notes(best.candidate, kept),
        techniques=best.candidate.techniques,
        rows=_rows(best),
        speedup=best.speedup_text,
        gain=best.gain,
        warning=best.warning,
        usage=task.usage(base, {name: m.value for name, m in best.metrics.items()}),
        study=best.study,
        machine=describe_machine(best.facts.machine),
        versions=best.facts.machine["versions"],
        threads=best.facts.machine.get("threads"),
        trial=best.trial,
        candidate=best.candidate.id,
    )


def licence_of(base: str) -> str:
    """From the base model's own card or config; empty if there is none."""
    for name in ("README.md", "LICENSE.txt", "LICENSE"):
        path = Path(base) / name
        if not path.is_file():
            continue
        text = path.read_text("utf-8", errors="replace")
        for line in text.splitlines()[:40]:
            if line.lower().startswith("license:"):
                return line.partition(":")[2].strip()
    try:
        facts = json_object((Path(base) / "config.json").read_bytes())
    except (OSError, ValueError):
        return ""
    return str(facts.get("license", ""))


def _rows(best: Best) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "value": number(m.value),
            "interval": "exact" if m.low == m.high else f"{number(m.low)} to {number(m.high)}",
            "dense": number(best.dense[name].value),
            "unit": m.unit,
        }
        for name, m in best.metrics.items()
    ]
