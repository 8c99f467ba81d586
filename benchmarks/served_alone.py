"""Serve an exported model without paretoformer: onnxruntime or openvino, numpy and tokenizers.

Times it alone at the study's length, and scores it on a csv of `text,label`.

    python benchmarks/served_alone.py DIR [examples.csv] [--threads 2] [--seconds 5]
    python benchmarks/served_alone.py DIR --each texts.json [--length 512] [--threads 2]
    python benchmarks/served_alone.py DIR --each texts.json --callers 4

`--each` times real texts one by one in their own order, and prints the mean in ms. The file is a
list of texts, or of pairs. Here DIR may also be a model for torch: a folder of transformers, or an
export that torch runs, which paretoformer opens. `--callers`: that many threads of one process ask
at the same time, from text to answer; prints the mean and the 95th percentile of a request in ms,
and requests per second.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

Run = Callable[[dict[str, np.ndarray]], np.ndarray]
Opened = tuple[Callable[[], Run], list[str]]
"""Makes a function that returns logits, one for each thread that calls; and names of its inputs."""
WARM_UP = 20
"""First requests of a caller, which do not count."""


def opened(folder: Path, threads: int) -> Opened:
    onnx, openvino = folder / "onnx" / "model.onnx", folder / "openvino" / "openvino_model.xml"
    if onnx.exists():
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(onnx), options, ["CPUExecutionProvider"])
        names = [i.name for i in session.get_inputs()]
        return lambda: lambda feed: session.run(None, feed)[0], names
    if openvino.exists():
        import openvino as ov

        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        # Otherwise a CPU with bfloat16 uses it for unquantised operators.
        candidate = json.loads((folder / "compression.json").read_text())["candidate"]
        if not candidate.get("runtime", "").endswith("bfloat16"):
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        model = ov.Core().compile_model(str(openvino), "CPU", settings)

        def make() -> Run:
            request = model.create_infer_request()
            return lambda feed: np.array(next(iter(request.infer(feed).values())))

        return make, [i.get_any_name() for i in model.inputs]
    raise SystemExit(f"{folder} has no onnx/model.onnx and no openvino/openvino_model.xml.")


def opened_in_torch(folder: Path, threads: int) -> Opened:
    """As `opened`, for a folder of transformers or an export that torch runs."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    if (folder / "compression.json").exists():
        import paretoformer

        model: Any = paretoformer.load_compressed(folder)
    else:
        config = transformers.AutoConfig.from_pretrained(folder)
        architecture = getattr(transformers, config.architectures[0])
        model = architecture.from_pretrained(folder).eval()

    def run(feed: dict[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            output = model(**{name: torch.from_numpy(value) for name, value in feed.items()})
        return np.asarray(next(iter(output.values())).float())

    return lambda: run, ["input_ids", "attention_mask", "token_type_ids"]


def each_ms(
    run: Run, tokenizer: Tokenizer, names: list[str], texts: list[Any], seconds: float
) -> float:
    """Mean time of a text, over whole passes in the given order; the first pass warms up."""
    feeds = [inputs(tokenizer, names, [text]) for text in texts]
    for feed in feeds:
        run(feed)
    passes, start = 0, time.perf_counter()
    while passes == 0 or time.perf_counter() - start < seconds:
        for feed in feeds:
            run(feed)
        passes += 1
    return 1e3 * (time.perf_counter() - start) / (passes * len(feeds))


def print_callers(
    make: Callable[[], Run],
    tokenizer: Tokenizer,
    names: list[str],
    texts: list[Any],
    callers: int,
    seconds: float,
) -> None:
    """Every caller takes the next text as soon as it has its answer."""
    turns, until = count(), time.perf_counter() + seconds

    def call() -> list[float]:
        run, times = make(), []
        while len(times) <= WARM_UP or time.perf_counter() < until:
            start = time.perf_counter()
            run(inputs(tokenizer, names, [texts[next(turns) % len(texts)]]))
            times.append(1e3 * (time.perf_counter() - start))
        return times[WARM_UP:]

    with ThreadPoolExecutor(callers) as pool:
        times = list(chain.from_iterable(pool.map(lambda _: call(), range(callers))))
    mean = sum(times) / len(times)
    print(
        f"{mean:.3f} ms a request, 95% within {np.percentile(times, 95):.3f} ms; "
        f"{1e3 * callers / mean:.0f} a second"
    )


def inputs(tokenizer: Tokenizer, names: list[str], texts: list[Any]) -> dict[str, np.ndarray]:
    found = tokenizer.encode_batch(texts)
    every: dict[str, Any] = {
        "input_ids": [encoding.ids for encoding in found],
        "attention_mask": [encoding.attention_mask for encoding in found],
        "token_type_ids": [encoding.type_ids for encoding in found],
    }
    return {name: np.array(every[name], dtype=np.int64) for name in names}


def print_each(arguments: argparse.Namespace) -> None:
    folder = arguments.folder
    exported = any((folder / name).exists() for name in ("onnx", "openvino"))
    make, names = (opened if exported else opened_in_torch)(folder, arguments.threads)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(arguments.length)
    texts = json.loads(arguments.each.read_text("utf-8"))
    texts = [text if isinstance(text, str) else tuple(text) for text in texts]
    if arguments.callers:
        print_callers(make, tokenizer, names, texts, arguments.callers, arguments.seconds)
        return
    print(f"{each_ms(make(), tokenizer, names, texts, arguments.seconds):.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("examples", type=Path, nargs="?")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--each", type=Path)
    parser.add_argument("--length", type=int, default=512, help="of the longest text, for --each")
    parser.add_argument("--callers", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.each:
        print_each(arguments)
        return
    make, names = opened(arguments.folder, arguments.threads)
    run = make()
    measured = json.loads((arguments.folder / "measured.json").read_text())
    fixed = measured["study"]["target"]["sequence_length"]
    _, mean, longest = measured.get("lengths") or [fixed] * 3
    length = round(mean)
    tokenizer = Tokenizer.from_file(str(arguments.folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    feed = {name: np.ones((1, length), dtype=np.int64) for name in names}
    times, until = [], time.perf_counter() + arguments.seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        run(feed)
        times.append(1e3 * (time.perf_counter() - start))
    front = measured["metrics"]["latency_ms"]["value"]
    print(f"latency at (1, {length}): {np.median(times[10:]):.3f} ms; the front says {front:.3f}")
    if arguments.examples:
        with arguments.examples.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        answers = [int(run(inputs(tokenizer, names, [row["text"]])).argmax()) for row in rows]
        right = np.mean(
            [answer == int(row["label"]) for answer, row in zip(answers, rows, strict=True)]
        )
        front = measured["metrics"]["accuracy"]["value"]
        print(f"accuracy on {len(rows)} examples: {right:.4f}; the front says {front:.4f}")


if __name__ == "__main__":
    main()
