"""Saving of a graph template: tracing a whole model, or assembling it from two traced layers.

For ONNX Runtime and OpenVINO in float32: seconds to the graph, and the ratio of consecutive
forwards of the two graphs, with its 95% interval. Both graphs have the same operators, so it should
be 1.

    python benchmarks/conversion.py MODEL [--auto Model] [--tokens 64] [--rounds 60]

MODEL: a transformers folder. --auto: the ending of its AutoModel class, such as ModelForCausalLM.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from paretoformer.evaluators.common.target import cpu_name, physical_cores
from paretoformer.spaces.runtimes import Tools, onnx_export
from paretoformer.spaces.runtimes.cached_graph import generates
from paretoformer.spaces.runtimes.example import example_for, example_of_text
from paretoformer.spaces.runtimes.onnxruntime import OnnxRunnable
from paretoformer.spaces.runtimes.openvino import OpenVinoRunnable, _core


def seconds(make: Callable[[], Any]) -> tuple[float, Any]:
    before = time.perf_counter()
    made = make()
    return time.perf_counter() - before, made


def served(proto: Any, tools: Tools) -> dict[str, Any]:
    content = proto.SerializeToString()
    graph = _core().read_model(content)
    return {
        "ONNX Runtime": OnnxRunnable(content, tools, couples_rows=False),
        "OpenVINO": OpenVinoRunnable(graph, "float32", tools),
    }


def ratios(one: Any, other: Any, inputs: dict[str, torch.Tensor], rounds: int) -> np.ndarray:
    """Seconds of `other` / `one` per round, in changing order."""
    found = []
    for number in range(rounds + 5):
        pair = (one, other) if number % 2 else (other, one)
        times = {id(graph): seconds(lambda graph=graph: graph(**inputs))[0] for graph in pair}
        found.append(times[id(other)] / times[id(one)])
    return np.array(found[5:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--auto", default="Model")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    tools = Tools(threads=physical_cores())
    torch.set_num_threads(tools.threads)
    auto: Any = getattr(transformers, f"Auto{arguments.auto}")
    model: nn.Module = auto.from_pretrained(arguments.model, dtype=torch.float32).eval()
    example = example_of_text(model) if generates(model) else example_for(model)
    first, _ = seconds(lambda: onnx_export.onnx_model(model, None))
    after, filled = seconds(lambda: onnx_export.onnx_model(model, None))
    alone, traced = seconds(lambda: onnx_export._traced(model, example))
    print(f"{cpu_name()}, {tools.threads} threads; {arguments.model}")
    print(f"seconds to a graph: traced {alone:.1f}, template {first:.1f}, then {after:.2f}")
    print(f"operators: traced {len(traced.graph.node)}, template {len(filled.graph.node)}")
    ids = torch.randint(5, 100, (1, arguments.tokens))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    theirs, ours = served(traced, tools), served(filled, tools)
    for name in ours:
        expected, found = (graphs[name](**inputs) for graphs in (theirs, ours))
        output = next(key for key in vars(found) if not key.startswith("present"))
        difference = (getattr(found, output) - getattr(expected, output)).abs().max()
        found = ratios(theirs[name], ours[name], inputs, arguments.rounds)
        low, middle, high = np.quantile(
            np.random.default_rng(0).choice(found, (999, len(found))).mean(axis=1),
            (0.025, 0.5, 0.975),
        )
        print(
            f"{name}: template takes {middle:.3f} ({low:.3f}-{high:.3f}) of traced; "
            f"largest difference {difference:.1e}"
        )


if __name__ == "__main__":
    main()
