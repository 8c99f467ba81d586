"""k-means for the clustered mechanisms: deterministic, batched, no gradient."""

from __future__ import annotations

import torch

from paretoformer.spaces.attention.gather import take
from paretoformer.spaces.attention.padding import tracing

SAMPLE = 1024
"""Evenly spaced points that centroids are fitted to; more cost time and change them little."""


def fit_centroids(
    points: torch.Tensor, count: int, lengths: torch.Tensor, iterations: int
) -> torch.Tensor:
    """Centroids of each row's real points, by Lloyd's iterations from evenly spaced ones.

    points: (rows, length, d), padded at the end of each row. lengths: (rows,), at least 1.

    Returns (rows, count, d). A cluster that loses all its points keeps its centroid.
    """
    with torch.no_grad():
        points = _spread(points.float(), torch.sym_min(points.shape[1], SAMPLE), lengths)
        kept = lengths.clamp(max=points.shape[1])
        centroids = _spread(points, count, kept)
        here = torch.arange(points.shape[1], device=points.device) < kept[:, None]
        for _ in range(iterations):
            member = membership(nearest(points, centroids), count, here).float()
            sizes = member.sum(dim=-1, keepdim=True)
            means = (member @ points) / sizes.clamp(min=1)
            centroids = torch.where(sizes > 0, means, centroids)
        return centroids


def nearest(points: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """The nearest centroid of each point: (rows, length) long.

    points: (rows, length, d). centroids: (rows, count, d).
    """
    with torch.no_grad():
        points = points.to(centroids.dtype)
        # |x - c|² without |x|², which is the same for every centroid.
        offset = centroids.square().sum(dim=-1)[:, None] * -0.5
        return torch.baddbmm(offset, points, centroids.mT).argmax(dim=-1)


def membership(cluster: torch.Tensor, count: int, here: torch.Tensor) -> torch.Tensor:
    """Cluster numbers (rows, length) -> (rows, count, length) bool: which points each cluster has.

    here: (rows, length) bool, False for a point that belongs to none.
    """
    numbers = torch.arange(count, device=cluster.device)[:, None]
    return (cluster[:, None] == numbers) & here[:, None]


def _spread(points: torch.Tensor, count: int, lengths: torch.Tensor) -> torch.Tensor:
    """Evenly spaced real points of each row, in order: (rows, count, d).

    A row with at most `count` points uses every point once and repeats the last one.
    """
    if not tracing() and count == points.shape[1]:
        return points
    steps = torch.arange(count, device=points.device)
    lengths = lengths[:, None]
    index = (steps * lengths // lengths.clamp(max=count)).minimum(lengths - 1)
    return take(points, index)
