"""A griffe extension: this project's docstrings as the site's Markdown.

Options and fields are written ``name:  meaning``, aligned; they become a list of definitions. Names of the public interface
in backticks become links.
"""

import re
from typing import Any

from griffe import Alias, Docstring, Extension, Module, Object

ENTRY = re.compile(r"([a-z_]\w*(?:, [a-z_]\w*)*):\s+(\S.*)", re.DOTALL)
MODULES = ("attacks", "cluster", "data", "defenses", "errors", "models", "training")
NAME = re.compile(r"(?<![`\[])`((?:unfooled\.)?[A-Za-z_][\w.]*)`(?!`)")


class Docstrings(Extension):
    """See the module."""

    def on_package(self, *, pkg: Module, **kwargs: Any) -> None:
        if pkg.name == "unfooled":
            for module in MODULES:
                _tell(pkg.members[module])
            _rewrite(pkg, _links(pkg), set())


def _links(package: Module) -> dict[str, str]:
    """What a name in backticks means: its anchor, by the name that follows ``unfooled.``, and of a class by the bare name."""
    names = {name: f"unfooled.{name}" for name in _public(package)}
    names |= {f"{m}.{name}": f"unfooled.{m}.{name}" for m in MODULES for name in _public(package.members[m])}
    bare: dict[str, set[str]] = {}
    for name, anchor in names.items():
        bare.setdefault(name.rpartition(".")[2], set()).add(anchor)
    for name, anchors in bare.items():
        shortest = min(anchors, key=len)
        if name[:1].isupper() and (len(anchors) == 1 or shortest.count(".") == 1):
            names.setdefault(name, shortest)
    return {f"unfooled.{name}": anchor for name, anchor in names.items()} | {
        name: anchor for name, anchor in names.items() if name.rpartition(".")[2][:1].isupper()
    }


def _public(module: Any) -> list[str]:
    """The names that a module exports; of one that does not say, its own classes."""
    if module.exports:
        return [str(getattr(name, "name", name)) for name in module.exports]
    return [name for name, one in module.members.items() if not one.is_alias and one.is_class and name[:1] != "_"]


def _tell(module: Any) -> None:
    """A line for public tables and types that have none, so that they are not left out."""
    for name in _public(module):
        one = module.members.get(name)
        one = one.final_target if one is not None and one.is_alias else one
        if one is not None and one.is_attribute and not one.docstring:
            table = str(one.value).startswith("{") or name.isupper()
            one.docstring = Docstring("What there is, by name." if table else "A type.", parent=one)


def _rewrite(one: Object | Alias, links: dict[str, str], seen: set[str]) -> None:
    if one.is_alias or one.path in seen:
        return
    seen.add(one.path)
    if one.docstring:
        one.docstring.value = markdown(one.docstring.value, links, one.path)
    for member in one.members.values():
        _rewrite(member, links, seen)


def markdown(text: str, links: dict[str, str], path: str = "") -> str:
    """A docstring, block by block."""
    blocks = re.split(r"\n{2,}", text.strip("\n"))
    return "\n\n".join(_block(block, links, path) for block in blocks)


def _block(block: str, links: dict[str, str], path: str) -> str:
    if block.startswith(" "):
        return block  # a formula or an example: code in Markdown too
    entries = [ENTRY.fullmatch(part) for part in re.split(r"\n(?=\S)", block)]
    if re.match(r"[a-z_][\w, ]*:  ", block) and all(entries):
        told = [(entry[1].split(", "), " ".join(entry[2].split())) for entry in entries if entry]
        return "\n\n".join(
            f"{', '.join(f'`{name}`' for name in names)}\n:   {_linked(meaning, links, path)}"
            for names, meaning in told
        )
    if re.match(r"(Args|Returns|Raises|Yields|Attributes):\n", block):
        return block  # griffe reads these
    return _linked(block, links, path)


def _linked(text: str, links: dict[str, str], path: str) -> str:
    """Names of the public interface as links, but for a name in its own account."""

    def link(found: re.Match[str]) -> str:
        anchor = links.get(found[1])
        if anchor is None or anchor.rpartition(".")[2] == path.rpartition(".")[2]:
            return found[0]
        return f"[{found[0]}][{anchor}]"

    return NAME.sub(link, text)
