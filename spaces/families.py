"""Model families: where each keeps the projections of its attention blocks.

Supporting another family is one more entry in `FAMILIES`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from paretoformer.spaces.suggestions import did_you_mean


@dataclass(frozen=True)
class Family:
    """Paths into a model of one `config.model_type`; those of a block are relative to its layer."""

    layers: str
    """The list of layers, relative to the base model (`BertModel`, not its classifier)."""
    attention: str
    """The module that calls the attention interface."""
    query: str
    key: str
    value: str
    output: str
    """The projection behind the concatenated heads."""
    heads: tuple[str, ...] = ()
    """Attributes of the attention module that hold its number of heads."""
    width: tuple[str, ...] = ()
    """Attributes of the attention module that hold heads * head_dim."""
    reserved_positions: int = 0
    """Rows of the position table in front of the first token's."""


_BERT = Family(
    layers="encoder.layer",
    attention="attention.self",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    output="attention.output.dense",
    heads=("num_attention_heads",),
    width=("all_head_size",),
)

_ROBERTA = replace(_BERT, reserved_positions=2)

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "electra": _BERT,
    "distilbert": Family(
        layers="transformer.layer",
        attention="attention",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        output="attention.out_lin",
        heads=("n_heads",),
        width=("dim",),
    ),
}


def family_of(config: Any) -> Family:
    """The family of a transformers config.

    Raises:
        ValueError: the family is not supported, or the model is a decoder of an encoder family.
    """
    model_type = str(config.model_type)
    if model_type not in FAMILIES:
        raise ValueError(
            f"Unsupported model family {model_type!r}.{did_you_mean(model_type, FAMILIES)} "
            f"Supported: {', '.join(FAMILIES)}."
        )
    if getattr(config, "is_decoder", False):
        raise ValueError(f"{model_type!r} as a decoder (`is_decoder`) is not supported.")
    return FAMILIES[model_type]


@dataclass(frozen=True)
class Block:
    """The attention block of one layer of one model."""

    layer: nn.Module
    family: Family

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


def blocks_of(model: nn.Module) -> list[Block]:
    """The attention blocks of a transformers model, first layer first.

    Raises:
        ValueError: the family is not supported.
    """
    family = family_of(model.config)
    base = getattr(model, "base_model", model)
    layers = base.get_submodule(family.layers)
    return [Block(layer, family) for layer in layers.children()]


def shape_of(config: Any) -> tuple[int, int]:
    """(layers, heads) of the dense model that a config describes."""
    return int(config.num_hidden_layers), int(config.num_attention_heads)


def longest(config: Any) -> int:
    """The most tokens that the model's position table has room for."""
    return int(config.max_position_embeddings) - family_of(config).reserved_positions
