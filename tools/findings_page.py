"""Write docs/findings.md: every finding, from the catalog of checks. `--check` only compares.

.venv/bin/python tools/findings_page.py [--check]
"""

import ast
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from unfooled.checks.catalog import KINDS, Kind

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "findings.md"
GROUPS = {  # the first code of each group, as the catalog is ordered
    "converted-input": "The set-up",
    "random-model": "Gradients",
    "black-box-better": "The attacks",
    "quick-protocol": "The run",
}
BELOW = ("near-chance", "eps-below-8-bit-step")  # reported below their threshold, not beyond it
WHEN = {"before": "before the attacks", "after": "after them", "thorough": "`thorough` only"}

HEAD = """# Findings

Made by `python tools/findings_page.py` from the catalog that the checks themselves use. What the words mean is in
[trust](trust.md).

Every evaluation says how far its number can be believed. **Trust** is the worst severity left among its findings:

| worst severity left | trust | what it means |
| --- | --- | --- |
| none, or `note` | `valid` | no check speaks against the number; it stays an upper bound, since a stronger attack may leave less |
| `suspect` | `suspect` | a sign that the attacks failed and not the adversary: true accuracy may be far lower |
| `invalid` | `invalid` | what was measured is not what was asked for: the number says nothing |

What [adaptation](trust.md#what-adaptation-tries) has **settled** becomes a note: gradients were taken in another way, and measured that
way the signs are gone. What it has not settled keeps its severity. The protocol `quick` is never `valid`. No single sign is proof,
so each is reported with its measurement, its threshold, its source and its remedy.
"""

TAIL = """
## Met by construction

Some of what the literature asks for is no check here, because the engine cannot do otherwise:

- *Silent success* (Pintor et al., indicator 3: the last iterate fails, an earlier one fooled): every point that an attack looks at
  counts as soon as the victim has confirmed it, and the best one is kept.
- *Success never falls as eps grows* (Carlini et al.): a sweep counts at every larger eps what it found at a smaller one.
- A point that fools only the surrogate is no success (Pintor et al., indicator 5): gradients may come from elsewhere, but the victim's own
  answer in float32 or wider decides. How many points do not transfer is measured beside it.
- *The mean over examples of the per-example minimum over attacks* (Carlini et al.): attacks run on what those before them left, and an example
  that any of them fooled is fooled. Clean accuracy stands beside it; misclassified images count as wrong.
- *Every point lies in the threat's set* (Carlini et al.): checked for each point before it counts, with box and mask.
- *Targeted and untargeted* attacks, and one *without gradients*, are in every protocol but `quick` and those for L0.
- *A transfer attack from the undefended model* (Carlini et al.): wherever a defense can be taken away; its points count.

## Measured in part

- *Random noise is no better than the attack*: ten points for each example left, not Carlini et al.'s 10,000.
- *Unstable predictions* (indicator 2): 20 draws, not 100, on the margin, which does not saturate.
- *Unconstrained failure* (indicator 6): on up to 32 examples before the attacks; one survivor of them is let pass.
- *A hard-label attack*, *more steps* and *Linf 0.5*: only under `thorough`.
- AutoAttack's threshold of 0.002 (a gradient-free attack lowers accuracy): demanded of the lower end of a 95 % interval, so that a lucky hit
  on a borderline image is no alarm.
"""


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def raised(source: Path = ROOT / "src") -> set[str]:
    """The codes of all `finding(code, …)` calls in the source; where the code is a variable, the keys it runs over."""
    return {code for path in sorted(source.rglob("*.py")) for code in _raised(tree(path))}


def _raised(module: ast.Module) -> Iterator[str]:
    for function in ast.walk(module):
        if not isinstance(function, ast.FunctionDef):
            continue
        calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and _is_finding(node)]
        firsts = [call.args[0] for call in calls if call.args]
        yield from (first.value for first in firsts if isinstance(first, ast.Constant))
        if any(isinstance(first, ast.Name) for first in firsts):
            yield from _running_over(function)


def _is_finding(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "finding"


def _running_over(function: ast.FunctionDef) -> Iterator[str]:
    """The keys of the dict literals whose `.items()` a loop of the function runs over."""
    looped = {
        loop.iter.func.value.id
        for loop in ast.walk(function)
        if isinstance(loop, ast.For)
        and isinstance(loop.iter, ast.Call)
        and isinstance(loop.iter.func, ast.Attribute)
        and isinstance(loop.iter.func.value, ast.Name)
    }
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and looped & _names(node):
            yield from (key.value for key in node.value.keys if isinstance(key, ast.Constant))


def _names(node: ast.Assign) -> set[str]:
    return {target.id for target in node.targets if isinstance(target, ast.Name)}


def threshold(code: str, kind: Kind) -> str:
    if kind.threshold is None:
        return "any"
    return f"{'<' if code in BELOW else '>'} {kind.threshold:g}"


def row(code: str, kind: Kind, live: bool) -> str:
    when = WHEN[kind.when] if live else "not measured yet"
    cells = [
        f"`{code}`", kind.severity, kind.measures, threshold(code, kind), "yes" if kind.settles else "no", when, kind.source,
        kind.remedy,
    ]  # fmt: skip
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page() -> str:
    live, title, titled = raised(), "", []
    for code, kind in KINDS.items():
        title = GROUPS.get(code, title)
        titled.append((title, row(code, kind, code in live)))
    head = ["code", "severity", "what is measured", "threshold", "can be settled", "when", "source", "remedy"]
    parts = [HEAD]
    for name, rows in groupby(titled, key=lambda pair: pair[0]):
        lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *(text for _, text in rows)]
        parts.append(f"\n## {name}\n\n" + "\n".join(lines) + "\n")
    return "".join([*parts, TAIL])


def main() -> None:
    text = page()
    if PAGE.exists() and PAGE.read_text() == text:
        return
    if "--check" in sys.argv:
        raise SystemExit("docs/findings.md is stale. Run python tools/findings_page.py.")
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
