"""Axis `readout`: for which tokens the last layer is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from paretoformer.spaces.axes.axis import Axis, Built, Stage, Unsuitable, register
from paretoformer.spaces.axes.domain import Domain, Fixed
from paretoformer.spaces.axes.evidence import Context, Facts, Json, Shape

if TYPE_CHECKING:
    from paretoformer.spaces.runtimes import Tools

ALL = "all"
FIRST = "first"
TOLERANCE = 1e-4
"""Largest difference of an output, relative to the largest output, that counts as rounding."""


@dataclass(frozen=True, kw_only=True)
class ReadoutFacts(Facts):
    """value: the readout of every candidate that the search changes."""

    value: str = ALL


class Readout(Axis[str]):
    """`all`, or `first`: the last layer computes only the token that the classifier reads.

    Lossless: keys and values are those of every token; queries, the output projection and the
    feed-forward block are computed for one. Legal for classifiers of texts or images that read the
    first token: the heads of bert, roberta, xlm-roberta, camembert, electra, distilbert and vit. A
    decoder's classifier reads the last real token, which differs between rows, and token
    classification reads all tokens. The last layer's hidden states, if requested, are those of the
    first token.
    """

    name = "readout"
    stage = Stage.RECOVERY
    order = 90  # after the repair, which reads every token
    facts = ReadoutFacts
    is_plain = True  # computing every token gives the same outputs
    technique = "first-token readout"
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

    def survey(self, setting: Any, context: Context) -> ReadoutFacts:
        """Verifies on examples, not only by family, that outputs do not change."""
        if setting == ALL:
            return ReadoutFacts()
        reason = _reason(context)
        return ReadoutFacts(left_out={FIRST: reason}) if reason else ReadoutFacts(value=FIRST)

    def domain(self, setting: Any, facts: ReadoutFacts, shape: Shape) -> Domain[str]:
        return Fixed(facts.value)

    def apply(self, built: Built, value: str, tools: Tools) -> Built:
        from paretoformer.spaces.models.pooled_head import read_first, unsuitable

        if value == FIRST:
            if reason := unsuitable(built.model):
                raise Unsuitable(f"readout {value!r} would change the answers: {reason}.")
            read_first(built.model)
        return built

    def is_fixed(self, setting: Any) -> bool:
        """The value depends only on the model, so it is never searched."""
        return True

    def phrase(self, value: str) -> str:
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


def _reason(context: Context) -> str:
    """Why the last layer must compute every token; empty when it need not."""
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
