"""Plain numbers and the run folder."""

import json

import jsonschema
import pytest
from scipy.stats import binom

from unfooled import results
from unfooled.errors import DataError, MissingData, OutputError
from unfooled.intervals import clopper_pearson
from unfooled.results import Evaluation, Panel, Table
from unfooled.store import RunFolder


def evaluation(**changes):
    fields = {
        "kind": "sweep",
        "title": "t",
        "verdict": ["v"],
        "settings": {"a": "b"},
        "command": "unfooled sweep",
        "environment": results.Environment(unfooled="0", python="3", torch="2", machine="m", threads=2),
        "created": "now",
        "tables": [Table(id="t", title="T", columns=["a"], rows=[["1"]])],
        "panels": [
            Panel(id="p", title="P", x_label="x", curves=[results.Curve(label="c", x=[0.0], y=[clopper_pearson(1, 2)])])
        ],
    }
    return Evaluation(**(fields | changes))


@pytest.mark.parametrize(("count", "n"), [(0, 10), (3, 10), (10, 10), (480, 1000)])
def test_the_interval_is_clopper_and_pearsons(count, n):
    found = clopper_pearson(count, n)
    assert found.value == count / n
    assert found.low <= found.value <= found.high
    if count:
        assert binom.sf(count - 1, n, found.low) == pytest.approx(0.025)
    if count < n:
        assert binom.cdf(count, n, found.high) == pytest.approx(0.025)


def test_an_evaluation_survives_the_disk_and_fits_its_schema(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_evaluation(evaluation())
    assert folder.evaluation() == evaluation()
    jsonschema.validate(json.loads((tmp_path / "evaluation.json").read_text()), results.schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema_version": 2}, results.schema())


def test_the_schema_in_the_docs_is_the_schema():
    from pathlib import Path

    kept = json.loads((Path(__file__).parents[1] / "docs" / "evaluation.schema.json").read_text())
    assert kept == results.schema()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ('{"schema_version": 99}', "has schema version 99"),
        ('{"schema_version": 2}', "is not an evaluation"),
        ("[]", "is damaged"),
    ],
)
def test_a_damaged_evaluation_is_named(tmp_path, text, message):
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(DataError, match=message):
        RunFolder(tmp_path).evaluation()


def test_a_folder_is_begun_gone_on_with_or_refused(tmp_path):
    folder = RunFolder(tmp_path / "a" / "run")
    folder.begin({"seed": 1})
    folder.begin({"seed": 1})
    with pytest.raises(DataError), RunFolder(tmp_path / "failed").running({"seed": 1}):
        raise DataError("no")
    assert not (tmp_path / "failed").exists()
    with pytest.raises(OutputError, match="holds another run"):
        folder.begin({"seed": 2})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("precious")
    with pytest.raises(OutputError, match="is not empty and holds no run"):
        RunFolder(tmp_path / "b").begin({"seed": 1})
    with pytest.raises(OutputError, match="is a file"):
        RunFolder(tmp_path / "b" / "mine.txt").begin({"seed": 1})
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["mine.txt"]


ROWS = [(3, 1, True, True, 0.25, 2, 1), (1, 0, True, False, float("inf"), 41, 40)]


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.write_text("a.txt", "old")
    monkeypatch.setattr(
        "pathlib.Path.write_bytes", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OutputError, match="No space left on device"):
        folder.write_text("a.txt", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_what_is_missing_or_damaged_is_named(tmp_path):
    folder = RunFolder(tmp_path / "none")
    with pytest.raises(MissingData, match="There is no run folder"):
        folder.evaluation()
    with pytest.raises(MissingData, match="holds no evidence"):
        folder.evidence()
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(DataError, match=r"x\.safetensors is damaged"):
        RunFolder(tmp_path).arrays("x.safetensors")
    (tmp_path / "evidence.sqlite").write_bytes(b"this is no database, not at all" * 10)
    with pytest.raises(DataError, match="evidence.sqlite is damaged"):
        RunFolder(tmp_path).evidence()
