"""Write the pages of docs/reference that are made from the code. `--check` only compares.

.venv/bin/python tools/site_pages.py [--check]
"""

import sys
from collections.abc import Callable
from pathlib import Path

import site_cli
import site_schema

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
PAGES: dict[str, Callable[[], str]] = {"command-line.md": site_cli.page, "evaluation.md": site_schema.page}


def main() -> None:
    stale = []
    for name, make in PAGES.items():
        path, text = FOLDER / name, make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    if "--check" in sys.argv and stale:
        raise SystemExit(f"Stale pages in docs/reference: {', '.join(stale)}. Run python tools/site_pages.py.")


if __name__ == "__main__":
    main()
