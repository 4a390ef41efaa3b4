"""What a user asserts of a model's robustness, `attacked>=0.4`, and what an estimate says of it.

An attack gives an upper bound and a certificate a lower one, so the same interval means different things: attacks can
refute a claim and never prove it, certificates can prove it and never refute it. `Assertion.sentence` words it so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from .errors import ParameterError
from .results import Estimate, percent

MEASURES = ("attacked", "certified")
_FORM = re.compile(r"\s*([A-Za-z_]+)\s*>=?\s*(\d+\.?\d*|\.\d+)\s*(%?)\s*")


class Verdict(Enum):
    """What an estimate says of an assertion; the value is the exit status of a command that was asked for it."""

    HOLDS = 0
    FAILS = 1
    UNDECIDED = 2
    INVALID = 3


@dataclass(frozen=True)
class Assertion:
    """That robust accuracy, as attacks or certificates measure it, is at least a share of the examples.

    text:      as it was written.
    measure:   "attacked" (accuracy under the strongest attack) or "certified" (accuracy proved).
    at_least:  the share, from 0 to 1.
    """

    text: str
    measure: str
    at_least: float

    @classmethod
    def parse(cls, text: str) -> Assertion:
        """Read "attacked>=0.4" or "certified > 30 %"; > and >= both mean "at least". Else a `ParameterError`."""
        match = _FORM.fullmatch(text)
        if not match:
            raise ParameterError(
                f"An assertion reads 'attacked>=0.4' or 'certified>=30%': a measure, >=, a share. Got {text!r} instead."
            )
        measure, number, sign = match.group(1).lower(), match.group(2), match.group(3)
        if measure not in MEASURES:
            raise ParameterError(
                f"An assertion is about 'attacked' or 'certified' accuracy, as in 'attacked>=0.4'. Got {measure!r} instead."
            )
        at_least = float(number) / 100 if sign else float(number)
        if at_least > 1:
            hint = f"; {number} % is written {number}%" if not sign and at_least <= 100 else ""
            raise ParameterError(
                f"The share of an assertion must be from 0 to 1, or 0% to 100%{hint}. Got {text!r} instead."
            )
        return cls(text.strip(), measure, at_least)

    def verdict(self, estimate: Estimate, trust: str | None = None) -> Verdict:
        """HOLDS or FAILS where the whole interval is on one side, else UNDECIDED; INVALID where `trust` is "invalid".

        It may be asked again and again as examples come in only of a confidence sequence: a Clopper-Pearson interval
        that is asked at every step will sooner or later say anything.
        """
        if trust == "invalid":
            return Verdict.INVALID
        if estimate.low >= self.at_least:
            return Verdict.HOLDS
        return Verdict.FAILS if estimate.high < self.at_least else Verdict.UNDECIDED

    @staticmethod
    def status(verdict: Verdict) -> int:
        """The exit status: 0 holds, 1 fails, 2 undecided, 3 invalid."""
        return verdict.value

    def sentence(self, verdict: Verdict, estimate: Estimate) -> str:
        """The verdict in words that claim no more than was found."""
        bound = f"{100 * self.at_least:.10g} %"
        seen = f"({percent(estimate, interval=True)} of {estimate.n:,} examples, {estimate.method})"
        return f"{self.text}: " + _WORDS[self.measure, verdict].format(bound=bound, seen=seen)


_NO_ANSWER = (
    "not answered. The evaluation is invalid, so its number {seen} says nothing about {bound}; "
    "its findings say what to put right."
)
_WORDS = {
    ("attacked", Verdict.HOLDS): "holds so far. The attacks tried leave at least {bound} right {seen}; "
    "a stronger attack may leave less: attacks can refute robustness, never prove it.",
    ("attacked", Verdict.FAILS): "refuted. The attacks tried leave less than {bound} right {seen}; "
    "a stronger attack can only leave less still.",
    ("attacked", Verdict.UNDECIDED): "undecided. The share right under the attacks tried {seen} may be more or less "
    "than {bound}; more examples would tell.",
    ("attacked", Verdict.INVALID): _NO_ANSWER,
    ("certified", Verdict.HOLDS): "proved. At least {bound} are right and certified {seen}; "
    "no attack within the threat can leave less.",
    ("certified", Verdict.FAILS): "not proved. Less than {bound} are right and certified {seen}; that refutes nothing: "
    "the certificate may be loose, and the model more robust than it can prove.",
    ("certified", Verdict.UNDECIDED): "undecided. The share right and certified {seen} may be more or less "
    "than {bound}; more examples would tell.",
    ("certified", Verdict.INVALID): _NO_ANSWER,
}
