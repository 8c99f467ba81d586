"""Axis `vocabulary`: the rows of the embedding table that stay."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from paretoformer.spaces.axes.axis import Axis, Built, Stage, needs_study, register
from paretoformer.spaces.axes.domain import Domain, Fixed
from paretoformer.spaces.axes.evidence import Circumstances, Context, Facts, Json, Shape

if TYPE_CHECKING:
    from torch import nn

    from paretoformer.spaces.runtimes import Tools

ALL = 0
WORTH = 0.9
"""Share of the rows above which all stay."""
UNSEEN = 0.01
"""Expected share of tokens without a row of their own, above which all stay by default: with 1.8%,
a classifier of 77 intents lost 0.01 of its accuracy, and half of its file."""
ROWS = "vocabulary.safetensors"


@dataclass(frozen=True, kw_only=True)
class VocabularyFacts(Facts):
    """tokens: those whose rows stay in every candidate that the search changes; none: all."""

    tokens: tuple[int, ...] = ()


class Vocabulary(Axis[int]):
    """0: every token has its own row; else the number of rows that stay, those of the tokens in the
    training texts. Another token takes the nearest of these rows, by cosine. The tokenizer and the
    latency stay; disk and memory fall, in multilingual models by most of their size.

    Idea: Abdaoui et al. 2020 (arXiv:2010.05609), who rewrite the tokenizer. Differs in: a table of
    numbers says which row a token takes, so that every tokenizer fits.
    """

    name = "vocabulary"
    stage = Stage.RECOVERY
    order = 95
    since = 3
    facts = VocabularyFacts
    setting = Literal["auto", "used", "off"]
    setting_default = "auto"
    setting_help = (
        "used: embeddings of tokens in no training text go; off; auto: used where a size is asked "
        "for."
    )

    def default(self, shape: Shape) -> int:
        return ALL

    def check(self, value: int, shape: Shape) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"vocabulary is a number of rows, or 0 for all, but got {value!r}.")
        return value

    def is_varied(self, setting: Any, study: Circumstances) -> bool:
        return bool(setting == "used" or (setting == "auto" and study.sized))

    def survey(self, setting: Any, context: Context) -> VocabularyFacts:
        from paretoformer.spaces.models.vocabulary import unsuitable, used_tokens

        if not self.is_varied(setting, context):
            return VocabularyFacts()
        if reason := unsuitable(context.model):
            return VocabularyFacts(left_out={"used": reason})
        size = int(context.model.config.vocab_size)  # type: ignore[union-attr, arg-type]
        tokens, unseen = used_tokens(context.texts, context.special)
        if len(tokens) > WORTH * size:
            reason = f"the training texts use {len(tokens):,} of {size:,} tokens"
        elif unseen > UNSEEN and setting == "auto":
            reason = (
                f"about {unseen:.1%} of the tokens of new texts would be in no training text, "
                f"where {UNSEEN:.0%} may be: add texts by recovery.texts, or set space.vocabulary"
            )
        if reason:
            return VocabularyFacts(left_out={"used": reason})
        note = (
            f"{len(tokens):,} of {size:,} embeddings stay: about {unseen:.2%} of the tokens of new "
            "texts will take the embedding that is nearest to their own."
        )
        return VocabularyFacts(tokens=tuple(tokens), note=note)

    def domain(self, setting: Any, facts: VocabularyFacts, shape: Shape) -> Domain[int]:
        return Fixed(len(facts.tokens) or ALL)

    def is_fixed(self, setting: Any) -> bool:
        """Whatever else is cut, what no text uses is not needed."""
        return True

    def is_free(self, value: int) -> bool:
        return value == ALL

    def shared(self, facts: Any, model: nn.Module) -> Any:
        from paretoformer.spaces.models.vocabulary import nearest_rows

        table: Any = model.get_input_embeddings()  # type: ignore[operator]
        return nearest_rows(table.weight, facts.tokens) if facts.tokens else None

    def apply(self, built: Built, value: int, tools: Tools) -> Built:
        from paretoformer.spaces.models.vocabulary import shorten

        if value == ALL:
            return built
        rows = tools.shared.get(self.name)
        if rows is None:
            raise needs_study("keeps the tokens of", "vocabulary=0")
        if len(rows.kept) != value:
            raise ValueError(f"the study keeps {len(rows.kept):,} rows, not {value:,}.")
        shorten(built.model, rows)
        return built

    def save(self, built: Built, value: int, folder: Path) -> None:
        """Which rows stay; their values are the uncompressed model's."""
        from safetensors.torch import save_file

        if value != ALL:
            table: Any = built.model.get_input_embeddings()  # type: ignore[operator]
            save_file(vars(table.rows), str(folder / ROWS))

    def restore(self, built: Built, value: int, folder: Path, tools: Tools) -> Built:
        from safetensors.torch import load_file

        from paretoformer.spaces.models.vocabulary import Rows, shorten

        if value != ALL:
            shorten(built.model, Rows(**load_file(str(folder / ROWS))))
        return built

    def empty(self, built: Built, value: int) -> Built:
        from paretoformer.spaces.models.vocabulary import shorten_empty

        if value != ALL:
            shorten_empty(built.model, value)
        return built

    def cell(self, value: int) -> str:
        return "all" if value == ALL else f"{value:,}"

    def phrase(self, value: int) -> str:
        return f"{'all' if value == ALL else f'{value:,}'} rows of the embedding table"

    def build_note(self, value: int, folder: Path) -> str:
        if value == ALL:
            return ""
        return "a token that no training text uses takes the embedding that is nearest to its own"

    def catalogue(self) -> list[dict[str, Json]]:
        return [
            {
                "name": "used",
                "summary": "rows of the embedding table that no training text uses go",
                "here": "yes",
                "source": "arXiv:2010.05609",
            }
        ]


register(Vocabulary())
