"""Every attention mechanism against sdpa and public packages, on the same tensors.

Time is the median over rounds; in a round each one runs once, so drift affects all of them. A ratio
is the median of the ratios within rounds. Tensors have the layout of a model: (batch, length,
heads, head_dim), transposed. Memory is the allocator's peak during one call.

    pip install -e '.[bench]'
    python benchmarks/attention.py [--quick] [--out benchmarks/attention]

Writes OUT.json, the source of `docs/results.md`, and its plot, docs/images/OUT.png.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from paretoformer.evaluators.common.target import cpu_name, physical_cores
from paretoformer.spaces import AttentionChoice
from paretoformer.spaces.attention import attention_class, build, names
from paretoformer.testing import peak_bytes

Call = Callable[[], Any]

HEADS = 12
LENGTHS = (128, 512, 1024, 2048, 4096)
CROSSOVER_LENGTHS = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
SECONDS = 6.0
ROUNDS = 5
BLOCK_SECONDS = 0.02
"""Duration of one call's repetitions in a round."""


@dataclass(frozen=True)
class Row:
    """One mechanism at one shape."""

    head_dim: int
    batch: int
    length: int
    name: str
    milliseconds: float
    speedup: float
    """Relative to sdpa in the same rounds."""
    peak_mb: float


def tensors(batch: int, length: int, head_dim: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (batch, length, HEADS * head_dim)
    return [
        torch.randn(shape, generator=generator).unflatten(-1, (HEADS, head_dim)).transpose(1, 2)
        for _ in range(3)
    ]


def sdpa(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(query, key, value)


def eager(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1) @ value


def ours(choice: AttentionChoice, inputs: list[torch.Tensor]) -> Call:
    head_dim = inputs[0].shape[-1]
    mechanism = build(choice, head_dim)
    return partial(mechanism, *inputs, mask=None, causal=False, scale=head_dim**-0.5)


def default(name: str, length: int) -> AttentionChoice:
    return AttentionChoice.of(name, **attention_class(name).default(length))


def timed(calls: dict[str, Call], seconds: float = SECONDS) -> dict[str, list[float]]:
    """Milliseconds per call and round, for `seconds` in total."""
    inner = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        inner[name] = max(1, round(BLOCK_SECONDS / max(time.perf_counter() - start, 1e-6)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    start = time.perf_counter()
    while len(samples["sdpa"]) < ROUNDS or time.perf_counter() - start < seconds:
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(inner[name]):
                call()
            samples[name].append((time.perf_counter() - begin) * 1e3 / inner[name])
    return samples


def ratio(samples: dict[str, list[float]], name: str, base: str = "sdpa") -> float:
    pairs = zip(samples[base], samples[name], strict=True)
    return statistics.median(slow / fast for slow, fast in pairs)


def peak_mb(call: Call) -> float:
    return peak_bytes(call) / 1e6


def measure(head_dim: int, batch: int, length: int, seconds: float = SECONDS) -> list[Row]:
    inputs = tensors(batch, length, head_dim)
    calls: dict[str, Call] = {"sdpa": partial(sdpa, *inputs)}
    calls |= {name: ours(default(name, length), inputs) for name in names() if name != "full"}
    samples = timed(calls, seconds)
    rows = [
        Row(
            head_dim,
            batch,
            length,
            name,
            statistics.median(samples[name]),
            ratio(samples, name),
            peak_mb(call),
        )
        for name, call in calls.items()
    ]
    eager_peak = peak_mb(partial(eager, *inputs))
    return [*rows, Row(head_dim, batch, length, "eager", float("nan"), float("nan"), eager_peak)]


def print_shape(rows: list[Row], lengths: tuple[int, ...]) -> None:
    """Print a table: milliseconds, speed-up over sdpa, peak memory relative to eager."""
    by_key = {(row.name, row.length): row for row in rows}
    print(
        f"\n{HEADS} heads x {rows[0].head_dim}, batch {rows[0].batch}: ms (speed-up over sdpa) "
        "peak MB"
    )
    print(f"{'':16}" + "".join(f"{length:>26}" for length in lengths) + f"{'1024->4096':>12}")
    for name in dict.fromkeys(row.name for row in rows):
        line = f"{name:16}"
        for length in lengths:
            row = by_key[name, length]
            timing = "" if name == "eager" else f"{row.milliseconds:.2f} ({row.speedup:.1f}x)"
            line += f"{timing:>17}{row.peak_mb:9.1f}"
        if {1024, 4096} <= set(lengths) and name != "eager":
            growth = by_key[name, 4096].milliseconds / by_key[name, 1024].milliseconds
            line += f"{growth:11.1f}x"
        print(line, flush=True)


def crossovers(head_dim: int = 32) -> dict[str, int | None]:
    """The length from which each mechanism, at its default, is faster than sdpa."""
    faster: dict[str, list[bool]] = {name: [] for name in names() if name != "full"}
    for length in CROSSOVER_LENGTHS:
        inputs = tensors(1, length, head_dim)
        calls = {"sdpa": partial(sdpa, *inputs)}
        calls |= {name: ours(default(name, length), inputs) for name in faster}
        samples = timed(calls, seconds=1.0)
        for name, wins in faster.items():
            wins.append(ratio(samples, name) > 1)
    found: dict[str, int | None] = {}
    for name, wins in faster.items():
        losses = [index for index, win in enumerate(wins) if not win]
        first = losses[-1] + 1 if losses else 0
        found[name] = CROSSOVER_LENGTHS[first] if first < len(wins) else None
    return found


def peers(length: int, head_dim: int = 32) -> dict[str, tuple[AttentionChoice, Call]]:
    """Public packages, and ours at the same parameters. Their projections are replaced by the
    identity, so that only the attention core runs."""
    from linformer import LinformerSelfAttention
    from local_attention import LocalAttention
    from nystrom_attention import NystromAttention
    from performer_pytorch import FastAttention
    from reformer_pytorch.reformer_pytorch import LSHAttention
    from routing_transformer.routing_transformer import KmeansAttention

    query, key, value = (tensor.contiguous() for tensor in tensors(1, length, head_dim))
    merged = query.transpose(1, 2).flatten(2)
    of = AttentionChoice.of

    local = LocalAttention(
        dim=head_dim,
        window_size=32,
        look_forward=1,
        autopad=True,
        use_rotary_pos_emb=False,
        exact_windowsize=True,
    )
    linformer = LinformerSelfAttention(HEADS * head_dim, length, k=64, heads=HEADS)
    for name in ("to_q", "to_k", "to_v", "to_out"):
        setattr(linformer, name, nn.Identity())
    performer = FastAttention(dim_heads=head_dim, nb_features=64, causal=False)
    nystrom = NystromAttention(
        HEADS * head_dim, dim_head=head_dim, heads=HEADS, num_landmarks=32, residual=False
    )
    nystrom.to_qkv = nystrom.to_out = nn.Identity()
    stacked = torch.cat([t.transpose(1, 2).flatten(2) for t in (query, key, value)], dim=-1)
    lsh_choice = default("lsh", length)
    buckets = dict(lsh_choice.params)["buckets"]
    reformer = LSHAttention(bucket_size=length // int(buckets), n_hashes=1, causal=False).eval()
    shared, values = query.flatten(0, 1), value.flatten(0, 1)
    routing_choice = default("routing", length)
    clusters = int(dict(routing_choice.params)["clusters"])
    routing = KmeansAttention(
        num_clusters=clusters,
        window_size=length // clusters,
        num_heads=HEADS,
        head_dim=head_dim,
        causal=False,
    ).eval()
    routing(query, key, value)  # its first call fits the clusters
    return {
        "local-attention": (
            of("window", window=33, global_tokens=0),
            partial(local, query, key, value),
        ),
        "linformer": (of("lowrank", rank=64), partial(linformer, merged)),
        "performer-pytorch": (
            of("random_features", features=64, seed=0),
            partial(performer, query, key, value),
        ),
        "nystrom-attention": (of("nystrom", landmarks=32), partial(nystrom, stacked)),
        "reformer-pytorch": (lsh_choice, partial(reformer, shared, values)),
        "routing-transformer": (routing_choice, partial(routing, query, key, value)),
    }


def compare_with_peers(length: int) -> dict[str, float]:
    """Each package's time relative to ours, within the same rounds."""
    inputs = tensors(1, length, 32)
    found = peers(length)
    calls: dict[str, Call] = {"sdpa": partial(sdpa, *inputs)}
    for package, (choice, call) in found.items():
        calls |= {package: call, f"ours for {package}": ours(choice, inputs)}
    samples = timed(calls)
    print(f"\nagainst public packages, {HEADS} heads x 32, batch 1, {length} tokens")
    result = {}
    for package, (choice, _) in found.items():
        mine = f"ours for {package}"
        result[package] = ratio(samples, mine, package)
        theirs, our = (statistics.median(samples[name]) for name in (package, mine))
        print(
            f"  {package:20} {theirs:8.2f} ms, {choice!s:52} {our:8.2f} ms: {result[package]:.2f}x"
        )
    return result


def plot(rows: list[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5.2), sharex=True)
    for name in ("sdpa", "eager", *(name for name in names() if name != "full")):
        mine = [row for row in rows if row.name == name and (row.head_dim, row.batch) == (32, 1)]
        lengths = [row.length for row in mine]
        style = "k-" if name == "sdpa" else "k:" if name == "eager" else "o-"
        if name != "eager":
            left.plot(lengths, [row.milliseconds for row in mine], style, label=name, ms=4)
        right.plot(lengths, [row.peak_mb for row in mine], style, label=name, ms=4)
    for axis, label in ((left, "milliseconds"), (right, "peak memory, MB")):
        axis.set(xscale="log", yscale="log", xlabel="tokens", ylabel=label)
        axis.set_xticks(LENGTHS, [str(length) for length in LENGTHS])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    right.legend(fontsize=8, ncols=2)
    figure.suptitle(
        f"One attention call, {HEADS} heads x 32, batch 1, default settings, float32, {machine()}"
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def machine() -> str:
    return f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="12 heads x 32, batch 1 only")
    parser.add_argument("--no-peers", action="store_true", help="without the public packages")
    parser.add_argument("--out", type=Path, help="write OUT.json and docs/images/OUT.png")
    arguments = parser.parse_args()
    torch.set_num_threads(physical_cores())
    print(machine())
    shapes = [(32, 1)] if arguments.quick else [(32, 1), (64, 1), (32, 8), (64, 8)]
    rows: list[Row] = []
    found: dict[str, Any] = {"machine": machine()}
    with torch.inference_mode():
        for head_dim, batch in shapes:
            here = [row for length in LENGTHS for row in measure(head_dim, batch, length)]
            print_shape(here, LENGTHS)
            rows += here
        found["crossover"] = crossovers()
        print("\nfaster than sdpa from this many tokens on (12 heads x 32, batch 1):")
        for name, length in found["crossover"].items():
            print(f"  {name:16} {length or 'never'}")
        if not arguments.no_peers:
            found["peers"] = {length: compare_with_peers(length) for length in (512, 4096)}
    if arguments.out:
        arguments.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
        plot(rows, Path("docs/images", arguments.out.name).with_suffix(".png"))


if __name__ == "__main__":
    main()
