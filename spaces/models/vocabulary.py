"""Vocabulary: an embedding table without the rows of tokens that the user's texts do not use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from paretoformer.spaces.models.tokens import Batch

SPECIAL = ("pad", "unk", "bos", "eos", "cls", "sep", "mask")
"""Tokens that stay whether texts use them or not, as configs name their numbers."""
FIRST = 5
"""Numbers that tokenizers give to special tokens that no config names, such as `[UNK]`."""
AT_ONCE = 4096
"""Tokens that are compared with all rows at once."""


@dataclass(frozen=True)
class Rows:
    """kept: (rows,) the tokens whose rows stay, ascending. row_of: (vocabulary,) int32, for each
    token its row among these."""

    kept: torch.Tensor
    row_of: torch.Tensor


class ShortEmbedding(nn.Module):
    """An embedding table in which tokens may share a row.

    row_of: buffer, (vocabulary,) int32. weight: (rows, width).
    """

    row_of: torch.Tensor

    def __init__(self, row_of: torch.Tensor, weight: torch.Tensor, *, trainable: bool) -> None:
        super().__init__()
        self.register_buffer("row_of", row_of)
        self.weight = nn.Parameter(weight, requires_grad=trainable)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, length) -> (batch, length, width)."""
        return F.embedding(F.embedding(tokens, self.row_of[:, None])[..., 0], self.weight)


def unsuitable(model: nn.Module) -> str:
    """Why no row of the embedding table may go; empty when some may."""
    found = cast(Any, model)
    try:
        table = found.get_input_embeddings()
    except NotImplementedError:
        table = None
    if type(table) is not nn.Embedding:
        return "the model reads no tokens, or changes their rows"
    if found.get_output_embeddings() is not None:
        return "its head predicts every token of the vocabulary"
    return ""


def used_tokens(batches: Iterable[Batch], config: Any) -> torch.Tensor:
    """(rows,) the tokens of these texts, and special ones, ascending."""
    known = [getattr(config, f"{name}_token_id", None) for name in SPECIAL]
    special = [*range(FIRST), *(token for token in known if isinstance(token, int))]
    found = {token for token in special if 0 <= token < config.vocab_size}
    for batch in batches:
        found.update(batch["input_ids"].unique().tolist())
    return torch.tensor(sorted(found))


def nearest_rows(weight: torch.Tensor, kept: torch.Tensor) -> Rows:
    """The row of each token: its own, or the nearest of those that stay, by cosine.

    weight: (vocabulary, width).
    """
    vectors = F.normalize(weight.detach().float().cpu(), dim=-1)
    near = [(part @ vectors[kept].T).argmax(dim=-1) for part in vectors.split(AT_ONCE)]
    row_of = torch.cat(near)
    row_of[kept] = torch.arange(len(kept))
    return Rows(kept, row_of.to(torch.int32))


def shorten(model: nn.Module, rows: Rows) -> None:
    """Replace the model's embedding table, in place."""
    table = cast(Any, model).get_input_embeddings().weight
    device = table.device
    weight = table.detach()[rows.kept.to(device)].clone()
    _set(model, rows.row_of.to(device), weight, trainable=table.requires_grad)


def shorten_empty(model: nn.Module, count: int) -> None:
    """As `shorten`, with values that are still to be loaded. count: of the rows that stay."""
    table = cast(Any, model).get_input_embeddings().weight
    row_of = torch.zeros(len(table), dtype=torch.int32, device=table.device)
    _set(model, row_of, table.new_zeros(count, table.shape[1]), trainable=table.requires_grad)


def _set(model: nn.Module, row_of: torch.Tensor, weight: torch.Tensor, *, trainable: bool) -> None:
    short = ShortEmbedding(row_of, weight, trainable=trainable)
    cast(Any, model).set_input_embeddings(short.train(model.training))
