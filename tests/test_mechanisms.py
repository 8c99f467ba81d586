"""Each mechanism against its formula, written densely, or against somebody else's code."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers import LongformerConfig
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

from paretoformer.spaces import AttentionChoice
from paretoformer.spaces.attention.lsh import Lsh, bucket_of
from paretoformer.spaces.attention.nystrom import pseudo_inverse
from paretoformer.spaces.attention.random_features import RandomFeatures, orthogonal_directions
from paretoformer.spaces.attention.segments import segment_means
from tests.mechanisms import definition, made, tensors

Of = AttentionChoice.of


def close(output: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


@given(st.integers(1, 80), st.integers(1, 20), st.integers(0, 3), st.booleans())
def test_window_equals_its_definition(length: int, window: int, first: int, causal: bool) -> None:
    query, key, value = tensors(2, 2, length, 4)
    choice = Of("window", window=window, global_tokens=first)
    output = made(choice, 4)(query, key, value, mask=None, causal=causal, scale=0.5)
    i, j = torch.arange(length)[:, None], torch.arange(length)[None]
    seen = ((i - j).abs() < window) | (i < first) | (j < first)
    close(output, definition(query, key, value, seen=seen, causal=causal))


@given(st.integers(1, 80), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2), st.booleans())
def test_strided_equals_its_definition(
    length: int, stride: int, window: int, first: int, causal: bool
) -> None:
    query, key, value = tensors(2, 2, length, 4)
    choice = Of("strided", stride=stride, window=window, global_tokens=first)
    output = made(choice, 4)(query, key, value, mask=None, causal=causal, scale=0.5)
    i, j = torch.arange(length)[:, None], torch.arange(length)[None]
    seen = ((i - j).abs() < window) | (j % stride == 0) | (i < first)
    close(output, definition(query, key, value, seen=seen, causal=causal))


@pytest.mark.parametrize("globals_", [0, 1])
def test_window_equals_longformer_of_transformers(globals_: int) -> None:
    """Its window counts both sides; its global tokens have projections of their own, made equal."""
    width, heads, length, side = 32, 4, 64, 8
    config = LongformerConfig(
        hidden_size=width, num_attention_heads=heads, attention_window=[2 * side]
    )
    torch.manual_seed(0)
    theirs = LongformerSelfAttention(config, layer_id=0).eval()
    for name in ("query", "key", "value"):
        getattr(theirs, f"{name}_global").load_state_dict(getattr(theirs, name).state_dict())
    hidden = torch.randn(2, length, width)
    mask = torch.zeros(2, length)
    mask[:, :globals_] = 10000
    with torch.no_grad():
        expected = theirs(
            hidden,
            attention_mask=mask,
            is_index_masked=mask < 0,
            is_index_global_attn=mask > 0,
            is_global_attn=bool(globals_),
        )[0]
        query, key, value = (
            getattr(theirs, name)(hidden).unflatten(-1, (heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        ours = made(Of("window", window=side + 1, global_tokens=globals_), width // heads)
        output = ours(query, key, value, mask=None, causal=False, scale=(width // heads) ** -0.5)
    close(output.transpose(1, 2).flatten(2), expected)


@given(st.integers(2, 80), st.integers(1, 20))
def test_lowrank_equals_its_formula(length: int, rank: int) -> None:
    rank = min(rank, length - 1)
    query, key, value = tensors(2, 2, length, 4)
    output = made(Of("lowrank", rank=rank), 4)(
        query, key, value, mask=None, causal=False, scale=0.5
    )
    parts = [each.tolist() for each in torch.arange(length).tensor_split(rank)]
    project = torch.zeros(rank, length)
    for row, part in enumerate(parts):
        project[row, part] = 1 / len(part)
    sizes = torch.tensor([float(len(part)) for part in parts])
    scores = 0.5 * query @ (project @ key).mT + sizes.log()
    close(output, scores.softmax(-1) @ (project @ value))


def test_lowrank_is_exact_when_the_keys_of_each_segment_are_equal() -> None:
    query, key, value = tensors(1, 2, 12, 4)
    key = key[:, :, ::3].repeat_interleave(3, dim=2)
    output = made(Of("lowrank", rank=4), 4)(query, key, value, mask=None, causal=False, scale=0.5)
    close(output, definition(query, key, value))


def published_nystrom(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, landmarks: int, scale: float
) -> torch.Tensor:
    """Xiong et al. 2021, algorithm 1, landmarks from equal segments."""
    shape = (*query.shape[:2], landmarks, -1, query.shape[-1])
    means_q, means_k = query.reshape(shape).mean(3), key.reshape(shape).mean(3)
    left = (scale * query @ means_k.mT).softmax(-1)
    middle = (scale * means_q @ means_k.mT).softmax(-1)
    right = (scale * means_q @ key.mT).softmax(-1)
    eye = torch.eye(landmarks)
    norms = middle.abs().sum(-2).amax(-1) * middle.abs().sum(-1).amax(-1)
    z = middle.mT / norms[..., None, None]
    for _ in range(6):
        az = middle @ z
        z = z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az))) / 4
    return left @ (z @ (right @ value))


def test_nystrom_equals_the_published_algorithm() -> None:
    query, key, value = tensors(2, 2, 64, 8)
    output = made(Of("nystrom", landmarks=8), 8)(
        query, key, value, mask=None, causal=False, scale=0.35
    )
    close(output, published_nystrom(query, key, value, 8, 0.35))


def test_pseudo_inverse_inverts() -> None:
    matrix = (5 * torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(0))).softmax(-1)
    matrix = 0.5 * matrix + torch.eye(6)
    close(pseudo_inverse(matrix), torch.linalg.pinv(matrix))


@pytest.mark.parametrize("causal", [False, True])
def test_linear_equals_the_published_formula(causal: bool) -> None:
    query, key, value = tensors(2, 2, 150, 8)
    output = made(Of("linear"), 8)(query, key, value, mask=None, causal=causal, scale=0.25)
    q, k = F.elu(query * 0.5) + 1, F.elu(key * 0.5) + 1
    weights = q @ k.mT
    weights = weights.tril() if causal else weights
    close(output, weights @ value / weights.sum(-1, keepdim=True))


@pytest.mark.parametrize("causal", [False, True])
def test_random_features_equal_the_published_estimator(causal: bool) -> None:
    query, key, value = tensors(2, 2, 150, 8)
    mechanism = made(Of("random_features", features=24, seed=3), 8)
    assert isinstance(mechanism, RandomFeatures)
    output = mechanism(query, key, value, mask=None, causal=causal, scale=0.25)
    centre = key[:, :, :1] if causal else key.mean(dim=2, keepdim=True)

    def features(x: torch.Tensor) -> torch.Tensor:
        x = x.double() * 0.5
        directions = mechanism.projection.double()
        return (x @ directions.mT - x.square().sum(-1, keepdim=True) / 2).exp() / math.sqrt(24)

    weights = features(query) @ features(key - centre).mT
    weights = weights.tril() if causal else weights
    close(output.double(), weights @ value.double() / weights.sum(-1, keepdim=True))


def test_random_features_are_orthogonal_and_gaussian() -> None:
    drawn = orthogonal_directions(4096, 16, seed=0).double()
    for block in drawn.unflatten(0, (-1, 16))[:8]:
        gram = block @ block.T
        assert (gram - gram.diag().diag()).abs().max() < 1e-4
    assert drawn.mean().abs() < 0.02
    assert abs(drawn.std().item() - 1) < 0.02


def test_random_features_converge_as_their_number_grows() -> None:
    """The error falls as one over the root of the number: a slope of -1/2 in log-log, where the
    scores are not so large that the variance, of order exp(|q + k|²), hides it."""
    query, key, value = tensors(1, 4, 128, 16)
    query, key = query / 2, key / 2
    expected = definition(query, key, value)
    numbers = [16, 64, 256, 1024]
    errors = []
    for features in numbers:
        each = [
            (
                made(Of("random_features", features=features, seed=seed), 16)(
                    query, key, value, mask=None, causal=False, scale=0.25
                )
                - expected
            )
            .square()
            .mean()
            .sqrt()
            for seed in range(8)
        ]
        errors.append(torch.stack(each).mean().log().item())
    logs = torch.tensor(numbers).log()
    slope = ((logs - logs.mean()) * (torch.tensor(errors) - sum(errors) / 4)).sum()
    slope /= (logs - logs.mean()).square().sum()
    assert -0.7 < slope < -0.35


def lsh_hash(x: torch.Tensor, mechanism: Lsh, which: int) -> torch.Tensor:
    turned = x @ mechanism.rotations[which]
    bucket = torch.zeros(turned.shape[:-1], dtype=torch.long)
    for factor in mechanism.factors:
        part, turned = turned[..., : factor // 2], turned[..., factor // 2 :]
        bucket = bucket * factor + torch.cat((part, -part), -1).argmax(-1)
    return bucket


@pytest.mark.parametrize("rounds", [1, 2])
def test_lsh_equals_its_definition(rounds: int) -> None:
    """Blocks of 32 queries, sorted by bucket, over the keys around their middle one's bucket."""
    length, buckets = 75, 4
    query, key, value = tensors(1, 2, length, 8)
    mechanism = made(Of("lsh", buckets=buckets, rounds=rounds, global_tokens=1, seed=5), 8)
    assert isinstance(mechanism, Lsh)
    output = mechanism(query, key, value, mask=None, causal=False, scale=0.3)
    numerator, total = torch.zeros_like(value), torch.zeros(1, 2, length, 1)
    weights = (0.3 * query @ key.mT).exp()
    wanted = 2 * -(-length // buckets)
    for which in range(rounds):
        theirs = lsh_hash(key - key.mean(2, keepdim=True), mechanism, which)[0].tolist()
        own = lsh_hash(query, mechanism, which)[0].tolist()
        for head in range(2):
            keys = sorted(range(1, length), key=lambda i: (theirs[head][i], i))
            queries = sorted(range(length), key=lambda i: (own[head][i], i))
            for start in range(0, length, 32):
                block = queries[start : start + 32]
                bucket = own[head][queries[min(start + 16, length - 1)]]
                before = sum(theirs[head][i] < bucket for i in keys)
                inside = sum(theirs[head][i] == bucket for i in keys)
                begin = min(max(before + (inside - wanted) // 2, 0), length - 1 - wanted)
                seen = torch.zeros(length)
                seen[[0, *keys[begin : begin + wanted]]] = 1
                rows = weights[0, head, block] * seen
                numerator[0, head, block] += rows @ value[0, head]
                total[0, head, block] += rows.sum(-1, keepdim=True)
    expected = numerator / total
    expected[:, :, :1] = definition(query, key, value, scale=0.3)[:, :, :1]
    close(output, expected)


@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize("first", [0, 1])
def test_causal_lsh_equals_its_definition(rounds: int, first: int) -> None:
    """The query itself, the first keys, and the last keys of its bucket before it."""
    length, buckets = 150, 6
    query, key, value = tensors(1, 2, length, 8)
    mechanism = made(Of("lsh", buckets=buckets, rounds=rounds, global_tokens=first, seed=5), 8)
    assert isinstance(mechanism, Lsh)
    output = mechanism(query, key, value, mask=None, causal=True, scale=0.3)
    width = 2 * -(-length // buckets)
    times = torch.zeros(1, 2, length, length)
    for which in range(rounds):
        theirs = lsh_hash(key - key[:, :, :1], mechanism, which)
        own = lsh_hash(query, mechanism, which)
        for head in range(2):
            for i in range(length):
                past = [j for j in range(i) if theirs[0, head, j] == own[0, head, i]]
                seen = {i, *past[-width:], *range(min(first, i))}
                times[0, head, i, list(seen)] += 1
    weights = (0.3 * query @ key.mT).exp() * times
    close(output, weights @ value / weights.sum(-1, keepdim=True))


@pytest.mark.parametrize("buckets", [16, 64])
def test_lsh_puts_alike_directions_into_one_bucket(buckets: int) -> None:
    mechanism = made(Of("lsh", buckets=buckets, rounds=1, global_tokens=0, seed=0), 8)
    assert isinstance(mechanism, Lsh)
    points = torch.randn(200, 8, generator=torch.Generator().manual_seed(1))
    near = points + 0.05 * torch.randn(200, 8, generator=torch.Generator().manual_seed(2))
    same = lsh_hash(points, mechanism, 0) == lsh_hash(near, mechanism, 0)
    assert same.float().mean() > 0.8
    assert (lsh_hash(points, mechanism, 0) == lsh_hash(points.flip(0), mechanism, 0)).sum() < 40
    ours = bucket_of(points[None, None], mechanism.rotations[0], mechanism.factors)
    assert torch.equal(ours[0, 0], lsh_hash(points, mechanism, 0))
    assert int(ours.max()) < buckets


def separated(length: int, groups: int) -> list[torch.Tensor]:
    """Queries and keys in well separated runs, so that k-means from even spacing finds them."""
    generator = torch.Generator().manual_seed(0)
    centres = 10 * torch.eye(8)[:groups]
    member = torch.arange(length) * groups // length
    spread = [0.1 * torch.randn(1, 2, length, 8, generator=generator) for _ in range(2)]
    return [centres[member] + each for each in spread] + [
        torch.randn(1, 2, length, 8, generator=generator)
    ]


def test_clustered_gives_each_query_the_answer_of_its_clusters_mean() -> None:
    query, key, value = separated(40, 4)
    output = made(Of("clustered", clusters=4, top_keys=0), 8)(
        query, key, value, mask=None, causal=False, scale=0.05
    )
    means = query.unflatten(2, (4, 10)).mean(3).repeat_interleave(10, dim=2)
    close(output, definition(means, key, value, scale=0.05))


def test_improved_clustered_reattends_the_top_keys() -> None:
    """Vyas et al. 2020, eq. 9 to 11, written out."""
    query, key, value = separated(40, 4)
    top = 6
    output = made(Of("clustered", clusters=4, top_keys=top), 8)(
        query, key, value, mask=None, causal=False, scale=0.05
    )
    means = query.unflatten(2, (4, 10)).mean(3).repeat_interleave(10, dim=2)
    shared = (0.05 * means @ key.mT).softmax(-1)
    best = torch.zeros_like(shared).scatter(-1, shared.topk(top).indices, 1.0)
    mass = (shared * best).sum(-1, keepdim=True)
    own = (0.05 * query @ key.mT).masked_fill(best == 0, -torch.inf).softmax(-1)
    close(output, (mass * own + shared * (1 - best)) @ value)


def test_routing_attends_within_the_cluster() -> None:
    query, key, value = separated(40, 4)
    output = made(Of("routing", clusters=4, global_tokens=0), 8)(
        query, key, value, mask=None, causal=False, scale=0.05
    )
    member = torch.arange(40) * 4 // 40
    seen = member[:, None] == member[None]
    close(output, definition(query, key, value, seen=seen, scale=0.05))


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 40))
def test_segments_of_a_padded_row_are_those_of_the_row_alone(
    length: int, count: int, more: int
) -> None:
    x = torch.randn(1, 1, length + more, 3, generator=torch.Generator().manual_seed(length))
    alone, sizes = segment_means(x[:, :, :length], count, None)
    padded, padded_sizes = segment_means(x, count, torch.tensor([length]))
    real = alone.shape[2]
    close(padded[:, :, :real], alone)
    close(padded_sizes[..., :real].expand_as(sizes), sizes)
    assert int(sizes.sum()) == length
    assert not padded_sizes[..., real:].any()
    parts = x[0, 0, :length].tensor_split(real)
    close(alone[0, 0], torch.stack([part.mean(0) for part in parts]))
