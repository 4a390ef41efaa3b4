"""Write docs/notebooks/*.ipynb from the .py file of the same name. `--check` only compares.

.venv/bin/python tools/notebooks.py [--check]

`# %% [markdown]` begins a cell of text, `# %%` one of code. Outputs are not kept: a notebook is then the same on every machine,
and what it shows is what the code that stands there shows. tests/test_notebooks.py runs them.
"""

import sys
from pathlib import Path

import nbformat
from nbformat import v4

FOLDER = Path(__file__).parent.parent / "docs" / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def cells(source: str) -> list[nbformat.NotebookNode]:
    """The cells of a file, in order."""
    head, *parts = f"\n{source}".split("\n# %%")
    if head.strip():
        raise SystemExit("A notebook's file begins with a cell: # %% or # %% [markdown].")
    made = []
    for at, part in enumerate(parts):
        kind, _, body = part.partition("\n")
        if kind.strip() == "[markdown]":
            lines = [line.removeprefix("#").removeprefix(" ") for line in body.strip("\n").splitlines()]
            made.append(v4.new_markdown_cell("\n".join(lines), id=f"cell-{at}"))
        else:
            made.append(v4.new_code_cell(body.strip("\n"), id=f"cell-{at}"))
    return made


def notebook(source: str) -> str:
    """The notebook of a file, as it lies on disk."""
    made = v4.new_notebook(cells=cells(source), metadata=METADATA)
    nbformat.validate(made)
    return nbformat.writes(made) + "\n"


def main() -> None:
    stale = []
    for path in sorted(FOLDER.glob("*.py")):
        place, text = path.with_suffix(".ipynb"), notebook(path.read_text(encoding="utf-8"))
        if not place.exists() or place.read_text(encoding="utf-8") != text:
            stale.append(place.name)
            if "--check" not in sys.argv:
                place.write_text(text, encoding="utf-8")
    if "--check" in sys.argv and stale:
        raise SystemExit(f"Stale notebooks: {', '.join(stale)}. Run python tools/notebooks.py.")


if __name__ == "__main__":
    main()
