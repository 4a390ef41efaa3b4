"""Two runs compared pair by pair."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from test_results import evaluation
from unfooled import comparison
from unfooled.cli.compare import compare as command
from unfooled.errors import DataError, MissingData
from unfooled.results import Example
from unfooled.store import Row, RunFolder

SETTINGS = {"data": "mnist:test", "threat": "linf:8/255", "protocol": "fast", "seed": "0"}
HELD, FOOLED, WRONG, FAILED = "held", "fooled", "wrong", "failed"


def example(index, state, label=1, distance=0.02):
    fields = {
        HELD: {"clean_prediction": label},
        FOOLED: {"clean_prediction": label, "fooled_by": "pgd", "distance": distance},
        WRONG: {"clean_prediction": label + 1, "distance": 0.0},
        FAILED: {"clean_prediction": -1, "error": "its logits are not finite"},
    }[state]
    return Example(index=index, label=label, **fields)


def write(folder, states, trust="valid", first=0, **settings):
    """A finished run in which the examples ended so, by index from `first`."""
    examples = [example(first + at, state) for at, state in enumerate(states)]
    answer = evaluation(kind="evaluation", settings=SETTINGS | settings, trust=trust, examples=examples)
    RunFolder(folder).write_evaluation(answer)
    return folder


@pytest.fixture
def pair(tmp_path):
    a = write(tmp_path / "a", [HELD] * 60 + [FOOLED] * 20 + [WRONG] * 10 + [FAILED] * 10)
    b = write(tmp_path / "b", [HELD] * 45 + [FOOLED] * 15 + [HELD] * 5 + [WRONG] * 25 + [HELD] * 10)
    return a, b


def test_pairs_are_counted_by_example(pair):
    found = comparison.compare(*pair)
    assert found.n == 100
    assert found.only_a == list(range(45, 60))
    assert found.only_b == [*range(60, 65), *range(90, 100)]
    assert (found.both, found.neither) == (45, 25)
    assert (found.a.clean.value, found.b.clean.value) == (0.8, 0.75)
    assert (found.a.attacked.value, found.b.attacked.value) == (0.6, 0.6)
    assert found.attacked.difference == 0
    assert found.clean.difference == pytest.approx(0.05)
    assert found.clean.p_value == pytest.approx(binomtest(15, 25).pvalue)
    assert "no difference between a and b is shown" in comparison.sentence(found)
    assert found.warnings == []


def test_a_difference_is_named_from_either_side(tmp_path):
    a, b = write(tmp_path / "a", [HELD] * 90 + [WRONG] * 10), write(tmp_path / "b", [HELD] * 60 + [FOOLED] * 40)
    for first, second, sign in ((a, b, 1), (b, a, -1)):
        found = comparison.compare(first, second)
        assert found.attacked.difference == pytest.approx(0.3 * sign)
        assert "Under attack a holds on more examples than b" in comparison.sentence(found)
        assert f"{30 * sign:+.1f} [" in comparison.tables(found)[0].rows[1][3]


def test_only_what_both_have_judged_counts(tmp_path):
    a, b = write(tmp_path / "a", [HELD] * 30), write(tmp_path / "b", [FOOLED] * 30, first=20)
    found = comparison.compare(a, b)
    assert (found.n, found.unshared_a, found.unshared_b) == (10, 20, 20)
    assert found.only_a == list(range(20, 30))
    with pytest.raises(DataError, match="no example in common"):
        comparison.compare(a, write(tmp_path / "c", [HELD], first=90))


def test_other_labels_are_other_data(pair, tmp_path):
    other = evaluation(settings=SETTINGS, examples=[example(0, HELD), example(1, HELD, label=5)])
    RunFolder(tmp_path / "c").write_evaluation(other)
    with pytest.raises(
        DataError, match=r"Example 1 has the label 1 in .*/a, but 5 in .*/c: they are not of the same data"
    ):
        comparison.compare(pair[0], tmp_path / "c")


def test_what_makes_the_numbers_differ_in_kind_is_said(pair, tmp_path):
    c = write(tmp_path / "c", [HELD] * 5, "suspect", threat="linf:4/255", protocol="quick", seed="1", data="other")
    warnings = " ".join(comparison.compare(pair[0], c).warnings)
    for word in ("The data differs", "The threat differs: linf:8/255 in a, linf:4/255 in c", "The protocol", "The seed",
                 "a is valid, c is suspect", "number of c is suspect"):  # fmt: skip
        assert word in warnings, word


def test_runs_without_examples_are_refused_and_single_attacks_give_their_evidence(tmp_path, pair):
    with pytest.raises(MissingData):
        comparison.compare(tmp_path / "none", pair[0])
    RunFolder(tmp_path / "sweep").write_evaluation(evaluation())
    with pytest.raises(DataError, match="lists no examples .it is a sweep."):
        comparison.compare(tmp_path / "sweep", pair[0])
    run = RunFolder(tmp_path / "attack")
    run.begin({})
    rows = [Row(0, 1, 1, True, True, 0.01, 2, 1), Row(1, 1, 1, True, False, float("inf"), 2, 1),
            Row(2, 1, 0, False, False, 0.0, 2, 1)]  # fmt: skip
    run.add_shard(0, {"adversarial": np.zeros((3, 1))}, rows)
    run.write_evaluation(evaluation(kind="attack", settings=SETTINGS))
    found = comparison.compare(run, pair[0])
    assert found.a.attacked.value == pytest.approx(1 / 3)
    assert found.only_b == [0, 2]


def test_curves_fall_where_examples_were_fooled_and_end_at_eps(tmp_path):
    a = write(tmp_path / "a", [HELD] * 5 + [FOOLED] * 3 + [WRONG] * 2, threat="linf:0.04")
    b = write(tmp_path / "b", [HELD] * 4 + [FOOLED] * 6, threat="linf:0.08")
    panel = comparison.compare(a, b).panel
    first, second = panel.curves
    assert (first.x[0], first.x[-1], second.x[-1]) == (0, 0.04, 0.08)
    for curve, clean, robust in ((first, 0.8, 0.5), (second, 1.0, 0.4)):
        assert {round(y.value, 9) for x, y in zip(curve.x, curve.y, strict=True) if x < 0.0199} == {clean}
        assert {round(y.value, 9) for x, y in zip(curve.x, curve.y, strict=True) if x > 0.0201} == {robust}
    assert [(m.x, m.y.value) for m in panel.marks] == [(0.04, 0.5), (0.08, 0.4)]
    assert comparison.compare(a, write(tmp_path / "c", [HELD], threat="l2:0.5")).panel is None


def test_runs_of_the_same_name_are_told_apart(tmp_path):
    a, b = write(tmp_path / "x" / "run", [HELD] * 3), write(tmp_path / "y" / "run", [HELD] * 3)
    found = comparison.compare(a, b)
    assert found.a.name != found.b.name


def test_the_command(pair, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    command(*pair, out=tmp_path / "plots")
    said = capsys.readouterr().out
    assert "45, 46, 47" in said
    assert "no difference" in said
    for name in ("distance.png", "distance.svg", "outcomes.png", "outcomes.svg", "comparison.json"):
        assert (tmp_path / "plots" / name).stat().st_size > 500, name
    svg = Path(tmp_path / "plots" / "outcomes.svg").read_text()
    assert all(f">{count}<" in svg for count in (45, 15, 25))
    command(*pair, json=True)
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "plots" / "comparison.json").read_text())
