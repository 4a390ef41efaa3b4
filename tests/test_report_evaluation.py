"""The page of an evaluation: its sections, its numbers, its bracket, and that it can be read by everyone."""

import html
import io
import itertools
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from unfooled import frameworks
from unfooled.intervals import clopper_pearson
from unfooled.report import bracket, draw, evaluated, letters
from unfooled.results import (
    AttackCost,
    Bracket,
    ByClass,
    Cost,
    Curve,
    Environment,
    Estimate,
    Evaluation,
    Example,
    Finding,
    Gallery,
    Panel,
    Picture,
    Remedy,
    Table,
    ThreeWays,
    percent,
)
from unfooled.store import RunFolder

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
ODD = '<script>alert("x")</script> & <b>bold</b>'
SNIPPET = 'import unfooled\n\nunfooled.evaluate(model, data, "linf:0.1", seed=0)'


def base(**changes: object) -> Evaluation:
    """An evaluation with nothing that can be left out."""
    plain = Evaluation(
        kind="evaluation",
        title="hardened.safetensors on fashion-mnist under linf:0.1",
        verdict=["Of 1,000 images the model gets 87.4 % right, and 72.3 % at most when they are attacked."],
        settings={"model": "hardened.safetensors", "data": "fashion-mnist, test", "threat": "linf:0.1", "seed": "0"},
        command="unfooled evaluate hardened.safetensors --data fashion-mnist --threat linf:0.1 --out runs/hardened",
        environment=Environment(
            unfooled="0.4.0", python="3.12.4", torch="2.13.0+cpu", machine="Linux x86_64, 8 cores", threads=8
        ),
        created="2026-11-23 01:30 UTC",
        tables=[Table(id="summary", title="For the terminal only", columns=["a"], rows=[["b"]])],
    )
    return msgspec.structs.replace(plain, **changes)


def finding(
    code: str, severity: str, message: str, measurement: float, threshold: float | None, **more: str
) -> Finding:
    return Finding(
        code=code,
        severity=severity,
        message=message,
        measurement=measurement,
        threshold=threshold,
        source=more.get("source", "Pintor et al. 2022, arXiv:2106.09947, indicator 1"),
        remedy=more.get("remedy", ""),
        settled=more.get("settled", ""),
    )


def picture(row: int, size: float) -> Picture:
    return Picture(
        row=row,
        example=400 + row,
        label=CLASSES[row],
        clean_prediction=CLASSES[row],
        clean_confidence=0.91,
        adversarial_prediction=CLASSES[(row + 6) % 10],
        adversarial_confidence=0.55,
        threat="linf:0.1",
        attack="apgd:steps=20",
        size=size,
        model="hardened",
    )


def by_class(clean: list[int], attacked: list[int]) -> list[ByClass]:
    return [
        ByClass(label=n, name=name, clean=clopper_pearson(clean[n], 100), attacked=clopper_pearson(attacked[n], 100))
        for n, name in enumerate(CLASSES)
    ]


def sound() -> Evaluation:
    """A hardened model, evaluated well."""
    eps = [0.0, 0.025, 0.05, 0.075, 0.1]
    curve = Curve(label="accuracy", x=eps, y=[clopper_pearson(n, 1000) for n in (874, 843, 806, 764, 723)])
    return base(
        verdict=[
            "Of 1,000 images the model gets 87.4 % right, and 72.3 % at most when they are attacked.",
            "Its weakest class is shirt: 38.0 % are left under attack.",
        ],
        settings={**base().settings, "protocol": "fast", "python": SNIPPET},
        panels=[
            Panel(
                id="distance",
                title="Accuracy against the size of the change",
                x_label="Linf distance",
                curves=[curve],
                caption="Half of the images that fall do so within 0.06.",
            )
        ],
        galleries=[
            Gallery(
                id="smallest",
                title="The smallest changes that fooled",
                kind="triptych",
                pictures=[picture(0, 0.0021), picture(1, 0.0034)],
                caption="An attacker needs no more than this.",
            ),
            Gallery(
                id="largest",
                title="The largest changes that fooled",
                kind="grid",
                pictures=[picture(n, 0.099) for n in range(2, 10)],
                caption="All that the threat allows.",
            ),
        ],
        cost=[
            Cost(part="checks before the attacks", forward=6120, backward=1000, seconds=2.6),
            Cost(part="attacks", forward=391204, backward=330118, seconds=171.2),
        ],
        notes=["The model was handed over in training mode; it was evaluated in evaluation mode."],
        clean_accuracy=clopper_pearson(874, 1000),
        robust_accuracy=Bracket(attacked=clopper_pearson(723, 1000)),
        rounded=clopper_pearson(729, 1000),
        trust="valid",
        findings=[
            finding(
                "low-clean-accuracy-class",
                "note",
                "The class shirt is right on 61.0 % of its images without any attack.",
                0.61,
                None,
                source="By comparison with the other classes",
                remedy="Look at its labels before you blame the attacks.",
            )
        ],
        classes=by_class([83, 97, 82, 90, 84, 96, 61, 94, 96, 91], [68, 95, 66, 80, 64, 90, 38, 81, 85, 56]),
        attacks=[
            AttackCost(attack="apgd:steps=20", examples=874, fooled=131, forward=18354, backward=17480, seconds=9.3),
            AttackCost(
                attack="restarts:count=2(apgd:steps=40,loss=dlr)",
                examples=743,
                fooled=15,
                forward=60926,
                backward=59440,
                seconds=33.0,
            ),
            AttackCost(
                attack="targeted:k=3,order=malt(apgd:steps=40,loss=dlr)",
                examples=728,
                fooled=5,
                forward=89544,
                backward=94640,
                seconds=52.1,
            ),
            AttackCost(attack="square:steps=500", examples=723, fooled=0, forward=361500, backward=0, seconds=76.8),
        ],
        examples=[Example(index=n, label=n % 10, clean_prediction=n % 10) for n in range(1000)],
        asked=1000,
    )


def blurred() -> Evaluation:
    """A model behind a blur that seems to help and does not; all that was found is settled."""
    return base(
        title="plain.safetensors behind blur:sigma=1 on fashion-mnist under linf:0.1",
        verdict=[
            "Blurring does not protect this model: of the 41.0 % that it seems to keep, 38.0 points are not there.",
            "Of 1,000 images it gets 84.6 % right, and 3.0 % at most when they are attacked by someone who knows.",
        ],
        clean_accuracy=clopper_pearson(846, 1000),
        robust_accuracy=Bracket(attacked=clopper_pearson(30, 1000)),
        rounded=clopper_pearson(33, 1000),
        trust="valid",
        findings=[
            finding(
                "transfer-beats-white-box",
                "note",
                "An attack made for the network alone fooled 26 images that the attack through the blur had left.",
                26,
                0,
                settled="The attack through the blur was repeated with its own backward; it now fools all of them.",
                source="Carlini et al. 2019, arXiv:1902.06705, section 5.4",
            ),
            finding(
                "gradient-free-wins",
                "note",
                "An attack without gradients lowered what gradient attacks had left by 0.8 points.",
                0.008,
                0.002,
                settled="Rescaled logits and a margin loss found more than it had.",
                source="Croce & Hein 2020, arXiv:2003.01690",
            ),
        ],
        remedies=[
            Remedy(
                name="declared backward of blur:sigma=1",
                findings=["transfer-beats-white-box"],
                examples=410,
                fooled=372,
                before=0.41,
                after=0.038,
                forward=45102,
                backward=41000,
                seconds=31.5,
                kept=True,
            ),
            Remedy(
                name="margin loss on rescaled logits",
                findings=["gradient-free-wins"],
                examples=38,
                fooled=8,
                before=0.038,
                after=0.03,
                forward=4560,
                backward=4180,
                seconds=3.9,
                kept=True,
            ),
            Remedy(
                name="identity backward through 'blur' (GaussianBlur)",
                findings=["transfer-beats-white-box"],
                examples=30,
                fooled=0,
                before=0.03,
                after=0.03,
                forward=3300,
                backward=3000,
                seconds=2.2,
                kept=False,
            ),
        ],
        defense=ThreeWays(
            defense="blur:sigma=1",
            undefended_clean=clopper_pearson(912, 1000),
            undefended=clopper_pearson(0, 1000),
            defended_clean=clopper_pearson(846, 1000),
            non_adaptive=clopper_pearson(410, 1000),
            adaptive=clopper_pearson(30, 1000),
        ),
        classes=by_class([80, 95, 75, 88, 79, 93, 55, 92, 97, 92], [1, 12, 0, 3, 0, 2, 0, 1, 9, 2]),
        attacks=[
            AttackCost(
                attack="transfer: apgd:steps=20 on the network alone",
                examples=846,
                fooled=436,
                forward=17766,
                backward=16920,
                seconds=8.0,
            ),
            AttackCost(attack="apgd:steps=20", examples=410, fooled=372, forward=8610, backward=8200, seconds=6.1),
        ],
        asked=10000,
    )


def masked() -> Evaluation:
    """A quantized model whose gradients are zero, and which answers NaN to some images."""
    lost = [Example(index=n, label=1, clean_prediction=-1, error="logits are not finite") for n in (17, 204, 311)]
    return base(
        title="quantized.pt on my-folder under l2:0.5",
        verdict=[
            "No number can be given yet: gradients are zero on 98.0 % of the images, and 3 images make it answer NaN."
        ],
        clean_accuracy=clopper_pearson(178, 200),
        robust_accuracy=Bracket(attacked=clopper_pearson(171, 200)),
        trust="invalid",
        findings=[
            finding(
                "batch-dependence",
                "suspect",
                "What the model answers to an image depends on the other images of its batch.",
                0.031,
                1e-5,
                source="Batch of 1 against batch of 50",
                remedy="Put its BatchNorm layers in evaluation mode.",
            ),
            finding(
                "zero-gradients",
                "invalid",
                "The gradient is zero at 98.0 % of the images: attacks had nothing to follow.",
                0.98,
                0.0,
                remedy="Declare a backward for the layer 'quantize' (Quantize), or hand in the model before quantization.",
            ),
            finding(
                "not-finite",
                "invalid",
                "On 3 images the logits are not finite.",
                3,
                None,
                source="Counted on every image",
                remedy="Find out what they have in common; a model must answer every image.",
            ),
        ],
        examples=[*lost, *(Example(index=400 + n, label=0, clean_prediction=0) for n in range(197))],
        attacks=[
            AttackCost(attack="apgd:steps=20", examples=178, fooled=0, forward=3738, backward=3560, seconds=1.9),
            AttackCost(attack="square:steps=500", examples=178, fooled=7, forward=88790, backward=0, seconds=20.4),
        ],
        asked=200,
    )


def least() -> Evaluation:
    """Nothing but a robust accuracy."""
    return base(robust_accuracy=Bracket(attacked=clopper_pearson(50, 100)), tables=[])


RUNS = {"sound": sound, "blurred": blurred, "masked": masked, "least": least}


def folder(path: Path, of: Evaluation) -> RunFolder:
    path.mkdir(parents=True)
    run = RunFolder(path)
    run.write_evaluation(of)
    if of.galleries:
        rng = np.random.default_rng(0)
        clean = rng.uniform(0.2, 0.8, (10, 1, 8, 8)).astype(np.float32)
        move = 0.1 * np.sign(rng.normal(size=clean.shape)).astype(np.float32)
        run.write_arrays("pictures.safetensors", {"clean": clean, "adversarial": clean + move})
    return run


def visible(page: str) -> str:
    """What is read: without tags, styles and line breaks."""
    page = re.sub(r"<style>.*?</style>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("evaluations")
    return {name: draw(folder(root / name, make())).read_text() for name, make in RUNS.items()}


def page_of(path: Path, of: Evaluation) -> str:
    return draw(folder(path / "run", of)).read_text()


# --- sections ------------------------------------------------------------------------------------

SECTIONS = {
    "sound": ["Robust accuracy", "Findings", "Accuracy under attack", "What the attacks do", "By class", "Cost"],
    "blurred": ["Robust accuracy", "Findings", "The defense, three ways", "What adaptation did", "By class", "Cost"],
    "masked": ["Robust accuracy", "Findings", "Cost"],
    "least": ["Robust accuracy", "Findings"],
}


@pytest.mark.parametrize("name", RUNS)
def test_sections_are_there_in_order_and_no_others(pages: dict[str, str], name: str) -> None:
    found = re.findall(r"<h2>(.*?)</h2>", pages[name])
    taxonomies = ["In the words of ATLAS and NIST"] if RUNS[name]().attacks else []
    assert found == [*SECTIONS[name], "To repeat it", *taxonomies, "Terms"]


@pytest.mark.parametrize("name", RUNS)
def test_the_verdict_stands_first_and_the_badge_after_it(pages: dict[str, str], name: str) -> None:
    of, text = RUNS[name](), visible(pages[name])
    places = [text.index(of.verdict[0]), text.index("Robust accuracy")]
    if of.trust:
        places.insert(1, text.index(f"Trust: {of.trust}"))
        assert evaluated.BADGES[of.trust] in text
    assert places == sorted(places)


def test_the_tables_for_the_terminal_are_not_drawn(pages: dict[str, str]) -> None:
    assert "For the terminal only" not in pages["sound"]


def test_a_run_without_numbers_is_shown_by_its_tables(tmp_path: Path) -> None:
    page = page_of(tmp_path, base())
    assert "For the terminal only" in page
    assert "Trust" not in page


@pytest.mark.parametrize("trust", [None, "valid", "suspect", "invalid"])
def test_trust_is_told_by_word_and_by_shape(tmp_path: Path, trust: str | None) -> None:
    page = page_of(tmp_path, msgspec.structs.replace(least(), trust=trust))
    assert page.count('class="badge') == (trust is not None)
    if trust is None:
        assert "was not checked" in page
        return
    badge = page[page.index('<div class="badge') :].split("</div>")[0]
    shape = re.search(r'class="shape" (\S+=".*?")', badge)
    assert shape
    others = {
        re.search(r'class="shape" (\S+=".*?")', page_of(tmp_path / each, msgspec.structs.replace(least(), trust=each)))[
            1
        ]  # type: ignore[index]
        for each in ("valid", "suspect", "invalid")
        if each != trust
    }
    assert shape[1] not in others
    assert f"<b>Trust: {trust}</b>" in badge
    assert ("Do not quote" in page) == (trust == "invalid")


# --- findings ------------------------------------------------------------------------------------


def test_findings_that_are_left_come_first_the_worst_before_all(pages: dict[str, str]) -> None:
    text = visible(pages["masked"])
    places = [text.index(code) for code in ("zero-gradients", "not-finite", "batch-dependence")]
    assert places == sorted(places)
    assert "<details" not in pages["masked"]
    assert "0.98, against a threshold of 0" in text
    assert "0.031, against a threshold of 1e-05" in text
    for each in masked().findings:
        assert {each.message, each.remedy, each.source} <= {
            s for s in (each.message, each.remedy, each.source) if s in text
        }


def test_settled_findings_and_notes_are_folded_and_open_in_print(pages: dict[str, str]) -> None:
    blur, model = pages["blurred"], pages["sound"]
    folded = "".join(re.findall(r'<details class="fold">.*?</details>', blur, flags=re.DOTALL))
    for each in blurred().findings:
        assert each.settled in visible(folded)
    folded = visible("".join(re.findall(r'<details class="fold">.*?</details>', model, flags=re.DOTALL)))
    assert "low-clean-accuracy-class" in folded
    assert sound().notes[0] in folded
    assert "Notes (2)" in folded
    printed = blur[blur.rindex("@media print") :]
    assert "details.fold::details-content { content-visibility: visible" in printed


def test_images_that_could_not_be_judged_are_named(pages: dict[str, str]) -> None:
    assert "3 of the images could not be judged and count as wrong: 17 (logits are not finite), 204" in visible(
        pages["masked"]
    )


# --- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
def test_numbers_are_those_of_the_data(pages: dict[str, str], name: str) -> None:
    of, text = RUNS[name](), visible(pages[name])
    assert of.robust_accuracy
    estimates = [of.robust_accuracy.attacked, of.clean_accuracy]
    estimates += [e for c in of.classes for e in (c.clean, c.attacked)]
    if of.defense:
        d = of.defense
        estimates += [d.undefended_clean, d.undefended, d.non_adaptive, d.adaptive]
    said = [percent(e, True) for e in estimates if e] + ([percent(of.rounded)] if of.rounded else [])
    said += [f"{r.examples:,} {r.fooled:,} {100 * r.before:.1f} → {100 * r.after:.1f} %" for r in of.remedies]
    said += [f"{a.attack} {a.examples:,} {a.fooled:,} " for a in of.attacks]
    said += [
        of.command,
        of.environment.torch,
        of.created,
        *of.settings,
        *(" ".join(v.split()) for v in of.settings.values()),
    ]
    assert not [each for each in said if each not in text]


def test_the_gap_is_named() -> None:
    gap = evaluated.gap_words(blurred().defense)  # type: ignore[arg-type]
    assert gap == [
        "With blur:sigma=1, 41.0 % seem to hold; 38.0 points of that are not there once the attacker knows of it.",
        "Against an attacker who knows, it adds 3.0 points to the 0.0 % that the network alone keeps. "
        "Without an attack it costs 6.6 points.",
    ]


@pytest.mark.parametrize(
    ("adaptive", "clean", "begins", "ends"),
    [
        (410, 900, "With d, 41.0 % hold, whether or not", "adds 11.0 points to the 30.0 % that the network alone keeps."),
        (500, 950, "The attack that knows of d left 50.0 %", "to the 30.0 % that the network alone keeps."),
        (100, 900, "With d, 41.0 % seem to hold; 31.0 points", "takes 20.0 points from the 30.0 % that the network alone "
         "keeps."),
        (100, 890, "With d, 41.0 % seem to hold; 31.0 points", "Without an attack it costs 1.0 points."),
    ],
)  # fmt: skip
def test_a_gap_of_another_kind_is_told_as_it_is(adaptive: int, clean: int, begins: str, ends: str) -> None:
    defense = ThreeWays(
        defense="d",
        undefended_clean=clopper_pearson(900, 1000),
        undefended=clopper_pearson(300, 1000),
        defended_clean=clopper_pearson(clean, 1000),
        non_adaptive=clopper_pearson(410, 1000),
        adaptive=clopper_pearson(adaptive, 1000),
    )
    first, second = evaluated.gap_words(defense)
    assert first.startswith(begins)
    assert second.endswith(ends)


def test_a_defense_is_shown_with_and_without_an_attack_and_the_truth_last() -> None:
    defense = blurred().defense
    assert defense
    shown = [(way.kind, way.estimate.value) for way in evaluated.ways(defense)]
    assert shown == [("clean", 0.912), ("clean", 0.846), ("alone", 0.0), ("illusion", 0.41), ("truth", 0.03)]


def test_what_the_badge_says_is_not_said_twice(tmp_path: Path) -> None:
    twice = [*sound().verdict, "The attack is an upper bound. The checks found no sign that it failed."]
    text = visible(page_of(tmp_path, msgspec.structs.replace(sound(), verdict=twice)))
    assert text.count("The checks found no sign") == 1
    assert "Its weakest class is shirt" in text


def test_the_cost_is_told_once_where_the_attacks_are_all_of_it(tmp_path: Path) -> None:
    attacks = blurred().attacks
    cost = [Cost(part=a.attack, forward=a.forward, backward=a.backward, seconds=a.seconds) for a in attacks]
    more = [*cost, Cost(part="preflight", forward=900, backward=300, seconds=2.0)]
    for n, (parts, shown) in enumerate([(cost, False), (more, True)]):
        text = visible(page_of(tmp_path / str(n), msgspec.structs.replace(blurred(), cost=parts)))
        assert ("All of the work" in text) is shown


@pytest.mark.parametrize(("largest", "told"), [(0.1, True), (0.0995, True), (0.08, False)])
def test_changes_of_one_size_are_told_to_be(tmp_path: Path, largest: float, told: bool) -> None:
    grid = Gallery(id="smallest", title="Smallest", kind="grid", pictures=[picture(0, 0.1), picture(1, largest)])
    text = visible(page_of(tmp_path, msgspec.structs.replace(sound(), galleries=[grid])))
    assert ("all of one size" in text) is told


def test_the_threat_and_the_backward_are_explained_where_they_occur(pages: dict[str, str]) -> None:
    assert "The threat linf:ε" in visible(pages["least"])
    assert "The threat l2:ε" not in visible(pages["least"])
    said = [name for name, _ in evaluated.terms(blurred())]
    assert "Backward" in said
    assert "Draws" not in said
    random = msgspec.structs.replace(least(), verdict=["The model is random: most of 20 draws decide."])
    assert "Draws" in [name for name, _ in evaluated.terms(random)]


def test_the_weakest_class_comes_first_and_many_are_folded(tmp_path: Path, pages: dict[str, str]) -> None:
    names = re.findall(r'<b class="name">(.*?)</b>', pages["sound"])
    assert names[:3] == ["shirt", "ankle boot", "coat"]
    assert names[-1] == "trouser"
    many = [
        ByClass(label=n, name=f"class {n}", clean=clopper_pearson(9, 10), attacked=clopper_pearson(n % 9, 10))
        for n in range(100)
    ]
    page = page_of(tmp_path, msgspec.structs.replace(least(), classes=many))
    assert "The other 80 classes" in page
    assert page.count('<b class="name">') == 100


def test_totals_and_passes_for_each_image(pages: dict[str, str]) -> None:
    text = visible(pages["sound"])
    assert "743 15 82 + 80 33 s" in text
    assert "All attacks 151 530,324 + 171,560 in all 2 min 51 s" in text
    assert evaluated.each(3, 0) == "–"
    assert evaluated.each(15, 10) == "1.5"


@pytest.mark.parametrize(
    ("value", "said"),
    [(3.0, "3"), (1024.0, "1,024"), (0.07123, "0.0712"), (1e-5, "1e-05"), (-0.5, "−0.5"), (-2.0, "−2")],
)
def test_measurements_are_written_with_the_digits_that_matter(value: float, said: str) -> None:
    assert evaluated.number(value) == said


def test_an_early_end_is_told(pages: dict[str, str]) -> None:
    assert "1,000 of 10,000 images were judged" in visible(pages["blurred"])
    assert "1,000 images were judged" in visible(pages["sound"])


# --- the page ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
def test_page_needs_nothing_from_elsewhere_and_its_ids_are_its_own(pages: dict[str, str], name: str) -> None:
    page = pages[name]
    places = re.findall(r"""(?:src|href|action|data|poster|srcset)\s*=\s*["']?([^"'\s>]+)""", page)
    places += re.findall(r"url\(\s*[\"']?([^\"')]+)", page)
    assert all(place.startswith(("#", "data:image/png;base64,")) for place in places)
    assert not re.search(r"<script|<link|@import|\son\w+=", page)
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {place[1:] for place in places if place.startswith("#")} <= set(ids)


def elements(page: str) -> set[tuple[str, ...]]:
    """Every kind of element with the names of its attributes, as a browser reads them; drawings of plots left out."""
    found: set[tuple[str, ...]] = set()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.add((tag, *(name for name, _ in attrs)))

    Reader().feed(re.sub(r'<figure class="plot">.*?</figure>', "", page, flags=re.DOTALL))
    return found


def hostile(value: object) -> object:
    """The same with every text made hostile, but for those that are read as a name of something."""
    if isinstance(value, str):
        return value + ODD
    if isinstance(value, list):
        return [hostile(each) for each in value]
    if isinstance(value, dict):
        return {hostile(key): hostile(each) for key, each in value.items()}
    if isinstance(value, msgspec.Struct):
        keep = {"kind", "trust", "severity", "role", "id"}
        fields = {f: getattr(value, f) for f in value.__struct_fields__}
        return type(value)(**{f: v if f in keep else hostile(v) for f, v in fields.items()})
    return value


@pytest.mark.parametrize("name", RUNS)
def test_hostile_texts_are_escaped(tmp_path: Path, pages: dict[str, str], name: str) -> None:
    of = hostile(RUNS[name]())
    assert isinstance(of, Evaluation)
    page = page_of(tmp_path, of)
    assert html.unescape(page).count(ODD) > 10
    assert not re.search("<script|<b>bold", page)
    assert elements(page) == elements(pages[name])


def test_a_redraw_gives_the_same_bytes(tmp_path: Path, pages: dict[str, str]) -> None:
    assert page_of(tmp_path, sound()) == pages["sound"]


# --- the bracket ---------------------------------------------------------------------------------


def estimate(value: float, n: int = 1000) -> Estimate:
    return clopper_pearson(round(value * n), n)


CASES = [
    (0.0, 0.0, None, 0.0),
    (0.0, 0.0, 0.0, 0.0),
    (1.0, 1.0, None, 1.0),
    (1.0, 1.0, 1.0, 1.0),
    (1.0, 0.0, None, 0.0),
    (1.0, 0.0, 0.0, 0.0),
    (0.51, 0.5, 0.49, 0.505),
    (0.5, 0.5, 0.5, 0.5),
    (0.02, 0.01, 0.005, 0.015),
    (0.995, 0.99, 0.985, 0.99),
    (0.87, 0.38, 0.2, 0.39),
    (0.9, 0.3, 0.4, None),
    (None, 0.3, None, None),
]


def case(clean: float | None, attacked: float, proved: float | None, rounded: float | None) -> Evaluation:
    return msgspec.structs.replace(
        least(),
        clean_accuracy=None if clean is None else estimate(clean),
        robust_accuracy=Bracket(attacked=estimate(attacked), certified=None if proved is None else estimate(proved)),
        rounded=None if rounded is None else estimate(rounded),
    )


Drawn = tuple[float, float, float, float, str]


def drawn_texts(node: ET.Element, anchor: str = "start") -> list[Drawn]:
    """Left, top, right, bottom of every text of a picture, and the text."""
    anchor = node.get("text-anchor", anchor)
    found: list[Drawn] = []
    if node.tag == "text":
        words, size = node.text or "", float(node.get("font-size", 0))
        wide = letters.width(words, size, bold=node.get("font-weight") == "650")
        x, y = float(node.get("x", 0)), float(node.get("y", 0))
        left = {"start": x, "middle": x - wide / 2, "end": x - wide}[anchor]
        found.append((left, y - 0.76 * size, left + wide, y + 0.2 * size, words))
    for child in node:
        found += drawn_texts(child, anchor)
    return found


@pytest.mark.parametrize("kind", ["wide", "narrow"])
@pytest.mark.parametrize("numbers", CASES)
def test_no_label_of_the_bracket_is_cut_or_lies_on_another(
    numbers: tuple[float | None, float, float | None, float | None], kind: str
) -> None:
    picture = ET.fromstring(str(bracket.draw(case(*numbers), kind)))
    _, _, wide, high = (float(v) for v in picture.get("viewBox", "").split())
    texts = drawn_texts(picture)
    expected = 3 * sum(v is not None for v in numbers[:3]) + 2 * (numbers[2] is None) + (numbers[3] is not None) + 6
    assert len(texts) == expected
    for left, top, right, bottom, words in texts:
        assert -1 <= left <= right <= wide + 1, words
        assert 0 <= top <= bottom <= high + 1, words
        assert bottom <= bracket.BAR_TOP or top >= bracket.BAR_TOP + bracket.BAR, words
    for one, other in itertools.combinations(texts, 2):
        across = min(one[2], other[2]) - max(one[0], other[0])
        down = min(one[3], other[3]) - max(one[1], other[1])
        assert across < 0 or down < 0, (one[4], other[4])
    for mark in picture.iter("path"):
        if mark.get("class") == "mark":
            at = float(re.match(r"M([\d.]+)", mark.get("d", ""))[1])  # type: ignore[index]
            words = next(t for t in texts if "rounded" in t[4])
            assert at + 5 <= words[0] or words[2] <= at - 5


@pytest.mark.parametrize("numbers", CASES)
def test_parts_of_the_bracket_fill_the_scale(numbers: tuple[float | None, float, float | None, float | None]) -> None:
    of = case(*numbers)
    assert of.robust_accuracy
    parts = bracket.parts(of.clean_accuracy, of.robust_accuracy)
    assert sum(part.share for part in parts) == pytest.approx(1)
    assert all(part.share >= 0 for part in parts)
    edges = [parts[0].low, *(part.high for part in parts)]
    assert edges == [0.0, *(part.low for part in parts[1:]), 1.0]
    picture = ET.fromstring(str(bracket.draw(of, "wide")))
    drawn = {r.get("class"): float(r.get("width", 0)) for r in picture.iter("rect") if "part" in r.get("class", "")}
    for part in parts:
        assert drawn[f"part {part.kind}"] == pytest.approx(bracket.WIDE * part.share, abs=0.01)


def test_the_bracket_draws_its_numbers_where_they_are() -> None:
    of = sound()
    picture = ET.fromstring(str(bracket.draw(of, "wide")))
    whiskers = {g.get("class", ""): g for g in picture.iter("g") if g.get("class", "").startswith("whisker")}
    assert set(whiskers) == {"whisker attacked", "whisker clean"}
    assert of.robust_accuracy
    assert of.clean_accuracy
    for kind, held in (("attacked", of.robust_accuracy.attacked), ("clean", of.clean_accuracy)):
        group = whiskers[f"whisker {kind}"]
        assert float(group.find("circle").get("cx")) == pytest.approx(712 * held.value, abs=0.01)  # type: ignore[union-attr, arg-type]
        low, high = re.match(r"M([\d.]+) [\d.]+H([\d.]+)", group.findall("path")[-1].get("d", "")).groups()  # type: ignore[union-attr]
        assert (float(low), float(high)) == pytest.approx((712 * held.low, 712 * held.high), abs=0.01)
    said = picture.get("aria-label", "")
    assert percent(of.robust_accuracy.attacked, True) in said
    assert "Nothing is proved yet." in said


def test_a_certificate_that_contradicts_an_attack_is_an_alarm(tmp_path: Path) -> None:
    alarm = "More is proved than attacks have left"
    assert alarm in page_of(tmp_path / "a", case(0.9, 0.3, 0.4, None))
    assert alarm not in page_of(tmp_path / "b", case(0.9, 0.4, 0.4, None))


# --- taxonomies ----------------------------------------------------------------------------------


def test_the_access_of_every_attack_is_the_one_it_declares() -> None:
    from unfooled.attacks import ATTACKS
    from unfooled.oracle import Access

    kinds = {
        Access.GRADIENT: frameworks.WHITE_BOX,
        Access.SCORE: frameworks.SCORE,
        Access.DECISION: frameworks.DECISION,
    }
    assert {name: kinds[kind.access] for name, kind in ATTACKS.items()} == dict(frameworks.ACCESS)


@pytest.mark.parametrize(
    ("attack", "seen"),
    [
        ("apgd:steps=20", {"white-box"}),
        ("targeted:k=3,order=malt(apgd-l1:steps=40)", {"white-box"}),
        ("escalate(square:steps=500;square)", {"score-based"}),
        ("cascade(fgsm;hopskipjump)", {"white-box", "decision-based"}),
        ("Transfer: apgd:steps=20 on the network alone", {"transfer"}),
        ("adapted: smooth backward for operations that have none", {"white-box"}),
        ("adapted: gradients estimated from scores", {"score-based"}),
        ("squared", set()),
        ("mine:steps=4", set()),
    ],
)
def test_what_an_attack_sees(attack: str, seen: set[str]) -> None:
    assert frameworks.access(attack) == seen


def test_categories_are_exercised_by_the_attacks_that_were_run(pages: dict[str, str]) -> None:
    done = re.findall(r'<li class="done">.*?<code>(.*?)</code>', pages["masked"], flags=re.DOTALL)
    open_ = re.findall(r'<li class="open">.*?<code>(.*?)</code>', pages["masked"], flags=re.DOTALL)
    assert done == ["AML.T0015", "AML.T0043.000", "AML.T0043.001", "AML.T0042", "NISTAML.022", "NISTAML.025"]
    assert open_ == ["AML.T0043.002", "NISTAML.025", "NISTAML.022"]
    assert "not a statement of compliance" in pages["masked"]


def test_a_defense_shown_three_ways_has_been_attacked_by_transfer(pages: dict[str, str]) -> None:
    done = re.findall(r'<li class="done">.*?<code>(.*?)</code>', pages["blurred"], flags=re.DOTALL)
    assert "AML.T0043.002" in done


def test_an_attack_that_had_no_image_left_exercised_nothing() -> None:
    cost = AttackCost(attack="square", examples=0, fooled=0, forward=0, backward=0, seconds=0.0)
    found = evaluated.taxonomies(msgspec.structs.replace(least(), attacks=[cost]))
    assert not [each for _, _, entries in found for each in entries if each.by]


# --- the terminal --------------------------------------------------------------------------------


def test_a_sentence_on_the_terminal_is_indented_and_cuts_no_percentage(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from unfooled.cli import terminal

    said = io.StringIO()
    monkeypatch.setattr(terminal, "out", Console(file=said, width=30, markup=False))
    terminal.sentence("Attacked as if it was 40.04 % seem to hold; 1.5 % of [bold] that are there.")
    lines = said.getvalue().splitlines()
    assert all(len(line) <= 30 for line in lines)
    assert [line[:2] for line in lines] == ["• ", *["  "] * (len(lines) - 1)]
    assert not [line for line in lines if line.strip().startswith("%")]
    assert " ".join(line[2:] for line in lines).endswith("1.5 % of [bold] that are there.")
