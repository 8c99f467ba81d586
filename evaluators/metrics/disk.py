"""Disk: the size of a candidate's files."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import save_model

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.metric import Cost
from paretoformer.evaluators.metrics.registry import register

MEGABYTE = 1e6


class Disk(Cost):
    """Megabytes (10^6 bytes) of an export's files, as written: those of its runtime or, in torch,
    the weights as safetensors."""

    name = "disk_mb"
    unit = "MB"
    of_size = True

    def measure(self, bench: Bench) -> Measurement:
        with TemporaryDirectory(prefix="paretoformer-") as name:
            folder = Path(name)
            bench.runnable.save(folder)
            if not any(folder.rglob("*")):
                save_model(bench.model, str(folder / "model.safetensors"))
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return Measurement.exact(size / MEGABYTE, self.unit)


register(Disk())
