"""Model families: the paths of the projections of their attention and feed-forward blocks.

To support another family, add an entry to `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from torch import nn

from paretoformer.spaces.common.registry import did_you_mean


def _supported(config: Any) -> str:
    """A family without settings that matter to surgery."""
    return ""


def _intermediate_size(config: Any) -> int:
    return int(config.intermediate_size)


@dataclass(frozen=True)
class FeedForward:
    """Paths of the linear layers of a layer's feed-forward block."""

    inputs: Mapping[str, int]
    """The projections before the neurons: path -> how many of neurons and gates it computes,
    concatenated. Two paths where gates have a projection of their own."""
    output: str
    neurons: Callable[[Any], int] = _intermediate_size
    """Config -> number of neurons."""


@dataclass(frozen=True)
class Family:
    """Paths in a model of one `config.model_type`; those of a block are relative to its layer."""

    layers: str
    """The list of layers, relative to the base model (`BertModel`, not its classifier)."""
    attention: str
    """The module that calls the attention interface."""
    inputs: Mapping[str, int]
    """The projections before the heads: path -> how many of query, key and value it computes
    (concatenated, each with its heads in order)."""
    output: str
    """The projection after the concatenated heads."""
    feed_forward: FeedForward
    attention_norm: str
    """The LayerNorm that reads the residual stream after the attention block."""
    output_norm: str = ""
    """The LayerNorm at the end of a layer, in a post-norm family."""
    scales: Mapping[str, str] = field(default_factory=dict)
    """The projection at the end of a block -> the scale of its output features (LayerScale)."""
    depth: tuple[str, ...] = ()
    """Attributes that hold the number of layers, on the module that holds them."""
    starts_apart: bool = False
    """Whether its first layer is built differently, so that no other can stand in its place."""
    reads_first: bool = False
    """Whether its classifiers read the first token, for which alone its last layer is computed."""
    causal: bool = False
    """Whether a token sees no later tokens."""
    heads: tuple[str, ...] = ()
    """Attributes of the attention module that hold its number of heads."""
    width: tuple[str, ...] = ()
    """Attributes of the attention module that hold heads * head_dim."""
    score_bias: str = ""
    """Argument of the attention module: what it adds to its scores, (batch, heads, queries, keys).
    Cut heads take theirs away."""
    only_full: str = ""
    """Why no layer can have another attention mechanism than `full`; empty where they can."""
    implementation: str = "sdpa"
    """Of attention; `eager` where a family computes it outside transformers' interface."""
    reserved_positions: int = 0
    """Rows of the position table before that of the first token."""
    unsupported: Callable[[Any], str] = field(default=_supported)
    """Config -> a setting that surgery does not support; empty when there is none."""


def _separate(*paths: str) -> Mapping[str, int]:
    """Query, key and value, or neurons and gates, from separate projections."""
    return dict.fromkeys(paths, 1)


def _decoder_of_encoder(config: Any) -> str:
    return "as a decoder (`is_decoder`)" if getattr(config, "is_decoder", False) else ""


def _gpt2(config: Any) -> str:
    if config.reorder_and_upcast_attn:
        return "with `reorder_and_upcast_attn`, which goes around the attention interface,"
    return "with cross attention" if config.add_cross_attention else ""


def _gpt2_neurons(config: Any) -> int:
    return int(4 * config.n_embd if config.n_inner is None else config.n_inner)


def _dinov2(config: Any) -> str:
    return "with a gated feed-forward block (`use_swiglu_ffn`)" if config.use_swiglu_ffn else ""


def _dinov2_neurons(config: Any) -> int:
    return int(config.hidden_size * config.mlp_ratio)


def _sliding(config: Any) -> str:
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        return "with sliding-window layers (`use_sliding_window`)"
    return ""


def _mistral(config: Any) -> str:
    return "with a sliding window (`sliding_window`)" if config.sliding_window else ""


_IGNORED = {
    "prenorm": False,
    "causal": False,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_scaling_factor": None,
    "activation_function": "swiglu",
    "num_experts": 0,
    "moe_every_n_layers": 0,
    "parallel_block": False,
}
"""Keys of the original nomic_bert configs, which transformers' class does not read -> the values
that it computes with by default."""


def _nomic(config: Any) -> str:
    for key, value in _IGNORED.items():
        if getattr(config, key, value) not in (value, value or None):
            return f"with `{key}` = {getattr(config, key)!r}, which transformers does not read,"
    return ""


def _deberta(config: Any) -> str:
    if getattr(config, "conv_kernel_size", 0):
        return "with a convolution behind its first layer (`conv_kernel_size`)"
    if config.relative_attention and not getattr(config, "share_att_key", False):
        return "with projections of their own for positions (`share_att_key` false)"
    return ""


_BERT = Family(
    layers="encoder.layer",
    attention="attention.self",
    inputs=_separate("attention.self.query", "attention.self.key", "attention.self.value"),
    output="attention.output.dense",
    feed_forward=FeedForward(_separate("intermediate.dense"), "output.dense"),
    attention_norm="attention.output.LayerNorm",
    output_norm="output.LayerNorm",
    reads_first=True,
    heads=("num_attention_heads",),
    width=("all_head_size",),
    unsupported=_decoder_of_encoder,
)

_ROBERTA = replace(_BERT, reserved_positions=2)

_VIT = Family(
    layers="layers",
    attention="attention",
    inputs=_separate("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    output="attention.o_proj",
    feed_forward=FeedForward(_separate("mlp.fc1"), "mlp.fc2"),
    attention_norm="layernorm_after",
    reads_first=True,
    heads=("num_attention_heads",),
)

_LLAMA = Family(
    layers="layers",
    attention="self_attn",
    inputs=_separate("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    output="self_attn.o_proj",
    feed_forward=FeedForward(_separate("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"),
    attention_norm="post_attention_layernorm",
    causal=True,
    unsupported=_sliding,
)

_NOMIC = replace(_LLAMA, causal=False, output_norm="post_mlp_layernorm", unsupported=_nomic)

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": _BERT,
    "ernie": _BERT,
    "distilbert": Family(
        layers="transformer.layer",
        attention="attention",
        inputs=_separate("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        output="attention.out_lin",
        feed_forward=FeedForward(
            _separate("ffn.lin1"), "ffn.lin2", lambda config: int(config.hidden_dim)
        ),
        attention_norm="sa_layer_norm",
        output_norm="output_layer_norm",
        reads_first=True,
        depth=("n_layers",),
        heads=("n_heads",),
        width=("dim",),
    ),
    "vit": _VIT,
    "deit": replace(_VIT, reads_first=False),  # one of its classifiers reads two tokens
    "dinov2": replace(
        _VIT,
        layers="encoder.layer",
        attention_norm="norm2",
        feed_forward=FeedForward(_separate("mlp.fc1"), "mlp.fc2", _dinov2_neurons),
        reads_first=False,  # its classifier reads the mean of the patches, too
        scales={"attention.o_proj": "layer_scale1", "mlp.fc2": "layer_scale2"},
        unsupported=_dinov2,
    ),
    "mpnet": Family(
        layers="encoder.layer",
        attention="attention.attn",
        inputs=_separate("attention.attn.q", "attention.attn.k", "attention.attn.v"),
        output="attention.attn.o",
        feed_forward=FeedForward(_separate("intermediate.dense"), "output.dense"),
        attention_norm="attention.LayerNorm",
        output_norm="output.LayerNorm",
        heads=("num_attention_heads",),
        width=("all_head_size",),
        score_bias="position_bias",
        implementation="eager",
        only_full="it adds a bias to the scores of each pair of tokens, which other mechanisms "
        "never form",
        reserved_positions=2,
    ),
    "deberta-v2": replace(  # and v3; its positions go through the projections of queries and keys
        _BERT,
        inputs=_separate(
            "attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"
        ),
        reads_first=False,
        only_full="its scores depend on relative positions, which other mechanisms do not know",
        implementation="eager",
        unsupported=_deberta,
    ),
    "modernbert": Family(
        layers="layers",
        attention="attn",
        inputs={"attn.Wqkv": 3},
        output="attn.Wo",
        feed_forward=FeedForward({"mlp.Wi": 2}, "mlp.Wo"),
        attention_norm="mlp_norm",
        starts_apart=True,  # without the norm before attention
        only_full="its layers alternate between global and local attention already",
    ),
    "nomic_bert": _NOMIC,
    "gte": replace(_NOMIC, unsupported=_supported),
    "gpt2": Family(
        layers="h",
        attention="attn",
        inputs={"attn.c_attn": 3},
        output="attn.c_proj",
        feed_forward=FeedForward(_separate("mlp.c_fc"), "mlp.c_proj", _gpt2_neurons),
        attention_norm="ln_2",
        causal=True,
        heads=("num_heads",),
        width=("split_size",),
        unsupported=_gpt2,
    ),
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
    "mistral": replace(_LLAMA, unsupported=_mistral),
}

_NORMED = "it normalises what a block adds, so a block's projection cannot be repaired by itself"
UNSUITABLE: dict[str, str] = {
    "albert": "all its layers share one set of weights, so none can be cut by itself",
    "deberta": "one projection holds queries, keys and values head by head, with biases apart",
    "gemma2": _NORMED,
    "gemma3_text": _NORMED,
    "phi3": "its fused projections hold queries and keys of different widths",
    "t5": "it is an encoder with a decoder",
    "bart": "it is an encoder with a decoder",
}
"""Well-known families that surgery does not support -> why."""


def family_of(config: Any) -> Family:
    """The family of a transformers config.

    Raises:
        ValueError: the family, or a setting of this config, is not supported.
    """
    model_type = str(config.model_type)
    if model_type not in FAMILIES:
        why = UNSUITABLE.get(model_type, "")
        hint = f" {why[0].upper()}{why[1:]}." if why else did_you_mean(model_type, FAMILIES)
        raise ValueError(
            f"Unsupported model family {model_type!r}.{hint} Supported: {', '.join(FAMILIES)}."
        )
    family = FAMILIES[model_type]
    reason = family.unsupported(config)
    if not reason and family.causal and not getattr(config, "is_causal", True):
        reason = "with attention in both directions (`is_causal` false)"
    if reason:
        raise ValueError(f"{model_type!r} {reason} is not supported.")
    return family


@dataclass(frozen=True)
class Block:
    """One layer of a model, with access to the parts of its blocks."""

    layer: nn.Module
    family: Family
    kind: str = ""
    """Layers of one kind are called with the same masks and positions (`layer_types`)."""

    def get(self, path: str) -> nn.Module:
        return self.layer.get_submodule(path)

    def set(self, path: str, module: nn.Module) -> None:
        parent, _, name = path.rpartition(".")
        setattr(self.layer.get_submodule(parent), name, module)

    @property
    def attention(self) -> nn.Module:
        return self.get(self.family.attention)

    @property
    def output(self) -> nn.Module:
        return self.get(self.family.output)

    @property
    def feed_forward_output(self) -> nn.Module:
        return self.get(self.family.feed_forward.output)


def blocks_of(model: nn.Module) -> list[Block]:
    """The layers of a transformers model, in order.

    Raises:
        ValueError: the family is not supported.
    """
    family, layers = family_of(model.config), layers_of(model)
    kinds = getattr(model.config, "layer_types", None) or [""] * len(layers)
    return [Block(layer, family, kind) for layer, kind in zip(layers, kinds, strict=True)]


def layers_of(model: nn.Module) -> nn.ModuleList:
    """The model's own list of layers.

    Raises:
        ValueError: the family is not supported.
    """
    base = getattr(model, "base_model", model)
    return cast(nn.ModuleList, base.get_submodule(family_of(model.config).layers))


def shape_of(config: Any) -> tuple[int, int]:
    """(layers, heads) of the dense model that a config describes.

    Query heads that share a key and a value (grouped-query attention) are only removed together;
    such a group counts as one head.
    """
    groups = getattr(config, "num_key_value_heads", None)
    return int(config.num_hidden_layers), int(groups or config.num_attention_heads)


def neurons_of(config: Any) -> int:
    """Neurons per feed-forward block of the dense model that a config describes.

    Raises:
        ValueError: the family is not supported.
    """
    return family_of(config).feed_forward.neurons(config)


def head_dim_of(config: Any) -> int:
    """Width of one head's query."""
    own = getattr(config, "head_dim", None)
    return int(own or config.hidden_size // config.num_attention_heads)


def implementation_of(config: Any) -> str:
    """transformers' attention implementation for the dense model: `sdpa` where there is one.

    Raises:
        ValueError: the family is not supported.
    """
    return family_of(config).implementation


def longest(config: Any) -> int:
    """The number of tokens that the position table supports."""
    return int(config.max_position_embeddings) - family_of(config).reserved_positions
