"""The grammar of names with options: what is written is read back, and errors say what would be right."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unfooled import attacks, text
from unfooled.attacks import BIM, FGSM, PGD, Cascade, Restarts, Targeted, parse
from unfooled.errors import ParameterError, UnfooledError, UnknownName
from unfooled.losses import LOSSES
from unfooled.threats import L0, L1, L2, Linf, Threat

loss = st.sampled_from(sorted(LOSSES))
steps = st.integers(1, 10_000)
share = st.one_of(
    st.floats(1e-12, 1e12), st.integers(1, 254).map(lambda n: n / 255), st.sampled_from([0.1, 0.01 / 0.3, 1.0])
)
single = st.one_of(
    st.builds(FGSM, loss=loss),
    st.builds(BIM, steps=steps, step_size=share, loss=loss),
    st.builds(PGD, steps=steps, step_size=share, loss=loss),
)
plan = st.recursive(
    single,
    lambda inner: st.one_of(
        st.builds(Restarts, inner, st.integers(1, 99)),
        st.builds(Targeted, inner, st.integers(1, 99)),
        st.lists(inner, min_size=1, max_size=3).map(lambda plans: Cascade(*plans)),
    ),
    max_leaves=5,
)
limit = st.floats(-1e6, 1e6, allow_nan=False)
radius = st.one_of(
    st.floats(min_value=0, exclude_min=True, allow_nan=False), st.integers(1, 254).map(lambda n: n / 255)
)
box = st.tuples(limit, limit).filter(lambda b: b[1] - b[0] > 1) | st.just((0.0, 1.0))
threat = st.one_of(
    *(st.builds(kind, radius, bounds=box) for kind in (Linf, L2, L1)),
    st.builds(L0, st.integers(1, 10**9), bounds=box, pixels=st.booleans()),
)


@given(plan)
def test_plans_round_trip(method):
    assert parse(str(method)) == method
    assert str(parse(str(method))) == str(method)
    assert "\n" not in str(method)


@given(threat)
def test_threats_round_trip(one):
    back = Threat.parse(str(one))
    assert back == one
    assert back.eps == one.eps
    assert back.bounds == one.bounds
    assert hash(back) == hash(one)


@given(st.one_of(st.floats(allow_nan=False), st.integers(), st.booleans(), st.none()))
def test_values_round_trip(item):
    got = text.value(text.show(item))
    assert got == item
    assert isinstance(got, bool) == isinstance(item, bool)


def refusal(read, words):
    """The message of the error, or None where the text is read; other errors pass through."""
    try:
        read(words)
    except UnfooledError as error:
        return str(error)
    return None


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused_in_one_line(words):
    for read in (parse, Threat.parse, text.parse):
        assert "\n" not in (refusal(read, words) or "")


@given(st.text(alphabet="fgsmpdlinf210:=,;()/.-ecascade ", max_size=25))
def test_text_near_the_grammar_is_read_or_refused(words):
    for read in (parse, Threat.parse):
        message = refusal(read, words)
        assert message is not None or read(words) == read(str(read(words)))
        assert "\n" not in (message or "")


@pytest.mark.parametrize(
    ("words", "want"),
    [
        ("pgd", PGD()),
        ("PGD:steps=7", PGD(steps=7)),
        (" pgd:steps = 7 ", PGD(steps=7)),
        ("pgd:steps=40,step_size=0.1", PGD(steps=40, step_size=0.1)),
        ("pgd:step_size=1/4", PGD(step_size=0.25)),
        ("fgsm:loss=mse", FGSM(loss="mse")),
        ("restarts:5(pgd)", Restarts(PGD(), 5)),
        ("restarts(pgd:steps=3)", Restarts(PGD(steps=3))),
        ("targeted:k=3(fgsm)", Targeted(FGSM(), 3)),
        ("cascade(fgsm;restarts:count=2(pgd:steps=3);bim)", Cascade(FGSM(), Restarts(PGD(steps=3), 2), BIM())),
        ("targeted:k=2(restarts:count=3(bim))", Targeted(Restarts(BIM(), 3), 2)),
    ],
)
def test_attacks_in_text(words, want):
    assert parse(words) == want


@pytest.mark.parametrize(
    ("words", "want"),
    [
        ("linf:8/255", Linf(8 / 255)),
        ("linf:0.1", Linf(0.1)),
        ("Linf:eps=0.1", Linf(0.1)),
        ("l2:0.5", L2(0.5)),
        ("l2:0.5,low=-1,high=1", L2(0.5, bounds=(-1.0, 1.0))),
        ("l1:12", L1(12)),
        ("l0:20,pixels=true", L0(20, pixels=True)),
        ("linf:inf", Linf(math.inf)),
    ],
)
def test_threats_in_text(words, want):
    assert Threat.parse(words) == want


def test_text_is_as_one_would_write_it():
    assert str(PGD(steps=40, step_size=0.1)) == "pgd:step_size=0.1"
    assert str(PGD(steps=7, step_size=0.1)) == "pgd:steps=7,step_size=0.1"
    assert str(Linf(8 / 255)) == "linf:8/255"
    assert str(L2(0.5)) == "l2:0.5"
    assert str(L1(12)) == "l1:12"
    assert str(Cascade(FGSM(), Restarts(PGD(), 3))) == "cascade(fgsm;restarts:count=3(pgd))"


@pytest.mark.parametrize("kind", [Linf, L2, L1, L0])
@pytest.mark.parametrize("eps", [-1, 0, 0.0, math.nan, -math.inf, "8/255", None, True])
def test_eps_has_one_form_of_error(kind, eps):
    with pytest.raises(ParameterError) as caught:
        kind(eps)
    message = str(caught.value)
    assert message.startswith(f"The 'eps' parameter of {kind.__name__} must be ")
    assert message.endswith(f"Got {eps!r} instead.")
    assert "\n" not in message


def test_the_designs_own_words():
    with pytest.raises(ParameterError) as caught:
        Linf(-1)
    assert str(caught.value) == "The 'eps' parameter of Linf must be a float in (0, inf]. Got -1 instead."


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: L0(1.5), "The 'eps' parameter of L0 must be a whole number"),
        (lambda: Linf(1, bounds=(1.0, 0.0)), "The 'bounds' parameter of Linf must be"),
        (lambda: Linf(1, bounds=(0.0, 0.0)), "The 'bounds' parameter of Linf must be"),
        (lambda: Linf(1, bounds=3), "The 'bounds' parameter of Linf must be"),
        (lambda: Linf(1, bounds=("a", "b")), "The 'bounds' parameter of Linf must be"),
        (lambda: Linf(1, mask=torch.ones(3)), "The 'mask' parameter of Linf must be"),
        (lambda: PGD(steps=0), "The 'steps' parameter of PGD must be"),
        (lambda: PGD(steps=2.5), "The 'steps' parameter of PGD must be"),
        (lambda: PGD(steps=True), "The 'steps' parameter of PGD must be"),
        (lambda: PGD(step_size=0), "The 'step_size' parameter of PGD must be"),
        (lambda: PGD(step_size=math.nan), "The 'step_size' parameter of PGD must be"),
        (lambda: BIM(step_size="x"), "The 'step_size' parameter of BIM must be"),
        (lambda: Restarts(PGD(), 0), "The 'count' parameter of Restarts must be"),
        (lambda: Targeted(PGD(), 0), "The 'k' parameter of Targeted must be"),
        (lambda: Targeted(PGD(), order="random"), "The 'order' parameter of Targeted must be"),
        (lambda: Cascade(), "The 'plans' parameter of Cascade must be"),
    ],
)
def test_parameters_have_one_form_of_error(make, words):
    with pytest.raises(ParameterError) as caught:
        make()
    assert str(caught.value).startswith(words)
    assert "Got " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("read", "nearest"),
    [
        (lambda: parse("pgdd"), "pgd"),
        (lambda: parse("fgms:loss=mse"), "fgsm"),
        (lambda: parse("restart(pgd)"), "restarts"),
        (lambda: parse("cascade(fgsm;bmi)"), "bim"),
        (lambda: parse("pgd:step=3"), "steps"),
        (lambda: parse("pgd:stepsize=.1"), "step_size"),
        (lambda: parse("pgd:loss=marginn"), "margin"),
        (lambda: parse("restarts:cout=3(pgd)"), "count"),
        (lambda: Threat.parse("linff:0.1"), "linf"),
        (lambda: Threat.parse("l0:2,pixel=true"), "pixels"),
        (lambda: FGSM(loss="mce"), "mse"),
    ],
)
def test_unknown_names_say_the_nearest(read, nearest):
    with pytest.raises(UnknownName) as caught:
        read()
    assert f"Did you mean {nearest!r}?" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ParameterError | ValueError | LookupError)


@pytest.mark.parametrize(
    "words",
    [
        "", " ", ":", "pgd:steps", "pgd:steps=", "pgd:steps=3,steps=4", "pgd:steps=1/0", "pgd(fgsm)", "restarts",
        "restarts(pgd;fgsm)", "cascade()", "cascade(pgd", "cascade(pgd))", "pgd:1,2,3,4", "pgd:steps=x", "targeted(pgd)x",
        "pgd;fgsm", "restarts:count=2.5(pgd)", "pgd:loss=3", "restarts:1,2,3(pgd)", "restarts:count=2,plan=3(pgd)",
        "cascade:count=3(pgd)", "fgsm:steps=3",
    ],
)  # fmt: skip
def test_wrong_texts_are_refused_in_one_line(words):
    with pytest.raises(ParameterError) as caught:
        print(parse(words))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    ["linf", "linf:", "linf:0", "linf:-1", "linf:x", "l0:1.5", "linf:0.1,0.2,0.3", "linf:0.1(pgd)", "linf:nan",
     "linf:0.1,low=1,high=0", "linf:0.1,low=a", "linf:1/0", "8/255", "linf:0.1,eps=0.2", "linf:true", "l0:3,pixels=maybe"],
)  # fmt: skip
def test_wrong_threats_are_refused_in_one_line(words):
    with pytest.raises(ParameterError) as caught:
        print(Threat.parse(words))
    assert "\n" not in str(caught.value)


def test_every_registered_attack_has_a_text():
    for name, kind in attacks.ATTACKS.items():
        assert parse(name) == kind()
        assert str(kind()) == name
