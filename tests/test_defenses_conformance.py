"""What every registered defense must keep, new ones included by themselves."""

import pytest
import torch

import unfooled as uf
from unfooled import defenses, rng
from unfooled.defenses import DEFENSES, Defended, Thermometer, defend

KINDS = list(DEFENSES.values())
SHAPES = [(3, 1, 28, 28), (2, 3, 13, 17), (2, 1, 8, 5), (1, 3, 9, 9)]  # grey, colour, odd, one image
by_name = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
by_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def images(shape, dtype=torch.float32):
    """Smooth images with flat black and white places, as photographs and digits have them."""
    draw = torch.Generator().manual_seed(sum(shape))
    coarse = torch.rand(*shape[:2], 4, 4, generator=draw, dtype=torch.float64) * 1.6 - 0.3
    return torch.nn.functional.interpolate(coarse, shape[2:], mode="bilinear").clamp(0, 1).to(dtype)


def expected_shape(defense, shape):
    if isinstance(defense, Thermometer):
        return (shape[0], shape[1] * defense.levels, *shape[2:])
    return shape


def drawn(defense, x, seed=0):
    with rng.forked(seed):
        return defense(x)


@by_name
@by_shape
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_shape_dtype_and_range(kind, shape, dtype):
    x = images(shape, dtype)
    kept = x.clone()
    answer = drawn(kind(), x)
    assert torch.equal(x, kept), "the images were changed in place"
    assert answer.shape == expected_shape(kind(), shape)
    assert answer.dtype == dtype
    assert bool(torch.isfinite(answer).all())
    assert float(answer.min()) >= -1e-6
    assert float(answer.max()) <= 1 + 1e-6  # a blur rounds
    assert kind().reshapes == (answer.shape != x.shape)


@by_name
def test_random_ones_draw_from_the_global_generator_and_others_draw_nothing(kind):
    x, defense = images((4, 1, 12, 12)), kind()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    once, again = defense(x), defense(x)
    assert torch.equal(torch.get_rng_state(), before) == (not kind.random)
    assert torch.equal(once, again) == (not kind.random)
    torch.manual_seed(0)
    assert torch.equal(defense(x), once)
    assert torch.equal(drawn(defense, x, 5), drawn(defense, x, 5))


@by_name
def test_every_image_of_a_random_batch_has_its_own_draw(kind):
    if not kind.random:
        pytest.skip("it is not random")
    answer = drawn(kind(), images((1, 1, 12, 12)).expand(12, -1, -1, -1))
    assert len({image.numpy().tobytes() for image in answer}) > 1


@by_name
@by_shape
def test_the_batch_does_not_matter(kind, shape):
    if kind.random:
        pytest.skip("each pass draws anew")
    x, defense = images(shape, torch.float64), kind()
    whole = defense(x)
    alone = torch.cat([defense(x[at : at + 1]) for at in range(len(x))])
    assert torch.allclose(whole, alone, atol=1e-12)
    assert torch.allclose(defense(x.flip(0)).flip(0), whole, atol=1e-12)


@by_name
@by_shape
def test_the_gradient_declared_arrives(kind, shape):
    defense = kind()
    weights = torch.randn(expected_shape(defense, shape), generator=torch.Generator().manual_seed(1))
    for backward in kind.backwards:
        if (kind.name, backward) == ("bit-depth", "exact"):
            continue  # its own test: it is zero
        z = images(shape).requires_grad_(True)
        with rng.forked(3):
            answer = kind(backward=backward)(z)
        (gradient,) = torch.autograd.grad((answer * weights).sum(), z)
        assert bool(torch.isfinite(gradient).all())
        assert bool(gradient.flatten(1).any(1).all()), f"no gradient with backward={backward}"
        assert torch.equal(answer.detach(), drawn(defense, images(shape), 3)), "gradients change the value"
        if backward == "identity":
            assert torch.equal(gradient, weights)


@by_name
def test_gradients_arrive_on_black_and_on_white_images(kind):
    """Most of a digit is black: an attack that has no gradient there has next to none."""
    for value in (0.0, 1.0):
        z = torch.full((2, 1, 12, 12), value, requires_grad=True)
        total = torch.zeros_like(z)
        for seed in range(8):
            answer = drawn(kind(), z, seed)
            (gradient,) = torch.autograd.grad(answer.sum(), z)
            total += gradient
        assert float((total != 0).double().mean()) > 0.5


@by_name
def test_the_text_is_read_back(kind):
    defense = kind()
    again = defenses.parse(defense.text())
    assert type(again) is kind
    assert repr(again) == repr(defense)
    assert again.backward == defense.backward
    assert again.text() == defense.text()
    assert again.text().startswith(f"{kind.name}:")
    assert repr(defenses.parse(kind.name)) == repr(defense)


@by_name
def test_every_backward_it_knows_has_its_text_and_no_other_is_taken(kind):
    for backward in kind.backwards:
        defense = kind(backward=backward)
        assert defenses.parse(defense.text()).backward == backward
    with pytest.raises(uf.errors.ParameterError, match="or an nn.Module. Got 'none' instead") as caught:
        kind(backward="none")
    assert "\n" not in str(caught.value)
    with pytest.raises(uf.errors.ParameterError, match="has no text"):
        kind(backward=torch.nn.Identity()).text()


@by_name
def test_it_says_what_it_is_and_where_from(kind):
    account = kind.__doc__
    first = account.strip().splitlines()[0]
    assert first.endswith((".", ":"))
    assert len(first) <= 120
    assert "backward:" in account
    if kind.name != "percentile":  # the seed's filter, from no paper
        assert "arXiv:" in account or "openreview" in account
    for name in list(defenses.inspect.signature(kind).parameters)[:-1]:
        assert f"{name}:" in account, f"{name} is not explained"


@by_name
def test_an_attack_goes_through_it(kind):
    defense = kind()
    x = images((6, 1, 10, 10))
    torch.manual_seed(0)
    inputs = defense(x)[0].numel()
    model = defend(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(inputs, 3)), defense)
    y = uf.attack(model, x, torch.zeros(6, dtype=torch.int64), uf.Linf(1e-6), uf.attacks.FGSM()).clean_prediction
    found = uf.attack(model, x, y, uf.Linf(0.4), uf.attacks.APGD(steps=10), draws=4 if kind.random else 1)
    assert bool(found.success.any())
    assert not found.notes


def test_a_network_for_another_shape_is_asked_for_in_one_line():
    model = defend(torch.nn.Conv2d(1, 3, 3), Thermometer(4))
    with pytest.raises(
        uf.errors.ModelError, match=r"Thermometer makes \(4, 8, 8\) of images of shape \(1, 8, 8\)"
    ) as caught:
        model(torch.rand(2, 1, 8, 8))
    assert "\n" not in str(caught.value)


def test_alone_is_what_a_blind_attacker_attacks():
    network, other = torch.nn.Flatten(), torch.nn.Identity()
    assert defend(network, defenses.JPEG()).alone is network
    assert defend(network, Thermometer()).alone is None
    assert defend(network, Thermometer(), alone=other).alone is other
    assert defend(network, defenses.ResizePad(grow=1.2)).alone is None
    assert isinstance(defend(network), Defended)
    assert list(defend(torch.nn.Linear(2, 2), defenses.JPEG()).state_dict()) == ["undefended.weight", "undefended.bias"]
    with pytest.raises(
        uf.errors.ParameterError, match="The 'alone' parameter of defend must be an nn.Module or a callable"
    ):
        defend(network, Thermometer(), alone=3)
