"""Axis `attention`: the attention mechanism of each layer."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from paretoformer.spaces.axes.axis import (
    Axis,
    Built,
    Cell,
    Context,
    Domain,
    Evidence,
    Fixed,
    Json,
    Params,
    Shape,
    Stage,
    Suggests,
    Values,
    register,
)
from paretoformer.spaces.common.attention_choice import FULL, AttentionChoice

if TYPE_CHECKING:
    from paretoformer.spaces.axes.block_options import Block
    from paretoformer.spaces.runtimes import Tools

Choices = tuple[AttentionChoice, ...]
"""One for each layer."""


OF_PROMPTS = (
    "in a language model they run in torch alone, and all but window and linear change the prompt "
    "alone; name them to try them"
)
"""Why `all` means `full` there."""


class LayerAttention(Axis[Choices]):
    """One registered mechanism with its parameters for each layer; a file each in `attention/`."""

    name = "attention"
    stage = Stage.STRUCTURE
    order = 20
    since = 1
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
        """A layer without heads attends to nothing, so its mechanism is always `full`."""
        stays = others.get("layers") or (True,) * len(value)
        counts = others["heads"].counts
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

    def survey(self, setting: Any, context: Context) -> dict[str, Json]:
        from paretoformer.spaces.attention.menu import left_out, menu
        from paretoformer.spaces.models.families import family_of

        causal = family_of(cast(Any, context.model).config).causal
        names, length = _names(setting), context.sequence_length
        apart: dict[str, str] = {}
        if setting == "all" and context.generates:
            names, apart = [FULL.name], {"other than full": OF_PROMPTS}
        choices = menu(names, length, causal=causal)
        return {
            "choices": [choice.to_dict() for choice in choices],
            "left_out": left_out(names, length, causal=causal) | apart,
        }

    def is_meant(self, name: str, *, generates: bool) -> bool:
        return not generates or name == FULL.name

    def changes_prompts(self, setting: Any) -> bool:
        """Tokens that meet a cache attend to it exactly; `all` means `full` in a language model."""
        return setting != "all" and not self.is_fixed(setting)

    def domain(self, setting: Any, evidence: Evidence) -> Domain[Choices]:
        facts = evidence.of(self.name)
        choices = self.decode(facts.get("choices", [FULL.to_dict()]))
        if len(choices) == 1:
            return Fixed(choices * evidence.shape.layers)
        return ChoicePerLayer(choices, evidence.shape.layers)

    def block(self, evidence: Evidence) -> Block | None:
        """Mechanisms and numbers of heads; they share the attention block."""
        from paretoformer.spaces.axes.attention_options import AttentionBlock
        from paretoformer.spaces.axes.block_options import normalised

        shape, heads = evidence.shape, evidence.of("heads")
        choices = self.decode(evidence.of(self.name).get("choices", [FULL.to_dict()]))
        if len(choices) == 1 and "removed" not in heads:
            return None
        removed = heads.get("removed", np.zeros((shape.layers, shape.heads)))
        return AttentionBlock(choices, normalised(np.asarray(removed)), "removed" in heads)

    def catalogue(self) -> list[dict[str, Json]]:
        from paretoformer.spaces.attention import card, names

        return [card(name) for name in names()]

    def apply(self, built: Built, value: Choices, tools: Tools) -> Built:
        from paretoformer.spaces.models.surgery import swap_attention

        swap_attention(built.model, value)
        return built

    def cell(self, value: Choices) -> str:
        """`full`, or how many layers use which mechanism: `full x2, window x4`."""
        counts: dict[str, int] = {}
        for choice in value:
            counts[choice.name] = counts.get(choice.name, 0) + 1
        if len(counts) == 1:
            return next(iter(counts))
        return ", ".join(f"{name} x{count}" for name, count in sorted(counts.items()))

    def words(self, value: Choices) -> str:
        """`strided attention in 1 of 6 layers`, of each that is not `full`."""
        used = Counter(choice.name for choice in value if choice.name != FULL.name)
        parts = (f"{name} attention in {n} of {len(value)} layers" for name, n in used.items())
        return ", ".join(parts) or f"{FULL.name} attention"

    def layer_cells(self, value: Choices) -> Sequence[Cell]:
        return [Cell(label=str(choice), colour=choice.name) for choice in value]

    def techniques(self, value: Choices) -> Sequence[str]:
        return sorted({choice.name for choice in value} - {FULL.name})


def _names(setting: Any) -> list[str] | None:
    """The named mechanisms; None for all."""
    return None if setting == "all" else list(setting)


@dataclass(frozen=True)
class ChoicePerLayer(Domain[Choices]):
    """A mechanism with its setting is one category of one parameter for each layer.

    Nothing is conditional, which keeps the crossover of a genetic search whole.

    choices: `full` first, the settings of one mechanism side by side, its default first.
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
        """Each mechanism, at its first setting, in every layer."""
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
