"""A plain `pip install unfooled`: what needs an extra says so in one line, and all else works without any.

One process sees nothing but what the core depends on, and tries everything; the tests look at what it says.
"""

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from unfooled.errors import MissingExtra

packaging = pytest.importorskip("packaging.requirements")
CORE = "unfooled"
ROOT = Path(__file__).resolve().parent.parent
TRIED = """
import contextlib, importlib, io, json, os, pkgutil, sys, warnings
from pathlib import Path

given = json.loads(sys.argv[1])
hidden = set(given["hidden"])


class Without:
    '''A finder that finds no hidden package, as if it were not installed.'''

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden or not hasattr(self.finder, "find_spec"):
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]

import unfooled as uf
from unfooled.cli import run

told = {"imports": {}, "asked": []}
warnings.simplefilter("ignore")
for found in pkgutil.walk_packages(uf.__path__, "unfooled."):
    if found.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(found.name)
    except ImportError as error:
        told["imports"][found.name] = [type(error).__name__, str(error)]
for name in uf.__all__:
    getattr(uf, name)


def files():
    return sorted(str(path) for path in Path().rglob("*"))


def command(words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run(words)
    return status, err.getvalue()


def call(words):
    try:
        eval(words, {"uf": uf})
    except Exception as error:
        return type(error).__name__, str(error)
    return "", "nothing was raised"


for asked in given["asked"]:  # those that hide all come first
    hidden.clear()
    hidden.update(given["hidden"] if asked["hide"] is None else asked["hide"])
    for name in [name for name in sys.modules if name.partition(".")[0] in hidden]:
        del sys.modules[name]
    before = files()
    status, text = command(asked["try"]) if isinstance(asked["try"], list) else call(asked["try"])
    told["asked"].append({"status": status, "text": text, "left": [one for one in files() if one not in before]})
print(json.dumps(told))
"""
SOME = "fashion-mnist-sample[0:20]"
BUNDLED = "fashion-mnist/plain"


def evaluated(*words):
    return ["evaluate", *words, "--out", "run/here", "--protocol", "quick"]


ASKED = [  # what is tried, the extra that is named, what is hidden (None: all that the core does not need)
    (evaluated("timm:test_resnet", SOME), "hub", None),
    (evaluated("hf:folder", SOME), "hub", None),
    (evaluated("model.onnx", SOME), "onnx", None),
    (evaluated("model.keras", SOME), "keras", None),
    (evaluated("model.skops", SOME), "sklearn", None),
    (evaluated("model.joblib", SOME, "--allow-code"), "sklearn", None),
    (evaluated(BUNDLED, "hf:imdb"), "hub", None),
    (evaluated(BUNDLED, "table.parquet"), "hub", None),
    (evaluated(BUNDLED, "saved"), "hub", None),
    (evaluated(BUNDLED, SOME, "--ray", "local"), "ray", None),
    (["attack", "model.onnx", SOME, "--out", "run"], "onnx", None),
    (["sweep", "hf:folder", SOME, "--out", "run"], "hub", None),
    (["doctor", "timm:test_resnet", SOME], "hub", None),
    (["explore", "--no-browser"], "explore", None),
    (["explore", "nowhere", SOME, "--no-browser"], "explore", None),
    ("uf.models.load('timm:test_resnet')", "hub", None),
    ("uf.models.load('hf:OWNER/NAME')", "hub", None),
    ("uf.models.load('model.onnx')", "onnx", None),
    ("uf.models.load('model.keras')", "keras", None),
    ("uf.models.load('model.skops')", "sklearn", None),
    ("uf.models.load('model.joblib', allow_code=True)", "sklearn", None),
    ("uf.data.load('hf:imdb')", "hub", None),
    ("uf.data.load('table.parquet')", "hub", None),
    ("uf.evaluate(uf.models.load('fashion-mnist/plain'), uf.data.load('fashion-mnist-sample[0:20]'), 'linf:0.1', "
     "cluster=uf.cluster.Ray(), out='run')", "ray", None),
    (evaluated("timm:test_resnet", SOME), "hub", ["torchvision"]),
    (evaluated("hf:folder", SOME), "hub", ["transformers"]),
    (evaluated("model.onnx", SOME), "onnx", ["onnxruntime"]),
    (evaluated("model.onnx", SOME), "onnx", ["onnx2torch"]),
    (evaluated("model.onnx", SOME, "--model-option", "access=scores"), "onnx", ["onnxruntime"]),
    ("uf.models.load('model.onnx')", "onnx", ["onnx"]),
    (evaluated("model.skops", SOME), "sklearn", ["skops"]),
]  # fmt: skip


def of(dist):
    """The packages that a distribution asks for, extras left out."""
    for line in metadata.requires(dist) or ():
        need = packaging.Requirement(line)
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            yield need.name


def closure(dist, seen):
    name = re.sub(r"[-_.]+", "-", dist).lower()
    if name not in seen:
        seen.add(name)
        for need in of(dist):
            try:
                closure(need, seen)
            except metadata.PackageNotFoundError:  # needed elsewhere only
                continue
    return seen


@pytest.fixture(scope="module")
def foreign():
    """Every importable package that is installed here and that the core neither is nor asks for."""
    core = closure(CORE, set())
    assert {"torch", "numpy", "typer"} <= core
    assert not {"timm", "onnx", "keras", "scikit-learn", "gradio", "ray", "pyarrow"} & core
    return sorted(
        package
        for package, dists in metadata.packages_distributions().items()
        if not {re.sub(r"[-_.]+", "-", dist).lower() for dist in dists} & core
    )


@pytest.fixture(scope="module")
def told(tmp_path_factory, foreign):
    folder = tmp_path_factory.mktemp("plain")
    (folder / "folder").mkdir()
    (folder / "folder" / "config.json").write_text('{"model_type": "vit"}')
    (folder / "saved").mkdir()
    (folder / "saved" / "state.json").write_text("{}")
    for name in ("model.onnx", "model.skops", "model.joblib"):
        (folder / name).write_bytes(b"whatever it holds: it is not looked into")
    (folder / "table.parquet").write_bytes(b"PAR1")
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    asked = [{"try": words, "hide": hide} for words, _, hide in ASKED]
    script = folder.parent / "tried.py"
    script.write_text(TRIED)
    done = subprocess.run(
        [sys.executable, str(script), json.dumps({"hidden": foreign, "asked": asked})], cwd=folder,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("at", range(len(ASKED)), ids=lambda at: f"{ASKED[at][1]}-{at}")
def test_a_missing_extra_is_named_in_one_line(told, at):
    tried, extra, _ = ASKED[at]
    answer = told["asked"][at]
    assert f'pip install "unfooled[{extra}]"' in answer["text"]
    if isinstance(tried, list):
        assert answer["status"] == MissingExtra.exit_status >= 64
        assert len(answer["text"].strip().splitlines()) == 1
        assert answer["text"].startswith("unfooled: ")
    else:
        assert answer["status"] == "MissingExtra"
        assert "\n" not in answer["text"]
    assert answer["left"] == []


NEED = {"unfooled.pytest_plugin": "pytest", "unfooled.models.formats.onnx_graph": "onnx",
        "unfooled.models.formats.onnx_lower": "onnx", "unfooled.models.formats.onnx_run": "onnx"}  # fmt: skip
"""Modules that are imported only where it is known that this package is there."""


def test_all_else_imports_without_any_extra(told):
    for name, (kind, text) in told["imports"].items():
        if name.startswith("unfooled.explorer."):
            assert kind == "MissingExtra"
            assert 'pip install "unfooled[explore]"' in text
        else:
            assert text == f"No module named {NEED[name]!r}"
    silent = {"desk", "state", "curves", "lesson", "uploads", "runs", "pictures"}
    assert not {f"unfooled.explorer.{name}" for name in silent} & set(told["imports"])


def test_every_extra_that_an_error_names_is_one_of_the_package():
    named = set()
    for file in (ROOT / "src").rglob("*.py"):
        named |= set(re.findall(r"unfooled\[([a-z,]+)\]", file.read_text(encoding="utf-8")))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert named == set(project["optional-dependencies"])


def test_an_extra_asks_for_what_its_error_speaks_of():
    wanted = {
        "onnx": {"onnx", "onnxruntime", "onnx2torch"}, "hub": {"timm", "transformers", "datasets", "pyarrow"},
        "keras": {"keras"}, "sklearn": {"scikit-learn", "skops"}, "explore": {"gradio"}, "ray": {"ray"},
    }  # fmt: skip
    for extra, names in wanted.items():
        found = {
            need.name
            for need in map(packaging.Requirement, metadata.requires(CORE))
            if need.marker is not None and need.marker.evaluate({"extra": extra})
        }
        assert names <= found, extra
