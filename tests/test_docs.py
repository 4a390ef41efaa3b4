"""The docs that are made from the code, and the examples: they are current and they run."""

import inspect
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from unfooled.attacks import ATTACKS
from unfooled.attacks.facts import facts
from unfooled.cli import run

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("kind", ATTACKS.values(), ids=lambda k: k.name)
def test_an_attack_says_everything_that_its_page_needs(kind):
    one = facts(kind)
    assert one.title
    assert one.idea
    assert re.search(r"\b(19|20)\d\d, arXiv:\d{4}\.\d{4,5}", one.reference), one.reference
    assert len(one.fails) > 20
    assert any(block.startswith(" ") for block in one.body), "no formula"
    for option in one.options:
        assert len(option.meaning) > 10, f"{option.name} is not told"


def test_the_pages_are_current():
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "attack_pages.py", "--check"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    pages = {path.stem for path in (ROOT / "docs" / "attacks").glob("*.md")} - {"README"}
    assert pages == set(ATTACKS)


def test_list_verbose_shows_the_same_facts(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["list", "attacks", "--verbose"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    flat = re.sub(r"\s+", "", shown)
    for kind in ATTACKS.values():
        one = facts(kind)
        for words in (one.name, one.fails, one.reference, one.cost, *(o.meaning for o in one.options)):
            assert re.sub(r"\s+", "", words) in flat, (one.name, words)
    assert run(["list", "attacks", "--verbose", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {one["name"] for one in told} == set(ATTACKS)
    assert all(one["fails"] and one["reference"] for one in told)


def test_write_your_own_attack_in_25_lines():
    example = runpy.run_path(str(ROOT / "examples" / "own_attack.py"))
    code = (ROOT / "examples" / "own_attack.py").read_text().split("# ---")[2 - 1].splitlines()[1:]
    assert len([line for line in code if line.strip()]) <= 25
    import torch

    import unfooled as uf
    from helpers import problem

    assert issubclass(example["Halving"], uf.attacks.Attack)
    for kind in example["Halving"].norms:
        p = problem((8,), dtype=torch.float64)
        threat = p.threat(kind, 1.5)
        mine = uf.attack(p.model, p.x, p.y, threat, example["Halving"]())
        peer = uf.attack(p.model, p.x, p.y, threat, uf.attacks.PGD(step_size=0.1))
        assert int(mine.success.sum()) >= int(peer.success.sum()) - 1 > 3
    assert inspect.isabstract(uf.attacks.Attack)
