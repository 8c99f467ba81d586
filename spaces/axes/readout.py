"""Axis `readout`: which tokens the last layer computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from paretoformer.spaces.axes.axis import (
    Axis,
    Built,
    Context,
    Domain,
    Evidence,
    Fixed,
    Json,
    Shape,
    Stage,
    Unsuitable,
    register,
)

if TYPE_CHECKING:
    from paretoformer.spaces.runtimes import Tools

ALL = "all"
FIRST = "first"
TOLERANCE = 1e-4
"""Largest difference of an answer, relative to the largest of them, that counts as rounding."""


class Readout(Axis[str]):
    """`all`, or `first`: the last layer answers for the first token alone, the one that is read.

    Lossless: its keys and values are those of every token; queries, the output projection and the
    feed-forward block are computed for one. Legal for a classifier of texts or images that reads
    its answer off the first token: the heads of bert, roberta, xlm-roberta, camembert, electra,
    distilbert and vit. A decoder's classifier reads the last token that is no padding, which is
    another one in each row, and token classification reads all of them. Hidden states of the last
    layer, where they are asked for, are those of the first token.
    """

    name = "readout"
    stage = Stage.RECOVERY
    order = 90  # on the mended layer, for a repair looks at every token
    setting = Literal["first", "all"]
    setting_default = FIRST
    setting_help = (
        "first: if only the first token is read, the last layer computes only that one; all."
    )

    def default(self, shape: Shape) -> str:
        return ALL

    def check(self, value: str, shape: Shape) -> str:
        if value not in (ALL, FIRST):
            raise ValueError(f"readout is {ALL} or {FIRST}, but got {value!r}.")
        return value

    def encode(self, value: str) -> Json:
        return value

    def decode(self, data: Json) -> str:
        return str(data)

    def survey(self, setting: Any, context: Context) -> dict[str, Json]:
        """Whether it changes no answer is not only looked up, but tried."""
        if setting == ALL:
            return {}
        reason = _reason(context)
        return {"left_out": {FIRST: reason}} if reason else {"value": FIRST}

    def domain(self, setting: Any, evidence: Evidence) -> Domain[str]:
        return Fixed(evidence.of(self.name).get("value", ALL))

    def apply(self, built: Built, value: str, tools: Tools) -> Built:
        from paretoformer.spaces.models.pooled_head import read_first, unsuitable

        if value == FIRST:
            if reason := unsuitable(built.model):
                raise Unsuitable(f"readout {value!r} would change the answers: {reason}.")
            read_first(built.model)
        return built

    def is_plain(self, value: str, shape: Shape) -> bool:
        """Computing every token gives the same answers."""
        return True

    def is_fixed(self, setting: Any) -> bool:
        """What a model may have, all its candidates have."""
        return True

    def cell(self, value: str) -> str:
        return value

    def words(self, value: str) -> str:
        return f"{'every token' if value == ALL else 'the first token alone'} in the last layer"

    def catalogue(self) -> list[dict[str, Json]]:
        from paretoformer.spaces.models.families import FAMILIES

        legal = [name for name, family in FAMILIES.items() if family.reads_first]
        return [
            {
                "name": FIRST,
                "summary": "the last layer computes only the token that is read; lossless",
                "here": "yes",
                "source": f"classifiers of {', '.join(legal)}",
            }
        ]

    def techniques(self, value: str) -> Sequence[str]:
        return [] if value == ALL else ["first-token readout"]


def _reason(context: Context) -> str:
    """Why the last layer has to compute every token; empty when it has not."""
    import torch

    from paretoformer.spaces.models.pooled_head import read_first, unsuitable
    from paretoformer.spaces.models.surgery import share

    if reason := unsuitable(context.model):
        return reason
    model = share(context.model).eval()
    read_first(model)
    with torch.inference_mode():
        for batch in context.batches(16):
            dense, found = context.model(**batch).logits, model(**batch).logits
            if (found - dense).abs().max() > TOLERANCE * dense.abs().max():
                return "tried, it changed the answers"
    return ""


register(Readout())
