"""Export: a chosen point as a folder that runs anywhere paretoformer is installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import transformers

from paretoformer.evaluators import demo
from paretoformer.search.best import Best
from paretoformer.spaces.persist import save_compressed
from paretoformer.spaces.surgery import count_parameters


def export_best(best: Best, directory: Path) -> int:
    """Write the point's model and tokenizer; the folder appears whole or not at all.

    Returns the number of its parameters.

    Raises:
        StudyError: the study's model is not where the study says.
    """
    transformers.utils.logging.disable_progress_bar()
    model = best.load_model()
    path = best.study["model"]["path"]
    source = demo.prepare(path).model if demo.is_demo(path) else path
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    directory = directory.resolve()
    beside = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    save_compressed(model, beside)
    tokenizer.save_pretrained(beside)
    beside.replace(directory)
    return count_parameters(model)
