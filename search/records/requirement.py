"""Requirements `METRIC OP VALUE`, where VALUE is a number or relative to the uncompressed model."""

from __future__ import annotations

import re
from dataclasses import dataclass

from paretoformer.evaluators.common.measurement import Measurements
from paretoformer.search.records.errors import UserError

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_REQUIREMENT = re.compile(
    rf"""
    \s* (?P<metric>[A-Za-z_]\w*) \s* (?P<operator>>=|<=|>|<) \s*
    (?: (?P<number>{_NUMBER})
      | (?P<factor>{_NUMBER}) \s*\*\s* dense
      | dense (?: \s*\*\s* (?P<times>{_NUMBER}) | \s* (?P<shift>[-+] \s* (?:\d+\.?\d*|\.\d+)) )?
    ) \s*
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Requirement:
    """`metric operator factor * dense + constant`."""

    metric: str
    operator: str
    factor: float
    constant: float
    text: str

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """`accuracy>=0.84`, `accuracy>=dense-0.01`, `latency_ms<=0.5*dense`.

        Raises:
            UserError: the text is none of these.
        """
        match = _REQUIREMENT.fullmatch(text)
        if match is None:
            raise UserError(
                f"cannot read the requirement {text!r}: write METRIC OP VALUE, as in "
                "accuracy>=0.84, accuracy>=dense-0.01 or latency_ms<=0.5*dense."
            )
        if match["number"] is not None:
            factor, constant = 0.0, float(match["number"])
        else:
            factor = float(match["factor"] or match["times"] or 1)
            constant = float((match["shift"] or "0").replace(" ", ""))
        return cls(match["metric"], match["operator"], factor, constant, text)

    @property
    def phrase(self) -> str:
        """`accuracy >= dense - 0.01`."""
        return f"{self.metric} {self.operator} {self._bound_phrase}"

    @property
    def _bound_phrase(self) -> str:
        if not self.factor:
            return f"{self.constant:g}"
        scaled = "dense" if self.factor == 1 else f"{self.factor:g} * dense"
        sign = "-" if self.constant < 0 else "+"
        return f"{scaled} {sign} {abs(self.constant):g}" if self.constant else scaled

    def bound(self, dense: float) -> float:
        return self.factor * dense + self.constant

    def holds(self, found: Measurements, dense: Measurements) -> bool:
        """Whether it is satisfied; false if the metric was not measured."""
        if self.metric not in found:
            return False
        return not self.shortfall(found[self.metric].value, dense[self.metric].value)

    def may_hold(self, found: Measurements, dense: Measurements) -> bool:
        """Whether it is satisfied somewhere in the metric's interval."""
        if self.metric not in found:
            return False
        measured = found[self.metric]
        best = measured.high if self.operator.startswith(">") else measured.low
        return not self.shortfall(best, dense[self.metric].value)

    def shortfall(self, value: float, dense: float) -> float:
        """0 if `value` satisfies; else the distance, as a share of the bound."""
        bound = self.bound(dense)
        # Tolerance for rounding errors, as in 0.846 - 0.01.
        slack = 1e-9 * max(1.0, abs(bound))
        gap = bound - value if self.operator.startswith(">") else value - bound
        strict = self.operator in "<>"
        if gap < -slack or (not strict and gap <= slack):
            return 0.0
        return max(gap, slack) / max(abs(bound), 1e-12)
