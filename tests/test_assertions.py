"""Assertions: what is read, what an interval says of it, and words that claim no more."""

import pytest

from unfooled.assertions import Assertion, Verdict
from unfooled.errors import ParameterError
from unfooled.results import Estimate


def between(low, high):
    return Estimate(value=(low + high) / 2, low=low, high=high, n=1234, method="confidence sequence 95 %")


@pytest.mark.parametrize(
    ("text", "measure", "at_least"),
    [
        ("attacked>=0.4", "attacked", 0.4),
        ("certified>=0.3", "certified", 0.3),
        ("  certified  >  .3 ", "certified", 0.3),
        ("attacked>=40%", "attacked", 0.4),
        ("attacked >= 40 %", "attacked", 0.4),
        ("attacked>=62.5%", "attacked", 0.625),
        ("Attacked>=1", "attacked", 1.0),
        ("attacked>=0", "attacked", 0.0),
    ],
)
def test_what_is_read(text, measure, at_least):
    found = Assertion.parse(text)
    assert (found.measure, found.at_least, found.text) == (measure, at_least, text.strip())


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("attacked<=0.4", "reads 'attacked>=0.4'"),
        ("attacked==0.4", "reads 'attacked>=0.4'"),
        ("attacked>=", "reads 'attacked>=0.4'"),
        ("attacked>=-0.1", "reads 'attacked>=0.4'"),
        ("attacked>=nan", "reads 'attacked>=0.4'"),
        ("attacked>=0.4 certified>=0.3", "reads 'attacked>=0.4'"),
        ("0.4", "reads 'attacked>=0.4'"),
        ("", "reads 'attacked>=0.4'"),
        ("clean>=0.4", "'attacked' or 'certified'"),
        ("attacked>=40", "40 % is written 40%"),
        ("attacked>=101%", "from 0 to 1"),
        ("attacked>=1.01", "from 0 to 1"),
    ],
)
def test_anything_else_is_an_error_that_says_what_would_be_right(text, hint):
    with pytest.raises(ParameterError) as caught:
        Assertion.parse(text)
    assert hint in str(caught.value)
    assert repr(text) in str(caught.value) or "clean" in text
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("measure", ["attacked", "certified"])
def test_the_verdict_is_certain_only_where_the_whole_interval_is_on_one_side(measure):
    claim = Assertion.parse(f"{measure}>=0.4")
    assert claim.verdict(between(0.4, 0.6)) is Verdict.HOLDS
    assert claim.verdict(between(0.2, 0.3999)) is Verdict.FAILS
    assert claim.verdict(between(0.3999, 0.6)) is Verdict.UNDECIDED
    assert claim.verdict(between(0.2, 0.4)) is Verdict.UNDECIDED


@pytest.mark.parametrize("estimate", [between(0.5, 0.6), between(0.1, 0.2), between(0.3, 0.5)])
def test_an_invalid_evaluation_answers_nothing(estimate):
    claim = Assertion.parse("attacked>=0.4")
    assert claim.verdict(estimate, trust="invalid") is Verdict.INVALID
    assert claim.verdict(estimate, trust="suspect") is claim.verdict(estimate, trust="valid") is claim.verdict(estimate)


def test_the_exit_statuses():
    assert [
        Assertion.status(verdict) for verdict in (Verdict.HOLDS, Verdict.FAILS, Verdict.UNDECIDED, Verdict.INVALID)
    ] == [
        0,
        1,
        2,
        3,
    ]


def said(text, low, high, trust=None):
    claim, estimate = Assertion.parse(text), between(low, high)
    return claim.sentence(claim.verdict(estimate, trust), estimate)


def test_an_attack_refutes_and_never_proves():
    holds = said("attacked>=40%", 0.45, 0.55)
    assert "The attacks tried leave at least 40 % right" in holds
    assert "a stronger attack may leave less" in holds
    assert "never prove" in holds
    fails = said("attacked>=40%", 0.25, 0.35)
    assert "refuted" in fails
    assert "may leave less" not in fails


def test_a_certificate_proves_and_never_refutes():
    holds = said("certified>=0.4", 0.45, 0.55)
    assert "proved" in holds
    assert "not proved" not in holds
    assert "stronger" not in holds
    fails = said("certified>=0.4", 0.25, 0.35)
    assert "not proved" in fails
    assert "refuted" not in fails
    assert "the certificate may be loose" in fails


@pytest.mark.parametrize("measure", ["attacked", "certified"])
def test_without_an_answer_none_is_given(measure):
    undecided = said(f"{measure}>=0.4", 0.35, 0.55)
    assert "undecided" in undecided
    assert "more examples would tell" in undecided
    invalid = said(f"{measure}>=0.4", 0.45, 0.55, trust="invalid")
    assert "invalid" in invalid
    for word in ("undecided", "holds", "proved", "refuted"):
        assert word not in invalid


@pytest.mark.parametrize("measure", ["attacked", "certified"])
@pytest.mark.parametrize(("low", "high"), [(0.45, 0.55), (0.25, 0.35), (0.35, 0.55)])
@pytest.mark.parametrize("trust", [None, "invalid"])
def test_each_sentence_has_the_claim_and_the_numbers_behind_it(measure, low, high, trust):
    text = said(f"{measure}>=0.57", low, high, trust)
    assert text.startswith(f"{measure}>=0.57: ")
    assert "57 %" in text
    assert f"[{100 * low:.1f}, {100 * high:.1f}] of 1,234 examples, confidence sequence 95 %" in text
    assert "{" not in text
    assert "\n" not in text
    assert text.endswith(".")
