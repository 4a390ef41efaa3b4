"""The action for GitHub: its inputs reach the program as words and never as code, and its exit status and report arrive."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "action.yml"
if not FILE.is_file():
    pytest.skip("the action is not part of a source distribution", allow_module_level=True)
ACTION = yaml.safe_load(FILE.read_text(encoding="utf-8"))
STEPS = ACTION["runs"]["steps"]
BASH = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]  # as GitHub runs `shell: bash`
NASTY = "$(touch pwned)`touch pwned`\"; touch pwned; '${{ github.token }} \\ *"


def step(name):
    return next(one for one in STEPS if one.get("name") == name)


# --- what is written in it ----------------------------------------------------------------------------------


def test_it_is_a_composite_action_with_the_inputs_that_it_says():
    assert ACTION["runs"]["using"] == "composite"
    assert set(ACTION["inputs"]) == {
        "model", "data", "threat", "protocol", "assert", "precision", "extras", "version", "python-version", "torch-index",
        "allow-code", "args", "out", "artifact",
    }  # fmt: skip
    required = {name for name, about in ACTION["inputs"].items() if about.get("required")}
    assert required == {"model", "data"}
    assert ACTION["inputs"]["allow-code"]["default"] == "false"
    for name, about in {**ACTION["inputs"], **ACTION["outputs"]}.items():
        assert about["description"], name
        assert isinstance(about.get("default", ""), str), name  # a number would lose its form: 3.10 is not 3.1


def test_no_script_holds_an_expression():
    for one in STEPS:
        if "run" in one:
            assert "${{" not in one["run"], one["name"]
            assert one["shell"] == "bash"
            for value in one["env"].values():
                assert re.fullmatch(r"\$\{\{ (inputs\.[a-z-]+|github\.action_path) \}\}", value), value


def test_every_input_is_used():
    text = FILE.read_text(encoding="utf-8")
    for name in ACTION["inputs"]:
        assert f"${{{{ inputs.{name} }}}}" in text, name


def test_the_defaults_are_the_programs():
    from typer.main import get_command

    from unfooled.cli.app import app

    options = {one.name: one.default for one in get_command(app).commands["evaluate"].params}
    for name in ("threat", "protocol"):
        assert ACTION["inputs"][name]["default"] == options[name]


def test_other_actions_are_pinned_by_their_commit():
    used = re.findall(r"uses: (\S+)(.*)", FILE.read_text(encoding="utf-8"))
    assert len(used) == 2
    for name, comment in used:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", name)
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment)


def test_the_report_is_kept_also_when_the_step_before_has_failed():
    kept = step("Keep the report")
    assert kept["if"].startswith("${{ !cancelled()")
    assert [line.rpartition("}}")[2] for line in kept["with"]["path"].split("\n") if line] == ["", ".xml", ".txt"]


# --- what its scripts do ----------------------------------------------------------------------------------------

STUB = """#!{python}
import json, os, sys
from pathlib import Path
Path("argv.json").write_text(json.dumps(sys.argv[1:]))
out = next((Path(word[6:]) for word in sys.argv if word.startswith("--out=")), None)
status = int(os.environ.get("STUB_STATUS", "0"))
if out and status < 64:
    out.mkdir(parents=True, exist_ok=True)
    numbers = {{"clean_accuracy": {{"value": 0.9}}, "robust_accuracy": {{"attacked": {{"value": 0.25}}}}, "trust": "valid"}}
    (out / "evaluation.json").write_text(json.dumps(numbers))
print("what it says\\n::error::not for the runner")
sys.exit(status)
"""


class Ran:
    """A step's script, run in `folder` with these inputs and the defaults of the others."""

    def __init__(self, name, folder, path=None, env=None, **inputs):
        one = step(name)
        given = {key: about.get("default", "") for key, about in ACTION["inputs"].items()} | inputs
        words = {
            key: given.get(re.sub(r"\$\{\{ inputs\.(\S+) \}\}", r"\1", value), str(folder / "action"))
            for key, value in one["env"].items()
        }
        files = {name: folder / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.touch()
        (folder / "script.sh").write_text(one["run"], encoding="utf-8")
        inside = {key: value for key, value in os.environ.items() if not key.startswith("COV_")}
        inside |= words | {key: str(file) for key, file in files.items()} | (env or {})
        if path is not None:
            inside["PATH"] = f"{path}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [*BASH, str(folder / "script.sh")], cwd=folder, env=inside, capture_output=True, text=True, timeout=300
        )
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr
        self.outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
        self.summary = files["GITHUB_STEP_SUMMARY"].read_text()
        self.argv = json.loads((folder / "argv.json").read_text()) if (folder / "argv.json").exists() else None


@pytest.fixture
def stubs(tmp_path):
    """A folder with an `unfooled` and, for the installation, a `python` that only note what they were asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    stub = folder / "unfooled"
    stub.write_text(STUB.format(python=sys.executable))
    stub.chmod(0o755)
    (folder / "python").symlink_to(sys.executable)
    return folder


def test_a_short_call(tmp_path, stubs):
    ran = Ran("Evaluate", tmp_path, stubs, model="net.py:make", data="photos:test")
    assert (ran.status, ran.err) == (0, "")
    assert ran.argv == [
        "evaluate", "--model=net.py:make", "--data=photos:test", "--threat=linf:8/255", "--protocol=fast",
        "--out=runs/robustness", "--junit=runs/robustness.xml",
    ]  # fmt: skip
    assert ran.outputs == {
        "out": "runs/robustness", "status": "0", "clean": "0.9", "attacked": "0.25", "trust": "valid"
    }  # fmt: skip
    assert ran.summary.startswith("### Robustness: measured\n\n    what it says\n")


def test_a_long_call(tmp_path, stubs):
    ran = Ran("Evaluate", tmp_path, stubs, model="m.onnx", data="d", threat="l2:0.5", protocol="quick", precision="0.05",
              out="here/there/", args="--weights 'a b.safetensors'  --seed 3",
              **{"assert": "attacked>=0.4\n\ncertified>=0.1\n", "allow-code": "true"})  # fmt: skip
    assert ran.argv == [
        "evaluate", "--model=m.onnx", "--data=d", "--threat=l2:0.5", "--protocol=quick", "--out=here/there",
        "--junit=here/there.xml", "--assert=attacked>=0.4", "--assert=certified>=0.1", "--precision=0.05", "--allow-code",
        "--weights", "a b.safetensors", "--seed", "3",
    ]  # fmt: skip
    assert ran.summary.startswith("### Robustness: measured: what is demanded holds\n")
    assert (tmp_path / "here" / "there.txt").read_text().startswith("what it says")


@pytest.mark.parametrize("name", ["model", "data", "threat", "protocol", "assert", "precision"])
def test_an_input_is_a_word_whatever_stands_in_it(tmp_path, stubs, name):
    given = {"model": "m", "data": "d"} | {name: NASTY}
    ran = Ran("Evaluate", tmp_path, stubs, **given)
    assert ran.status == 0
    assert f"--{name}={NASTY}" in ran.argv
    assert not (tmp_path / "pwned").exists()


def test_args_are_words_and_no_code(tmp_path, stubs):
    ran = Ran("Evaluate", tmp_path, stubs, model="m", data="d", args="--columns '$(touch pwned)' --seed `touch` *")
    assert ran.argv[-5:] == ["--columns", "$(touch pwned)", "--seed", "`touch`", "*"]
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"allow-code": "yes"}, "allow-code must be true or false"),
        ({"args": "--seed '1"}, "args cannot be read"),
        ({"out": ""}, "out must be the path of a folder"),
        ({"out": "a\nstatus=0"}, "out must be the path of a folder"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_runs(tmp_path, stubs, given, told):
    ran = Ran("Evaluate", tmp_path, stubs, model="m", data="d", **given)
    assert ran.status == 64
    assert f"::error::{told}" in ran.out
    assert ran.argv is None


@pytest.mark.parametrize(
    ("status", "told"),
    [(1, "does not hold"), (2, "undecided"), (3, "cannot be believed"), (66, r"nothing was measured (exit status 66)")],
)
def test_the_exit_status_and_the_summary_of_a_failure(tmp_path, stubs, status, told):
    ran = Ran("Evaluate", tmp_path, stubs, model="m", data="d", env={"STUB_STATUS": str(status)})
    assert ran.status == status
    assert ran.outputs["status"] == str(status)
    assert ("attacked" in ran.outputs) == (status < 64)
    assert told in ran.summary.splitlines()[0]


def test_what_the_program_says_is_no_command_to_the_runner(tmp_path, stubs):
    lines = Ran("Evaluate", tmp_path, stubs, model="m", data="d").out.splitlines()
    token = lines[0].removeprefix("::stop-commands::")
    assert len(token) == 32
    assert lines.index("::error::not for the runner") < lines.index(f"::{token}::")


# --- installing ---------------------------------------------------------------------------------------------------


@pytest.fixture
def pip(tmp_path, stubs):
    """A `python` that notes the calls of pip."""
    (stubs / "python").unlink()
    (stubs / "python").write_text('#!/bin/bash\nprintf "%s\\n" "${@: -1}" >> asked\nprintf "%s\\n" "$*" >> calls\n')
    (stubs / "python").chmod(0o755)
    return stubs


def test_the_action_installs_what_it_came_with(tmp_path, pip):
    ran = Ran("Install unfooled", tmp_path, pip, extras="onnx, hub")
    assert ran.status == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert "torch torchvision --index-url https://" in calls[0]
    assert (tmp_path / "asked").read_text().splitlines()[1] == f"{tmp_path / 'action'}[onnx,hub]"
    assert ran.argv == ["--version"]


def test_a_released_version_is_installed_where_one_is_named(tmp_path, pip):
    ran = Ran("Install unfooled", tmp_path, pip, version="0.2.0", **{"torch-index": ""})
    assert ran.status == 0
    assert (tmp_path / "asked").read_text() == "unfooled==0.2.0\n"


@pytest.mark.parametrize(
    "given", [{"extras": "onnx];x"}, {"extras": NASTY}, {"version": "1 --pre"}, {"version": NASTY}]
)
def test_no_other_words_reach_pip(tmp_path, pip, given):
    ran = Ran("Install unfooled", tmp_path, pip, **given)
    assert ran.status == 64
    assert "::error::" in ran.out
    assert not (tmp_path / "calls").exists()
    assert not (tmp_path / "pwned").exists()


# --- the program itself ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("claim", "status"), [("attacked>=0.2", 0), ("attacked>=0.95", 1)])
def test_it_evaluates(tmp_path, claim, status):
    ran = Ran("Evaluate", tmp_path, Path(sys.executable).parent, model="fashion-mnist/hardened",
              data="fashion-mnist-sample[0:120]", threat="linf:0.1", protocol="quick", args="--batch-size 60",
              **{"assert": claim})  # fmt: skip
    assert (ran.status, ran.outputs["status"]) == (status, str(status)), ran.out + ran.err
    assert 0 < float(ran.outputs["attacked"]) < float(ran.outputs["clean"]) <= 1
    assert (tmp_path / "runs" / "robustness" / "report.html").is_file()
    assert (tmp_path / "runs" / "robustness.xml").is_file()
    assert "attacked" in ran.summary or "withstand" in ran.summary
