"""A worker: a process with the model in it, as a Ray actor."""

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
"""The file among a worker's temporary ones that says what its timing waits for."""


class Actor:
    """The process itself.

    boxed: a list around the reference to the evaluator, so that Ray does not fetch it (and import
    torch) before the threads are set. scratch: the folder of its temporary files, since it is ended
    without a chance to remove them. code: where the classes of a model with code of its own are.
    Where Ray reserved a GPU for it, it sees no other, and `cuda` is that one.
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
    """A handle to an actor that was started.

    hello: the reference to its `Process`; None once it was reported. scratch: the folder of its
    temporary files.
    """

    actor: Any
    hello: Any
    scratch: str

    @property
    def notice(self) -> str:
        """Where the process says what a timing waits for."""
        return os.path.join(self.scratch, NOTICE)


def models_code() -> list[str]:
    """Where transformers keeps the code that models brought, if this process runs any."""
    loaded = sys.modules.get("transformers_modules")
    return [] if loaded is None else [str(Path(each).parent) for each in loaded.__path__]
