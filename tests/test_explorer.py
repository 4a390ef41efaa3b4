"""The explorer without its page: what is computed, ended, refused and said."""

import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

import unfooled as uf
from unfooled import attacks, data, models
from unfooled.errors import DataError, MissingData, ParameterError
from unfooled.explorer import curves, lesson, pictures, uploads
from unfooled.explorer.desk import Desk, Stopped, Ticket, Watched
from unfooled.explorer.runs import HELD, ORDERS, WRONG, Filter, Run
from unfooled.explorer.state import Bench, Question, ask, scale, smallest, threat_of
from unfooled.store import RunFolder
from unfooled.studies import single

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sample():
    return data.load("fashion-mnist-sample")


@pytest.fixture(scope="module")
def bench(sample):
    return Bench(models.load("fashion-mnist/plain"), sample, "plain")


def right(bench, count=10):
    """The first pictures that the model gets right."""
    shares = bench.shares(bench.images[:40], "", Ticket())
    return [at for at in range(40) if int(shares[at].argmax()) == int(bench.labels[at])][:count]


# --- the desk --------------------------------------------------------------------------------------


def test_a_newer_question_ends_the_older_one_and_a_late_one_never_begins():
    desk = Desk()
    first, other = desk.begin("a", "show", 1.0), desk.begin("b", "show", 1.0)
    second = desk.begin("a", "show", 3.0)
    late = desk.begin("a", "show", 2.0)
    assert (first.stale, second.stale, late.stale, other.stale) == (True, False, True, False)
    assert not desk.begin("a", "curve", 0.0).stale
    assert not second.stale
    desk.close("a")
    assert second.stale
    assert not other.stale
    assert desk.running() == 1


def test_a_closed_page_ends_a_running_attack_at_its_next_pass(bench):
    desk = Desk()
    ticket, ended = desk.begin("page", "show", 1.0), []
    at = right(bench)[0]
    question = Question(threat_of("linf", 0.01), "hopskipjump")  # thousands of passes

    def work():
        with pytest.raises(Stopped):
            ask(bench, bench.subject(at), question, ticket)
        ended.append(time.perf_counter())

    job = threading.Thread(target=work)
    job.start()
    time.sleep(0.3)
    assert not ended
    desk.close("page")
    start = time.perf_counter()
    job.join(timeout=5)
    assert ended
    assert ended[0] - start < 1
    assert bench.shares(bench.images[:1], "", Ticket()).shape == (1, 10)  # and the model is free again


def test_a_watched_model_is_the_model(sample):
    model = models.load("fashion-mnist/plain")
    watched = Watched(model)
    images = sample.floats()[:20]
    with torch.no_grad():
        assert torch.equal(watched(images), model(images))
    plain = uf.attack(model, images, sample.labels[:20], "linf:0.1", "pgd:steps=5")
    seen = uf.attack(watched, images, sample.labels[:20], "linf:0.1", "pgd:steps=5")
    assert torch.equal(plain.adversarial, seen.adversarial)


# --- one picture, one question ---------------------------------------------------------------------


def test_an_answer_is_what_the_engine_finds(bench, sample):
    at = right(bench)[0]
    answer = ask(bench, bench.subject(at), Question(threat_of("linf", 0.1)), Ticket())
    found = uf.attack(bench.model.inner, sample.floats()[at : at + 1], sample.labels[at : at + 1], "linf:0.1", "fgsm")
    assert torch.equal(answer.adversarial, found.adversarial[0])
    assert answer.fooled == bool(found.success[0])
    assert answer.size == pytest.approx(0.1)
    assert answer.after.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_every_attack_of_every_threat_answers(bench, norm):
    at, most = right(bench)[0], scale(norm, bench.shape)[0]
    for name in bench.attacks(norm):
        if name in ("square", "hopskipjump", "pdpgd", "cw"):  # the same code, and slow
            continue
        answer = ask(bench, bench.subject(at), Question(threat_of(norm, most / 8), name), Ticket())
        assert answer.size <= most / 8 * (1 + 1e-4) + 0.5 * (norm == "l0"), name


def test_eps_0_adds_nothing_and_a_picture_that_is_wrong_anyway_is_not_attacked(bench):
    at = right(bench)[0]
    nothing = ask(bench, bench.subject(at), Question(threat_of("linf", 0.1)), Ticket(), 0)
    assert torch.equal(nothing.adversarial, bench.images[at])
    assert not nothing.fooled
    wrong = next(k for k in range(40) if k not in right(bench, 40))
    answer = ask(bench, bench.subject(wrong), Question(threat_of("linf", 0.1)), Ticket())
    assert (answer.right, answer.fooled, answer.passes) == (False, False, 0)


def test_a_target_must_be_answered(bench):
    at = right(bench)[0]
    target = (int(bench.labels[at]) + 3) % 10
    answer = ask(bench, bench.subject(at), Question(threat_of("linf", 0.3), "pgd", target), Ticket())
    assert answer.fooled == (int(answer.after.argmax()) == target)
    assert answer.fooled


def test_who_knows_of_the_defense_does_better_than_who_does_not(bench):
    """On some picture both differ: the two questions are not one."""
    seen = set()
    for at in right(bench, 10):
        ways = [
            ask(
                bench,
                bench.subject(at),
                Question(threat_of("linf", 0.06), "fgsm", None, "blur:sigma=1", knows),
                Ticket(),
            )
            for knows in (False, True)
        ]
        seen.add(tuple(answer.fooled for answer in ways))
    assert (False, True) in seen
    assert (True, False) not in seen


def test_the_smallest_eps_is_where_it_begins(bench):
    at = right(bench)[0]
    question = Question(threat_of("linf", 0.1))
    found = smallest(bench, bench.subject(at), question, 0.4, Ticket())
    assert found is not None
    eps, answer = found
    assert answer.fooled
    assert answer.size == pytest.approx(eps, rel=1e-5)
    assert not ask(bench, bench.subject(at), question, Ticket(), eps * 0.97).fooled
    minimal = smallest(bench, bench.subject(at), Question(threat_of("linf", 0.1), "fmn"), 0.4, Ticket())
    assert minimal is not None
    assert minimal[0] < eps * 1.05
    whole = smallest(bench, bench.subject(at), Question(threat_of("l0", 5), "fgsm"), 98, Ticket())
    assert whole is None or whole[0] == int(whole[0])


def test_where_nothing_fools_no_eps_is_told(sample):
    class Stone(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.one_hot(torch.full((len(x),), 9), 10).float() + 0 * x.flatten(1).sum(1, True)

    stone = Bench(Stone(), sample[0:1])
    assert smallest(stone, stone.subject(0), Question(threat_of("linf", 0.1)), 0.4, Ticket()) is None


def test_a_model_of_labels_gets_attacks_on_decisions_only(sample):
    plain = models.load("fashion-mnist/plain")

    def decide(x):
        with torch.no_grad():
            return plain(x).argmax(1)

    deaf = Bench(models.BlackBox(decide, "labels", 10), sample)
    assert deaf.attacks("linf") == ["hopskipjump"]
    assert deaf.attacks("l0") == []


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(3, 12), "channels"),
        (torch.full((3, 1, 4, 4), 2.0), "pixels in"),
        (torch.zeros(3, 4, 5, 5), "channels"),
    ],
)
def test_data_that_are_no_pictures_are_refused(images, words):
    given = data.Dataset(images, torch.zeros(3, dtype=torch.int64), (), "odd", "a test")
    with pytest.raises(DataError, match=words):
        Bench(torch.nn.Flatten(), given)


def test_a_picture_that_is_not_there_is_refused(bench):
    with pytest.raises(ParameterError, match="numbered from 0 to 999"):
        bench.subject(1000)


# --- the lesson ------------------------------------------------------------------------------------


def test_the_lesson_is_the_engines_fgsm(bench, sample):
    for at in right(bench, 5):
        told = lesson.begin(bench, bench.subject(at), 0.4, Ticket())
        for eps in (0.02, 0.1, 0.3):
            seen = lesson.look(bench, told, eps, Ticket())
            found = uf.attack(
                bench.model.inner, sample.floats()[at : at + 1], sample.labels[at : at + 1], f"linf:{eps}", "fgsm"
            )
            assert torch.allclose(seen.adversarial, found.adversarial[0], atol=1e-6)
            assert (int(seen.after.argmax()) != int(bench.labels[at])) == bool(found.success[0])


def test_the_sentences_follow_what_is_seen(bench):
    at = next(k for k in right(bench, 10) if lesson.begin(bench, bench.subject(k), 0.4, Ticket()).first)
    told = lesson.begin(bench, bench.subject(at), 0.4, Ticket())
    name = bench.classes[told.subject.label]

    def said(eps):
        return lesson.sentences(told, lesson.look(bench, told, eps, Ticket()), bench.classes)

    assert said(0.0)[0].startswith(f"At ε = 0 nothing is added. The model says {name}")
    assert said(told.first / 4)[0].startswith(f"Still {name}")
    assert "gives way" in said(told.first / 4)[0]
    assert said(told.first)[0].startswith("Fooled: the model now says")
    assert "It is the direction that fools" in said(told.first)[2]
    assert all(2 <= len(said(eps)) <= 3 for eps in (0.0, 0.01, 0.1, 0.4))


def test_a_model_without_slope_and_a_wrong_one_are_told_of(sample):
    class Steps(torch.nn.Module):
        def forward(self, x):
            return 9 * torch.nn.functional.one_hot(torch.full((len(x),), 9), 10) + 0 * x.flatten(1).sum(1, True)

    flat = Bench(Steps(), sample)
    for at, words in ((0, "gradient is zero at every pixel"), (1, "wrong already")):
        told = lesson.begin(flat, flat.subject(at), 0.4, Ticket())
        assert words in lesson.sentences(told, lesson.look(flat, told, 0.1, Ticket()), flat.classes)[0]


def test_certainty_is_never_rounded_up():
    assert lesson.percent(0.99999).startswith("over 99.9")
    assert lesson.percent(1.0).startswith("100.0")
    assert lesson.percent(0.412).startswith("41.2")


# --- curves ----------------------------------------------------------------------------------------


def test_a_curve_grows_by_pieces_and_agrees_with_a_sweep(bench, monkeypatch):
    monkeypatch.setattr(curves, "SAMPLE", 75)
    question = Question(threat_of("linf", 0.1))
    steps = list(curves.curve(bench, question, 0.4, Ticket()))
    assert [points.images for points in steps] == [25, 50, 75]
    assert [points.whole for points in steps] == [False, False, True]
    part = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:75]
    whole = uf.sweep(bench.model.inner, bench.images[part], bench.labels[part], "linf:1", steps[-1].eps, "fgsm")
    assert steps[-1].accuracy == tuple(whole.accuracies())


def test_the_curve_of_who_does_not_know_lies_above(bench):
    question = Question(threat_of("linf", 0.1), "fgsm", None, "blur:sigma=1", knows=False)
    blind = next(curves.curve(bench, question, 0.4, Ticket()))
    knowing = next(curves.curve(bench, Question(question.threat, "fgsm", None, "blur:sigma=1"), 0.4, Ticket()))
    values = [[e.value for e in points.accuracy] for points in (blind, knowing)]
    assert values[0][0] == values[1][0]
    assert sum(values[0]) > sum(values[1])
    assert all(later <= before for ways in values for before, later in pairwise(ways))


def test_a_long_attack_is_shortened_for_a_curve():
    for name, most in (("square", 100), ("pgd", 20)):
        plan = Question(threat_of("linf", 0.1), name).plan
        assert plan.steps > most
        assert curves.shortened(plan).steps == most


def test_a_curve_steps_aside_for_a_slider_and_comes_out_the_same(bench):
    question = Question(threat_of("linf", 0.1), "bim")
    alone = next(curves.curve(bench, question, 0.4, Ticket(patient=True)))
    found, at = [], right(bench)[0]
    job = threading.Thread(target=lambda: found.append(next(curves.curve(bench, question, 0.4, Ticket(patient=True)))))
    job.start()
    while not bench.model.busy:
        time.sleep(0.001)
    answers = []
    while job.is_alive():
        answers.append(ask(bench, bench.subject(at), Question(threat_of("linf", 0.1)), Ticket()))
        time.sleep(0.02)
    job.join()
    assert len(answers) > 2
    assert found == [alone]


# --- uploads ---------------------------------------------------------------------------------------


def saved(folder, name, array, **options):
    Image.fromarray(array).save(folder / name, **options)
    return folder / name


def test_a_png_of_the_models_size_comes_back_as_it_is(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    image = uploads.read(saved(tmp_path, "a.png", array), (1, 28, 28))
    assert torch.equal(image, torch.from_numpy(array)[None] / 255)
    assert torch.equal(uploads.read(tmp_path / "a.png", (1, 28, 28), invert=True), 1 - image)


def test_other_sizes_modes_and_directions_are_fitted(tmp_path):
    wide = np.zeros((40, 80, 3), np.uint8)
    wide[:, 16:64] = 255
    assert uploads.read(saved(tmp_path, "wide.png", wide), (3, 32, 32)).min() == 1  # the middle is white
    clear = np.zeros((10, 10, 4), np.uint8)
    assert uploads.read(saved(tmp_path, "clear.png", clear), (1, 8, 8)).min() == 1  # transparent: on white
    deep = np.full((10, 10), 32768, np.uint16)
    assert uploads.read(saved(tmp_path, "deep.png", deep), (1, 8, 8)).mean() == pytest.approx(128 / 255)
    lying = Image.new("RGB", (20, 10), "black")
    exif = lying.getexif()
    exif[274] = 6
    lying.save(tmp_path / "lying.jpg", exif=exif)
    assert uploads.read(tmp_path / "lying.jpg", (3, 20, 10)).shape == (3, 20, 10)


def test_what_is_no_picture_is_broken_or_too_large_is_refused_in_words(tmp_path):
    text = tmp_path / "a.png"
    text.write_text("no picture")
    with pytest.raises(DataError, match="no picture that can be read"):
        uploads.read(text, (1, 28, 28))
    whole = saved(tmp_path, "b.png", np.random.default_rng(0).integers(0, 256, (99, 99), dtype=np.uint8)).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="broken"):
        uploads.read(tmp_path / "half.png", (1, 28, 28))
    with pytest.raises(DataError, match="too large: 10000 × 10000 pixels"):
        uploads.read(saved(tmp_path, "bomb.png", np.zeros((10000, 10000), np.uint8)), (1, 28, 28))
    (tmp_path / "long.png").write_bytes(bytes(uploads.BYTES + 1))
    with pytest.raises(DataError, match="too large: 10.0 MB"):
        uploads.read(tmp_path / "long.png", (1, 28, 28))


# --- a run -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("explored") / "run"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    spec = "fashion-mnist-sample[0:60]"
    found = data.load(spec)
    single.run(RunFolder(place), models.load("fashion-mnist/plain"), found, threat_of("linf", 0.03), attacks.parse("fgsm"),
               {"model": "fashion-mnist/plain", "data": found.name})  # fmt: skip
    torch.set_num_threads(before)
    return place


def test_a_runs_examples_by_class_attack_and_distance(run_folder, sample):
    run = Run(RunFolder(run_folder))
    assert len(run.cases) == 60
    assert run.note == ""
    assert set(run.fates) == {"fgsm", WRONG, HELD}
    every = run.chosen(Filter())
    fooled = [case for case in every if case.fooled]
    assert every[: len(fooled)] == fooled
    assert [c.distance for c in fooled] == sorted(c.distance for c in fooled)
    label = fooled[0].label
    assert {c.label for c in run.chosen(Filter(label=label))} == {label}
    assert {c.fate for c in run.chosen(Filter(fate=HELD))} == {HELD}
    assert run.chosen(Filter(low=0.02, high=0.04)) == fooled
    assert run.chosen(Filter(low=0.04)) == []
    assert [c.example for c in run.chosen(Filter(order=ORDERS[2]))] == list(range(60))
    clean, adversarial = run.images(fooled[0])
    assert np.array_equal(clean, sample.floats()[fooled[0].example].numpy())
    assert np.abs(adversarial - clean).max() == pytest.approx(fooled[0].distance, rel=1e-5)
    assert run.images(next(c for c in every if not c.fooled))[1] is None


def test_a_run_whose_data_are_gone_shows_what_it_holds(run_folder, tmp_path):
    import shutil

    place = tmp_path / "run"
    shutil.copytree(run_folder, place)
    text = (place / "evaluation.json").read_text().replace(data.load("fashion-mnist-sample[0:60]").name, "nowhere.npz")
    (place / "evaluation.json").write_text(text)
    run = Run(RunFolder(place))
    assert "not shown" in run.note
    clean, adversarial = run.images(next(c for c in run.cases if c.fooled))
    assert clean is None
    assert adversarial is not None


def test_a_folder_without_evidence_is_refused(run_folder, tmp_path):
    (tmp_path / "evaluation.json").write_text((run_folder / "evaluation.json").read_text())
    with pytest.raises(MissingData, match="no evidence by example"):
        Run(RunFolder(tmp_path))


# --- what is shown ---------------------------------------------------------------------------------


def test_names_of_classes_are_escaped(bench):
    at = right(bench)[0]
    answer = ask(bench, bench.subject(at), Question(threat_of("linf", 0.1)), Ticket())
    names = ["<script>alert(1)</script>"] * 10
    shown = pictures.triptych(bench.images[at], answer, names, "label") + pictures.bars(
        answer.before, answer.after, names
    )
    assert "<script" not in shown
    assert "&lt;script" in shown


# --- the command -----------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch):
    pytest.importorskip("gradio")
    from unfooled.cli.explore import explore
    from unfooled.explorer import serve

    class Nobody:
        address = "http://127.0.0.1:1/"

        def wait(self):
            return None

        def close(self):
            return None

    served = []
    monkeypatch.setattr(serve, "serve", lambda *given: served.append(given) or Nobody())
    app = typer.Typer()
    app.command()(explore)
    return lambda *words: (CliRunner().invoke(app, list(words)), served)


def test_other_hosts_need_a_password(command, monkeypatch):
    for host in ("0.0.0.0", "192.168.1.5", "::", "example.org"):
        answer, served = command("--host", host)
        assert isinstance(answer.exception, ParameterError)
        assert "--password-env" in str(answer.exception)
    answer, served = command("--host", "0.0.0.0", "--password-env", "UNFOOLED_TEST_PASSWORD")
    assert "no environment variable UNFOOLED_TEST_PASSWORD" in str(answer.exception)
    monkeypatch.setenv("UNFOOLED_TEST_PASSWORD", "")
    answer, served = command("--host", "0.0.0.0", "--password-env", "UNFOOLED_TEST_PASSWORD")
    assert "empty" in str(answer.exception)
    assert not served
    monkeypatch.setenv("UNFOOLED_TEST_PASSWORD", "secret")
    answer, served = command("--host", "0.0.0.0", "--password-env", "UNFOOLED_TEST_PASSWORD", "--port", "7999")
    assert answer.exit_code == 0
    assert served[0][1:] == ("0.0.0.0", 7999, "secret", True)
    assert "secret" not in answer.output


def test_without_names_the_bundled_model_and_a_run_by_its_folder(command, run_folder):
    answer, served = command("--no-browser")
    assert answer.exit_code == 0
    assert "explorer: http" in answer.output
    answer, _ = command(str(run_folder), "--no-browser")
    assert answer.exit_code == 0
    answer, _ = command(str(run_folder), "mnist")
    assert "without MODEL and DATA" in str(answer.exception)
    answer, _ = command("--image", "5000")
    assert "no picture 5000" in str(answer.exception)
    assert len(served) == 2


def test_nothing_of_the_explorer_is_imported_with_the_command_line():
    import subprocess
    import sys

    code = "import unfooled.cli.explore, sys; assert not {'gradio', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_style_sheet_fetches_nothing():
    import unfooled.explorer

    text = (Path(unfooled.explorer.__file__).parent / "explorer.css").read_text()
    assert "url(" not in text
    assert "@import" not in text
    assert "http" not in text


def test_every_defense_on_the_screen_is_made_at_both_ends_of_its_slider():
    from unfooled import defenses
    from unfooled.explorer.explore import OPTIONS, _plain
    from unfooled.explorer.explore_tab import STRENGTHS

    assert STRENGTHS.keys() == OPTIONS.keys()
    assert set(defenses.DEFENSES) - set(STRENGTHS) == {"thermometer"}  # for networks that were trained on its codes
    images = torch.rand(2, 1, 12, 12)
    for name, (low, high, _, at) in STRENGTHS.items():
        for value in (low, at, high):
            made = defenses.parse(f"{name}:{OPTIONS[name]}={_plain(value)}")
            assert made(images).shape == images.shape, (name, value)
