"""Write the code blocks of the pages from the files under docs/snippets/, which the tests run. `--check` only compares.

    .venv/bin/python tools/snippets.py [--check]     # code
    .venv/bin/python tools/snippets.py --run         # also what it prints, and the pictures that it makes

A page names what a block shows in a comment above it, and so it reads well wherever it is read:

    <!-- snippet: tutorial/fgsm.py curve -->         the section `curve` of docs/snippets/tutorial/fgsm.py
    <!-- output: tutorial/fgsm.py curve -->          what that section prints

A file without sections is shown whole. `# --- NAME ---` begins a section; names that begin with `hidden` are run and not
shown. Lines `#: …` at the top of a file are not shown either. They say how the tests run it:

    #: fixtures photos net.py      what lies in the folder where it is run; see tests/snippet_fixtures.py
    #: packages timm               it is skipped where these are not installed
    #: slow                        it is run by `pytest -m slow` only
    #: not run: REASON             it is not run; its commands and options are looked up all the same
"""

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SNIPPETS = ROOT / "docs" / "snippets"
PICTURES = ROOT / "docs" / "images"
LANGUAGES = {".py": "python", ".sh": "sh"}
NAMED = re.compile(r"<!-- (snippet|output): (\S+?)(?: (\S+))? -->\n\n```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SECTION = re.compile(r"^# --- (\S+) ---\n", re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    """A file: how it is run, and its code by section, in order; the only one of a file without sections is called ""."""

    path: Path
    directives: tuple[str, ...]
    sections: dict[str, str]

    @property
    def name(self) -> str:
        return self.path.relative_to(SNIPPETS).as_posix()

    @property
    def code(self) -> str:
        """All of it, as it is run."""
        return "\n".join(self.sections.values())

    @property
    def shown(self) -> dict[str, str]:
        return {name: code for name, code in self.sections.items() if not name.startswith("hidden")}

    def told(self, key: str) -> list[str]:
        """The words of a directive, none where it is not there."""
        return [word for line in self.directives if line.split()[0] == key for word in line.split()[1:]]

    @property
    def slow(self) -> bool:
        return "slow" in self.directives

    @property
    def reason(self) -> str:
        """Why it is not run; empty where it is."""
        return next((line.partition(":")[2].strip() for line in self.directives if line.startswith("not run:")), "")


@dataclass(frozen=True)
class Block:
    """A code block of a page: `line` is where its code begins, and `named` the file and section that it says it shows."""

    page: Path
    line: int
    language: str
    code: str
    kind: str = ""
    named: tuple[str, str] = ("", "")

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def read(path: Path) -> Snippet:
    """A snippet's file."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    head = [line for line in lines if line.startswith("#:")]
    parts = SECTION.split("".join(lines[len(head) :]).lstrip("\n"))
    if lines[: len(head)] != head or (len(parts) > 1 and parts[0].strip()):
        raise SystemExit(f"{path}: '#:' lines come first, and then the first section.")
    names, codes = (parts[1::2], parts[2::2]) if len(parts) > 1 else ([""], parts)
    if len(set(names)) < len(names):
        raise SystemExit(f"{path} has two sections of one name.")
    sections = {name: code.strip("\n") + "\n" for name, code in zip(names, codes, strict=True)}
    return Snippet(path, tuple(line[2:].strip() for line in head), sections)


def snippets() -> dict[str, Snippet]:
    """All of them by name."""
    found = (read(path) for path in sorted(SNIPPETS.rglob("*")) if path.suffix in LANGUAGES)
    return {one.name: one for one in found}


def pages() -> list[Path]:
    """Every page of the project; those of the attacks are made from docstrings and are tested as they are."""
    docs = [path for path in sorted((ROOT / "docs").rglob("*.md")) if path.parent.name != "attacks"]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *docs]


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    named = {match.end(): match for match in NAMED.finditer(text)}
    found = []
    for match in FENCE.finditer(text):
        said = named.get(match.end())
        more = {} if said is None else {"kind": said[1], "named": (said[2], said[3] or "")}
        line = text.count("\n", 0, match.start()) + 2
        found.append(Block(page, line, match[1], match[2], **more))
    return found


def shown(kind: str, file: str, section: str, outputs: dict[str, dict[str, str]], where: str) -> str | None:
    """What a block must hold; None where that is not known without running it."""
    held = snippets().get(file)
    if held is None or section not in held.shown:
        raise SystemExit(f"{where}: there is no {(file + ' ' + section).strip()} in docs/snippets.")
    if kind == "snippet":
        return f"```{LANGUAGES[held.path.suffix]}\n{held.shown[section]}```"
    printed = outputs.get(file, {}).get(section)
    return None if printed is None else f"```text\n{printed}```"


def written(page: Path, outputs: dict[str, dict[str, str]] | None = None) -> str:
    """The page as it should be."""

    def block(match: re.Match[str]) -> str:
        head, _, old = match[0].partition("\n\n")
        new = shown(match[1], match[2], match[3] or "", outputs or {}, page.name)
        return f"{head}\n\n{old if new is None else new}"

    return NAMED.sub(block, page.read_text(encoding="utf-8"))


def wanted(page: Path) -> set[str]:
    """The files whose output a page shows."""
    return {block.named[0] for block in blocks(page) if block.kind == "output"}


def played(one: Snippet, folder: Path) -> dict[str, str]:
    """What each section of a Python file prints, run in that folder, one after the other, as one program."""
    before, known, printed = Path.cwd(), {"__name__": "__main__"}, {}
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        for name, code in one.sections.items():
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(code, f"{one.name} {name}", "exec"), known)
            printed[name] = out.getvalue()
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))
    return printed


def lay_out(names: list[str], folder: Path) -> None:
    """Put what a snippet needs beside it."""
    if not names:
        return
    sys.path.insert(0, str(ROOT / "tests"))
    from snippet_fixtures import Fixtures

    with tempfile.TemporaryDirectory() as store:
        for name in names:
            Fixtures(Path(store)).put(name, folder)


def run(page: Path) -> dict[str, dict[str, str]]:
    """Run what a page shows the output of; the pictures that come of it go to docs/images/NAME OF THE FILE/."""
    found = {}
    for name in sorted(wanted(page)):
        one = read(SNIPPETS / name)
        with tempfile.TemporaryDirectory() as folder:
            lay_out(one.told("fixtures"), Path(folder))
            found[name] = played(one, Path(folder))
            for picture in sorted(Path(folder).glob("*.png")):
                place = PICTURES / one.path.stem
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(picture, place / picture.name)
    return found


def main() -> None:
    stale = []
    for page in pages():
        outputs = run(page) if "--run" in sys.argv and wanted(page) else None
        text = written(page, outputs)
        if text != page.read_text(encoding="utf-8"):
            stale.append(str(page.relative_to(ROOT)))
            if "--check" not in sys.argv:
                page.write_text(text, encoding="utf-8")
    if "--check" in sys.argv and stale:
        raise SystemExit(f"Stale pages: {', '.join(stale)}. Run python tools/snippets.py.")


if __name__ == "__main__":
    main()
