"""Sessions of the runtimes, with our settings; and the memory of a process that holds only one.

Does not import torch or paretoformer, so that it can also run as a script: it opens an export's
files, answers some inputs, and prints the most bytes that the process had in memory.

    python -P sessions.py onnxruntime THREADS PRECISION [INPUTS.npz FOLDER]
    python -P sessions.py torch       THREADS ARCHITECTURE [INPUTS.npz FOLDER]

Without a folder it only imports what a model would need. `-P`: modules beside this one have the
names of the runtimes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

ONNX = "onnx/model.onnx"
OPENVINO = ("openvino/openvino_model.xml", "openvino/openvino_model.bin")
"""Paths in optimum's layout."""

ARITHMETIC = {"bfloat16": "bf16"}
"""Precision -> that of unquantised operations, else f32. By default, CPUs with bfloat16 use it."""
STATUS = Path("/proc/self/status")
NAME = "/"
"""Between the number of a batch and the name of an input."""

Feed = Mapping[str, np.ndarray]


def onnx_session(model: bytes | str, threads: int) -> Any:
    """model: the file's content, or its path."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Threads spin between operators, but not after a forward: that would disturb the next timing.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def openvino_model(model: Any, threads: int, precision: str) -> Any:
    """model: as OpenVINO reads it, or its path."""
    import openvino

    return openvino.Core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": "1",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": ARITHMETIC.get(precision, "f32"),
        },
    )


def peak_bytes() -> int:
    """The most bytes that this process had in memory, as Linux counts them."""
    (line,) = (row for row in STATUS.read_text().splitlines() if row.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def _with_onnxruntime(threads: int, precision: str, folder: Path | None) -> Callable[[Feed], Any]:
    import onnxruntime  # noqa: F401  (what a process without a model imports, too)

    session: Any = folder and onnx_session(str(folder / ONNX), threads)
    return lambda feed: session.run(None, feed)


def _with_openvino(threads: int, precision: str, folder: Path | None) -> Callable[[Feed], Any]:
    import openvino  # noqa: F401

    model: Any = folder and openvino_model(str(folder / OPENVINO[0]), threads, precision)
    request = model and model.create_infer_request()
    return lambda feed: request.infer(feed)


def _with_torch(threads: int, architecture: str, folder: Path | None) -> Callable[[Feed], Any]:
    import torch
    import transformers

    import paretoformer

    torch.set_num_threads(threads)
    transformers.utils.logging.disable_progress_bar()
    name, _, own = architecture.partition(":")
    of_transformers = getattr(transformers, name)
    # In another precision, only this package can open it.
    load = paretoformer.load_compressed if own else of_transformers.from_pretrained
    model: Any = folder and load(str(folder))

    def run(feed: Feed) -> Any:
        with torch.inference_mode():
            return model(**{name: torch.from_numpy(each) for name, each in feed.items()})

    return run


WITH = {"onnxruntime": _with_onnxruntime, "openvino": _with_openvino, "torch": _with_torch}


def write_feeds(feeds: list[Feed], path: Path) -> None:
    every = {f"{n}{NAME}{key}": each for n, feed in enumerate(feeds) for key, each in feed.items()}
    np.savez(path, allow_pickle=False, **every)


def _read_feeds(path: str) -> Iterator[Feed]:
    with np.load(path) as file:
        found: dict[str, dict[str, np.ndarray]] = {}
        for key in file.files:
            number, _, name = key.partition(NAME)
            found.setdefault(number, {})[name] = file[key]
    yield from found.values()


def main(runtime: str, threads: str, variant: str, inputs: str = "", folder: str = "") -> None:
    run = WITH[runtime](int(threads), variant, Path(folder) if folder else None)
    for feed in _read_feeds(inputs) if folder else ():
        run(feed)
    print(peak_bytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
