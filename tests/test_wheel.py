"""What is shipped: the wheel and the source archive, what lies in them, and that every form of model runs from the wheel.

The wheel is installed into an environment of its own. What the package depends on is shared with this environment by a
.pth file, which leaves out the .pth files there: the source tree cannot be what is tested.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import brought

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
if find_spec("hatchling") is None:
    pytest.skip("hatchling, which builds the package, is not installed", allow_module_level=True)


def build(source, target, *kinds):
    words = [word for kind in kinds for word in ("-t", kind)]
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(target), *words],
        cwd=source,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder, "sdist", "wheel")
    return folder


@pytest.fixture(scope="module")
def wheel(dist):
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="module")
def sdist(dist):
    return next(dist.glob("*.tar.gz"))


class Fresh:
    """An environment with nothing but the wheel, and the packages that it depends on."""

    def __init__(self, folder, wheel):
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        self.bin = folder / "bin"
        self.python, self.program = self.bin / "python", self.bin / "unfooled"
        subprocess.run(
            [self.python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True
        )
        self.packages = next((folder / "lib").glob("python*/site-packages"))
        shared = next(path for path in map(Path, sys.path) if (path / "torch").is_dir())
        (self.packages / "shared.pth").write_text(f"{shared}\n")

    def run(self, words, cwd, **more):
        env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        env |= {
            "HF_HUB_OFFLINE": "1",
            "UNFOOLED_CACHE": str(cwd / "cache"),
            "NO_PROXY": "*",
            "PYTHONNOUSERSITE": "1",
        } | more
        done = subprocess.run(list(map(str, words)), cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory):
    return Fresh(tmp_path_factory.mktemp("fresh") / "venv", wheel)


# --- what lies in them -----------------------------------------------------------------------------------------


def sources():
    """Files of the package, as paths in the wheel."""
    src = ROOT / "src"
    found = (path for path in (src / "unfooled").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(src)) for path in found}


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        told = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
        entries = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    within = {name for name in names if ".dist-info/" not in name}
    assert within == sources()
    for name in (
        "py.typed", "assets/fashion-mnist-plain.safetensors", "assets/fashion-mnist-sample.npz", "explorer/explorer.css",
        "explorer/favicon.png", "report/templates/report.html.j2", "report/templates/report.css",
    ):  # fmt: skip
        assert f"unfooled/{name}" in within
    assert {name.rpartition("/")[2] for name in names - within} == {
        "METADATA",
        "WHEEL",
        "RECORD",
        "LICENSE",
        "entry_points.txt",
    }
    for extra in ("onnx", "hub", "keras", "sklearn", "explore", "ray"):
        assert f"Provides-Extra: {extra}\n" in told
    assert "unfooled = unfooled.cli:main" in entries
    assert "[pytest11]" in entries
    assert wheel.stat().st_size < 18e6


def test_the_source_archive_holds_what_builds_tests_and_explains_it(sdist):
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    there = {name.partition("/")[0] for name in names}
    assert there >= {
        "src", "tests", "docs", "examples", "benchmarks", "pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md",
        "LICENSE", "Makefile", "constraints.txt", "requirements-dev.txt", "requirements-optional.txt", "action.yml",
    }  # fmt: skip
    assert not there & {"runs", "demo", ".venv", "dist", ".ci", ".git"}
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".part"))]
    assert sdist.stat().st_size < 22e6


def test_the_source_archive_builds_the_same_wheel(sdist, wheel, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    build(next(tmp_path.glob("unfooled-*")), tmp_path / "again", "wheel")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(next((tmp_path / "again").glob("*.whl"))) as other:
        assert one.namelist() == other.namelist()
        assert [name for name in one.namelist() if one.read(name) != other.read(name)] == []


# --- in an environment of its own ---------------------------------------------------------------------------------


def test_it_is_the_wheel_that_runs(fresh, tmp_path):
    where = fresh.run([fresh.python, "-c", "import unfooled; print(unfooled.__file__)"], tmp_path).strip()
    assert Path(where).is_relative_to(fresh.packages)
    version = fresh.run([fresh.program, "--version"], tmp_path)
    assert version.split() == [
        "unfooled",
        fresh.run([fresh.python, "-m", "unfooled", "--version"], tmp_path).split()[1],
    ]
    listed = fresh.run([fresh.program, "list"], tmp_path)
    for name in ("apgd", "fashion-mnist/plain", "fashion-mnist-sample", "blur", "standard"):
        assert name in listed


class Addresses(HTMLParser):
    """What a page refers to, links apart."""

    def __init__(self):
        super().__init__()
        self.found, self.title = [], False

    def handle_starttag(self, tag, attrs):
        self.title |= tag == "title"
        if tag != "a":
            self.found += [value for name, value in attrs if name in ("src", "href", "data")]


def test_the_demo_runs_and_its_report_opens(fresh, tmp_path):
    said = fresh.run([fresh.program, "demo", "--count", "100", "--out", "demo"], tmp_path)
    page = tmp_path / "demo" / "report.html"
    assert "report: demo/report.html" in said
    assert {path.suffix for path in (tmp_path / "demo" / "plots").iterdir()} >= {".png"}
    read = Addresses()
    read.feed(page.read_text(encoding="utf-8"))
    assert read.title
    assert all(one.startswith(("data:", "#")) for one in read.found)
    page.unlink()
    fresh.run([fresh.program, "report", "demo"], tmp_path)
    assert page.is_file()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is not None:
        words = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        shown = subprocess.run([*words, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120)
        assert "<h1" in shown.stdout


# --- one line evaluates what people bring ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """The folder, the pictures and their labels."""
    folder = tmp_path_factory.mktemp("images") / "photos"
    torch.set_num_threads(1)
    return folder, *brought.photographs(folder)


def checked(said, one, labels, access):
    """The evaluation, whose clean accuracy is that of the model's own pipeline."""
    found = json.loads(said)
    raw = float(np.mean(one.answers == labels))
    assert 0.8 <= raw < 1.0  # neither chance nor all: equality means something
    assert found["clean_accuracy"]["value"] == raw
    assert found["clean_accuracy"]["n"] == len(labels)
    assert [example["clean_prediction"] for example in found["examples"]] == one.answers.tolist()
    assert 0 <= found["robust_accuracy"]["attacked"]["value"] <= raw
    codes = {finding["code"]: finding["severity"] for finding in found["findings"]}
    assert ("limited-access" in codes) == (access != "gradients")
    assert "invalid" not in codes.values(), found["findings"]
    assert any(attack["backward"] > 0 for attack in found["attacks"]) == (access == "gradients")
    return found


BROUGHT = [
    (brought.timm, "gradients", ("timm",)),
    (brought.transformers, "gradients", ("transformers",)),
    (brought.onnx, "gradients", ("onnx", "onnxruntime", "onnx2torch")),
    (lambda *given: brought.onnx(*given, convertible=False), "scores", ("onnx", "onnxruntime", "onnx2torch")),
    (brought.keras, "gradients", ("keras",)),
    (brought.sklearn, "scores", ("sklearn", "skops")),
]


@pytest.mark.parametrize(
    ("make", "access", "needed"), BROUGHT, ids=["timm", "transformers", "onnx", "onnx-black-box", "keras", "sklearn"]
)
def test_a_file_or_folder(fresh, photographs, tmp_path, make, access, needed):
    folder, pictures, labels = photographs
    if any(find_spec(name) is None for name in needed):
        pytest.skip(f"needs {', '.join(needed)}")
    one = make(tmp_path, pictures)
    few = ["--budget", "150"] if access == "scores" else []
    words = ["evaluate", *one.words[:1], folder, *one.words[1:], "--threat", "linf:4/255", "--protocol", "quick", *few]
    checked(fresh.run([fresh.program, *words, "--json"], tmp_path), one, labels, access)


def test_a_callable(fresh, photographs, tmp_path):
    folder, pictures, labels = photographs
    one = brought.function(tmp_path, pictures)
    line = (
        "import unfooled as uf, service; print(uf.evaluate(uf.models.BlackBox(service.answers, 'labels', 4, arrays=True, "
        f"last=True), uf.data.load({str(folder)!r}), uf.L2(1.0), protocol='quick', budget=150).to_json())"
    )
    said = fresh.run([fresh.python, "-W", "ignore", "-c", line], tmp_path, PYTHONPATH=str(tmp_path))
    checked(said, one, labels, "labels")


def test_an_endpoint_that_drops_connections_and_is_busy_now_and_then(fresh, photographs, tmp_path):
    folder, pictures, labels = photographs
    one = brought.server(tmp_path, pictures)
    with one.more["server"] as running:
        words = ["evaluate", *one.words[:1], folder, *one.words[1:], "--threat", "linf:4/255", "--protocol", "quick"]
        command = [fresh.program, *words, "--budget", "60", "--json", "--out", "run"]
        found = checked(fresh.run(command, tmp_path), one, labels, "scores")
        assert not running.faults  # all of them were met
        asked = len(running.times)
        assert asked > len(labels) + one.more["faults"]
        shutil.rmtree(tmp_path / "run")
        again = checked(fresh.run(command, tmp_path), one, labels, "scores")
        assert len(running.times) == asked  # every answer was kept
    assert again["robust_accuracy"] == found["robust_accuracy"]
