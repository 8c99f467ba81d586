"""Surgery: a pruned head is gone, and the model answers as if its output were zero."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import paretoformer as pf
from paretoformer.spaces import AttentionChoice, Candidate, HeadMask
from paretoformer.spaces.attention import Attention, names
from paretoformer.spaces.axes.block_options import normalised
from paretoformer.spaces.axes.evidence import Probe
from paretoformer.spaces.axes.sensitivity import OutputProbe, sensitivity
from paretoformer.spaces.build import CANDIDATE, build
from paretoformer.spaces.models.families import (
    FAMILIES,
    UNSUITABLE,
    blocks_of,
    family_of,
    implementation_of,
)
from paretoformer.spaces.models.surgery import HeadlessAttention, count_parameters, fold_scales
from tests.mechanisms import CHEAP
from tests.sampled import sampled
from tests.tiny import HEADS, LAYERS

DAILY = ("bert", "deberta-v2", "gpt2", "llama", "modernbert", "mpnet", "vit")
"""One family of each way to lay out a layer: norm behind the sum, relative positions, fused heads,
groups, layers of several kinds, biases of heads, images."""
every_family = sampled("family", FAMILIES, DAILY)
WITH_MECHANISMS = tuple(name for name, family in FAMILIES.items() if not family.only_full)
every_family_with_mechanisms = sampled("family", WITH_MECHANISMS, ("bert", "gpt2", "llama", "vit"))

MASK = HeadMask(((True, False, True, False), (False, True, True, True)))
HEADLESS = HeadMask(((False,) * 4, (True, False, True, True)))
WINDOW = AttentionChoice.of("window", window=6, global_tokens=1)
STRIDED = AttentionChoice.of("strided", stride=5, window=3, global_tokens=1)


VISION = ("vit", "deit", "dinov2")
GROUPED = ("llama", "qwen2", "qwen3", "gemma", "mistral")
CAUSAL = tuple(name for name, family in FAMILIES.items() if family.causal)
every_decoder = sampled("family", CAUSAL, ("gpt2", "llama"))

HEAD_PARAMETERS = dict.fromkeys(FAMILIES, 4 * 32 * 8 + 3 * 8) | {
    # A group of two query heads of width 4, with their shared key and value.
    "llama": 2 * 32 * 8 + 2 * 32 * 4,
    "qwen2": 2 * 32 * 8 + 2 * 32 * 4 + 8 + 2 * 4,
    "qwen3": 2 * 32 * 8 + 2 * 32 * 4,
    "gemma": 2 * 32 * 8 + 2 * 32 * 4,
    "mistral": 2 * 32 * 8 + 2 * 32 * 4,
    "modernbert": 4 * 32 * 8,
    "nomic_bert": 4 * 32 * 8,
}
"""Query, key and value rows, output columns, and the biases that each family has."""


def tiny(family: str, head: str = "") -> torch.nn.Module:
    """Two layers x four heads, width 32; two query heads a group where a family groups them."""
    torch.manual_seed(1)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 64,
    }
    if family == "distilbert":
        sizes = {"dim": 32, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": 64}
    elif family == "gpt2":
        sizes = {"n_embd": 32, "n_layer": LAYERS, "n_head": HEADS}
    elif family in GROUPED:
        sizes |= {"num_attention_heads": 2 * HEADS, "num_key_value_heads": HEADS}
        sizes |= {"head_dim": 4, "sliding_window": None}
    if family in VISION:
        sizes |= {"image_size": 30, "patch_size": 6}
        if family == "deit":  # for its two classifiers, the auto class asks the config
            sizes |= {"architectures": ["DeiTForImageClassification"]}
        if family == "dinov2":
            sizes |= {"mlp_ratio": 2}
    else:
        sizes |= {"vocab_size": 100, "max_position_embeddings": 80}
    if family == "modernbert":  # its second layer sees four tokens on each side
        sizes |= {"local_attention": 8}
    if family == "deberta-v2":
        sizes |= {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": True}
        sizes |= {"position_buckets": 8, "norm_rel_ebd": "layer_norm"}
    if family in (*CAUSAL, "modernbert"):
        sizes |= {"pad_token_id": 0}
    config = transformers.AutoConfig.for_model(family, **sizes)
    head = head or ("ImageClassification" if family in VISION else "SequenceClassification")
    auto = getattr(transformers, f"AutoModelFor{head}")
    model = auto.from_config(config, attn_implementation=implementation_of(config))
    for parameter in model.parameters():  # biases start at zero, which would hide a lost one
        torch.nn.init.normal_(parameter, std=0.2)
    fold_scales(model)
    return model.eval()


def inputs(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Three rows, of which a text's first one is padded."""
    generator = torch.Generator().manual_seed(2)
    if model.config.model_type in VISION:
        return {"pixel_values": torch.randn(3, 3, 30, 30, generator=generator)}
    ids = torch.randint(5, 100, (3, 40), generator=generator)
    mask = torch.ones_like(ids)
    ids[0, 25:] = mask[0, 25:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs(model)).logits


def masked_logits(model: torch.nn.Module, mask: HeadMask) -> torch.Tensor:
    """Of the original model with the removed heads' outputs set to zero."""

    def zero(kept: tuple[bool, ...]):
        keep = torch.tensor(kept, dtype=torch.float32)

        def hook(module, arguments):
            hidden = arguments[0].unflatten(-1, (len(kept), -1)) * keep[:, None]
            return (hidden.flatten(-2), *arguments[1:])

        return hook

    blocks = blocks_of(model)
    hooks = [
        block.output.register_forward_pre_hook(zero(kept))
        for block, kept in zip(blocks, mask.kept, strict=True)
    ]
    result = logits(model)
    for hook in hooks:
        hook.remove()
    return result


@every_family
@pytest.mark.parametrize("mask", [MASK, HEADLESS, HeadMask.none(2, 4)])
def test_masked_head_and_pruned_head_give_equal_outputs(family: str, mask: HeadMask) -> None:
    model = tiny(family)
    pruned = build(Candidate(mask), model).model
    torch.testing.assert_close(logits(pruned), masked_logits(model, mask), atol=1e-5, rtol=1e-5)


def test_scales_go_into_the_weights_behind_them() -> None:
    model = tiny("dinov2")
    blocks = blocks_of(model)
    with torch.no_grad():
        for block in blocks:
            for place in block.family.scales.values():
                block.get(place).lambda1.uniform_(-2, 2)
    before = logits(model)
    fold_scales(model)
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=1e-5)
    assert bool((blocks[0].get("layer_scale1").lambda1 == 1).all())


@every_family
def test_pruning_takes_away_exactly_the_weights_of_the_heads(family: str) -> None:
    model = tiny(family)
    pruned = build(Candidate(MASK), model).model
    assert MASK.counts == (2, 3)  # of four: three heads go
    removed = count_parameters(model) - count_parameters(pruned)
    assert removed == 3 * HEAD_PARAMETERS[family]


@every_family
def test_untouched_tensors_are_shared(family: str) -> None:
    model = tiny(family)
    original = {id(parameter) for parameter in model.parameters()}
    pruned = build(Candidate(HeadMask(((True,) * 4, (True, False, True, True)))), model).model
    own = [name for name, p in pruned.named_parameters() if id(p) not in original]
    # Weights and biases in front of the heads, where there are any, and the output's weight.
    without = dict.fromkeys(("llama", "qwen3", "gemma", "mistral", "nomic_bert"), 4)
    assert len(own) == ({"gpt2": 3, "modernbert": 2} | without).get(family, 7)


def test_mechanisms_are_refused_where_scores_have_a_bias() -> None:
    mask = HeadMask.all(LAYERS, HEADS)
    with pytest.raises(ValueError, match="'mpnet' has full attention only: it adds a bias"):
        build(Candidate(mask, (WINDOW, WINDOW)), tiny("mpnet"))


@every_family_with_mechanisms
def test_wide_window_equals_the_dense_model_and_a_narrow_one_does_not(family: str) -> None:
    model = tiny(family)
    wide = AttentionChoice.of("window", window=64, global_tokens=1)
    mask = HeadMask.all(LAYERS, HEADS)
    full = logits(build(Candidate(mask, (wide, wide)), model).model)
    torch.testing.assert_close(full, logits(model), atol=1e-5, rtol=1e-5)
    narrow = logits(build(Candidate(mask, (WINDOW, WINDOW)), model).model)
    assert (narrow - logits(model)).abs().max() > 1e-4


@sampled("family", [name for name in WITH_MECHANISMS if name not in VISION], ("bert", "llama"))
def test_padded_tokens_change_nothing_in_a_compressed_model(family: str) -> None:
    model = build(Candidate(MASK, (WINDOW, WINDOW)), tiny(family)).model.base_model
    batch = inputs(model)
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        before = model(**batch).last_hidden_state[real]
        batch["input_ids"][0, 25:] = 7
        after = model(**batch).last_hidden_state[real]
    torch.testing.assert_close(before, after)


@every_decoder
def test_causal_model_sees_no_later_token(family: str) -> None:
    model = build(Candidate(MASK, (WINDOW, STRIDED)), tiny(family)).model.base_model
    ids = inputs(model)["input_ids"]
    with torch.no_grad():
        before = model(input_ids=ids).last_hidden_state[:, :20]
        ids[:, 20:] = 7
        after = model(input_ids=ids).last_hidden_state[:, :20]
    torch.testing.assert_close(before, after)


@every_decoder
def test_cached_tokens_attend_exactly(family: str) -> None:
    """Against the dense model fed at once; the first part's mechanism is exact there."""
    dense = tiny(family)
    wide = AttentionChoice.of("window", window=64, global_tokens=1)
    full = HeadMask.all(LAYERS, HEADS)
    model = build(Candidate(full, (wide, wide)), dense).model.base_model
    ids = inputs(dense)["input_ids"][1:]
    with torch.no_grad():
        expected = dense.base_model(input_ids=ids).last_hidden_state
        cache = transformers.DynamicCache(config=dense.config)
        model(input_ids=ids[:, :30], cache=cache)
        rest = model(input_ids=ids[:, 30:], cache=cache)
    torch.testing.assert_close(rest.last_hidden_state, expected[:, 30:], atol=1e-5, rtol=1e-5)


def test_dense_candidate_changes_nothing_and_says_so() -> None:
    model = tiny("bert")
    rebuilt = build(Candidate.dense(LAYERS, HEADS), model).model
    assert all(
        one is two for one, two in zip(rebuilt.parameters(), model.parameters(), strict=True)
    )
    assert not any(isinstance(each, Attention) for each in rebuilt.modules())
    assert torch.equal(logits(rebuilt), logits(model))
    assert getattr(rebuilt, CANDIDATE).is_dense


def test_candidate_of_another_shape_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"\(layers, heads\) = \(3, 4\), but the model has \(2, 4\)"
    ):
        build(Candidate.dense(3, 4), tiny("bert"))


def test_model_that_was_compressed_already_is_refused() -> None:
    once = build(Candidate(MASK), tiny("bert")).model
    with pytest.raises(ValueError, match="compressed already"):
        build(Candidate(MASK), once)


def test_known_family_that_cannot_be_cut_is_refused_with_the_reason() -> None:
    for family, reason in UNSUITABLE.items():
        config = transformers.AutoConfig.for_model(family)
        with pytest.raises(ValueError, match=f"{family!r}") as raised:
            family_of(config)
        assert reason[1:] in str(raised.value)


def test_other_family_is_refused_with_those_supported() -> None:
    config = transformers.GPTNeoXConfig(
        num_hidden_layers=1, num_attention_heads=2, hidden_size=8, vocab_size=9
    )
    with pytest.raises(ValueError, match=r"Unsupported model family 'gpt_neox'.*Supported: bert"):
        build(Candidate.dense(1, 2), transformers.GPTNeoXModel(config))


@pytest.mark.parametrize(
    ("family", "setting", "message"),
    [
        ("bert", {"is_decoder": True}, "'bert' as a decoder"),
        ("gpt2", {"reorder_and_upcast_attn": True}, "goes around the attention interface"),
        ("deberta-v2", {"conv_kernel_size": 3}, "a convolution behind its first layer"),
        ("deberta-v2", {"share_att_key": False, "relative_attention": True}, "for positions"),
        ("nomic_bert", {"rotary_emb_base": 10_000}, "which transformers does not read"),
        ("nomic_bert", {"num_experts": 8}, "`num_experts` = 8"),
        ("gpt2", {"add_cross_attention": True}, "'gpt2' with cross attention"),
        (
            "qwen2",
            {"use_sliding_window": True, "max_window_layers": 1},
            "'qwen2' with sliding-window layers",
        ),
        ("mistral", {}, "'mistral' with a sliding window"),
        ("llama", {"is_causal": False}, "attention in both directions"),
    ],
)
def test_settings_that_surgery_cannot_respect_are_refused(
    family: str, setting: dict[str, object], message: str
) -> None:
    config = transformers.AutoConfig.for_model(family, **setting)
    with pytest.raises(ValueError, match=message):
        family_of(config)


def test_every_mechanism_runs_in_a_layer_of_its_own_after_heads_were_removed() -> None:
    choices = [choice for name in names() for choice in CHEAP[name]]
    for pair in itertools.pairwise([*choices, choices[0]]):
        candidate = Candidate(MASK, pair)
        model = pf.compress(tiny("bert"), candidate)
        assert logits(model).isfinite().all()
        swapped = [each for each in model.modules() if isinstance(each, Attention)]
        assert [each.name for each in swapped] == [choice.name for choice in pair] or all(
            choice.name == "full" for choice in pair
        )


@pytest.mark.parametrize("name", ["random_features", "lsh"])
def test_random_projections_travel_with_the_saved_model(name: str, tmp_path: Path) -> None:
    choice = CHEAP[name][0]
    model = pf.compress(tiny("bert"), Candidate(MASK, (choice, choice)))
    for each in model.modules():
        if isinstance(each, Attention):
            for buffer in each.buffers():
                buffer += 0.1  # no seed gives these
    loaded = pf.load_compressed(pf.save_compressed(model, tmp_path / "out"))
    torch.testing.assert_close(logits(loaded), logits(model), atol=0, rtol=0)


def test_packed_sequences_are_refused() -> None:
    model = build(Candidate(MASK, (WINDOW, WINDOW)), tiny("llama")).model.base_model
    ids = inputs(model)["input_ids"]
    positions = torch.cat((torch.arange(20), torch.arange(20)))[None]
    with pytest.raises(ValueError, match="one sequence a row"):
        model(input_ids=ids, position_ids=positions, use_cache=False)


def test_mask_of_other_shape_than_padding_is_refused() -> None:
    model = build(Candidate(MASK, (WINDOW, WINDOW)), tiny("bert")).model
    batch = inputs(model) | {"attention_mask": torch.ones(3, 1, 40, 40)}
    with pytest.raises(ValueError, match=r"takes a padding mask \(batch, length\)"):
        model(**batch)


def heads_probe() -> Probe:
    return OutputProbe(lambda block: block.output, HEADS)


def test_importance_is_the_gradient_of_a_gate_on_each_head() -> None:
    """Against a finite difference on one example and one head."""
    model = tiny("bert").double()
    batch = {key: value[:1] for key, value in inputs(model).items()}
    labels = torch.tensor([1])

    def loss(output, labels):
        return torch.nn.functional.cross_entropy(output.logits, labels, reduction="sum")

    found = sensitivity(model, [(batch, labels)], loss, {"heads": heads_probe()})
    scores = normalised(np.asarray(found["heads"]["removed"]))
    assert scores.shape == (LAYERS, HEADS)

    def gated(layer: int, head: int, gate: float) -> float:
        def hook(module, arguments):
            hidden = arguments[0].unflatten(-1, (HEADS, -1)).clone()
            hidden[:, :, head] *= gate
            return (hidden.flatten(-2), *arguments[1:])

        handle = blocks_of(model)[layer].output.register_forward_pre_hook(hook)
        with torch.no_grad():
            value = float(loss(model(**batch), labels))
        handle.remove()
        return value

    numeric = np.array(
        [
            [abs(gated(i, j, 1 + 1e-4) - gated(i, j, 1 - 1e-4)) / 2e-4 for j in range(HEADS)]
            for i in range(LAYERS)
        ]
    )
    numeric /= np.linalg.norm(numeric, axis=1, keepdims=True)
    np.testing.assert_allclose(scores, numeric, rtol=1e-4)


def test_importance_needs_an_example() -> None:
    with pytest.raises(ValueError, match="at least one training example"):
        sensitivity(tiny("bert"), [], lambda output, labels: output, {"heads": heads_probe()})


def test_headless_layer_of_a_decoder_is_exported_for_any_batch_and_length() -> None:
    """Without dynamo, which the exporter falls back on, and which takes twice as long."""

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = HeadlessAttention({}, layer=0)

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.attention(hidden, transformers.DynamicCache())[0]
            return found

    any_size = dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    program = torch.export.export(
        Layer(), (torch.zeros(2, 3, 4),), dynamic_shapes=(any_size,), strict=False
    )
    assert program.module()(torch.zeros(5, 7, 4)).shape == (5, 7, 0)
