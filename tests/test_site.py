"""The docs site: it builds strictly, nothing in it comes from elsewhere, and it names everything that is public."""

import importlib
import os
import posixpath
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag
from xml.etree import ElementTree

import msgspec
import pytest
import typer

import unfooled
from unfooled.cli.app import app
from unfooled.results import Bracket, Environment, Estimate, Evaluation

pytest.importorskip("mkdocs")
pytest.importorskip("material")
pytest.importorskip("mkdocstrings_handlers.python")

ROOT = Path(__file__).parent.parent
LOADING = {  # attributes by which a page loads something
    "script": ("src",), "img": ("src", "srcset"), "source": ("src", "srcset"), "iframe": ("src",), "video": ("src", "poster"),
    "audio": ("src",), "track": ("src",), "embed": ("src",), "object": ("data",), "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"), "input": ("src",), "link": ("href",),
}  # fmt: skip
IN_PAGES = (
    "attacks",
    "certificates",
    "cluster",
    "defenses",
    "data",
    "models",
    "training",
)  # modules whose own names are on the pages


class Reader(HTMLParser):
    """What a page loads, where it links to, its anchors and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = {name: value or "" for name, value in attributes}
        self._inside = tag
        if found.get("id"):
            self.ids.add(found["id"])
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        for name in LOADING.get(tag, ()):
            for part in found.get(name, "").split(",") if name == "srcset" else [found.get(name, "")]:
                self.loads += part.split()[:1]
        self.loads += loaded_by_css(found.get("style", ""))

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "style":
            self.loads += loaded_by_css(data)
        if self._inside not in ("style", "script"):
            self.words.append(data)


def loaded_by_css(text: str) -> list[str]:
    named = re.findall(r"url\(\s*(\"[^\"]*\"|'[^']*'|[^)]*)\s*\)|@import\s+(\"[^\"]*\"|'[^']*')", text)
    return [(one or other).strip("\"' ") for one, other in named]


def elsewhere(address: str) -> bool:
    return bool(re.match(r"(?!data:|blob:)[a-zA-Z][a-zA-Z0-9+.-]*:|//", address))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", place], cwd=ROOT, capture_output=True, text=True,
        timeout=300, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="module")
def pages(site):
    return {
        path.relative_to(site).as_posix(): Reader(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")
    }


def test_nothing_comes_from_elsewhere(site, pages):
    assert len(pages) > 60
    for name, page in pages.items():
        assert not [address for address in page.loads if elsewhere(address)], name
    for path in [*site.rglob("*.css"), *site.rglob("*.svg")]:
        assert not [a for a in loaded_by_css(path.read_text(encoding="utf-8")) if elsewhere(a)], path.name
    for path in (site / "assets").glob("*.js"):
        assert "http" not in path.read_text(encoding="utf-8"), path.name


def test_a_page_that_loads_from_elsewhere_would_be_seen():
    page = Reader(
        '<link rel="stylesheet" href="https://fonts.example/a.css"><img srcset="a.png 1x, //cdn.example/b.png 2x">'
        "<style>@import 'http://x.example/c.css'; b { background: url(https://x.example/d.png) }</style>"
        '<script src="local.js"></script><img src="data:image/png;base64,AA"><a href="https://reader.example">fine</a>'
    )
    assert len([address for address in page.loads if elsewhere(address)]) == 4


def test_what_is_loaded_and_linked_is_there(site, pages):
    files = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    for name, page in pages.items():
        if name == "404.html":
            continue  # shown for any address, so its links begin at the root
        for address in {*page.loads, *page.links}:
            if elsewhere(address) or address.startswith("data:"):
                continue
            path, anchor = urldefrag(address)
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(path))) if path else name
            assert target in files, f"{name} names {address}"
            if target in pages and anchor and not anchor.startswith("__"):
                assert unquote(anchor) in pages[target].ids, f"{name} names {address}"


def test_search_has_every_page_and_works_from_disk(site, pages):
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    for words in ("how-to/own-model.html", "trust.html", "reference/verbs.html", "tutorial/fgsm.html"):
        assert words in index
    assert "repository/" not in index
    assert "assets/iframe-worker.js" in pages["index.html"].loads


def test_each_public_name_is_in_the_reference(pages):
    anchors = {anchor for name, page in pages.items() if name.startswith("reference/") for anchor in page.ids}
    for name in unfooled.__all__:
        assert f"unfooled.{name}" in anchors, name
    for module in IN_PAGES:
        for name in importlib.import_module(f"unfooled.{module}").__all__:
            top = name in unfooled.__all__ and getattr(unfooled, name) is getattr(getattr(unfooled, module), name, None)
            assert {f"unfooled.{module}.{name}"} & anchors or (top and f"unfooled.{name}" in anchors), (
                f"{module}.{name}"
            )
    for name in vars(unfooled.errors):
        if isinstance(kind := getattr(unfooled.errors, name), type) and issubclass(kind, unfooled.errors.UnfooledError):
            assert f"unfooled.errors.{name}" in anchors
    for name in unfooled.losses.LOSSES:
        assert f"unfooled.losses.{name}" in anchors


def test_each_command_and_option_is_on_its_page(pages):
    page = pages["reference/command-line.html"]
    said = " ".join(page.words)
    group = typer.main.get_command(app)
    for name, command in group.commands.items():
        assert f"unfooled-{name}" in page.ids
        for parameter in command.params:
            for word in (*parameter.opts, *parameter.secondary_opts) if parameter.param_type_name == "option" else ():
                assert word in said, f"{name} {word}"


def test_the_made_pages_are_current():
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "site_pages.py", "--check"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_each_field_of_an_evaluation_has_a_meaning():
    schema = tool("site_schema")
    text = schema.page()
    for record in ("Evaluation", "Bracket", "Estimate", "Finding"):
        assert f"\n## {record}\n" in text
    assert "| [Bracket](#bracket) or null |" in text
    with pytest.raises(KeyError):
        schema.meaning("Finding", "untold", {})


def test_the_bracket_is_drawn_by_the_report_s_own_code():
    half = Estimate(value=0.5, low=0.4, high=0.6, n=100)
    where = Environment(unfooled="0", python="3", torch="2", machine="m", threads=1)
    found = Evaluation(
        kind="evaluation", title="t", verdict=[], settings={}, command="", environment=where, created="",
        robust_accuracy=Bracket(attacked=half),
    )  # fmt: skip
    drawn = tool("bracket_figure").figure(found)
    root = ElementTree.fromstring(drawn)
    assert "proved" in {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert "var(" not in drawn
    with pytest.raises(SystemExit, match="no robust accuracy"):
        tool("bracket_figure").figure(msgspec.structs.replace(found, robust_accuracy=None))


def test_a_link_out_of_docs_becomes_a_page_of_the_site():
    hooks = tool("site_hooks")

    def rewritten(text, here="docs/trust.md", uri="trust.md"):
        return hooks._with_links(text, lambda link: hooks._rewritten(link, here, uri))

    assert rewritten("[a](../examples/quantised.py)") == "[a](repository/examples/quantised.py.md)"
    assert rewritten("[`a`](../CHANGELOG.md#x)") == "[`a`](changes.md#x)"
    assert rewritten("[a](../../examples/quantised.py)", "docs/how-to/x.md", "how-to/x.md") == (
        "[a](../repository/examples/quantised.py.md)"
    )
    assert rewritten("[a](docs/trust.md#what)", "CHANGELOG.md", "changes.md") == "[a](trust.md#what)"
    assert rewritten("[a](decisions/)") == "[a](decisions/README.md)"
    same = "[a](../no/such.py) [b](https://example.org/) [c](#here) `[d](../CHANGELOG.md)`\n```\n[e](../CHANGELOG.md)\n```\n"
    assert rewritten(same) == same


def test_a_page_that_is_not_named_joins_the_section_of_its_folder(pages):
    hooks = tool("site_hooks")
    nav = ["index.md", {"Explanation": ["trust.md", {"Decisions": ["decisions/README.md"]}]}]
    assert hooks._listed(nav) == {"index.md", "trust.md", "decisions/README.md"}
    assert hooks._section(nav, "Decisions") == ["decisions/README.md"]
    with pytest.raises(KeyError):
        hooks._section(nav, "Nowhere")
    for record in (ROOT / "docs" / "decisions").glob("[0-9]*.md"):
        assert f"{record.stem}.html" in pages["decisions/index.html"].links


def test_a_shown_file_is_shown_whole(pages):
    shown = "".join(pages["repository/examples/quantised.py.html"].words)
    for line in (ROOT / "examples" / "quantised.py").read_text().splitlines():
        assert line.strip() in shown


def test_options_and_names_in_docstrings():
    made = tool("site_docstrings").markdown(
        "One line on `Result` and `other`.\n\n    x ← `Result`\n\neps, size:  how far,\n      see `unfooled.attack`.\nmask: where.\n\n"
        "A note:  not a list.",
        {"Result": "unfooled.Result", "unfooled.attack": "unfooled.attack"},
    )
    assert made == (
        "One line on [`Result`][unfooled.Result] and `other`.\n\n    x ← `Result`\n\n"
        "`eps`, `size`\n:   how far, see [`unfooled.attack`][unfooled.attack].\n\n`mask`\n:   where.\n\nA note:  not a list."
    )


def tool(name):
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


@pytest.mark.slow
def test_search_answers_in_pages_opened_from_disk(site):
    sync = pytest.importorskip("playwright.sync_api")
    browser_path = Path("/usr/bin/chromium")
    if not browser_path.exists():
        pytest.skip("no chromium")
    asked = []
    with sync.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(browser_path), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "trust.html").as_uri())
        page.locator("input.md-search__input").first.fill("confidence sequence")
        page.locator("li.md-search-result__item a").first.wait_for(timeout=20_000)
        page.locator("li.md-search-result__item a").first.click()
        page.wait_for_url(re.compile(r"\?h="))
        browser.close()
    assert asked
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
