"""Every code block of every page is a file under docs/snippets that is run here, or is listed with why it is not."""

import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from snippet_fixtures import Fixtures, endpoint
from unfooled.models import vision

ROOT = Path(__file__).parent.parent
CODE = {"python": ".py", "py": ".py", "sh": ".sh", "bash": ".sh", "shell": ".sh", "console": ".sh"}
LEAST = 30  # files under docs/snippets; fewer would mean that they are not found
NOT_RUN = {  # how a block begins, and why it is not run; the commands in it are looked up all the same
    "make demo": "what CI runs itself",
    "make test": "what CI runs itself",
    "python3 -m venv": "installs from the network",
    "pip install": "installs from the network",
    "unfooled explore": "serves until it is stopped; tests/browser use the page",
    "EXPLORER_PASSWORD=": "serves until it is stopped; tests/browser use the page",
    "python serve.py": "serves until it is stopped; the other snippets of its page ask it",
    "unfooled evaluate timm:resnet50": "fetches weights from the hub",
    "unfooled evaluate hf:google": "fetches a model from the hub",
    'unfooled doctor model.py:make "hf:ORG': "fetches a data set from the hub",
    "unfooled evaluate https://example.org": "there is no such address",
    "ray start": "needs several machines",
    "unfooled evaluate net.py:make photos/ --weights net.safetensors --threat linf:4/255 --ray auto": "needs a running cluster",
    "import unfooled as uf\nfrom unfooled.cluster import Ray\n\nuf.evaluate(": "needs a running cluster",
    "OMP_PROC_BIND=true python -m benchmarks": "hours",
    "for part in": "a thousand runs on a cluster",
    "unfooled study": "minutes, on data that are not in the repository; tests/test_cases.py run the studies on small ones",
    "unfooled sweep --study seed": "hours, on data that are not in the repository; tests/test_studies.py run it on small ones",
    "unfooled evaluate fashion-mnist/hardened fashion-mnist-sample --threat linf:0.1 --protocol fast": "fetches data, explores",
    "unfooled evaluate fashion-mnist/hardened fashion-mnist-sample --threat linf:0.1 --out runs/bracket": "redraws a figure",
}


def loaded(name):
    found = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


tool = loaded("snippets")
FILES = tool.snippets()
BLOCKS = [block for page in tool.pages() for block in tool.blocks(page)]


# --- the pages and the files -----------------------------------------------------------------------


def sources(code):
    """The files and sections that hold this code."""
    return [(name, part) for name, one in FILES.items() for part, held in one.shown.items() if held == code]


def test_every_code_block_of_every_page_is_a_file():
    assert len(FILES) >= LEAST
    code = [block for block in BLOCKS if block.language in CODE and not sources(block.code)]
    homeless = [str(block) for block in code if not any(block.code.startswith(first) for first in NOT_RUN)]
    assert not homeless, f"no file under docs/snippets holds these blocks: {', '.join(homeless)}"
    unused = [first for first in NOT_RUN if not any(block.code.startswith(first) for block in code)]
    assert not unused, f"on no page: {unused}"


def test_the_pages_show_what_the_files_hold():
    stale = [page.name for page in tool.pages() if tool.written(page) != page.read_text(encoding="utf-8")]
    assert not stale, f"{stale}: run python tools/snippets.py"


def test_every_file_is_shown():
    seen = {source for block in BLOCKS for source in sources(block.code)}
    left = {(name, part) for name, one in FILES.items() for part in one.shown} - seen
    assert not left, f"on no page: {sorted(left)}"


def test_every_file_says_how_it_is_run():
    for one in FILES.values():
        assert all(line.split()[0] in ("fixtures", "packages", "slow", "not") for line in one.directives), one.name
        if any(line.startswith("not") for line in one.directives):
            assert len(one.reason) > 10, one.name
            assert len(one.directives) == 1, f"{one.name} is not run: what it would need does not matter"
        if one.path.suffix == ".py":
            compile(one.code, one.name, "exec")


def commands(code):
    """The arguments of each `unfooled …` in a shell's text."""
    for line in code.replace("\\\n", " ").splitlines():
        if not re.match(r"(\s*(do|then)\s)?\s*(\w+=\S* )*(\S+/)?unfooled ", line):
            continue
        words = shlex.split(line, comments=True)
        at = next(k for k, word in enumerate(words) if word.rpartition("/")[2] == "unfooled")
        ends = [
            k for k, word in enumerate(words) if k > at and (word in ("||", "&&", "|", ";") or word.startswith(">"))
        ]
        yield words[at + 1 : min(ends, default=len(words))]


def test_commands_are_found_in_a_shells_text():
    text = 'A=1 unfooled list attacks # all\npip install "unfooled[ray]"\nunfooled evaluate a \\\n  b || [ $? -eq 2 ]\n'
    assert list(commands(text)) == [["list", "attacks"], ["evaluate", "a", "b"]]


def test_every_command_of_every_page_exists_with_its_options():
    import typer

    from unfooled.cli.app import app

    group = typer.main.get_command(app)
    asked = [(block, words) for block in BLOCKS if block.language in ("", *CODE) for words in commands(block.code)]
    asked = [(block, words) for block, words in asked if words and not words[0].startswith("-")]  # --version
    assert len(asked) > 40
    for block, (name, *arguments) in asked:
        if name.startswith("-") or "[OPTIONS]" in arguments:  # a usage line of the reference
            continue
        command = group.commands.get(name)
        assert command is not None, f"{block}: there is no command {name!r}"
        try:
            command.make_context(name, list(arguments))
        except Exception as error:
            pytest.fail(f"{block}: unfooled {name} {shlex.join(arguments)}: {error}")


def test_workflows_are_yaml_and_know_the_inputs_of_the_action():
    held = [block for block in BLOCKS if block.language in ("yaml", "yml")]
    inputs = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))["inputs"]
    steps = []
    for block in held:
        found = yaml.safe_load(block.code)
        steps += found if isinstance(found, list) else found.get("steps", [])
    ours = [step["with"] for step in steps if "unfooled" in step.get("uses", "")]
    assert ours, "no page shows the action"
    for given in ours:
        assert set(given) <= set(inputs)
        assert {name for name, one in inputs.items() if one.get("required")} <= set(given)


# --- the tool --------------------------------------------------------------------------------------


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A page of its own with a snippet of its own."""
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(tool, "SNIPPETS", tmp_path / "docs" / "snippets")
    monkeypatch.setattr(tool, "PICTURES", tmp_path / "docs" / "images")
    (tmp_path / "docs" / "snippets").mkdir(parents=True)
    file, page = tmp_path / "docs" / "snippets" / "sum.py", tmp_path / "docs" / "page.md"
    file.write_text(
        "#: slow\n# --- one ---\nprint(1)\n\n# --- hidden-two ---\nx = 2\n\n# --- three ---\nprint(x + 1)\n"
    )
    page.write_text(
        "# P\n\n<!-- snippet: sum.py three -->\n\n```python\n```\n\n<!-- output: sum.py three -->\n\n```text\n4\n```\n"
    )
    return file, page


def test_the_tool_writes_code_and_what_it_prints(book):
    _, page = book
    assert tool.written(page).count("print(x + 1)") == 1
    assert "\n4\n" in tool.written(page)  # without a run, outputs stay
    page.write_text(tool.written(page, tool.run(page)))
    assert [block.code for block in tool.blocks(page)] == ["print(x + 1)\n", "3\n"]
    assert tool.written(page) == page.read_text()


def test_a_changed_page_and_a_changed_file_are_both_seen(book):
    file, page = book
    page.write_text(tool.written(page))
    file.write_text(file.read_text().replace("x + 1", "x + 2"))
    assert tool.written(page) != page.read_text()
    page.write_text(page.read_text().replace("three", "two"))
    with pytest.raises(SystemExit, match="there is no sum.py two"):
        tool.written(page)


def test_two_sections_of_one_name_are_refused(book):
    file, _ = book
    file.write_text("# --- a ---\n1\n# --- a ---\n2\n")
    with pytest.raises(SystemExit, match="two sections of one name"):
        tool.read(file)


# --- they run --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def fixtures(tmp_path_factory):
    return Fixtures(tmp_path_factory.mktemp("fixtures"))


def run(one, folder, fixtures):
    """Run a file in a folder with what it needs. A test file is run by pytest, shell by `bash -euo pipefail`."""
    if one.told("packages"):
        vision.torchvision()  # which these import, and which may not fit this torch
    for package in one.told("packages"):
        pytest.importorskip(package)
    with ExitStack() as stack:
        code = one.code
        for name in one.told("fixtures"):
            if name == "endpoint":
                code = code.replace("127.0.0.1:8000", stack.enter_context(endpoint()))
            else:
                fixtures.put(name, folder)
        file = folder / one.path.name
        file.write_text(code)
        environment = os.environ | {
            "HOME": str(folder), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "100",
            "UNFOOLED_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "OMP_PROC_BIND": "false",
        }  # fmt: skip
        shell = ["bash", "-euo", "pipefail", file.name]
        python = [sys.executable, *(["-m", "pytest", "-q"] if file.name.startswith("test_") else []), file.name]
        words = shell if file.suffix == ".sh" else python
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, f"{one.name}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr
    return done.stdout


PAGES = [page for page in tool.pages() if tool.wanted(page)]
BESIDE = {"serve.py"} | {name for one in FILES.values() for name in one.told("fixtures")}  # what others are run with
PLAYED = {name for page in PAGES for name in tool.wanted(page)}  # those whose output is compared, below
RUN = [one for name, one in FILES.items() if not (one.reason or one.path.name in BESIDE or name in PLAYED)]


@pytest.mark.parametrize("one", [one for one in RUN if not one.slow], ids=lambda one: one.name)
def test_a_quick_snippet_runs(one, tmp_path, fixtures):
    run(one, tmp_path, fixtures)


@pytest.mark.slow
@pytest.mark.parametrize("one", [one for one in RUN if one.slow], ids=lambda one: one.name)
def test_a_slow_snippet_runs(one, tmp_path, fixtures):
    run(one, tmp_path, fixtures)


# --- what they print is what the pages say -----------------------------------------------------------

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def same(printed, kept):
    """Whether two texts agree but for numbers that differ by five units of their last digit: other machines round otherwise."""
    if NUMBER.sub("#", printed).split() != NUMBER.sub("#", kept).split():
        return False
    pairs = zip(NUMBER.findall(printed), NUMBER.findall(kept), strict=True)
    return all(abs(float(a) - float(b)) <= 5.001 * 10 ** -len(b.partition(".")[2]) for a, b in pairs)


def test_what_counts_as_the_same_output():
    assert same("84.6 % of 500", "84.2 % of 500")
    assert not same("84.6 % of 500", "83.9 % of 500")
    assert not same("84.6 % of 500", "84.6 of 500")
    assert not same("1 2", "1 2 3")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_outputs_on_a_page_are_those_of_its_code(page, tmp_path, fixtures, monkeypatch):
    made = tmp_path / "images"
    monkeypatch.setattr(tool, "PICTURES", made)
    for name in sorted(tool.wanted(page)):
        for package in FILES[name].told("packages"):
            pytest.importorskip(package)
    found = tool.run(page)
    for block in tool.blocks(page):
        if block.kind == "output":
            assert same(found[block.named[0]][block.named[1]], block.code), f"{block}: {block.named}"
    kept = ROOT / "docs" / "images"
    for picture in made.rglob("*.png"):
        assert close(picture, kept / picture.relative_to(made)), f"{picture.name} has changed"


def close(a, b):
    import numpy as np
    from PIL import Image

    first, second = (np.asarray(Image.open(path).convert("RGB"), dtype=float) for path in (a, b))
    return first.shape == second.shape and abs(first - second).mean() < 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_share_in_the_text_of_such_a_page_is_one_that_its_code_printed(page):
    text = page.read_text(encoding="utf-8")
    printed = {number for block in tool.blocks(page) if block.kind == "output" for number in NUMBER.findall(block.code)}
    prose = tool.FENCE.sub("", text)
    shares = re.findall(r"(\d+(?:\.\d+)?)(?: %| points)", prose)
    assert [share for share in shares if share not in printed and share != "95"] == []
    for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", prose):
        assert (page.parent / picture).is_file(), picture


@pytest.mark.slow
def test_the_examples_of_the_attacks_pages_run():
    pages = sorted((ROOT / "docs" / "attacks").glob("*.md"))
    examples = [block for page in pages for block in tool.blocks(page) if block.language == "python"]
    assert len(examples) == len(pages) - 1
    for block in examples:
        exec(compile(block.code, str(block), "exec"), {})
