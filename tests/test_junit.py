"""JUnit XML of an evaluation, and the example workflow for CI."""

import re
import shlex
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import typer

from unfooled.assertions import Assertion, Verdict
from unfooled.errors import InternalError
from unfooled.intervals import clopper_pearson
from unfooled.junit import junit
from unfooled.results import Bracket, ByClass, Cost, Environment, Evaluation, Finding

ROOT = Path(__file__).parent.parent
HALF = Assertion.parse("attacked>=0.5")


def finding(severity: str, code: str = "zero-gradients") -> Finding:
    return Finding(
        code=code,
        severity=severity,
        message="The gradient is zero on 40 % of the images.",
        measurement=0.4,
        threshold=0.1,
        source="Pintor et al. 2022",
        remedy="Take gradients through 'quantize' by identity.",
    )


def evaluation(right: int = 300, n: int = 500, trust: str = "valid", **changes: object) -> Evaluation:
    """An evaluation of n images, of which so many stay right under attack."""
    fields = {
        "kind": "evaluation",
        "title": "Fast evaluation",
        "verdict": ["The model gets 90 % right."],
        "settings": {"model": "net", "data": "photos", "threat": "linf:8/255", "protocol": "fast", "seed": "3"},
        "command": "unfooled evaluate",
        "environment": Environment(unfooled="0.4.0", python="3.12", torch="2.7", machine="m", threads=1),
        "created": "2026-03-04 05:06 UTC",
        "cost": [
            Cost(part="apgd", forward=9, backward=9, seconds=1.25),
            Cost(part="fab", forward=1, backward=1, seconds=2),
        ],
        "clean_accuracy": clopper_pearson(450, 500),
        "robust_accuracy": Bracket(attacked=clopper_pearson(right, n)),
        "trust": trust,
        "findings": [finding(trust)] if trust != "valid" else [finding("note", code="train-mode")],
        "classes": [
            ByClass(label=at, name=name, clean=clopper_pearson(9, 10), attacked=clopper_pearson(kept, 10))
            for at, (name, kept) in enumerate([("shirt", 1), ("boot", 9), ("coat", 3), ("bag", 8), ("dress", 2)])
        ],
    }
    return Evaluation(**(fields | changes))


def parsed(*args: object, **options: object) -> ET.Element:
    """The document, held against what the schemas that CI servers use have in common."""
    root = ET.fromstring(junit(*args, **options).encode())
    (suite,) = root
    assert (root.tag, suite.tag) == ("testsuites", "testsuite")
    assert [child.tag for child in suite] == ["properties", "testcase", "testcase", "system-out"]
    cases = suite.findall("testcase")
    for counted in (root, suite):
        assert int(counted.get("tests")) == len(cases)
        assert int(counted.get("failures")) == len(suite.findall("testcase/failure"))
        assert int(counted.get("errors")) == len(suite.findall("testcase/error"))
        assert float(counted.get("time")) == sum(float(case.get("time")) for case in cases)
    for case in cases:
        assert {"name", "classname", "time"} == set(case.attrib)
        tags = [child.tag for child in case]
        order = ["error", "failure", "system-out"]
        assert tags == sorted(set(tags), key=order.index)
        for bad in case.findall("failure") + case.findall("error"):
            assert {"type", "message"} == set(bad.attrib)
    for one in suite.iter("property"):
        assert {"name", "value"} == set(one.attrib)
    return suite


def case(suite: ET.Element, name: str) -> ET.Element:
    return suite.find(f"testcase[@name='{name}']")


def test_one_that_holds_has_no_failure_and_says_what_was_measured():
    suite = parsed(evaluation(), "net", HALF)
    assert not list(suite.iter("failure"))
    assert not list(suite.iter("error"))
    assert suite.get("name") == case(suite, "trust").get("classname") == "net"
    assert suite.get("time") == "3.250"
    assert suite.get("timestamp") == "2026-03-04T05:06:00"
    found = {one.get("name"): one.get("value") for one in suite.iter("property")}
    attacked = clopper_pearson(300, 500)
    assert found == {
        **evaluation().settings,
        "clean": "0.900000",
        "clean_low": f"{clopper_pearson(450, 500).low:.6f}",
        "clean_high": f"{clopper_pearson(450, 500).high:.6f}",
        "attacked": "0.600000",
        "attacked_low": f"{attacked.low:.6f}",
        "attacked_high": f"{attacked.high:.6f}",
        "trust": "valid",
        "unfooled": "0.4.0",
    }
    assert "60.0 %" in case(suite, "attacked accuracy").findtext("system-out")
    assert "train-mode" in case(suite, "trust").findtext("system-out")


@pytest.mark.parametrize(("right", "kind"), [(200, "fails"), (250, "undecided")])
def test_one_that_fails_or_is_undecided_is_a_failure(right, kind):
    suite = parsed(evaluation(right), "net", HALF)
    bad = case(suite, "attacked accuracy").find("failure")
    assert bad.get("type") == kind
    assert "attacked>=0.5" in bad.get("message")
    assert case(suite, "trust").find("failure") is None


def test_without_an_assertion_nothing_is_demanded():
    suite = parsed(evaluation(0), "net")
    assert case(suite, "attacked accuracy").find("failure") is None


def test_distrust_is_a_failure_that_names_findings_and_remedies():
    suite = parsed(evaluation(trust="suspect"), "net", HALF)
    bad = case(suite, "trust").find("failure")
    assert (bad.get("type"), bad.get("message")) == ("suspect", "trust is suspect: zero-gradients")
    for words in ("zero on 40 %", "measured 0.4, threshold 0.1", "Pintor", "by identity"):
        assert words in bad.text
    assert [child.tag for child in case(suite, "attacked accuracy")] == ["system-out"]


def test_where_trust_is_invalid_the_assertion_is_an_error():
    suite = parsed(evaluation(0, trust="invalid"), "net", HALF)
    bad = case(suite, "attacked accuracy").find("error")
    assert bad.get("type") == "invalid"
    assert "by identity" in bad.text
    assert case(suite, "attacked accuracy").find("failure") is None
    assert case(suite, "trust").find("failure").get("type") == "invalid"


def test_an_assertion_about_certified_accuracy_is_judged_by_that():
    bracket = Bracket(attacked=clopper_pearson(500, 500), certified=clopper_pearson(10, 500))
    suite = parsed(evaluation(robust_accuracy=bracket), "net", Assertion.parse("certified>=0.5"))
    assert case(suite, "certified accuracy").find("failure").get("type") == "fails"
    assert case(suite, "attacked accuracy") is None
    with pytest.raises(InternalError, match="no certified accuracy"):
        junit(evaluation(), "net", Assertion.parse("certified>=0.5"))


def test_what_xml_cannot_hold_is_left_out_and_the_rest_comes_back():
    name = "a\x00b<&>\"'\x1b[31m\ud800é\ufffe\U0001f600"
    suite = parsed(evaluation(title=name, settings={"model": name}, created="today"), name, HALF)
    kept = "ab<&>\"'[31mé\U0001f600"
    assert suite.get("name") == kept
    assert suite.find("properties/property[@name='model']").get("value") == kept
    assert suite.findtext("system-out").startswith(kept)
    assert suite.get("timestamp") is None


# --- the workflow --------------------------------------------------------------------------------


def options_of(command: str) -> set[str]:
    from unfooled.cli.app import app

    found = typer.main.get_command(app).commands[command].params
    return {name for param in found for name in (*param.opts, *param.secondary_opts)}


def commands(text: str) -> list[list[str]]:
    """The command lines of this package in a text: a line that begins with its name, and the lines that belong to it."""
    found = re.findall(r"^ *(unfooled \w+(?:.*\\\n)*.*(?:\n +--.*)*)$", text, re.MULTILINE)
    return [shlex.split(one.replace("\\\n", " ")) for one in found]


@pytest.mark.parametrize("place", ["examples/ci/robustness.yml", "docs/ci.md"])
def test_command_lines_name_only_options_that_exist(place):
    found = commands((ROOT / place).read_text())
    assert found
    for _, command, *rest in found:
        given = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert {"--assert", "--junit", "--out", "--threat"} <= given
        assert given <= options_of(command)


def test_the_workflow_is_yaml_and_keeps_the_report_of_a_failure():
    yaml = pytest.importorskip("yaml")
    workflow = yaml.safe_load((ROOT / "examples" / "ci" / "robustness.yml").read_text())
    steps = workflow["jobs"]["robustness"]["steps"]
    (line,) = [step["run"] for step in steps if step.get("name") == "Evaluate"]
    assert "\n" not in line.strip()
    words = shlex.split(line)
    assert words == commands((ROOT / "examples" / "ci" / "robustness.yml").read_text())[0]
    Assertion.parse(words[words.index("--assert") + 1])
    last = steps[-1]
    assert "cancelled()" in last["if"]
    assert last["with"]["path"].split() == [words[words.index("--out") + 1], words[words.index("--junit") + 1]]


def test_the_workflow_tells_every_exit_status_as_it_is():
    told = re.findall(r"# +(\d)  (\w+)(?: it)? ?(\w*)", (ROOT / "examples" / "ci" / "robustness.yml").read_text())
    assert len(told) == len(Verdict)
    for number, *words in told:
        assert Verdict(int(number)).name.lower() in words
