"""An evaluation as JUnit XML, the form in which GitHub, GitLab and Jenkins read test results.

One suite of two test cases: accuracy (with what was demanded of it, if anything) and trust. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

from .assertions import Assertion, Verdict
from .errors import InternalError
from .results import Estimate, Evaluation, percent

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2
_WHEN = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d)(:\d\d)? UTC")


def junit(evaluation: Evaluation, name: str, assertion: Assertion | None = None) -> str:
    """JUnit XML of an evaluation of a model.

    name:       of the test suite, such as the model's.
    assertion:  what was demanded. That it fails or is undecided is a failure; that the numbers cannot be trusted at all, an
                error. Without one the accuracy is told and nothing is demanded of it.
    """
    accuracy, trust = _accuracy(evaluation, assertion), _trust(evaluation)
    seconds = f"{sum(part.seconds for part in evaluation.cost):.3f}"
    counts = {
        "tests": "2",
        "failures": str(sum(case.find("failure") is not None for case in (accuracy, trust))),
        "errors": str(sum(case.find("error") is not None for case in (accuracy, trust))),
        "time": seconds,
    }
    for case, time in ((accuracy, seconds), (trust, "0.000")):
        case.attrib |= {"classname": name, "time": time}
    root = ET.Element("testsuites", {"name": "unfooled"} | counts)
    suite = ET.SubElement(root, "testsuite", {"name": name} | counts | {"skipped": "0"} | _when(evaluation))
    listed = ET.SubElement(suite, "properties")
    for key, value in _properties(evaluation):
        ET.SubElement(listed, "property", name=key, value=value)
    suite.extend((accuracy, trust))
    _say(suite, "system-out", "\n".join([evaluation.title, *evaluation.verdict, *evaluation.notes]))
    return _text(root)


def _accuracy(evaluation: Evaluation, assertion: Assertion | None) -> ET.Element:
    measure = "attacked" if assertion is None else assertion.measure
    estimate = _estimate(evaluation, measure)
    case = ET.Element("testcase", name=f"{measure} accuracy")
    if assertion is not None:
        verdict = assertion.verdict(estimate, evaluation.trust)
        sentence = assertion.sentence(verdict, estimate)
        if verdict is not Verdict.HOLDS:
            tag = "error" if verdict is Verdict.INVALID else "failure"
            _say(case, tag, "\n".join([sentence, *_left(evaluation)]), type=verdict.name.lower(), message=sentence)
    _say(case, "system-out", f"{measure} accuracy {percent(estimate, interval=True)}, {estimate.method}")
    return case


def _trust(evaluation: Evaluation) -> ET.Element:
    case = ET.Element("testcase", name="trust")
    if evaluation.trust in ("suspect", "invalid"):
        codes = ", ".join(finding.code for finding in evaluation.findings if finding.severity != "note")
        message = f"trust is {evaluation.trust}: {codes}"
        _say(case, "failure", "\n".join(_left(evaluation)), type=evaluation.trust, message=message)
    notes = [f"{finding.code}: {finding.message}" for finding in evaluation.findings if finding.severity == "note"]
    _say(case, "system-out", "\n".join([f"trust {evaluation.trust}", *notes]))
    return case


def _left(evaluation: Evaluation) -> list[str]:
    """The findings that are left, with what was measured and what to do."""
    return [
        f"{f.severity} {f.code}: {f.message} (measured {f.measurement:g}"
        f"{'' if f.threshold is None else f', threshold {f.threshold:g}'}; {f.source}) Remedy: {f.remedy}"
        for f in evaluation.findings
        if f.severity != "note"
    ]


def _estimate(evaluation: Evaluation, measure: str) -> Estimate:
    bracket = evaluation.robust_accuracy
    found = None if bracket is None else bracket.certified if measure == "certified" else bracket.attacked
    if found is None:
        raise InternalError(f"The evaluation has no {measure} accuracy.")
    return found


def _properties(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    for key in ("model", "weights", "defense", "data", "threat", "protocol", "seed"):
        if key in evaluation.settings:
            yield key, evaluation.settings[key]
    bracket = evaluation.robust_accuracy
    estimates = {"clean": evaluation.clean_accuracy}
    if bracket is not None:
        estimates |= {"attacked": bracket.attacked, "certified": bracket.certified}
    for key, estimate in estimates.items():
        if estimate is not None:
            yield key, f"{estimate.value:.6f}"
            yield f"{key}_low", f"{estimate.low:.6f}"
            yield f"{key}_high", f"{estimate.high:.6f}"
    yield "trust", str(evaluation.trust)
    yield "unfooled", evaluation.environment.unfooled


def _when(evaluation: Evaluation) -> dict[str, str]:
    """When it was made, as XML writes it; nothing where it cannot be read."""
    match = _WHEN.fullmatch(evaluation.created)
    return {"timestamp": f"{match[1]}T{match[2]}{match[3] or ':00'}"} if match else {}


def _say(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


def _text(root: ET.Element) -> str:
    """The document, without the characters that XML cannot hold."""
    for element in root.iter():
        element.text = element.text and _ILLEGAL.sub("", element.text)
        for key, value in element.attrib.items():
            element.set(key, _ILLEGAL.sub("", value))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"
