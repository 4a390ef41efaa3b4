"""Hooks of the docs site: links that leave docs/ hold on the repository's page and in the built site alike.

A page may link to any file of the repository. In the site, CHANGELOG.md and CONTRIBUTING.md are pages of their own, and
any other file outside docs/ that a page links to becomes a page that shows it. So the site needs no address of a repository
and works from disk.

Pages that mkdocs.yml does not name join the section of their folder, so that a new record or attack is in the navigation by
itself; the page of decisions lists them.
"""

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = {"CHANGELOG.md": "changes.md", "CONTRIBUTING.md": "contributing.md", "README.md": "index.md"}
SHOWN = "repository"  # the folder of the pages that show files
SECTIONS = {
    "tutorial": "Tutorial", "notebooks": "Notebooks", "how-to": "How to", "reference": "Reference",
    "attacks": "Attacks, one by one", "decisions": "Decisions", "studies": "Studies",
}  # fmt: skip
ELSE = "Explanation"
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?(?:\s+\"[^\"]*\")?\))")
CODE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LANGUAGES = {".py": "python", ".yml": "yaml", ".toml": "toml", ".json": "json", ".sh": "sh", ".md": "markdown"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages made of files outside docs/."""
    for source, page in PAGES.items():
        if page not in files.src_uris:
            files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for source in sorted({target for file in files.documentation_pages() for target in _left(file)}):
        files.append(File.generated(config, _page_of(source), content=_shown(source)))
    pages = sorted(file.src_uri for file in files.documentation_pages() if not file.src_uri.startswith(f"{SHOWN}/"))
    for uri in pages:
        if uri not in _listed(config.nav):
            _section(config.nav, SECTIONS.get(uri.partition("/")[0], ELSE)).append(uri)
    return files


def _listed(nav: Any) -> set[str]:
    """The pages that a part of the navigation names."""
    if isinstance(nav, str):
        return {nav}
    return set().union(*map(_listed, nav.values() if isinstance(nav, dict) else nav))


def _section(nav: list[Any], title: str) -> list[Any]:
    """The section of that title, however deep. Raises `KeyError` where there is none."""
    below = [pair for item in nav if isinstance(item, dict) for pair in item.items() if isinstance(pair[1], list)]
    for name, inner in below:
        if name == title:
            return inner
    for _, inner in below:
        try:
            return _section(inner, title)
        except KeyError:
            continue
    raise KeyError(title)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Rewrite links that leave docs/, and those within it of a page that came from elsewhere."""
    here = _place(page.file.src_uri)
    if page.file.src_uri == "decisions/README.md":
        markdown += f"\n{_records()}"
    return _with_links(markdown, lambda target: _rewritten(target, here, page.file.src_uri))


def _records() -> str:
    """The decisions, as a list of links."""
    found = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    titles = (path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ") for path in found)
    return "".join(f"- [{title.partition('. ')[2]}]({path.name})\n" for path, title in zip(found, titles, strict=True))


def _place(uri: str) -> str:
    """Where in the repository a page's text stands."""
    made = {page: source for source, page in PAGES.items()} if not (ROOT / "docs" / uri).exists() else {}
    return made.get(uri, f"docs/{uri}")


def _with_links(markdown: str, change: Callable[[str], str]) -> str:
    """The text with each link outside of code changed."""
    parts, at = [], 0
    for code in CODE.finditer(markdown):
        parts += [_changed(markdown[at : code.start()], change), code[0]]
        at = code.end()
    return "".join([*parts, _changed(markdown[at:], change)])


def _changed(text: str, change: Callable[[str], str]) -> str:
    return LINK.sub(lambda link: f"{link[1]}{change(link[2])}{link[3]}", text)


def _target(link: str, here: str) -> str | None:
    """The file of the repository that a link names, as a path from its root; None: it is no such link."""
    if re.match(r"[a-z][a-z0-9+.-]*:|/", link):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(here), link))
    if (ROOT / path).is_dir() and (ROOT / path / "README.md").is_file():
        path = f"{path}/README.md"  # what the repository's page shows of a folder
    return path if (ROOT / path).is_file() and not path.startswith("..") else None


def _rewritten(link: str, here: str, uri: str) -> str:
    target = _target(link, here)
    if target is None:
        return link
    wanted = target.removeprefix("docs/") if target.startswith("docs/") else _page_of(target)
    return posixpath.relpath(wanted, posixpath.dirname(uri) or ".")


def _page_of(source: str) -> str:
    return PAGES.get(source) or f"{SHOWN}/{source}.md"


def _left(file: File) -> Iterator[str]:
    """The files outside docs/ that a page links to, but for those that have a page."""
    here, text = _place(file.src_uri), CODE.sub("", file.content_string)
    targets = (_target(link[2], here) for link in LINK.finditer(text))
    yield from (path for path in targets if path and not path.startswith("docs/") and path not in PAGES)


def _shown(source: str) -> str:
    """A page that shows a file; search leaves it out."""
    text = (ROOT / source).read_text(encoding="utf-8").rstrip("\n")
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    language = LANGUAGES.get(Path(source).suffix, "text")
    return f"---\nsearch:\n  exclude: true\n---\n\n# {source}\n\n{fence}{language}\n{text}\n{fence}\n"
