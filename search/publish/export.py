"""Export: a chosen point as a folder that can be loaded, with its measured numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub import snapshot_download

from paretoformer.evaluators import demo
from paretoformer.evaluators.tasks import task_of
from paretoformer.search.publish.best import Best
from paretoformer.search.publish.card import model_card
from paretoformer.search.publish.load import built_point
from paretoformer.search.records.disk import room_on
from paretoformer.spaces.common.atomic import atomic_folder, write_atomically
from paretoformer.spaces.models.surgery import count_parameters
from paretoformer.spaces.persist import save_compressed, served
from paretoformer.spaces.saved import PLAIN_WEIGHTS

MEASURED = "measured.json"
"""The file with the model's measurements, which `verify` compares with."""


def export_best(best: Best, directory: Path) -> int:
    """Write the point's model, tokenizer and card; the folder appears complete or not at all.

    Returns the number of parameters.

    Raises:
        StudyError: the study's model is missing or has other weights.
        RunError: the point's files are lost or have changed.
        DiskFull: there is no room for the folder.
    """
    with room_on(directory):
        return _export(best, directory)


def _export(best: Best, directory: Path) -> int:
    transformers.utils.logging.disable_progress_bar()
    built = built_point(best.candidate, best.run, best.facts)
    source = base_model(best)
    remote = bool(best.study["model"]["trust_remote_code"])
    task = task_of(best.study["model"]["task"])
    processor = task.processor(source, trust_remote_code=remote)
    directory = directory.resolve()
    with atomic_folder(directory) as part:
        save_compressed(served(built, best.candidate), part)
        processor.save_pretrained(part)
        _copy(source, task.files, part)
        write_atomically(part / MEASURED, json.dumps(measured(best), indent=2) + "\n")
        served_by = [path.relative_to(part).as_posix() for path in sorted(part.glob("*/*"))]
        plain = (part / PLAIN_WEIGHTS).is_file()
        write_atomically(part / "README.md", model_card(best, source, served_by, plain=plain))
    return count_parameters(built.model)


def base_model(best: Best) -> str:
    """The folder or Hub id of the dense model."""
    return demo.model_path(str(best.study["model"]["path"]))


def measured(best: Best) -> dict[str, Any]:
    """The numbers of a point and of the dense model, and the study that measured them."""
    return {
        "version": 1,
        "trial": best.trial,
        "candidate_id": best.candidate.id,
        "speedup": list(best.speedup_interval),
        "study": dict(best.study),
        "lengths": list(best.facts.timed_lengths),
        "machine": dict(best.facts.machine),
        "model_digest": best.facts.model_digest,
        "metrics": {
            name: {"value": m.value, "low": m.low, "high": m.high, "unit": m.unit}
            for name, m in best.metrics.items()
        },
        "disturbed": best.disturbed,
        "dense": {name: m.value for name, m in best.dense.items()},
    }


def _copy(source: str, patterns: Sequence[str], folder: Path) -> None:
    """Copy files of the uncompressed model, a folder or Hub id, that other libraries look for."""
    if not patterns:
        return
    there = Path(source)
    if not there.is_dir():
        there = Path(snapshot_download(source, allow_patterns=list(patterns)))
    for pattern in patterns:
        for path in sorted(there.glob(pattern)):
            target = folder / path.relative_to(there)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
