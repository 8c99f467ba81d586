"""Axis `runtime`: what runs the model, and in which precision."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from paretoformer.spaces.axes.axis import (
    Axis,
    Built,
    Context,
    Domain,
    Evidence,
    Fixed,
    Json,
    Params,
    Shape,
    Stage,
    Suggests,
    Unsuitable,
    Values,
    register,
)

if TYPE_CHECKING:
    from paretoformer.spaces.runtimes import Tools

DEFAULT = "torch"
"""The torch model in the dtype of the target."""
EVERY = ":*"
"""In a setting: every precision of a runtime that works on the target."""
FEW_MINUTES = 10.0
"""Of a study that tries each runtime in its fewest bits alone. An uncompressed model takes 10 s to
convert, score and time; those of eight runtimes and precisions would leave no time to search."""
SOME_MINUTES = 20.0
"""Of a study that leaves out what starts slowly: a minute for each candidate."""
_FORM = re.compile(r"[a-z][a-z0-9_]*(:[a-z0-9_]+)?")


class RuntimeAxis(Axis[str]):
    """A registered runtime and one of its precisions, as `onnxruntime:int8`; a file each."""

    name = "runtime"
    stage = Stage.RUNTIME
    order = 10
    setting = Literal["all"] | list[str]
    setting_default = "all"
    setting_help = (
        "Names such as onnxruntime:int8, openvino:* for all its precisions that run on the target, "
        "or all: every installed one."
    )

    def default(self, shape: Shape) -> str:
        return DEFAULT

    def check(self, value: str, shape: Shape) -> str:
        """Whether there is such a runtime is known only where it is used."""
        if not isinstance(value, str) or not _FORM.fullmatch(value):
            raise ValueError(f"a runtime is written as onnxruntime:int8, but got {value!r}.")
        return value

    def canonical(self, value: str, others: Values) -> str:
        """`onnxruntime:float32` is `onnxruntime`."""
        return value.removesuffix(":float32")

    def encode(self, value: str) -> Json:
        return value

    def decode(self, data: Json) -> str:
        return str(data)

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

    def survey(self, setting: Any, context: Context) -> dict[str, Json]:
        from paretoformer.spaces.runtimes import in_every_precision, names, parse

        wanted: list[str] = []
        for each in names() if setting == "all" else map(str, setting):
            runtime_name = each.removesuffix(EVERY)
            wanted += in_every_precision(runtime_name) if each.endswith(EVERY) else [each]
        choices, left_out = [DEFAULT], {}
        named = {self.canonical(each, {}) for each in ([] if setting == "all" else setting)}
        for value in wanted:
            if value not in named and not self.is_meant(value, generates=context.generates):
                continue
            runtime, precision = parse(value)
            reason = runtime.unavailable(precision, context.device) or context.unmeasurable(value)
            if value in choices or value == f"{DEFAULT}:{context.dtype}":
                continue
            if reason:
                left_out[value] = reason
            else:
                choices.append(self.canonical(value, {}))
        unnamed = [each for each in choices if each not in named]
        late = self.without_time(unnamed, context.minutes)
        choices = [each for each in choices if each not in late]
        return {"choices": choices, "left_out": left_out | late}

    def is_meant(self, name: str, *, generates: bool) -> bool:
        from paretoformer.spaces.runtimes import parse

        runtime, precision = parse(name)
        return generates or precision not in runtime.for_generation

    def without_time(self, names: Sequence[str], minutes: float) -> dict[str, str]:
        from paretoformer.spaces.runtimes import parse

        others = [each for each in names if each != DEFAULT]
        fewest = {parse(each)[0].name: each for each in others}  # the last of a runtime
        reasons = {}
        for each in others:
            runtime, _ = parse(each)
            if runtime.starts_slowly and minutes < SOME_MINUTES:
                reasons[each] = (
                    f"its first answer takes too long for a study of {minutes:g} minutes"
                )
            elif minutes < FEW_MINUTES and each != fewest[runtime.name]:
                reasons[each] = (
                    f"a study of {minutes:g} minutes tries {fewest[runtime.name]} instead"
                )
        return reasons

    def domain(self, setting: Any, evidence: Evidence) -> Domain[str]:
        choices = tuple(evidence.of(self.name).get("choices", [DEFAULT]))
        return RuntimeChoice(choices) if len(choices) > 1 else Fixed(DEFAULT)

    def catalogue(self) -> list[dict[str, Json]]:
        from paretoformer.spaces.runtimes import names, parse

        rows = []
        for value in names():
            runtime, precision = parse(value)
            reason = runtime.unavailable(precision, "cpu")
            rows.append(
                {
                    "name": value,
                    "summary": runtime.summary,
                    "here": reason or "yes",
                    "source": runtime.source,
                }
            )
        return rows

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

    def is_plain(self, value: str, shape: Shape) -> bool:
        """The weights are those of the torch model, whatever runs it."""
        return True

    def rebuilt(self, value: str) -> bool:
        from paretoformer.spaces.runtimes import parse

        return parse(value)[0].rebuilt

    def cell(self, value: str) -> str:
        return value

    def words(self, value: str) -> str:
        return f"in {value}"

    def techniques(self, value: str) -> Sequence[str]:
        return [] if value == DEFAULT else [value]


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
