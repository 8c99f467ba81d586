"""A worker: a process that holds the model, as a Ray actor."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from paretoformer.evaluators.job import Evaluates, Job
from paretoformer.evaluators.outcome import Result
from paretoformer.evaluators.timing.foreign_load import Process

NOTICE = "waiting"
"""Name of the file in a worker's temporary folder that says what its timing waits for."""


class Actor:
    """The code that runs in the worker process.

    boxed: the evaluator's reference in a list, so that Ray does not fetch it (and import torch)
    before the threads are set. scratch: folder for temporary files; the process is killed and
    cannot remove them itself. code: folders with the classes of models that bring their own code.
    If Ray reserved a GPU, the process sees only that one, as `cuda`.
    """

    def __init__(self, boxed: list[Any], threads: int, scratch: str, code: list[str]) -> None:
        sys.path += code
        os.makedirs(scratch, exist_ok=True)
        tempfile.tempdir = scratch
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(threads)
        import ray

        if gpus := ray.get_runtime_context().get_accelerator_ids()["GPU"]:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        self._evaluator: Evaluates = ray.get(boxed[0])
        self._evaluator.prepare(threads)

    def process(self) -> Process:
        return os.getpid(), psutil.Process().create_time()

    def run(self, job: Job) -> Result:
        return self._evaluator.run(job)


@dataclass
class Worker:
    """A handle to a started actor.

    hello: reference to its `Process`; None once reported. scratch: folder of its temporary files.
    """

    actor: Any
    hello: Any
    scratch: str

    @property
    def notice(self) -> str:
        """Path of the file that says what its timing waits for."""
        return os.path.join(self.scratch, NOTICE)


def models_code() -> list[str]:
    """Folders where transformers keeps the code of models, if this process loaded any."""
    loaded = sys.modules.get("transformers_modules")
    return [] if loaded is None else [str(Path(path).parent) for path in loaded.__path__]
