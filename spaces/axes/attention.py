"""Axis `attention`: the attention mechanism of each layer."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from paretoformer.spaces.axes.axis import Axis, Built, Cell, Stage, Values, register
from paretoformer.spaces.axes.domain import Domain, Fixed, Params, Suggests
from paretoformer.spaces.axes.evidence import Circumstances, Context, Facts, Json, Shape
from paretoformer.spaces.common.attention_choice import FULL, AttentionChoice

if TYPE_CHECKING:
    from paretoformer.spaces.axes.block_options import BlockKind
    from paretoformer.spaces.runtimes import Tools

Choices = tuple[AttentionChoice, ...]


OTHERS = "other than full"
OF_PROMPTS = (
    "in a language model they run in torch alone, and all but window and linear change the prompt "
    "alone; name them to try them"
)
"""Why `all` means `full` in a language model."""


@dataclass(frozen=True, kw_only=True)
class AttentionFacts(Facts):
    """choices: the mechanisms that a layer may have, `full` first."""

    choices: Choices = (FULL,)

    def to_json(self) -> dict[str, Json]:
        return {**super().to_json(), "choices": [choice.to_dict() for choice in self.choices]}

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> AttentionFacts:
        choices = data.get("choices", [FULL.to_dict()])
        return cls(
            left_out=Facts.from_json(data).left_out,
            choices=tuple(map(AttentionChoice.from_dict, choices)),
        )


class LayerAttention(Axis[Choices]):
    """The attention mechanism of each layer, with its parameters; see `attention/`."""

    name = "attention"
    stage = Stage.STRUCTURE
    order = 20
    since = 1
    facts = AttentionFacts
    setting = Literal["all"] | list[str]
    setting_default = "all"
    setting_help = "Names of mechanisms, or all that are legal for the model."

    def default(self, shape: Shape) -> Choices:
        return (FULL,) * shape.layers

    def check(self, value: Choices, shape: Shape) -> Choices:
        value = tuple(value)
        if len(value) != shape.layers:
            raise ValueError(
                f"a candidate needs one attention for each of the {shape.layers} layers, "
                f"but got {len(value)}."
            )
        return value

    def canonical(self, value: Choices, others: Values) -> Choices:
        """A layer without heads has no attention, so its mechanism is always `full`."""
        counts, stays = others["heads"].counts, others["layers"]
        return tuple(
            choice if count and stay else FULL
            for choice, count, stay in zip(value, counts, stays, strict=True)
        )

    def encode(self, value: Choices) -> Json:
        return [choice.to_dict() for choice in value]

    def decode(self, data: Json) -> Choices:
        if not isinstance(data, list):
            raise TypeError(f"attention is a list, one for each layer, but got {data!r}.")
        return tuple(map(AttentionChoice.from_dict, data))

    def check_setting(
        self, setting: Any, *, causal: bool | None = None, device: str | None = None
    ) -> None:
        from paretoformer.spaces.attention.menu import menu

        if not setting:
            raise ValueError(
                'space.attention is an empty list: name mechanisms, write "all", or leave it as it '
                'is with ["full"].'
            )
        menu(_names(setting), length=512, causal=bool(causal))

    def is_fixed(self, setting: Any) -> bool:
        return bool(setting != "all" and set(setting) <= {FULL.name})

    def choices(self, setting: Any, study: Circumstances) -> Sequence[str]:
        from paretoformer.spaces.attention import names

        if setting != "all":
            return list(setting)
        return [FULL.name] if study.generates else names()

    def survey(self, setting: Any, context: Context) -> AttentionFacts:
        from paretoformer.spaces.attention.menu import left_out, menu
        from paretoformer.spaces.models.families import family_of

        family = family_of(cast(Any, context.model).config)
        causal = family.causal
        names, length = _names(setting), context.sequence_length
        others: dict[str, str] = {}
        if family.only_full:
            names, others = [FULL.name], {OTHERS: family.only_full}
        elif setting == "all" and context.generates:
            names, others = [FULL.name], {OTHERS: OF_PROMPTS}
        return AttentionFacts(
            choices=tuple(menu(names, length, causal=causal)),
            left_out=left_out(names, length, causal=causal) | others,
        )

    def changes_prompts(self, setting: Any) -> bool:
        """Tokens attend to a cache exactly; `all` means `full` in a language model."""
        return setting != "all" and not self.is_fixed(setting)

    def domain(self, setting: Any, facts: AttentionFacts, shape: Shape) -> Domain[Choices]:
        if len(facts.choices) == 1:
            return Fixed(facts.choices * shape.layers)
        return ChoicePerLayer(facts.choices, shape.layers)

    def blocks(
        self, facts: AttentionFacts, shape: Shape, before: Mapping[str, BlockKind]
    ) -> Mapping[str, BlockKind]:
        """Mechanisms, combined with the numbers of heads of `before`."""
        from paretoformer.spaces.axes.attention_options import ATTENTION, AttentionBlock

        if len(facts.choices) == 1:
            return before
        uncut = AttentionBlock((FULL,), np.zeros((shape.layers, shape.heads)), prunes=False)
        block = cast(AttentionBlock, before.get(ATTENTION, uncut))
        return {**before, ATTENTION: replace(block, choices=facts.choices)}

    def catalogue(self) -> list[dict[str, Json]]:
        from paretoformer.spaces.attention import card, names

        return [card(name) for name in names()]

    def apply(self, built: Built, value: Choices, tools: Tools) -> Built:
        from paretoformer.spaces.models.surgery import swap_attention

        swap_attention(built.model, value)
        return built

    def of_layers(self, value: Choices, kept: Sequence[int]) -> Choices:
        return tuple(value[layer] for layer in kept)

    def cell(self, value: Choices) -> str:
        """`full`, or the number of layers per mechanism: `full x2, window x4`."""
        counts = Counter(choice.name for choice in value)
        if len(counts) == 1:
            return next(iter(counts))
        return ", ".join(f"{name} x{count}" for name, count in sorted(counts.items()))

    def phrase(self, value: Choices) -> str:
        """`strided attention in 1 of 6 layers`, for each mechanism but `full`."""
        used = Counter(choice.name for choice in value if choice.name != FULL.name)
        parts = (f"{name} attention in {n} of {len(value)} layers" for name, n in used.items())
        return ", ".join(parts) or f"{FULL.name} attention"

    def layer_cells(self, value: Choices) -> Sequence[Cell]:
        return [Cell(label=str(choice), colour=choice.name) for choice in value]

    def techniques(self, value: Choices) -> Sequence[str]:
        return sorted({choice.name for choice in value} - {FULL.name})


def _names(setting: Any) -> list[str] | None:
    return None if setting == "all" else list(setting)


@dataclass(frozen=True)
class ChoicePerLayer(Domain[Choices]):
    """One categorical parameter per layer: a mechanism with its setting.

    No parameter is conditional, so the crossover of a genetic search stays valid.

    choices: `full` first; the settings of one mechanism are adjacent, its default first.
    """

    choices: Choices
    layers: int

    def suggest(self, trial: Suggests) -> Choices:
        by_label = {str(choice): choice for choice in self.choices}
        labels = list(by_label)
        return tuple(
            by_label[trial.suggest_categorical(f"attention_{layer}", labels)]
            for layer in range(self.layers)
        )

    def params(self, value: Choices) -> Params:
        return {f"attention_{layer}": str(choice) for layer, choice in enumerate(value)}

    def starts(self) -> Sequence[Choices]:
        """Each mechanism, in its first setting, in every layer."""
        groups = itertools.groupby(self.choices, key=lambda choice: choice.name)
        return [(next(group),) * self.layers for _, group in groups]

    def kinds(self) -> Sequence[Choices]:
        return self.starts()[1:]

    @property
    def size(self) -> int:
        return int(len(self.choices) ** self.layers)

    def values(self) -> Iterator[Choices]:
        return itertools.product(self.choices, repeat=self.layers)


register(LayerAttention())
