"""The report: self-contained, escaped, complete, and the same bytes each time it is drawn."""

import html
import itertools
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from unfooled.errors import DataError, MissingData
from unfooled.intervals import clopper_pearson
from unfooled.report import draw, images, letters, plots, style, words
from unfooled.results import (
    Cost,
    Curve,
    Environment,
    Evaluation,
    Gallery,
    Mark,
    Panel,
    Picture,
    Table,
)
from unfooled.store import RunFolder

ODD = '<b>plain</b> & $x$ "quoted"'
ROWS = 5


def curve(label: str, role: str, values: list[float], family: str = "") -> Curve:
    xs = [0.1 * n for n in range(len(values))]
    return Curve(label=label, x=xs, y=[clopper_pearson(round(200 * v), 200) for v in values], role=role, family=family)


def evaluation(**changes: object) -> Evaluation:
    pictures = [
        Picture(
            row=n,
            example=40 + n,
            label=ODD,
            clean_prediction=ODD,
            clean_confidence=0.998,
            adversarial_prediction="sneaker",
            adversarial_confidence=0.872,
            threat="linf:0.1",
            attack="FGSM",
            size=0.1,
            model=ODD,
        )
        for n in range(ROWS)
    ]
    panel = Panel(
        id="blur",
        title=f"Blur of {ODD}",
        x_label="sigma",
        curves=[
            curve("knows", "adaptive", [0.9, 0.1, 0.0]),
            curve(f"does not know {ODD}", "non-adaptive", [0.9, 0.6, 0.3]),
            curve("clean", "clean", [0.95, 0.9, 0.8]),
        ],
        marks=[Mark(label="best", x=0.1, y=clopper_pearson(120, 200), role="non-adaptive")],
        caption="Blur looks like a cure at 60.0 % accuracy.",
    )
    base = Evaluation(
        kind="seed-study",
        title=f"How easily is {ODD} fooled?",
        verdict=["Blur keeps 61.2 % against one, 3.4 % against the other.", "Second <i>sentence</i>."],
        settings={"data <set>": "fashion-mnist"},
        command="unfooled study --eps 0.1 > 'out'",
        environment=Environment(unfooled="0.1.0", python="3.11", torch="2.13", machine="Linux <x86>", threads=2),
        created="2026-01-02 03:04",
        tables=[
            Table(
                id="key",
                title="Key",
                columns=["Model", "Accuracy", "Note"],
                rows=[[ODD, "61.2 % [58.1, 64.2]", "weak"], ["hardened", "—", "strong"]],
                strong=[1],
                caption="Over 200 images.",
            ),
            Table(id="more", title="More", columns=["a"], rows=[["cell of the second table"]]),
        ],
        panels=[panel],
        galleries=[
            Gallery(id="three", title="FGSM", kind="triptych", pictures=pictures[:2], caption="What FGSM adds."),
            Gallery(id="cards", title="Smallest", kind="grid", pictures=pictures, caption="The smallest."),
        ],
        cost=[Cost(part="attack", forward=12345, backward=6789, seconds=75.0)],
        notes=["A note <with> brackets."],
    )
    return msgspec.structs.replace(base, **changes)


def folder(path: Path, of: Evaluation, channels: int = 1, height: int = 8) -> RunFolder:
    path.mkdir(parents=True)
    run = RunFolder(path)
    run.write_evaluation(of)
    rng = np.random.default_rng(0)
    clean = rng.uniform(0.2, 0.8, (ROWS, channels, height, 8)).astype(np.float32)
    move = 0.1 * np.sign(rng.normal(size=clean.shape)).astype(np.float32)
    run.write_arrays("pictures.safetensors", {"clean": clean, "adversarial": clean + move})
    return run


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(folder(tmp_path_factory.mktemp("report") / "run", evaluation()))


@pytest.fixture(scope="module")
def page(drawn: Path) -> str:
    return drawn.read_text()


def visible(page: str) -> str:
    """What is read: without tags, styles and line breaks."""
    page = re.sub(r"<style>.*?</style>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", page)).split())


# --- the page ------------------------------------------------------------------------------------


def test_page_needs_nothing_from_elsewhere(page: str) -> None:
    places = re.findall(r"""(?:src|href|action|data|poster|srcset)\s*=\s*["']?([^"'\s>]+)""", page)
    places += re.findall(r"url\(\s*[\"']?([^\"')]+)", page)
    assert places
    assert all(place.startswith(("#", "data:image/png;base64,")) for place in places)
    assert not re.search(r"<script|<link|@import|\son\w+=", page)


def test_ids_are_unique_and_every_reference_has_its_own(page: str) -> None:
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    used = re.findall(r"url\(#([^)]+)\)", page) + re.findall(r'href="#([^"]+)"', page)
    assert used
    assert set(used) <= set(ids)


def test_names_are_escaped(page: str) -> None:
    assert "<b>plain" not in page
    assert "<i>sentence" not in page
    assert "<x86>" not in page
    assert '"quoted"' not in "".join(re.findall(r'(?:alt|aria-label)="[^>]*>', page))


def test_page_says_everything(page: str) -> None:
    of, text = evaluation(), visible(page)
    said = [of.title, *of.verdict, of.command, of.created, *of.notes, *of.settings, *of.settings.values()]
    for table in of.tables:
        said += [table.title, table.caption, *table.columns, *itertools.chain(*table.rows)]
    for panel in of.panels:
        said += [panel.title, panel.caption, *(c.label for c in panel.curves)]
    for gallery in of.galleries:
        said += [gallery.title, gallery.caption]
    said += ["12,345", "6,789", "1 min 15 s", "2.13", "60.0 % [52.9, 66.8]", f"{ODD}, 99.8 %", "sneaker, 87.2 %"]
    missing = [each for each in said if " ".join(each.split()) not in text]
    assert not missing


def test_verdict_stands_before_the_key_table_and_that_before_the_panels(page: str) -> None:
    text = visible(page)
    order = [
        "How easily",
        "Blur keeps 61.2 %",
        "Over 200 images",
        "Accuracy under attack",
        "cell of the second",
        "What FGSM adds",
    ]
    places = [text.index(each) for each in order]
    assert places == sorted(places)


def test_numbers_are_set_right_and_strong_rows_marked(page: str) -> None:
    table = page[page.index("<table>") : page.index("</table>")]
    assert re.search(r'<td class="number">61.2 %<span class="interval"> \[58.1, 64.2\]</span></td>', table)
    assert '<td class="number">—</td>' in table
    assert "<td>weak</td>" in table
    assert [("strong" in row) for row in re.findall(r"<tr([^>]*)>", table)] == [False, False, True]


def test_perturbation_says_its_scale(page: str) -> None:
    text = visible(page)
    assert "perturbation ×5.0" in text
    assert "±0.10 shown as full range; mid-grey = no change" in text


def test_every_image_has_words_and_a_size(page: str) -> None:
    found = re.findall(r"<img [^>]*>", page)
    assert len(found) == 3 * 2 + ROWS
    assert all(re.search(r'alt="[^"]+" width="8" height="8" class="pixels"', each) for each in found)
    drawings = re.findall(r"<svg [^>]*class=\"(?:wide|narrow)\"[^>]*>", page)
    assert len(drawings) == 2
    assert all('role="img"' in each and "Blur looks like a cure" in each for each in drawings)


def test_plots_take_their_colours_from_the_page(page: str) -> None:
    for drawing in re.findall(r'<svg [^>]*class="wide".*?</svg>', page, re.DOTALL):
        assert "var(--adaptive)" in drawing
        assert "var(--illusion)" in drawing
        assert not re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", drawing)


# --- files ---------------------------------------------------------------------------------------


def test_every_panel_and_gallery_is_a_file(drawn: Path) -> None:
    names = {file.name for file in (drawn.parent / "plots").iterdir()}
    assert names == {f"{name}.{kind}" for name in ("blur", "three", "cards") for kind in ("png", "svg")}
    for name, least in (("blur", (1150, 600)), ("three", (800, 500)), ("cards", (1000, 200))):
        size = Image.open(drawn.parent / "plots" / f"{name}.png").size
        assert least[0] <= size[0] <= 3 * least[0]
        assert least[1] <= size[1] <= 3 * least[1]


def test_a_redraw_gives_the_same_bytes_whatever_the_readers_settings(drawn: Path) -> None:
    import matplotlib as mpl

    def held() -> dict[str, bytes]:
        return {str(file): file.read_bytes() for file in sorted(drawn.parent.rglob("*")) if file.is_file()}

    before = held()
    with mpl.rc_context(
        {"lines.linewidth": 9, "figure.dpi": 31, "font.size": 30, "svg.hashsalt": None, "font.family": "serif"}
    ):
        assert draw(drawn.parent) == drawn
        assert mpl.rcParams["lines.linewidth"] == 9
    assert held() == before


def test_drawing_needs_no_torch(drawn: Path) -> None:
    code = (
        "import sys; from unfooled.report import draw; draw(sys.argv[1]); "
        "print([m for m in ('torch', 'matplotlib.pyplot') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code, drawn.parent], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
    assert ran.stderr == ""


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_and_tall_images(tmp_path: Path, channels: int) -> None:
    page = draw(folder(tmp_path / "run", evaluation(panels=[]), channels=channels, height=12)).read_text()
    assert 'width="8" height="12"' in page


def test_nothing_but_a_title(tmp_path: Path) -> None:
    bare = evaluation(verdict=[], tables=[], panels=[], galleries=[], cost=[], notes=[], settings={})
    run = folder(tmp_path / "run", bare)
    (run.path / "pictures.safetensors").unlink()
    page = draw(str(run.path)).read_text()
    assert not re.search(r"<table|<figure|<h2>(?!Appendix)", page)
    assert not (run.path / "plots").exists()


def test_ids_that_are_no_file_names(tmp_path: Path) -> None:
    panel = msgspec.structs.replace(evaluation().panels[0], id="../../a b")
    same = msgspec.structs.replace(panel, id="A-b")
    run = folder(tmp_path / "in" / "run", evaluation(panels=[panel, same], galleries=[]))
    draw(run)
    assert {file.stem for file in (run.path / "plots").iterdir()} == {"a-b", "A-b-2"}
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


# --- errors --------------------------------------------------------------------------------------


def test_missing_folder_and_evaluation(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="no run folder"):
        draw(tmp_path / "nowhere")
    with pytest.raises(MissingData, match=r"evaluation\.json"):
        draw(tmp_path)


def test_missing_pictures(tmp_path: Path) -> None:
    run = folder(tmp_path / "run", evaluation())
    (run.path / "pictures.safetensors").unlink()
    with pytest.raises(MissingData, match=r"has galleries but no pictures\.safetensors"):
        draw(run)
    assert not (run.path / "report.html").exists()


GOOD = np.full((ROWS, 1, 4, 4), 0.5, np.float32)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"clean": GOOD}, "no array 'adversarial'"),
        ({"clean": GOOD, "adversarial": GOOD[:, 0]}, r"shape \(5, 4, 4\), not \(K, C, H, W\)"),
        ({"clean": GOOD, "adversarial": GOOD[:4]}, "differ in shape"),
        ({"clean": GOOD[:4], "adversarial": GOOD[:4]}, "shows row 4 of pictures.safetensors, which has 4 rows"),
        ({"clean": GOOD, "adversarial": GOOD * np.nan}, "not finite"),
    ],
)
def test_pictures_that_do_not_fit(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    run = folder(tmp_path / "run", evaluation())
    run.write_arrays("pictures.safetensors", arrays)
    with pytest.raises(DataError, match=said):
        draw(run)


def test_a_curve_with_too_few_estimates() -> None:
    panel = evaluation().panels[0]
    short = msgspec.structs.replace(panel.curves[0], x=[0.0])
    with pytest.raises(DataError, match="has 1 places on the axis but 3 estimates"):
        plots.panel(msgspec.structs.replace(panel, curves=[short]))


# --- drawing -------------------------------------------------------------------------------------


def panel_of(count: int, marks: int = 0) -> Panel:
    curves = [
        curve(f"{role} curve at eps {n}", role, [0.9, 0.5 / (n + 1), 0.02 * n], family=f"eps {n}")
        for n in range(count)
        for role in ("adaptive", "non-adaptive")
    ]
    placed = [Mark(label=f"best {n}", x=0.1, y=clopper_pearson(2 + 3 * n, 200), role="adaptive") for n in range(marks)]
    return Panel(id="p", title="A title " * 12, x_label="a long axis label " * 6, curves=curves, marks=placed)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(("count", "marks"), [(0, 0), (1, 2), (3, 6), (9, 4)])
def test_no_word_is_cut_or_lies_on_another(count: int, marks: int, narrow: bool) -> None:
    figure = plots.panel(panel_of(count, marks), narrow=narrow)
    figure.canvas.draw()
    sheet = figure.bbox
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    axes = figure.axes[0]
    ticks = [*zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)]
    low, high = axes.get_xlim()
    texts = [*figure.texts, axes.xaxis.label, *axes.get_yticklabels()]
    texts += [label for at, label in ticks if low <= at <= high]
    boxes = [t.get_window_extent(renderer) for t in texts if t.get_text()]
    for box in boxes:
        assert box.x0 >= sheet.x0 - 2
        assert box.x1 <= sheet.x1 + 2
        assert box.y0 >= sheet.y0 - 2
        assert box.y1 <= sheet.y1 + 2
    for one, other in itertools.combinations(boxes, 2):
        wide = min(one.x1, other.x1) - max(one.x0, other.x0)
        high = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert wide <= 1 or high <= 3


def test_curves_are_drawn_in_percent_with_their_intervals() -> None:
    axes = plots.panel(evaluation().panels[0]).axes[0]
    assert np.asarray(axes.lines[1].get_ydata()) == pytest.approx([90, 60, 30])
    low, high = axes.collections[1].get_paths()[0].get_extents().intervaly
    assert (low, high) == pytest.approx((100 * clopper_pearson(60, 200).low, 100 * clopper_pearson(180, 200).high))


def test_role_gives_hue_and_dash_and_family_gives_shade() -> None:
    curves = [
        curve("", role, [1.0], family=family)
        for family in ("eps 0.2", "eps 0.3")
        for role in ("adaptive", "non-adaptive")
    ]
    knows, not_knows, knows_more, not_knows_more = style.looks(curves)
    assert not knows.dashes
    assert not_knows.dashes
    assert [look.colour for look in (knows, knows_more)] == list(style.ADAPTIVE[:2])
    assert [look.colour for look in (not_knows, not_knows_more)] == list(style.NON_ADAPTIVE[:2])
    assert knows.marker == not_knows.marker != knows_more.marker
    plain = style.looks([curve("FGSM", "model", [1.0], "plain"), curve("PGD", "model", [1.0], "plain")])
    assert plain[0].colour == plain[1].colour
    assert plain[0].dashes != plain[1].dashes


def test_a_shade_means_the_same_family_for_both_attackers() -> None:
    curves = [curve("", "non-adaptive", [1.0], "a"), curve("", "non-adaptive", [1.0], "b")]
    assert style.looks([*curves, curve("", "adaptive", [1.0], "b")])[-1].colour == style.ADAPTIVE[1]


@pytest.mark.parametrize(("marks", "beside"), [(1, ["best 0", "1.0 %"]), (4, ["1.0 %", "2.5 %", "4.0 %", "5.5 %"])])
def test_marks_are_named_beside_their_points_or_in_the_key(marks: int, beside: list[str]) -> None:
    said = [text.get_text() for text in plots.panel(panel_of(1, marks)).texts]
    assert set(beside) <= set(said)
    assert ("best 0: 1.0\N{NO-BREAK SPACE}%" in said) == (marks == 4)


def test_a_mark_looks_like_its_curve() -> None:
    curves = [curve("", "adaptive", [1.0], "a"), curve("", "adaptive", [1.0], "b")]
    mark = Mark(label="", x=0.0, y=clopper_pearson(1, 2), role="adaptive", family="b")
    assert style.mark_look(mark, curves).colour == style.ADAPTIVE[1]


def luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("shade", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(shade: str) -> None:
    texts = [style.INK, style.SOFT, style.GREY, style.ALARM, *style.ADAPTIVE, *style.NON_ADAPTIVE, *style.MODELS]
    pairs = [(text, style.PAPER) for text in texts]
    pairs += [(text, under) for text in (style.INK, style.SOFT) for under in (style.WASH, style.TINT)]
    pairs += [(text, style.WASH) for text in (style.MODELS[1], style.MODELS[3], style.ALARM)]  # what trust is told in
    for text, under in pairs:
        dim, bright = sorted(luminance(getattr(c, shade)) for c in (text, under))
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, text.name


def test_colours_can_be_told_apart_by_their_names() -> None:
    assert len({c.light for c in style.COLOURS}) == len({c.name for c in style.COLOURS}) == len(style.COLOURS)


# --- parts ---------------------------------------------------------------------------------------


def test_spread_keeps_order_and_room() -> None:
    wanted, heights = [0.0, 1.0, 1.5, 50.0, 99.0], [10.0, 20.0, 10.0, 10.0, 10.0]
    found = letters.spread(wanted, heights, 0.0, 100.0)
    edges = [(centre - h / 2, centre + h / 2) for centre, h in zip(found, heights, strict=True)]
    assert edges[0][0] >= 0
    assert edges[-1][1] <= 100
    assert all(low[1] <= high[0] + 1e-9 for low, high in itertools.pairwise(edges))
    assert found[3] == 50


def test_wrap_loses_nothing_and_keeps_within_its_room() -> None:
    text = "one two_" + "x" * 60 + " three 61.2\u00a0% end"
    lines = letters.wrap(text, 80, 9)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(letters.width(line, 9) <= 80 for line in lines)
    assert any("61.2\u00a0%" in line for line in lines)


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("61.2 % [58.1, 64.2]", True),
        ("8/255", True),
        ("×3.1", True),
        ("−0.5", True),
        ("12 s", True),
        ("sigma 1.2", False),
        ("3 layers of convolution", False),
        ("plain", False),
    ],
)
def test_numeric_columns(cell: str, number: bool) -> None:
    table = Table(id="t", title="", columns=["", "a"], rows=[["1", cell], ["2", ""], ["3", "—"]])
    assert words.numeric(table) == [False, number]


def test_a_picture_is_scaled_about_mid_grey() -> None:
    clean = np.full((1, 1, 1, 3), 0.5, np.float32)
    move = np.array([-0.25, 0.0, 0.125], np.float32)
    picture = evaluation().galleries[0].pictures[0]
    shot = images.shot(picture, {"clean": clean, "adversarial": clean + move})
    assert shot.change[0, :, 0].tolist() == [0, 128, 191]
    assert (shot.largest, shot.factor) == (0.25, 2.0)
    still = images.shot(picture, {"clean": clean, "adversarial": clean})
    assert (still.scale_words, still.change[0, 0, 0]) == ("no change", 128)


def test_terms_are_those_that_occur() -> None:
    names = [name for name, _ in words.terms(evaluation())]
    assert "FGSM" in names
    assert "Adaptive" in names
    assert "PGD" not in names


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.41, "0.4 s"), (59.4, "59 s"), (75, "1 min 15 s"), (7800, "2 h 10 min")]
)
def test_duration(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said
