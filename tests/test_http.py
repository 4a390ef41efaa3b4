"""Endpoints: the same answers as the model behind them, asked politely, never twice, and never told a secret."""

import json
import math
import multiprocessing
import os
import pickle
import sqlite3
import time
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

import endpoint_server
import unfooled as uf
from endpoint_server import NAMES, Server
from unfooled import models
from unfooled.cli import run
from unfooled.errors import DataError, ModelError, Note, OutputError, ParameterError, UnknownName
from unfooled.models import Access
from unfooled.models.black_box import LEAST
from unfooled.models.endpoint import calls

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
COMMA = ",".join(NAMES)


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("UNFOOLED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(calls, "FIRST_WAIT", 0.02)


@pytest.fixture(scope="module")
def network():
    return models.load("fashion-mnist/plain")


@pytest.fixture(scope="module")
def some():
    found = uf.data.load("fashion-mnist-sample[0:32]")
    return found.floats(), found.labels


class Small(nn.Module):
    """Fast to ask, easily fooled: three classes of 4×4 images."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 3)
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(3, 16, generator=torch.Generator().manual_seed(3)))
            self.layer.bias.copy_(-0.5 * self.layer.weight.sum(1))

    def forward(self, x):
        return self.layer(x.flatten(1))


def few(count=6):
    images = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(1)).mul(255).round() / 255
    return images, Small()(images).argmax(1)


@pytest.fixture
def small():
    with Server(Small()) as server:
        yield server


def load(server, path="png", **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)
        return models.load(server.url(path), **options)


# --- the same answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("png", {}),
        ("png?say=bare", {"classes": 10}),
        ("png?say=logits", {"answers": "logits"}),
        ("png?say=mapping", {"classes": COMMA}),
        ("png?say=numbered", {}),
        ("png?say=pairs", {"classes": NAMES}),
        ("png?say=index&in=results.best", {"answers": "labels", "classes": 10, "answer": "results.best"}),
        ("png?say=name", {"answers": "labels", "classes": COMMA}),
        ("png?say=named", {"answers": "labels", "classes": COMMA}),
        ("png?say=top", {"answers": "labels", "classes": COMMA}),
        ("multipart", {"form": "multipart"}),
        ("multipart?list=1", {"form": "multipart", "batch": 12, "parallel": 1}),
        ("base64", {"form": "base64"}),
        ("base64?say=bare&list=1&in=predictions", {"form": "base64", "field": "instances.*.b64", "batch": 32}),
        ("base64?say=bare&list=1&in=predictions", {"form": "base64", "field": "instances.*.b64"}),
        ("json", {"form": "json"}),
        ("json?list=1&in=a.b", {"form": "json", "batch": 9, "answer": "a.b.*.scores"}),
        ("json255", {"form": "json", "scale": 255}),
        ("jsonlast?say=label", {"form": "json", "last": True, "answers": "labels", "classes": 10}),
    ],
)
def test_accuracy_and_answers_are_those_of_the_model_behind(network, some, path, options):
    images, labels = some
    with torch.no_grad():
        raw = network(images)
    with Server(network) as server:
        model = load(server, path, **options)
        found = model(images)
        assert found.shape == (32, 10)
        assert torch.equal(found.argmax(1), raw.argmax(1))
        assert float((found.argmax(1) == labels).float().mean()) == float((raw.argmax(1) == labels).float().mean())
        if options.get("answers", "probabilities") == "probabilities":
            torch.testing.assert_close(found.float(), raw.log_softmax(1).clamp_min(math.log(LEAST)), rtol=0, atol=1e-3)
        assert model.access is (Access.DECISION if options.get("answers") == "labels" else Access.SCORE)
        assert len(server.times) == -(-32 // options.get("batch", 1))


def test_json_sends_floats_exactly_and_a_png_what_is_judged(some):
    def first(x):
        return torch.stack([x[:, 0, 0, 0], 1 - x[:, 0, 0, 0]], 1)

    images = torch.rand(3, 1, 4, 4) * 0.9 + 0.05
    with Server(first) as server:
        for path, options in (
            ("json", {}),
            ("json255", {"scale": 255}),
        ):
            exact = load(server, f"{path}?say=logits", form="json", answers="logits", **options)
            assert torch.equal(exact(images).float(), first(images))
        rounded = load(server, "png?say=logits", answers="logits")
        assert torch.equal(rounded(images).float(), first((images * 255).round() / 255))
        assert torch.equal(rounded(300 * images - 20), rounded((300 * images - 20).clamp(0, 1)))  # as a check may ask
    assert "rounded to 8 bits" in rounded.facts.preprocessing
    assert exact.facts.preprocessing == "multiplied by 255"
    with pytest.raises(ModelError, match="NaN or inf, which cannot be sent"):
        rounded(images * float("nan"))
    with pytest.raises(ModelError, match="A PNG holds grey or colour.*\\(4, 4, 4\\): use form=json"):
        rounded(torch.rand(1, 4, 4, 4))


def test_more_may_stand_beside_the_image(small, monkeypatch):
    bodies, read = [], endpoint_server.read
    monkeypatch.setattr(endpoint_server, "read", lambda form, kind, body: bodies.append(body) or read(form, kind, body))
    images, labels = few(1)
    model = load(small, "json", form="json", extra='{"parameters": {"top_k": 3}}')
    assert torch.equal(model(images).argmax(1), labels)
    assert json.loads(bodies[0]) == {"image": images[0].double().tolist(), "parameters": {"top_k": 3}}
    load(small, "base64?list=1", form="base64", field="instances.*.b64", extra={"top_k": 3})(images)
    assert json.loads(bodies[1])["top_k"] == 3


def test_colour_and_an_empty_batch():
    with Server(lambda x: x.mean((2, 3))) as server:
        model = load(server, "png?say=logits", answers="logits", classes=3)
        x = (torch.rand(2, 3, 5, 4) * 255).round() / 255
        torch.testing.assert_close(model(x).float(), x.mean((2, 3)))
        assert model(x[:0]).shape == (0, 3)


# --- servers that misbehave --------------------------------------------------------------------------------


def test_what_may_pass_is_asked_again(small):
    images, labels = few()
    faults = ["drop", "wait", "500 oops", "", "half", "broken", "", "wait 0", "503", "", "408", "drop"]
    small.faults.extend(faults)
    model = load(small, parallel=1)
    assert torch.equal(model(images).argmax(1), labels)
    assert len(small.times) == len(images) + len([fault for fault in faults if fault])


def test_a_request_to_wait_is_honoured_by_all(small):
    images, labels = few()
    small.faults.append("wait 0.6")
    model = load(small, parallel=3)
    assert torch.equal(model(images).argmax(1), labels)
    gaps = np.diff(small.times[:1] + small.times[3:])  # up to two were under way when the first was refused
    assert gaps.max() > 0.45
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 2))
    small.faults.append(f"wait {date}")
    start = time.monotonic()
    load(small, version=2, parallel=1)(images[:1])
    assert time.monotonic() - start > 0.9
    small.faults.append("wait 86400")
    with pytest.raises(ModelError, match="asks to be left alone for 86400 s. The answers so far are kept"):
        load(small, version=3)(images[:1])


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("drop", "the connection broke off"),
        ("500 oops", "it answered 500"),
        ("wait", "it answered 429"),
        ("broken", "its answer was no JSON: '{\"scores\": \\[0.1,'"),
        ("slow 0.3", "it was silent for 0.1 s"),
    ],
)
def test_what_does_not_pass_is_told(small, fault, reason):
    small.faults.extend([fault] * 3)
    with pytest.raises(ModelError, match=f"failed 3 times on one request; the last time {reason}.*kept"):
        load(small, tries=3, timeout=0.1)(few()[0][:1])
    assert len(small.times) == 3


def test_a_server_that_is_not_there():
    with Server(Small()) as server:
        pass
    with pytest.raises(ModelError, match="failed 2 times on one request; the last time it could not be reached"):
        load(server, tries=2)(few()[0])


def test_a_refusal_is_told_at_once(small):
    small.faults.append("403 no such key\nmore")
    with pytest.raises(ModelError, match="/png refuses: it answered 403, no such key\\.$"):
        load(small, parallel=1)(few()[0])
    assert len(small.times) == 1


def test_a_failure_ends_the_others_too(small):
    small.slow = 0.05
    small.faults.extend(["", "403"])
    with pytest.raises(ModelError, match="403"):
        load(small, parallel=2)(few(40)[0])
    assert len(small.times) < 10


def test_a_failure_ends_the_waiting_of_the_others(small, monkeypatch):
    monkeypatch.setattr(calls, "FIRST_WAIT", 40)
    small.faults.extend(["500", "403"])
    start = time.monotonic()
    with pytest.raises(ModelError, match="403"):
        load(small, parallel=2)(few(2)[0])
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("said", "options", "message"),
    [
        ([0.1, 0.9], {"classes": 3}, "answered 2 scores for 3 classes: \\[0.1, 0.9\\]"),
        ([-3.0, 4.0], {}, "no probabilities: \\[-3.0, 4.0\\]. Say answers=logits"),
        ("cat", {}, 'list of scores.*It answered "cat". If it answers labels, say answers=labels'),
        ({"cat": 0.1, "dog": 0.9}, {}, 'names its classes: \\["cat", "dog"\\]. Say their order by classes='),
        ({"cat": 0.1, "cow": 0.9}, {"classes": "cat,dog"}, "the class 'cow', which is none of"),
        ({"cat": 0.1}, {"classes": "cat,dog"}, "1 of 2 classes, without 'dog'.*or say answers=labels"),
        ("fish", {"answers": "labels", "classes": "cat,dog"}, "the label 'fish', which is none of 2: \\[\"cat\""),
        (2, {"answers": "labels", "classes": "cat,dog"}, "the label 2, and there are 2 classes"),
        ([0.1, 0.9], {"answers": "labels", "classes": 2}, "must answer a label.*It answered \\[0.1, 0.9\\]"),
        (
            {"out": [1]},
            {"answer": "outputs.0"},
            "has no 'outputs' on the path outputs.0: it has the entries \\[\"out\"\\]",
        ),
        (
            [[0.1, 0.9]],
            {"form": "json", "batch": 6},
            "must answer 6 images by a list of as many. It answered 1 answers",
        ),
        ({"error": "busy"}, {}, 'list of scores.*It answered {"error": "busy"}'),
    ],
)
def test_a_wrong_answer_is_told_at_once_and_not_kept(small, said, options, message):
    small.say = said
    path = options.get("form", "png")
    model = load(small, path, parallel=1, **options)
    with pytest.raises(ModelError, match=message):
        model(few()[0])
    assert len(small.times) == 1
    assert len(model.function.kept) == 0


def test_answers_that_are_not_finite_are_the_engines_to_name(small):
    small.say = [float("nan"), 1.0, 0.5]
    assert load(small, answers="logits")(few()[0])[0].isnan().any()


def test_redirects_stay_with_the_host(small):
    images, labels = few()
    small.faults.append(f"move 308 {small.url('json')}")
    model = load(small, "old", form="json", parallel=1)
    assert torch.equal(model(images).argmax(1), labels)
    assert len(small.times) == len(images) + 1  # where it has moved for good is remembered
    with Server(Small()) as other:
        small.faults.append(f"move 307 {other.url('png')}")
        with pytest.raises(
            ModelError, match=f"redirects to another host, http://127.0.0.1:{other.http.server_port}: nothing"
        ):
            load(small, "png")(images[:1])
        assert not other.times
    small.faults.extend(["move 302 /png"] * 6)
    with pytest.raises(ModelError, match="redirects more than 5 times"):
        load(small, "png")(images[:1])


# --- never twice -------------------------------------------------------------------------------------------


def test_an_image_is_asked_as_often_as_told_and_its_answers_are_kept(small):
    images, _ = few()
    model = load(small)
    first = model(images)
    for _ in range(4):
        assert torch.equal(model(images), first)
    assert set(Counter(small.seen).values()) == {2}
    with pytest.warns(Note, match="12 answers of http.* are kept.*version=NAME"):
        again = models.load(small.url("png"))
    assert torch.equal(again(torch.cat([images, images])), torch.cat([first, first]))
    assert len(small.seen) == 12
    load(small, repeats=1, version=2)(torch.cat([images, images]))
    assert len(small.seen) == 18
    torch.testing.assert_close(load(small, answers="logits")(images), first.exp())  # the same answers, read otherwise
    with pytest.raises(ModelError, match="must answer a label"):
        load(small, answers="labels", classes=3)(images)
    assert len(small.seen) == 18


def test_a_random_endpoint_shows_that_it_is_random(small):
    draws = torch.Generator().manual_seed(0)
    small.model = lambda x: Small()(x) + torch.randn(len(x), 3, generator=draws)
    images, _ = few(2)
    model = load(small)
    answers = [model(images[:1]) for _ in range(6)]
    assert len({tuple(row.flatten().tolist()) for row in answers}) == 6
    again = load(small)
    assert all(torch.equal(again(images[:1]), row) for row in answers)  # a run that goes on hears the same, in order
    assert len(small.seen) == 6


def test_another_model_at_the_address_is_asked_under_another_version(small):
    images, labels = few()
    assert torch.equal(load(small)(images).argmax(1), labels)
    small.model = lambda x: Small()(x).flip(1)
    assert torch.equal(load(small)(images).argmax(1), labels)  # cannot be seen, as the documentation says
    assert torch.equal(load(small, version="2026-01")(images).argmax(1), 2 - labels)


def test_a_file_of_answers_belongs_to_one_endpoint(small, tmp_path):
    images, _ = few()
    file = tmp_path / "some" / "answers.sqlite"
    load(small, cache=file)(images)
    assert load(small, cache=str(file)).function.kept.asked == 6
    with pytest.raises(DataError, match="holds the answers of .*/png form=png scale=1, not those of .*version=2"):
        load(small, cache=file, version=2)
    (tmp_path / "text").write_text("no data base, but a long enough text\n" * 100)
    with pytest.raises(DataError, match="text holds no answers"):
        load(small, cache=tmp_path / "text")
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE mine (x)")
    before = (tmp_path / "other.sqlite").read_bytes()
    with pytest.raises(DataError, match="no answers of this version"):
        load(small, cache=tmp_path / "other.sqlite")
    assert (tmp_path / "other.sqlite").read_bytes() == before
    with pytest.raises(OutputError, match="Cannot write"):
        load(small, cache=tmp_path / "text" / "below")


def test_the_budget_is_hard_to_the_question(small):
    images, _ = few(9)
    small.faults.extend(["", "500"])
    with pytest.raises(
        ModelError, match="budget of 7 questions is spent: 7 images were sent.*kept in .*sqlite.*larger"
    ):
        load(small, budget=7)(images)
    assert len(small.seen) == 7
    with pytest.raises(ModelError, match="budget of 7"):  # nor is it there again for the next run
        load(small, budget=7)(images)
    assert len(small.seen) == 7
    assert len(load(small, budget=10)(images)) == 9
    assert len(small.seen) == 10
    assert set(Counter(small.seen).values()) == {1, 2}


def test_a_budget_counts_images_not_requests(small):
    model = load(small, "json?list=1", form="json", batch=4, budget=10, parallel=1)
    with pytest.raises(ModelError, match="budget of 10 questions is spent: 8 images were sent, and 4 more are to be"):
        model(few(12)[0])
    assert len(small.seen) == 8


def test_the_rate_holds(small):
    load(small, rate=25, parallel=4)(few(11)[0])
    assert small.times[-1] - small.times[0] > 8 / 25
    kept = load(small, version=2).function.kept
    waits = [kept.reserve(1, None, 25) for _ in range(3)] + [load(small, version=2).function.kept.reserve(1, None, 25)]
    np.testing.assert_allclose(waits, np.arange(4) / 25, atol=0.03)  # the same file, the same clock


def test_no_more_requests_at_once_than_told(small):
    small.slow = 0.02
    load(small, parallel=3)(few(12)[0])
    assert small.busiest == 3
    small.busiest = 0
    load(small, parallel=1, version=2)(few(4)[0])
    assert small.busiest == 1


def evaluate(address, data, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)
        model = models.load(address, answers="logits", parallel=2)
    found = uf.evaluate(model, data, uf.Linf(0.02), "quick", out=folder, budget=30, settings={"model": "it"})
    (folder.with_suffix(".said")).write_text(
        f"{found.robust_accuracy} {found.clean_accuracy} {found.attacks[0].forward}"
    )
    return folder.with_suffix(".said").read_text()


def started(server, data, folder):
    """The same in a child of this process."""
    told = (server.url("png?say=logits"), data, folder)
    child = multiprocessing.get_context("fork").Process(target=evaluate, args=told)
    child.start()
    return child


def said(child, folder):
    child.join(60)
    assert child.exitcode == 0
    return folder.with_suffix(".said").read_text()


def test_a_killed_evaluation_that_goes_on_asks_nothing_twice(small, tmp_path, monkeypatch):
    data = few()
    undisturbed = evaluate(small.url("png?say=logits"), data, tmp_path / "one")
    asked = Counter(small.seen)
    assert len(small.seen) > 100
    assert set(asked.values()) == {1, 2}

    monkeypatch.setenv("UNFOOLED_CACHE", str(tmp_path / "other"))
    small.seen.clear()
    child = started(small, data, tmp_path / "two")
    while len(small.seen) < 60 and child.is_alive():
        time.sleep(0.005)
    child.kill()
    child.join()
    assert 60 <= len(small.seen) < sum(asked.values())
    small.faults.extend(["drop", "wait 0"])
    assert said(started(small, data, tmp_path / "two"), tmp_path / "two") == undisturbed
    again = Counter(small.seen)
    assert again.keys() == asked.keys()
    assert (
        sum(again.values()) - sum(asked.values()) <= 2 + 2
    )  # under way when it was killed; the two that got no answer
    total = len(small.seen)
    assert evaluate(small.url("png?say=logits"), data, tmp_path / "three") == undisturbed  # the same questions
    assert len(small.seen) == total


def test_two_processes_may_share_the_answers(small, tmp_path):
    places = [tmp_path / "one", tmp_path / "two"]
    children = [started(small, few(3), place) for place in places]
    first, other = [said(child, place) for child, place in zip(children, places, strict=True)]
    assert first == other
    kept = load(small, "png?say=logits", answers="logits").function.kept
    assert kept.asked == len(small.seen)
    assert 30 < len(kept) <= kept.asked


def test_it_can_be_pickled_and_lives_through_a_fork(small, monkeypatch):
    monkeypatch.setenv("KEY", "Authorization: Bearer hunter2")
    images, _ = few()
    model = load(small, header_env="KEY")
    expected = model(images)
    packed = pickle.dumps(model)
    assert b"hunter2" not in packed
    assert torch.equal(pickle.loads(packed)(images), expected)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(write, "wb") as out:
            out.write(pickle.dumps(model(images).tolist()))
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        assert pickle.loads(answer.read()) == expected.tolist()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(small.seen) == 6  # each process counts from its own first question
    assert torch.equal(model(images), expected)


# --- secrets ------------------------------------------------------------------------------------------------


def test_secrets_come_from_the_environment_and_appear_nowhere(small, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_HEADERS", "Authorization: Bearer hunter2\nX-Tenant: acme99\n")
    monkeypatch.setenv("MY_KEY", "swordfish")
    model = load(small, "png?key={MY_KEY}", header_env="MY_HEADERS", parallel=1, tries=1)
    small.faults.append("403 no right for hunter2, acme99 or swordfish")
    with pytest.raises(ModelError, match="403, no right for …, … or …") as told:
        model(few()[0])
    small.faults.append("drop")
    with pytest.raises(ModelError, match="\\?key={MY_KEY} failed 1 times") as failed:
        model(few()[0])
    uf.evaluate(
        model, few(), uf.Linf(0.2), "quick", out=tmp_path / "run", budget=40, settings={"model": model.facts.source}
    )
    assert small.headers[-1]["Authorization"] == "Bearer hunter2"
    assert small.headers[-1]["X-Tenant"] == "acme99"
    shown = [str(told.value), str(failed.value), repr(model), repr(model.function), repr(model.facts)]
    shown += [p.read_bytes().decode("latin-1") for p in tmp_path.rglob("*") if p.is_file()]
    assert len(shown) > 8
    for secret in ("hunter2", "acme99", "swordfish"):
        assert not any(secret in text for text in shown)


@pytest.mark.parametrize(
    ("address", "header", "said"),
    [
        ("http://me:hunter2@127.0.0.1/x", None, "holds a user name or password.*header_env=NAME"),
        ("http://127.0.0.1/x?key={NO_SUCH}", None, "'NO_SUCH' \\({NO_SUCH} in http.*is not set"),
        ("http://127.0.0.1/x", "NO_SUCH", "'NO_SUCH' \\(header_env\\) is not set"),
        (
            "http://127.0.0.1/x",
            "BAD",
            "'BAD' \\(header_env\\) must hold header lines such as 'Authorization: Bearer …'",
        ),
        ("http:///x", None, "is no address"),
        ("http://127.0.0.1:port/x", None, "is no address"),
    ],
)
def test_wrong_addresses_are_named_without_secrets(monkeypatch, address, header, said):
    monkeypatch.setenv("BAD", "hunter2")
    with pytest.raises(ParameterError, match=said) as told:
        models.load(address, header_env=header)
    assert "hunter2" not in str(told.value)


# --- one line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"answers": "labels"}, "'classes' parameter of the endpoint must be how many classes"),
        ({"answers": "scores"}, "'answers'"),
        ({"classes": 1}, "'classes'"),
        ({"classes": "cat,cat"}, "'classes'"),
        ({"form": "jpeg"}, "'form' parameter of the endpoint must be png, multipart, base64 or json. Got 'jpeg'"),
        ({"batch": 4}, "one PNG has no batch. Use form="),
        ({"form": "json", "batch": 0}, "'batch'"),
        ({"form": "json", "scale": 2}, "'scale'"),
        ({"scale": 255}, "scale and last are of form=json"),
        ({"form": "json", "extra": "[1]"}, "'extra' parameter of the endpoint must be a JSON object"),
        ({"form": "json", "extra": {"image": 1}}, "extra has an entry 'image', where the image goes"),
        ({"extra": {"top_k": 1}}, "use form=json or base64"),
        ({"timeout": 0}, "'timeout'"),
        ({"tries": 0}, "'tries'"),
        ({"rate": -1}, "'rate'"),
        ({"budget": 1.5}, "'budget'"),
        ({"parallel": True}, "'parallel'"),
        ({"repeats": 0}, "'repeats'"),
        ({"weights": "x.safetensors"}, "takes no weights"),
    ],
)
def test_wrong_options_are_named(options, said):
    with pytest.raises(ParameterError, match=said):
        models.load("http://127.0.0.1:9/png", **options)


def test_an_unknown_option_is_named():
    with pytest.raises(UnknownName, match="no option 'retries' for http.*Those it has: answers, classes, form"):
        models.load("http://127.0.0.1:9/png", retries=3)


@pytest.mark.parametrize(("options", "by"), [({"answers": "labels", "classes": 3}, "hopskipjump"), ({}, "square")])
def test_an_evaluation_in_one_line(small, options, by):
    small.faults.extend(["", "drop", "", "wait 0", "500"])
    path = "png?say=index" if options else "png"
    found = uf.evaluate(load(small, path, **options), few(), uf.Linf(0.2), "quick", budget=60)
    assert found.clean_accuracy.value == 1
    assert found.robust_accuracy.attacked.value < 1
    assert found.attacks[0].attack.startswith(by)
    assert "limited-access" in {one.code for one in found.findings}


def test_the_command_line(small, tmp_path, monkeypatch, capsys):
    small.model = lambda x: Small()(x[..., ::2, ::2])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_HEADERS", "Authorization: Bearer hunter2")
    images, labels = few()
    np.savez(tmp_path / "images.npz", images=np.kron(images, np.ones((2, 2))).astype("float32"), labels=labels.numpy())
    command = ["evaluate", small.url("png?say=index"), "images.npz", "--threat", "linf:0.2", "--json"]
    command += ["--protocol", "quick", "--out", "run", "--budget", "60"]
    for option in ("answers=labels", "classes=3", "header_env=MY_HEADERS", "cache=kept/answers.sqlite", "rate=5000"):
        command += ["--model-option", option]
    assert run(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["clean_accuracy"]["value"] == 1
    assert (tmp_path / "kept" / "answers.sqlite").is_file()
    assert small.headers[0]["Authorization"] == "Bearer hunter2"
    assert not any(b"hunter2" in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
