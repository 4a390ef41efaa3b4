"""Write docs/attacks/: a page for each attack from what its class says, and an index. `--check` only compares.

.venv/bin/python tools/attack_pages.py [--check]
"""

import sys
from pathlib import Path

from unfooled.attacks import ATTACKS
from unfooled.attacks.facts import Facts, facts

FOLDER = Path(__file__).parent.parent / "docs" / "attacks"
THREAT = {"Linf": "uf.Linf(0.1)", "L2": "uf.L2(1.5)", "L1": "uf.L1(12)", "L0": "uf.L0(20)"}


def page(one: Facts, kind: str) -> str:
    """The one template."""
    body = [f"```\n{_dedented(block)}\n```" if block.startswith(" ") else block for block in one.body]
    rows = [f"| `{option.name}` | `{option.default}` | {option.meaning} |" for option in one.options]
    options = ["| option | default | what it is, and whose default |", "| --- | --- | --- |", *rows]
    example = (
        "```python\nimport unfooled as uf\n\n"
        'model, data = uf.models.load("fashion-mnist/plain"), uf.data.load("fashion-mnist-sample:test[0:16]")\n'
        f"result = uf.attack(model, data.floats(), data.labels, {THREAT[one.norms[0]]}, uf.attacks.{kind}())\n"
        "print(result.robust_accuracy, result.distance)\n```"
    )
    parts = [
        f"# {one.title} (`{one.name}`)",
        f"{one.idea[0].upper()}{one.idea[1:]}",
        *body,
        "## Options",
        "\n".join(options) if rows else "None.",
        "## What it needs and costs",
        f"Access: {one.access}. Norms: {', '.join(one.norms)}. Cost: {one.cost}.",
        "## When it fails",
        f"{one.fails[0].upper()}{one.fails[1:]}",
        "## Example",
        example,
        "## Reference",
        one.reference,
    ]
    return "\n\n".join(parts) + "\n"


def _dedented(block: str) -> str:
    return "\n".join(line.strip() for line in block.splitlines())


def index(found: list[Facts]) -> str:
    rows = [
        f"| [`{one.name}`]({one.name}.md) | {one.title} | {', '.join(one.norms)} | {one.access.split(' ')[0]} |"
        for one in found
    ]
    head = ["# Attacks", "", "Made by `python tools/attack_pages.py` from the attacks' own docstrings.", ""]
    return "\n".join([*head, "| name | attack | norms | access |", "| --- | --- | --- | --- |", *rows]) + "\n"


def pages() -> dict[str, str]:
    found = {name: facts(kind) for name, kind in ATTACKS.items()}
    texts = {f"{name}.md": page(one, ATTACKS[name].__name__) for name, one in found.items()}
    return {"README.md": index(list(found.values()))} | texts


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    stale = []
    for name, text in pages().items():
        path = FOLDER / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text)
    if "--check" in sys.argv and stale:
        raise SystemExit(f"Stale pages: {', '.join(stale)}. Run python tools/attack_pages.py.")


if __name__ == "__main__":
    main()
