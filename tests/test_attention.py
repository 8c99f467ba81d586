"""The laws of attention mechanisms, over every registered one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from paretoformer.spaces import AttentionChoice
from paretoformer.spaces.attention import attention_class, build, names

EXACT = {
    "full": lambda length: AttentionChoice("full"),
    "window": lambda length: AttentionChoice.of("window", window=length, global_tokens=1),
}
"""The setting at which a mechanism equals full attention."""

CHEAP = {
    "full": AttentionChoice("full"),
    "window": AttentionChoice.of("window", window=3, global_tokens=1),
}

every_mechanism = pytest.mark.parametrize("name", names())
every_causal_mechanism = pytest.mark.parametrize(
    "name", [name for name in names() if attention_class(name).causal]
)


def tensors(batch: int, heads: int, length: int, dim: int, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(length * 31 + heads)
    shape = (batch, length, heads, dim)  # strided as a model passes them
    return [torch.randn(shape, generator=generator).transpose(1, 2).to(dtype) for _ in range(3)]


def softmax_attention(query, key, value, mask=None, causal=False):
    """The definition, with its dense matrix."""
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    length = query.shape[-2]
    visible = torch.ones(length, length, dtype=torch.bool)
    visible = visible.tril() if causal else visible
    if mask is not None:
        visible = visible & mask[:, None, None, :]
    scores = scores.masked_fill(~visible, float("-inf"))
    return torch.nan_to_num(scores.softmax(-1)) @ value


def test_every_mechanism_has_settings_here() -> None:
    assert set(EXACT) == set(CHEAP) == set(names())


@every_mechanism
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 70), st.sampled_from([1, 4, 8]))
@settings(max_examples=40, deadline=None)
def test_exact_setting_equals_softmax_attention(
    name: str, batch: int, heads: int, length: int, dim: int
) -> None:
    query, key, value = tensors(batch, heads, length, dim)
    output = build(EXACT[name](length))(query, key, value, mask=None, causal=False, scale=dim**-0.5)
    assert output.shape == query.shape
    torch.testing.assert_close(output, softmax_attention(query, key, value), atol=1e-4, rtol=1e-4)


@every_mechanism
@given(st.integers(1, 60), st.integers(0, 60), st.booleans())
@settings(max_examples=40, deadline=None)
def test_exact_setting_honours_padding(name: str, length: int, real: int, left: bool) -> None:
    query, key, value = tensors(2, 2, length, 4)
    mask = torch.arange(length)[None] < torch.tensor([[min(real, length)], [length]])
    mask = mask.flip(1) if left else mask
    output = build(EXACT[name](length))(query, key, value, mask=mask, causal=False, scale=0.5)
    expected = softmax_attention(query, key, value, mask)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


@every_mechanism
@given(st.integers(2, 90), st.integers(1, 90))
@settings(max_examples=40, deadline=None)
def test_padded_content_changes_no_output(name: str, length: int, real: int) -> None:
    query, key, value = tensors(1, 2, length, 4)
    mask = torch.arange(length)[None] < min(real, length)
    mechanism = build(CHEAP[name])
    before = mechanism(query, key, value, mask=mask, causal=False, scale=0.5)
    noise = ~mask[:, None, :, None]
    other = [each + noise * 100.0 for each in (query, key, value)]
    after = mechanism(*other, mask=mask, causal=False, scale=0.5)
    torch.testing.assert_close(before[:, :, : min(real, length)], after[:, :, : min(real, length)])


@every_mechanism
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_row_without_real_tokens_gives_zeros(name: str, dtype: torch.dtype) -> None:
    query, key, value = tensors(2, 2, 37, 8, dtype)
    mask = torch.ones(2, 37, dtype=torch.bool)
    mask[1] = False
    output = build(CHEAP[name])(query, key, value, mask=mask, causal=False, scale=0.3)
    assert output.dtype == dtype
    assert not output.isnan().any()
    assert output[1].abs().max() == 0


@every_causal_mechanism
def test_causal_output_does_not_see_later_tokens(name: str) -> None:
    query, key, value = tensors(1, 2, 50, 4)
    mechanism = build(CHEAP[name])
    before = mechanism(query, key, value, mask=None, causal=True, scale=0.5)
    for each in (query, key, value):
        each[:, :, 20:] += 7
    after = mechanism(query, key, value, mask=None, causal=True, scale=0.5)
    torch.testing.assert_close(before[:, :, :20], after[:, :, :20])


@every_causal_mechanism
def test_exact_setting_equals_causal_attention(name: str) -> None:
    query, key, value = tensors(2, 2, 45, 4)
    output = build(EXACT[name](45))(query, key, value, mask=None, causal=True, scale=0.5)
    expected = softmax_attention(query, key, value, causal=True)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


@every_mechanism
def test_gradients_reach_every_input(name: str) -> None:
    inputs = [each.requires_grad_() for each in tensors(1, 2, 40, 4)]
    build(CHEAP[name])(*inputs, mask=None, causal=False, scale=0.5).square().sum().backward()
    for each in inputs:
        assert each.grad is not None
        assert each.grad.abs().sum() > 0


@given(st.integers(1, 80), st.integers(1, 20), st.integers(0, 3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_window_equals_its_definition(length: int, window: int, first: int, causal: bool) -> None:
    query, key, value = tensors(2, 2, length, 4)
    choice = AttentionChoice.of("window", window=window, global_tokens=first)
    output = build(choice)(query, key, value, mask=None, causal=causal, scale=0.5)
    i, j = torch.arange(length)[:, None], torch.arange(length)[None]
    sees = ((i - j).abs() < window) | (i < first) | (j < first)
    sees = sees & (j <= i) if causal else sees
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=sees, scale=0.5)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


def test_window_allocates_no_square_matrix() -> None:
    length = 2048
    query, key, value = tensors(1, 1, length, 4)
    mechanism = build(CHEAP["window"])
    with torch.profiler.profile(profile_memory=True) as trace, torch.inference_mode():
        mechanism(query, key, value, mask=None, causal=False, scale=0.5)
    largest = max(event.self_cpu_memory_usage for event in trace.key_averages())
    assert largest < length * length / 2


def test_unknown_attention_is_named_with_its_nearest() -> None:
    with pytest.raises(ValueError, match="Unknown attention 'windw'. Did you mean 'window'"):
        attention_class("windw")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (AttentionChoice("window"), "has the parameters"),
        (AttentionChoice.of("window", window=0, global_tokens=1), "window is a whole number of at"),
        (AttentionChoice.of("window", window=2.5, global_tokens=1), "but got 2.5"),
    ],
)
def test_wrong_parameters_are_refused(choice: AttentionChoice, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(choice)
