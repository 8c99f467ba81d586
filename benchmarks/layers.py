"""Accuracy cost of each attention mechanism by layers, without retraining.

On the checkpoint of a built-in study: accuracy on the search split with the mechanism, at its
default setting, in one layer, the lower half, the upper half, or all layers; and its error relative
to exact attention on the model's own queries and keys.

    python benchmarks/layers.py [STUDY] [--examples N] [--mechanisms NAME ...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from paretoformer.evaluators.common.target import cpu_name, physical_cores
from paretoformer.evaluators.data.workload import Split
from paretoformer.evaluators.metrics.accuracy import Accuracy
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.timing.protocol import TimingProtocol
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import load_subject
from paretoformer.spaces import AttentionChoice, Candidate, HeadMask
from paretoformer.spaces.attention import attention_class, names
from paretoformer.spaces.attention import build as build_mechanism
from paretoformer.spaces.attention.base import Attention
from paretoformer.spaces.build import build
from paretoformer.spaces.models.families import head_dim_of, shape_of
from paretoformer.spaces.runtimes.torch_runtime import TorchRunnable

FULL = AttentionChoice("full")
ERROR_EXAMPLES = 16


def accuracy(subject: Any, split: Split, choices: Sequence[AttentionChoice]) -> float:
    layers, heads = shape_of(subject.model.config)
    model = build(Candidate(HeadMask.all(layers, heads), tuple(choices)), subject.model).model
    measured = Accuracy().measure(
        Bench(
            runnable=TorchRunnable(model),
            model=model,
            dense=subject.model,
            reference=None,
            task=subject.task,
            split=split,
            workload=subject.workload,
            target=subject.target,
            protocol=TimingProtocol(),
        )
    )
    return measured.value


def places(layers: int) -> dict[str, set[int]]:
    """Column -> the layers that use the mechanism."""
    single = {f"layer {layer}": {layer} for layer in range(layers)}
    half = layers // 2
    lower, upper = set(range(half)), set(range(half, layers))
    return single | {"lower": lower, "upper": upper, "all": lower | upper}


@contextmanager
def recorded(model: nn.Module) -> Any:
    """Records queries, keys, values and mask of every layer during a forward."""
    found: dict[int, tuple[torch.Tensor, ...]] = {}
    mechanisms = [module for module in model.modules() if isinstance(module, Attention)]

    def keep(layer: int) -> Any:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], named: Any) -> None:
            found[layer] = (*inputs, named["mask"])

        return hook

    hooks = [
        mechanism.register_forward_pre_hook(keep(layer), with_kwargs=True)
        for layer, mechanism in enumerate(mechanisms)
    ]
    yield found
    for hook in hooks:
        hook.remove()


def errors(subject: Any, choices: Iterable[AttentionChoice]) -> dict[str, list[float]]:
    """|approximation - exact| / |exact| per layer, over all real positions and heads."""
    config = subject.model.config
    layers, heads = shape_of(config)
    length = subject.target.sequence_length
    # A full window is exact, and routes every layer through the interface.
    exact = AttentionChoice.of("window", window=length, global_tokens=1)
    model = build(Candidate(HeadMask.all(layers, heads), (exact,) * layers), subject.model).model
    split = subject.workload.splits["search"]
    few = Split(split.examples[:ERROR_EXAMPLES], split.labels[:ERROR_EXAMPLES])
    (_, batch), *_ = subject.workload.batches(few, "cpu", ERROR_EXAMPLES)
    scale = head_dim_of(config) ** -0.5
    with torch.inference_mode(), recorded(model) as found:
        model(**batch)
        result: dict[str, list[float]] = {}
        for choice in choices:
            mechanism = build_mechanism(choice, head_dim_of(config))
            row = []
            for layer in range(layers):
                query, key, value, mask = found[layer]
                call = {"mask": mask, "causal": False, "scale": scale}
                expected = build_mechanism(FULL, head_dim_of(config))(query, key, value, **call)
                output = mechanism(query, key, value, **call)
                row.append(float((output - expected).norm() / expected.norm()))
            result[str(choice)] = row
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", nargs="?", default="long-reviews")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--mechanisms", nargs="*", default=[n for n in names() if n != "full"])
    arguments = parser.parse_args()
    torch.set_num_threads(physical_cores())
    subject = load_subject(
        load_spec(arguments.study),
        lambda what, done, total: print(f"\r{what}: {done}/{total}", end="", file=sys.stderr),
    )
    layers, _ = shape_of(subject.model.config)
    length = subject.target.sequence_length
    chosen = {
        name: AttentionChoice.of(name, **attention_class(name).default(length))
        for name in arguments.mechanisms
    }
    print(f"{arguments.study}, {length} tokens, {cpu_name()}")

    print("\nrelative error of one layer's attention output, real queries and keys")
    print(f"{'':52}" + "".join(f"{f'layer {layer}':>9}" for layer in range(layers)))
    for name, row in errors(subject, chosen.values()).items():
        print(f"{name:52}" + "".join(f"{value:9.3f}" for value in row), flush=True)

    split = subject.workload.splits["search"]
    split = Split(split.examples[: arguments.examples], split.labels[: arguments.examples])
    dense = accuracy(subject, split, (FULL,) * layers)
    print(f"\naccuracy on {len(split)} examples; dense {dense:.3f}")
    where = places(layers)
    print(f"{'':16}" + "".join(f"{column:>9}" for column in where))
    for name, choice in chosen.items():
        print(f"{name:16}", end="", flush=True)
        for used in where.values():
            choices = [choice if layer in used else FULL for layer in range(layers)]
            print(f"{accuracy(subject, split, choices):9.3f}", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
