"""Axis `runtime`: the library that runs the model, and its precision."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from paretoformer.spaces.axes.axis import Axis, Built, Stage, Unsuitable, Values, register
from paretoformer.spaces.axes.domain import Domain, Fixed, Params, Suggests
from paretoformer.spaces.axes.evidence import Circumstances, Facts, Json, Shape

if TYPE_CHECKING:
    from paretoformer.spaces.runtimes import Tools

DEFAULT = "torch"
"""The torch model in the dtype of the target."""
EVERY = ":*"
"""In a setting: every precision of a runtime that works on the target."""
FEW_MINUTES = 10.0
"""A study this short tries each runtime with files of its own in one precision, and torch's others
only without such runtimes. An uncompressed model takes 10 s to convert, score and time; eight
runtimes and precisions would leave no time to search."""
SOME_MINUTES, ON_A_CPU = 20.0, 45.0
"""A study this short leaves out runtimes that start slowly: a minute per candidate of six layers.
On a CPU, what they compile is 1.1 times as fast as eager torch, but int8 elsewhere three times."""
_FORM = re.compile(r"[a-z][a-z0-9_]*(:[a-z0-9_]+)?")


@dataclass(frozen=True, kw_only=True)
class RuntimeFacts(Facts):
    """choices: the runtimes that the study tries, the default first."""

    choices: tuple[str, ...] = (DEFAULT,)


class RuntimeAxis(Axis[str]):
    """A registered runtime and one of its precisions, such as `onnxruntime:int8`."""

    name = "runtime"
    stage = Stage.RUNTIME
    order = 10
    facts = RuntimeFacts
    is_plain = True  # every runtime uses the torch model's weights
    setting = Literal["all"] | list[str]
    setting_default = "all"
    setting_help = (
        "Names such as onnxruntime:int8, openvino:* for all its precisions that run on the target, "
        "or all: every installed one."
    )

    def default(self, shape: Shape) -> str:
        return DEFAULT

    def check(self, value: str, shape: Shape) -> str:
        """Whether the runtime exists is checked only where it is used."""
        if not isinstance(value, str) or not _FORM.fullmatch(value):
            raise ValueError(f"a runtime is written as onnxruntime:int8, but got {value!r}.")
        return value

    def canonical(self, value: str, others: Values) -> str:
        """`onnxruntime:float32` is `onnxruntime`."""
        return value.removesuffix(":float32")

    def check_setting(
        self, setting: Any, *, causal: bool | None = None, device: str | None = None
    ) -> None:
        from paretoformer.spaces.runtimes import in_every_precision, parse

        if not setting:
            raise ValueError(
                'space.runtime is an empty list: name runtimes, write "all", or keep to torch with '
                '["torch"].'
            )
        for value in () if setting == "all" else setting:
            if value.endswith(EVERY):
                in_every_precision(value.removesuffix(EVERY))
                continue
            runtime, precision = parse(value)
            reason = "" if device is None else runtime.unavailable(precision, device)
            if reason:
                raise ValueError(f"runtime {value!r} cannot be used here: {reason}.")

    def is_fixed(self, setting: Any) -> bool:
        return setting != "all" and {self.canonical(each, {}) for each in setting} <= {DEFAULT}

    def choices(self, setting: Any, study: Circumstances) -> Sequence[str]:
        return self.survey(setting, study).choices

    def survey(self, setting: Any, context: Circumstances) -> RuntimeFacts:
        from paretoformer.spaces.runtimes import names, parse

        wanted = names() if setting == "all" else _expanded(setting)
        named = {self.canonical(value, {}) for value in ([] if setting == "all" else setting)}
        choices, left_out = [DEFAULT], {}
        for value in wanted:
            runtime, precision = parse(value)
            if value not in named and not context.generates and precision in runtime.for_generation:
                continue
            if value in choices or value == f"{DEFAULT}:{context.dtype}":
                continue
            reason = runtime.unavailable(precision, context.device) or context.unmeasurable(value)
            if not reason and value not in named:
                reason = runtime.slower(precision, context.device)
            if reason:
                left_out[value] = reason
            else:
                choices.append(self.canonical(value, {}))
        unnamed = [value for value in choices if value not in named]
        late = _late(unnamed, context)
        return RuntimeFacts(
            choices=tuple(value for value in choices if value not in late),
            left_out=left_out | late,
        )

    def domain(self, setting: Any, facts: RuntimeFacts, shape: Shape) -> Domain[str]:
        return RuntimeChoice(facts.choices) if len(facts.choices) > 1 else Fixed(DEFAULT)

    def catalogue(self) -> list[dict[str, Json]]:
        from paretoformer.spaces.runtimes import names, parse

        return [
            {
                "name": value,
                "summary": runtime.summary,
                "here": runtime.unavailable(precision, "cpu") or "yes",
                "source": runtime.source,
            }
            for value in names()
            for runtime, precision in [parse(value)]
        ]

    def apply(self, built: Built, value: str, tools: Tools) -> Built:
        from paretoformer.spaces.runtimes import parse

        runtime, precision = parse(value)
        reason = runtime.unavailable(precision, tools.device)
        reason = reason or runtime.unsuitable(precision, built.model)
        if reason:
            raise Unsuitable(f"{value} cannot run this candidate: {reason}.")
        return replace(built, runnable=runtime.convert(built.model, precision, tools))

    def restore(self, built: Built, value: str, folder: Path, tools: Tools) -> Built:
        from paretoformer.spaces.runtimes import parse

        runtime, precision = parse(value)
        if runtime.rebuilt:
            return self.apply(built, value, tools)
        return replace(built, runnable=runtime.load(folder, precision, tools))

    def save(self, built: Built, value: str, folder: Path) -> None:
        if built.runnable is not None:
            built.runnable.save(folder)

    def is_free(self, value: str) -> bool:
        from paretoformer.spaces.runtimes import parse

        return parse(value)[0].rebuilt

    def phrase(self, value: str) -> str:
        return f"in {value}"

    def techniques(self, value: str) -> Sequence[str]:
        return [value]


def _expanded(setting: Sequence[str]) -> list[str]:
    from paretoformer.spaces.runtimes import in_every_precision

    wanted: list[str] = []
    for value in setting:
        every = value.endswith(EVERY)
        wanted += in_every_precision(value.removesuffix(EVERY)) if every else [value]
    return wanted


def _late(values: Sequence[str], context: Circumstances) -> dict[str, str]:
    """Values, not named by the user, that a study this short leaves out -> why."""
    from paretoformer.spaces.runtimes import parse

    others = [value for value in values if value != DEFAULT]
    precisions: dict[str, list[str]] = {}
    for runtime, precision in map(parse, others):
        precisions.setdefault(runtime.name, []).append(precision)
    exported = {
        runtime.name: runtime.value(runtime.quick(precisions[runtime.name]))
        for runtime, _ in map(parse, others)
        if not runtime.rebuilt
    }
    some = ON_A_CPU if context.device == "cpu" else SOME_MINUTES
    minutes, study = context.minutes / context.slowness, f"a study of {context.minutes:g} minutes"
    study += " with this much to compute" if context.slowness > 1 else ""
    reasons = {}
    for value in others:
        runtime, _ = parse(value)
        if runtime.starts_slowly and minutes < some:
            reasons[value] = f"its first answer takes too long for {study}"
        elif minutes < FEW_MINUTES and exported and value not in exported.values():
            instead = exported.get(runtime.name, ", ".join(exported.values()))
            reasons[value] = f"{study} tries {instead} instead"
    return reasons


@dataclass(frozen=True)
class RuntimeChoice(Domain[str]):
    """One category; the default first."""

    choices: tuple[str, ...]

    def suggest(self, trial: Suggests) -> str:
        return trial.suggest_categorical("runtime", self.choices)

    def params(self, value: str) -> Params:
        return {"runtime": value}

    def starts(self) -> Sequence[str]:
        return self.choices

    @property
    def size(self) -> int:
        return len(self.choices)

    def values(self) -> Iterator[str]:
        return iter(self.choices)


register(RuntimeAxis())
