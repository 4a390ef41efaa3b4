"""The explorer in a real browser: every control, uploads, a run's page, phones, and no request to another host."""

import re
import time

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

import unfooled as uf
from unfooled import attacks, data, models

gradio = pytest.importorskip("gradio")
expect = pytest.importorskip("playwright.sync_api").expect

from unfooled.explorer import page as model_page  # noqa: E402
from unfooled.explorer import run_page, serve  # noqa: E402
from unfooled.explorer.room import Room  # noqa: E402
from unfooled.explorer.runs import Run  # noqa: E402
from unfooled.explorer.state import Bench  # noqa: E402
from unfooled.results import Finding  # noqa: E402
from unfooled.store import RunFolder  # noqa: E402
from unfooled.studies import single  # noqa: E402

from .conftest import PHONE  # noqa: E402

expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def room():
    return Room(Bench(models.load("fashion-mnist/plain"), data.load("fashion-mnist-sample"), "fashion-mnist/plain"))


@pytest.fixture(scope="module")
def explorer(room):
    served = serve.serve(lambda: model_page.build(room))
    yield served.address
    served.close()


def choose(page, control, option):
    page.locator(f"#{control} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def slide(page, control, value):
    """Set a slider as a hand does it: an input event, then a release."""
    page.locator(f"#{control} input[type=range]").evaluate(
        "(one, value) => { one.value = value; one.dispatchEvent(new Event('input', {bubbles: true}));"
        "one.dispatchEvent(new PointerEvent('pointerup', {bubbles: true})); }",
        value,
    )


def wide(page):
    """Whether something on the page is wider than the screen."""
    return page.evaluate("document.documentElement.scrollWidth > window.innerWidth + 1")


def test_the_lesson_follows_the_slider_the_button_and_the_picture(visit, explorer):
    page = visit(explorer, "#lesson .lesson")
    news = page.locator("#lesson .news")
    expect(news).to_contain_text("At ε = 0 nothing is added")
    expect(page.locator("#lesson img")).to_have_count(3)
    before = page.locator("#lesson figure.fooled, #lesson figure").nth(2).locator("img").get_attribute("src")
    slide(page, "lesson-eps", 0.02)
    expect(news).to_contain_text("Still Ankle boot")
    assert page.locator("#lesson figure").nth(2).locator("img").get_attribute("src") != before
    page.locator("#lesson-smallest").click()
    expect(news).to_contain_text("Fooled: the model now says")
    expect(page.locator("#lesson .told")).to_contain_text("direction that fools")
    number = page.locator("#lesson-eps input[type=number]")
    number.fill("0")
    number.press("Enter")
    expect(news).to_contain_text("nothing is added")
    page.locator("#strip button", has_text="Trouser").first.click()
    expect(news).to_contain_text("Trouser")
    expect(page.locator('#strip button[aria-pressed="true"]')).to_have_text("Trouser")
    first = page.locator("#strip button").first.get_attribute("data-index")
    page.locator("#other").click()
    expect(page.locator("#strip button").first).not_to_have_attribute("data-index", first)
    page.get_by_text("The letters, one by one").click()
    expect(page.get_by_text("the attacker’s budget")).to_be_visible()


@pytest.mark.slow
def test_every_control_of_explore(visit, explorer):
    page = visit(explorer, "#lesson .lesson")
    page.get_by_role("tab", name="Explore").click()
    stage, status, curve = page.locator("#stage"), page.locator("#status"), page.locator("#curve")
    expect(status).to_contain_text("fgsm")
    expect(curve).to_contain_text("of 200 images hold")
    choose(page, "attack", "Basic iterative method")
    expect(status).to_contain_text("ooled by bim")
    slide(page, "eps", 0)
    expect(status).to_contain_text("nothing is added")
    slide(page, "eps", 0.2)
    choose(page, "target", "Bag")
    expect(stage.locator("figure.fooled")).to_contain_text("Bag")
    choose(page, "target", "any wrong class")
    page.locator("#smallest").click()
    expect(status).to_contain_text("The smallest ε that fooled")
    assert 0 < float(page.locator("#eps input[type=number]").input_value()) < 0.1
    for norm, unit in (("L2: the length of the change", "L2"), ("L1: the sum of all changes", "L1"),
                       ("L0: few pixels, as much as they like", "pixels")):  # fmt: skip
        choose(page, "threat", norm)
        expect(page.locator("#eps")).to_contain_text(unit)
        expect(status).to_contain_text(re.compile("ooled by"))
    page.locator("#halt").click()
    expect(status).to_contain_text("Stopped")


@pytest.mark.slow
def test_a_defense_both_ways_and_each_alone(visit, explorer):
    page = visit(explorer, "#lesson .lesson")
    page.get_by_role("tab", name="Explore").click()
    choose(page, "defense", "blur")
    expect(page.locator("#stage .way")).to_have_count(2)
    expect(page.locator("#stage h3.illusion")).to_contain_text("does not know")
    expect(page.locator("#stage h3.truth")).to_contain_text("knows")
    expect(page.locator("#status")).to_contain_text("ignorance")
    expect(page.locator("#curve .line.truth")).to_have_count(1)
    expect(page.locator("#curve .line.illusion")).to_have_count(1)
    before = page.locator("#stage img").first.evaluate("one => one.closest('#stage').innerHTML")
    slide(page, "strength", 2)
    expect(page.locator("#stage")).not_to_have_js_property("innerHTML", before)
    page.get_by_label("does not know of the defense").check()
    expect(page.locator("#stage .way")).to_have_count(1)
    expect(page.locator("#stage h3")).to_contain_text("does not know")
    page.get_by_label("knows it").check()
    expect(page.locator("#stage h3")).to_have_text("The attacker knows")
    choose(page, "defense", "none")
    expect(page.locator("#stage h3")).to_have_count(0)
    expect(page.locator("#strength")).to_be_hidden()


@pytest.mark.slow
def test_uploads_good_broken_and_too_large(visit, explorer, tmp_path):
    page = visit(explorer, "#lesson .lesson")
    message, news = page.locator("#message"), page.locator("#lesson .news")
    files = page.locator('input[type="file"]')
    picture = np.zeros((60, 60, 3), np.uint8)
    picture[10:50, 20:40] = 255
    Image.fromarray(picture).save(tmp_path / "good.png")
    files.set_input_files(tmp_path / "good.png")
    expect(message).to_contain_text("Your picture, as the model sees it: 28 × 28 grey pixels")
    expect(page.locator("#lesson")).to_contain_text("the model’s own answer is the label")
    shown = page.locator("#lesson img").first.get_attribute("src")
    page.locator("#invert input").check()
    expect(page.locator("#lesson img").first).not_to_have_attribute("src", shown)
    expect(news).not_to_be_empty()
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:90])
    files.set_input_files(tmp_path / "broken.png")
    expect(message.locator(".alarm")).to_contain_text("broken")
    (tmp_path / "text.png").write_text("no picture")
    files.set_input_files(tmp_path / "text.png")
    expect(message.locator(".alarm")).to_contain_text("no picture that can be read")
    Image.fromarray(np.zeros((9000, 9000), np.uint8)).save(tmp_path / "huge.png")
    files.set_input_files(tmp_path / "huge.png")
    expect(message.locator(".alarm")).to_contain_text("too large: 9000 × 9000 pixels")
    (tmp_path / "long.png").write_bytes(bytes(11 << 20))
    files.set_input_files(tmp_path / "long.png")
    expect(page.get_by_text("exceed the maximum allowed size of 10.0 Mb").last).to_be_visible()
    page.get_by_test_id("toast-close").last.click()
    page.locator("#strip button").first.click()
    expect(message).to_be_empty()


@pytest.mark.slow
def test_a_closed_page_ends_its_attack(visit, explorer, room):
    page = visit(explorer, "#lesson .lesson")
    page.get_by_role("tab", name="Explore").click()
    expect(page.locator("#curve")).to_contain_text("of 200 images hold at")
    slide(page, "eps", 0.01)
    choose(page, "attack", "HopSkipJump")
    expect(page.locator("#status .working")).to_contain_text("hopskipjump is at work")
    assert room.bench.model.busy
    page.close()
    deadline = time.monotonic() + 15
    while room.bench.model.busy and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.3)
    assert not room.bench.model.busy


def test_a_phone_and_the_dark(visit, explorer):
    page = visit(explorer, "#lesson .lesson", PHONE, "dark")
    assert not wide(page)
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light == "rgb(22, 25, 29)"
    page.get_by_role("tab", name="Explore").click()
    choose(page, "defense", "median")
    expect(page.locator("#stage .way")).to_have_count(2)
    assert not wide(page)


@pytest.fixture(scope="module")
def run_address(tmp_path_factory):
    place, spec = tmp_path_factory.mktemp("explored") / "run", "fashion-mnist-sample[0:60]"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found, folder = data.load(spec), RunFolder(place)
    plan = attacks.parse("cascade(fgsm;deepfool)")
    evaluation = single.run(folder, models.load("fashion-mnist/plain"), found, uf.Linf(0.03), plan,
                            {"model": "fashion-mnist/plain", "data": found.name})  # fmt: skip
    finding = Finding(code="few-images", severity="suspect", message="Only 60 images were judged.", measurement=60,
                      threshold=100, source="custom", remedy="Judge more.")  # fmt: skip
    folder.write_evaluation(msgspec.structs.replace(evaluation, trust="suspect", findings=[finding]))
    torch.set_num_threads(before)
    run = Run(RunFolder(place))
    served = serve.serve(lambda: run_page.build(run))
    yield served.address
    served.close()


def test_a_run_filtered_by_class_attack_and_distance(visit, run_address):
    page = visit(run_address, "#examples .cards")
    count = page.locator("#examples .count")
    expect(count).to_have_text("1–24 of 60 examples")
    expect(page.locator("#summary .badge")).to_contain_text("suspect")
    expect(page.locator("#summary .findings li")).to_contain_text("Only 60 images were judged.")
    page.locator("#more").click()
    expect(count).to_have_text("25–48 of 60 examples")
    page.locator("#earlier").click()
    expect(count).to_have_text("1–24 of 60 examples")
    choose(page, "class", "Ankle boot")
    expect(page.locator("#examples .cards button span").first).to_have_text("Ankle boot")
    assert set(page.locator("#examples .cards button span").all_inner_texts()) == {"Ankle boot"}
    choose(page, "class", "all classes")
    choose(page, "fate", "fgsm")
    expect(count).not_to_contain_text("of 60")
    assert set(page.locator("#examples .cards b").all_inner_texts()) == {"fgsm"}
    slide(page, "low", 0.03)
    slide(page, "high", 0.01)
    expect(page.locator("#examples")).to_contain_text("No example passes these filters")
    slide(page, "low", 0)
    slide(page, "high", 0.031)
    expect(page.locator("#examples .cards button").first).to_be_visible()
    choose(page, "order", "by number")
    numbers = [int(one.get_attribute("data-index")) for one in page.locator("#examples .cards button").all()]
    assert numbers == sorted(numbers)
    page.locator("#examples .cards button").nth(1).click()
    expect(page.locator("#one dl")).to_contain_text(re.compile(rf"Example\s*{numbers[1]}"))
    expect(page.locator("#one img")).to_have_count(3)
    expect(page.locator("#one code")).to_contain_text(f"--image {numbers[1]}")


def test_a_run_on_a_phone(visit, run_address):
    assert not wide(visit(run_address, "#examples .cards", PHONE))


def test_a_password_is_asked_for(browser, room):
    served = serve.serve(lambda: model_page.build(room), password="open sesame")
    page = browser.new_context().new_page()
    try:
        assert page.request.get(f"{served.address}config").status == 401
        page.goto(served.address)
        page.get_by_label("username").fill("unfooled")
        page.get_by_label("password").fill("wrong")
        page.get_by_role("button", name="Login").click()
        expect(page.get_by_text(re.compile("incorrect", re.IGNORECASE))).to_be_visible()
        page.get_by_label("username").fill("unfooled")
        page.get_by_label("password").fill("open sesame")
        page.get_by_role("button", name="Login").click()
        expect(page.locator("#lesson .lesson")).to_be_visible()
    finally:
        page.context.close()
        served.close()


def test_a_port_that_is_taken_is_told(explorer, room):
    port = int(explorer.rsplit(":", 1)[1].strip("/"))
    with pytest.raises(uf.errors.OutputError, match=f"Cannot listen on 127.0.0.1:{port}"):
        serve.serve(lambda: model_page.build(room), port=port)
