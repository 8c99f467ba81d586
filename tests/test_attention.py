"""The laws of attention mechanisms, over every registered one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paretoformer.spaces import AttentionChoice
from paretoformer.spaces.attention import attention_class, build, names
from paretoformer.testing import peak_bytes
from tests.mechanisms import CHEAP, EXACT, definition, made, tensors

every_mechanism = pytest.mark.parametrize("name", names())
every_exact_mechanism = pytest.mark.parametrize("name", [name for name in names() if EXACT[name]])
every_causal_mechanism = pytest.mark.parametrize(
    "name", [name for name in names() if attention_class(name).causal]
)
every_cheap_setting = pytest.mark.parametrize(
    "choice", [choice for name in names() for choice in CHEAP[name]], ids=str
)
every_causal_setting = pytest.mark.parametrize(
    "choice",
    [choice for name in names() if attention_class(name).causal for choice in CHEAP[name]],
    ids=str,
)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])

PRECISION = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 5e-3}


def exact(name: str, length: int) -> AttentionChoice:
    make = EXACT[name]
    assert make is not None
    return make(length)


def test_every_mechanism_has_settings_here() -> None:
    assert set(EXACT) == set(CHEAP) == set(names())


@every_mechanism
def test_card_says_what_a_user_must_know(name: str) -> None:
    mechanism = attention_class(name)
    for word in ("Cost: O(", "Cannot:", "Source:", "Differs in:"):
        assert word in (mechanism.__doc__ or "")
    assert mechanism.source.startswith("arXiv:")
    assert (EXACT[name] is None) == mechanism.exact.startswith("none")


@every_exact_mechanism
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 70), st.sampled_from([1, 4, 8]))
def test_exact_setting_equals_softmax_attention(
    name: str, batch: int, heads: int, length: int, dim: int
) -> None:
    query, key, value = tensors(batch, heads, length, dim)
    mechanism = made(exact(name, length), dim)
    output = mechanism(query, key, value, mask=None, causal=False, scale=dim**-0.5)
    assert output.shape == query.shape
    torch.testing.assert_close(output, definition(query, key, value), atol=1e-4, rtol=1e-4)


@every_exact_mechanism
@given(st.integers(1, 60), st.data())
def test_exact_setting_honours_any_padding(name: str, length: int, data: st.DataObject) -> None:
    query, key, value = tensors(2, 2, length, 4)
    bits = st.lists(st.booleans(), min_size=length, max_size=length)
    mask = torch.tensor([data.draw(bits), [True] * length])
    mechanism = made(exact(name, length), 4)
    output = mechanism(query, key, value, mask=mask, causal=False, scale=0.5)
    expected = definition(query, key, value, mask=mask)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


@every_exact_mechanism
@every_dtype
def test_exact_setting_is_exact_in_every_precision(name: str, dtype: torch.dtype) -> None:
    query, key, value = tensors(2, 2, 45, 8, dtype)
    mechanism = made(exact(name, 45), 8)
    output = mechanism(query, key, value, mask=None, causal=False, scale=8**-0.5)
    expected = definition(query.float(), key.float(), value.float())
    assert output.dtype == dtype
    torch.testing.assert_close(output.float(), expected, atol=PRECISION[dtype], rtol=0)


@every_cheap_setting
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 30))
def test_padding_changes_no_real_output(
    choice: AttentionChoice, length: int, real: int, more: int
) -> None:
    """Neither what stands at padded positions, nor how many there are, nor at which side."""
    real = min(real, length)
    rows = [each[:, :, :real] for each in tensors(2, 2, length, 4)]
    mechanism = made(choice, 4)
    alone = mechanism(*rows, mask=None, causal=False, scale=0.5)
    filler = [each[:, :, : length - real + more] * 9 for each in tensors(2, 2, length + more, 4)]
    mask = torch.arange(length + more).expand(2, -1) < real
    padded = [torch.cat(pair, dim=2) for pair in zip(rows, filler, strict=True)]
    right = mechanism(*padded, mask=mask, causal=False, scale=0.5)
    torch.testing.assert_close(right[:, :, :real], alone, atol=1e-4, rtol=1e-4)
    assert not right[:, :, real:].any()
    flipped = [torch.cat(pair, dim=2) for pair in zip(filler, rows, strict=True)]
    left = mechanism(*flipped, mask=mask.flip(1), causal=False, scale=0.5)
    torch.testing.assert_close(left[:, :, length + more - real :], alone, atol=1e-4, rtol=1e-4)


@every_cheap_setting
@every_dtype
def test_row_without_real_tokens_gives_zeros(choice: AttentionChoice, dtype: torch.dtype) -> None:
    query, key, value = tensors(2, 2, 37, 8, dtype)
    mask = torch.ones(2, 37, dtype=torch.bool)
    mask[1] = False
    output = made(choice, 8)(query, key, value, mask=mask, causal=False, scale=0.3)
    assert output.dtype == dtype
    assert output.isfinite().all()
    assert not output[1].any()


@every_cheap_setting
@given(st.integers(1, 130))
def test_any_length_gives_numbers(choice: AttentionChoice, length: int) -> None:
    query, key, value = tensors(1, 2, length, 4)
    output = made(choice, 4)(query, key, value, mask=None, causal=False, scale=0.5)
    assert output.shape == query.shape
    assert output.isfinite().all()


@every_cheap_setting
@every_dtype
def test_extreme_scores_give_no_nan(choice: AttentionChoice, dtype: torch.dtype) -> None:
    query, key, value = (each * 20 for each in tensors(1, 2, 50, 8, dtype))
    output = made(choice, 8)(query, key, value, mask=None, causal=False, scale=0.35)
    assert output.isfinite().all()
    if attention_class(choice.name).causal:
        output = made(choice, 8)(query, key, value, mask=None, causal=True, scale=0.35)
        assert output.isfinite().all()


@every_cheap_setting
def test_equal_inputs_give_equal_outputs(choice: AttentionChoice) -> None:
    inputs = tensors(2, 2, 50, 4)
    torch.manual_seed(1)
    once = made(choice, 4)(*inputs, mask=None, causal=False, scale=0.5)
    torch.manual_seed(2)
    again = made(choice, 4)(*inputs, mask=None, causal=False, scale=0.5)
    assert torch.equal(once, again)


@every_cheap_setting
def test_a_sequence_answers_alike_alone_and_in_a_batch(choice: AttentionChoice) -> None:
    inputs = tensors(3, 2, 50, 4)
    mechanism = made(choice, 4)
    together = mechanism(*inputs, mask=None, causal=False, scale=0.5)
    alone = mechanism(*(each[1:2] for each in inputs), mask=None, causal=False, scale=0.5)
    torch.testing.assert_close(together[1:2], alone, atol=1e-4, rtol=1e-4)


@every_cheap_setting
def test_shared_key_heads_equal_repeated_ones(choice: AttentionChoice) -> None:
    query = tensors(2, 6, 40, 4)[0]
    _, key, value = tensors(2, 2, 40, 4)
    mechanism = made(choice, 4)
    shared = mechanism(query, key, value, mask=None, causal=False, scale=0.5)
    key, value = (each.repeat_interleave(3, dim=1) for each in (key, value))
    repeated = mechanism(query, key, value, mask=None, causal=False, scale=0.5)
    torch.testing.assert_close(shared, repeated, atol=0, rtol=0)


@every_causal_setting
@given(st.integers(2, 150), st.integers(1, 150), st.booleans())
def test_causal_output_does_not_see_later_tokens(
    choice: AttentionChoice, length: int, kept: int, left: bool
) -> None:
    kept = min(kept, length - 1)
    query, key, value = tensors(1, 2, length, 4)
    mechanism = made(choice, 4)
    mask = (torch.arange(length)[None] >= 1) if left and kept > 1 else None
    before = mechanism(query, key, value, mask=mask, causal=True, scale=0.5)
    for each in (query, key, value):
        each[:, :, kept:] = 7 - 3 * each[:, :, kept:]
    after = mechanism(query, key, value, mask=mask, causal=True, scale=0.5)
    torch.testing.assert_close(before[:, :, :kept], after[:, :, :kept], atol=1e-4, rtol=1e-4)


@every_causal_mechanism
def test_exact_setting_equals_causal_attention(name: str) -> None:
    if EXACT[name] is None:
        return
    query, key, value = tensors(2, 2, 45, 4)
    output = made(exact(name, 45), 4)(query, key, value, mask=None, causal=True, scale=0.5)
    expected = definition(query, key, value, causal=True)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


@every_mechanism
def test_mechanism_that_cannot_be_causal_refuses(name: str) -> None:
    mechanism = made(CHEAP[name][0], 4)
    inputs = tensors(1, 1, 20, 4)
    if mechanism.causal:
        assert mechanism(*inputs, mask=None, causal=True, scale=0.5).isfinite().all()
        return
    with pytest.raises(ValueError, match=f"attention '{name}' cannot be causal"):
        mechanism(*inputs, mask=None, causal=True, scale=0.5)


@every_cheap_setting
@pytest.mark.parametrize("padded", [False, True])
def test_gradients_reach_every_input(choice: AttentionChoice, padded: bool) -> None:
    inputs = [each.requires_grad_() for each in tensors(1, 2, 40, 4)]
    mask = torch.arange(40)[None] < 33 if padded else None
    made(choice, 4)(*inputs, mask=mask, causal=False, scale=0.5).square().sum().backward()
    names = ("query", "key", "value")
    for which, each in zip(names, inputs, strict=True):
        assert each.grad is not None
        assert each.grad.isfinite().all()
        # One key for everyone, or one token alone, leaves nothing to weigh.
        alone = str(choice) in ("lowrank(rank=1)", "window(global_tokens=0, window=1)")
        assert which != "value" or each.grad.any()
        assert alone or each.grad.any()


@every_cheap_setting
def test_what_inference_mode_made_serves_training_too(choice: AttentionChoice) -> None:
    inputs = [each.requires_grad_() for each in tensors(1, 2, 41, 4)]
    mechanism = made(choice, 4)
    with torch.inference_mode():
        quiet = mechanism(*inputs, mask=None, causal=False, scale=0.5)
    output = mechanism(*inputs, mask=None, causal=False, scale=0.5)
    output.sum().backward()
    torch.testing.assert_close(output, quiet.clone(), atol=1e-5, rtol=1e-5)


def peak(call: Callable[[], torch.Tensor]) -> int:
    with torch.inference_mode():
        return peak_bytes(call)


@pytest.mark.parametrize("name", [name for name in names() if name != "full"])
@pytest.mark.parametrize("causal", [False, True])
def test_default_setting_needs_under_a_quarter_of_the_memory_of_dense(
    name: str, causal: bool
) -> None:
    length = 2048
    mechanism_class = attention_class(name)
    if causal and not mechanism_class.causal:
        return
    query, key, value = tensors(1, 2, length, 16)
    choice = AttentionChoice.of(name, **mechanism_class.default(length))
    mechanism = build(choice, 16)
    eager = peak(lambda: (query @ key.mT * 0.25).softmax(-1) @ value)
    ours = peak(lambda: mechanism(query, key, value, mask=None, causal=causal, scale=0.25))
    assert ours < eager / 4


@every_mechanism
def test_menu_settings_are_legal_and_start_with_the_default(name: str) -> None:
    mechanism = attention_class(name)
    offered = list(mechanism.settings(512))
    assert offered[0] == mechanism.default(512)
    for params in offered:
        build(AttentionChoice.of(name, **params), 8)


@pytest.mark.slow
@every_mechanism
def test_compiled_mechanism_equals_itself(name: str) -> None:
    torch.compiler.reset()
    mechanism = made(CHEAP[name][0], 4)
    inputs = tensors(1, 2, 40, 4)
    compiled = torch.compile(mechanism, backend="aot_eager")
    expected = mechanism(*inputs, mask=None, causal=False, scale=0.5)
    with torch.inference_mode():
        output = compiled(*inputs, mask=None, causal=False, scale=0.5)
    torch.testing.assert_close(output.clone(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_cheap_setting
def test_cuda_equals_cpu(choice: AttentionChoice) -> None:
    inputs = tensors(2, 2, 50, 8)
    mask = torch.arange(50).expand(2, -1) < torch.tensor([[37], [50]])
    mechanism = made(choice, 8)
    expected = mechanism(*inputs, mask=mask, causal=False, scale=0.5)
    there = (each.cuda() for each in inputs)
    output = mechanism.cuda()(*there, mask=mask.cuda(), causal=False, scale=0.5)
    torch.testing.assert_close(output.cpu(), expected, atol=1e-3, rtol=1e-3)


def test_unknown_attention_is_named_with_its_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown attention 'windw'\. Did you mean 'window'"):
        attention_class("windw")


def test_heads_that_cannot_share_keys_are_refused() -> None:
    query = tensors(1, 3, 8, 4)[0]
    _, key, value = tensors(1, 2, 8, 4)
    with pytest.raises(ValueError, match="3 query heads cannot share 2 key heads"):
        made(CHEAP["linear"][0], 4)(query, key, value, mask=None, causal=False, scale=0.5)


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
        build(choice, 8)
