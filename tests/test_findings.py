"""The catalog of findings: its page is current, every code in the source is in it, and its thresholds are the literature's."""

import runpy
from pathlib import Path

import pytest

from unfooled.checks.catalog import KINDS, finding
from unfooled.errors import InternalError
from unfooled.results import SEVERITIES

TOOL = runpy.run_path(str(Path(__file__).parent.parent / "tools" / "findings_page.py"))

DEMANDED = {  # severity and threshold; where they come from is in each kind's source
    "random-model": ("suspect", 1e-4),
    "probabilities": ("suspect", 0),
    "zero-gradients": ("suspect", 0),
    "no-gradient": ("suspect", 0),
    "nonfinite-gradients": ("suspect", 0),
    "dynamic-forward": ("suspect", 0),
    "black-box-better": ("suspect", 0.002),
    "single-step-better": ("suspect", 0.002),
    "noise-fools": ("suspect", 0.002),
    "hard-label-better": ("suspect", 0.002),
    "more-steps-help": ("suspect", 0.002),
    "unstable-predictions": ("note", 0.1),
    "incomplete-optimisation": ("note", 0.05),
    "unbounded-survivors": ("suspect", 0.05),
    "few-classes": ("note", None),
    "train-mode": ("note", 0),
    "quick-protocol": ("suspect", None),
    "nonfinite-logits": ("invalid", 0),
    "batch-dependent": ("invalid", 1e-3),
    "near-chance": ("invalid", 0.0),
    "expects-0-255": ("invalid", 0.15),
    "missing-normalisation": ("invalid", 0.15),
    "double-normalisation": ("invalid", 0.15),
    "attack-broken": ("invalid", 0),
}


def test_the_page_is_current():
    assert TOOL["PAGE"].read_text() == TOOL["page"](), "run python tools/findings_page.py"


def test_the_page_has_every_code_once():
    rows = [line for line in TOOL["page"]().splitlines() if line.startswith("| `")]
    assert sorted(row.split("`")[1] for row in rows) == sorted([*KINDS, "suspect", "invalid"])
    assert set(TOOL["GROUPS"]) <= set(KINDS)


def test_every_code_that_is_raised_is_in_the_catalog_and_the_other_way_round():
    assert TOOL["raised"]() == set(KINDS)


def test_the_search_for_codes_sees_constants_and_loops(tmp_path):
    (tmp_path / "a.py").write_text(
        "def f():\n    words = {'one': 1, 'two': 2}\n    other = {'no': 0}\n"
        "    for code, text in words.items():\n        finding(code, 1, text)\n    return finding('three', 1, '')\n"
    )
    assert TOOL["raised"](tmp_path) == {"one", "two", "three"}


@pytest.mark.parametrize("code", DEMANDED)
def test_a_threshold_is_the_one_demanded(code):
    assert (KINDS[code].severity, KINDS[code].threshold) == DEMANDED[code]


@pytest.mark.parametrize("code", KINDS)
def test_a_kind_says_what_the_reader_needs(code):
    kind = KINDS[code]
    assert kind.severity in SEVERITIES
    assert kind.when in ("before", "after", "thorough")
    assert kind.source
    assert kind.measures
    assert kind.remedy.endswith(".")
    assert not (kind.settles and kind.severity == "invalid"), "no attack puts a wrong set-up right"
    made = finding(code, 1, "seen")
    assert (made.code, made.severity, made.threshold, made.settled) == (code, kind.severity, kind.threshold, "")


def test_a_code_that_there_is_none_of_is_our_own_fault():
    with pytest.raises(InternalError, match="no-such-code"):
        finding("no-such-code", 1, "")
