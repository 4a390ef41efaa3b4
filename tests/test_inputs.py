"""What a caller hands in: converted with a note, or refused in one line with the cure."""

import contextlib

import numpy as np
import pytest
import torch
from torch import nn

from helpers import Linear, problem
from unfooled.attacks import FGSM, PGD, Targeted
from unfooled.engine import attack
from unfooled.errors import DataError, ModelError, Note, ParameterError
from unfooled.models.wrappers import Normalized, Output
from unfooled.threats import L2, Linf


def conv(channels=3, classes=4, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )


def refused(kind, *words, model=None, x=None, y=None, threat=None, method=None, **more):
    x = torch.rand(6, 3, 5, 5) if x is None else x
    y = torch.zeros(len(x), dtype=torch.int64) if y is None else y
    with pytest.raises(kind) as caught:
        attack(model or conv(), x, y, threat or Linf(0.1), method or FGSM(), **more)
    message = str(caught.value)
    assert "\n" not in message, message
    for word in words:
        assert word in message, message
    return message


# ---- labels -------------------------------------------------------------------------------------


def test_labels_out_of_range_are_named():
    y = torch.tensor([0, 1, 2, 3, 4, 0])
    refused(DataError, "labels", "4", "example 4", y=y)
    refused(DataError, "labels", "-1", "example 2", y=torch.tensor([0, 1, -1, 3, 1, 0]))
    refused(DataError, "labels", "example 5", y=torch.tensor([0, 1, 1, 3, 1, 10**9]), batch_size=2)
    refused(DataError, "labels", "2", model=lambda x: x.flatten(1)[:, :1], y=torch.tensor([0, 1, 0, 1, 0, 2]))


def test_labels_of_the_wrong_kind_or_number():
    refused(DataError, "labels", "integers", "float32", y=torch.zeros(6))
    refused(DataError, "labels", "(6,)", "(5,)", y=torch.zeros(5, dtype=torch.int64))
    refused(DataError, "labels", "(6, 4)", y=torch.zeros((6, 4), dtype=torch.int64))
    refused(DataError, "labels", y=["cat"] * 6)
    refused(DataError, "labels", y="abcdef")


def test_labels_of_any_integer_type():
    p = problem((6,), count=8)
    want = attack(p.model, p.x, p.y, Linf(0.1), FGSM())
    for y in (p.y.int(), p.y.to(torch.uint8), p.y.numpy(), p.y.tolist(), p.y.numpy().astype(np.int16)):
        assert torch.equal(attack(p.model, p.x, y, Linf(0.1), FGSM()).adversarial, want.adversarial)


def test_targets_are_judged_alike():
    p = problem((6,), count=4)
    y = torch.tensor([0, 1, 2, 3])
    common = {"model": p.model, "x": p.x, "y": y}
    refused(DataError, "targets", "example 1", targets=torch.tensor([1, 9, 1, 1]), **common)
    refused(DataError, "target", "example 2", targets=torch.tensor([1, 2, 2, 1]), **common)
    refused(DataError, "targets", targets=torch.tensor([1, 2]), **common)
    refused(ParameterError, "Targeted", targets=(y + 1) % 4, method=Targeted(FGSM()), **common)
    refused(DataError, "ids", ids=[1, 2], **common)


# ---- images -------------------------------------------------------------------------------------


def test_images_that_are_not_finite():
    x = torch.rand(6, 3, 5, 5)
    x[3, 0, 0, 0] = torch.nan
    refused(DataError, "Image 3", "NaN", x=x)
    x[3, 0, 0, 0] = torch.inf
    refused(DataError, "Image 3", x=x)


def test_images_outside_the_bounds_come_with_the_cure():
    refused(DataError, "divide", "255", x=255 * torch.rand(6, 3, 5, 5))
    refused(DataError, "Normalized", x=torch.randn(6, 3, 5, 5))
    x = torch.rand(6, 3, 5, 5)
    x[2, 0, 0, 0] = -0.25
    refused(DataError, "Image 2", "Normalized", x=x)
    refused(DataError, "bounds", x=3 * torch.rand(6, 3, 5, 5) - 1.5, threat=Linf(0.1, bounds=(-1.0, 1.0)))
    high = torch.tensor([1.0, 0.5, 1.0]).view(3, 1, 1)
    refused(DataError, "bounds", x=torch.rand(6, 3, 5, 5), threat=Linf(0.1, bounds=(0.0, high)))


def test_uint8_images_are_divided_with_a_note():
    x = torch.randint(0, 256, (6, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    model = conv()
    y = model(x.float() / 255).argmax(1)
    with pytest.warns(Note, match="uint8"):
        result = attack(model, x, y, Linf(0.1), FGSM())
    assert any("uint8" in note and "255" in note for note in result.notes)
    want = attack(model, x.float() / 255, y, Linf(0.1), FGSM())
    assert torch.equal(result.adversarial, want.adversarial)
    assert result.adversarial.dtype == torch.float32
    assert want.notes == ()
    with pytest.warns(Note):
        assert torch.equal(attack(model, x.numpy(), y.numpy(), Linf(0.1), FGSM()).adversarial, want.adversarial)


def test_integer_images_are_refused():
    for dtype in (torch.int64, torch.int32, torch.bool):
        refused(DataError, "float", str(dtype), x=torch.zeros((6, 3, 5, 5), dtype=dtype))
    refused(DataError, "float", x=torch.zeros((6, 3, 5, 5), dtype=torch.uint8), threat=Linf(1, bounds=(0.0, 255.0)))


def test_numpy_images_and_lists():
    p = problem((6,), count=8)
    want = attack(p.model, p.x, p.y, Linf(0.1), FGSM())
    got = attack(p.model, p.x.numpy(), p.y.numpy(), Linf(0.1), FGSM())
    assert torch.equal(got.adversarial, want.adversarial)
    assert torch.is_tensor(got.success)
    strided = np.asfortranarray(p.x.numpy())[::-1][::-1]
    assert torch.equal(attack(p.model, strided, p.y, Linf(0.1), FGSM()).adversarial, want.adversarial)
    kept = p.x.clone()
    attack(p.model, p.x, p.y, Linf(0.1), PGD(steps=2))
    assert torch.equal(p.x, kept), "the caller's images have changed"
    array = p.x.numpy().copy()
    attack(p.model, array, p.y, Linf(0.1), PGD(steps=2))
    assert np.array_equal(array, p.x.numpy())
    refused(DataError, "images", x="pictures", y=[0])
    refused(DataError, "images", x=[object()], y=[0])


def test_images_of_half_precision_become_float32_with_a_note():
    p = problem((6,), count=8)
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.warns(Note, match="float32"):
            result = attack(p.model, p.x.to(dtype), p.y, Linf(0.1), FGSM())
        assert result.adversarial.dtype == torch.float32
        assert any("float32" in note for note in result.notes)
        assert result.success.shape == (8,)


def test_float32_images_for_a_float64_model():
    p = problem((6,), count=8, dtype=torch.float64)
    with pytest.warns(Note, match="float64"):
        result = attack(p.model, p.x.float(), p.y, Linf(0.1), FGSM())
    assert result.adversarial.dtype == torch.float64
    # images at a bound that float32 rounds upwards are inside it
    x = torch.full((8, 6), 0.3)
    with pytest.warns(Note, match="float64"):
        attack(p.model, x, p.y, Linf(0.1, bounds=(0.0, 0.3)), FGSM())


def test_float64_images_for_a_float32_model():
    p = problem((6,), count=8)
    result = attack(p.model, p.x.double(), p.y, Linf(0.1), FGSM())
    assert result.adversarial.dtype == torch.float64
    with torch.no_grad():
        answer = p.model(result.adversarial.float()).argmax(1)
    assert bool((answer != p.y)[result.success].all())


def test_shapes_that_no_batch_has():
    refused(DataError, "shape", x=torch.rand(6))
    refused(DataError, "shape", x=torch.tensor(0.5), y=torch.zeros(1, dtype=torch.int64))


def test_no_images_at_all():
    """A DataError, or a result without rows; never a bare IndexError."""
    with contextlib.suppress(DataError):
        result = attack(conv(), torch.rand(0, 3, 5, 5), torch.zeros(0, dtype=torch.int64), Linf(0.1), PGD(steps=2))
        assert result.adversarial.shape == (0, 3, 5, 5)
        assert result.success.shape == (0,)


# ---- models -------------------------------------------------------------------------------------


def test_channels_last_images_come_with_the_cure():
    refused(ModelError, "permute(0, 3, 1, 2)", x=torch.rand(6, 9, 9, 3))


def test_a_wrong_channel_count_is_one_line():
    refused(ModelError, "(1, 5, 5)", "channels", x=torch.rand(6, 1, 5, 5))
    refused(ModelError, "(7,)", model=Linear(torch.ones(3, 6), torch.zeros(3)), x=torch.rand(6, 7))


def test_a_wrong_shape_for_the_second_batch_is_no_surprise():
    """An error of the model's own later on is its own, and the images are not blamed in silence."""

    class Second(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("planted")
            return x.flatten(1)[:, :3]

    with pytest.raises((RuntimeError, ModelError), match="planted"):
        attack(Second(), torch.rand(6, 4), torch.zeros(6, dtype=torch.int64), Linf(0.1), FGSM(), batch_size=2)


def test_probabilities_are_noted():
    p = problem((6,), count=8)
    with pytest.warns(Note, match="probabilities"):
        result = attack(nn.Sequential(p.model, nn.Softmax(1)), p.x, p.y, Linf(0.1), FGSM())
    assert any("probabilities" in note for note in result.notes)
    assert len(result.notes) == 1, "said once"


def test_outputs_that_are_no_logits():
    y = torch.zeros(6, dtype=torch.int64)
    for output in (
        lambda x: x.flatten(1).argmax(1),  # decisions
        lambda x: x,  # (N, C, H, W)
        lambda x: x.flatten(1)[:3],  # rows lost
        lambda x: x.flatten(1).sum(),
        lambda x: "cat",
        lambda x: None,
        lambda x: {"a": x.flatten(1), "b": x.flatten(1)},
        lambda x: {},
        lambda x: (1, 2),
    ):
        refused(ModelError, model=output, y=y)
    with pytest.raises(ModelError, match="callable"):
        attack("model.pt", torch.rand(2, 3), y[:2], Linf(0.1), FGSM())


def test_a_model_without_a_gradient():
    refused(ModelError, "gradient", model=lambda x: x.detach().flatten(1)[:, :3])
    refused(ModelError, "gradient", model=lambda x: torch.ones(len(x), 3))
    refused(ModelError, "gradient", model=lambda x: torch.from_numpy(x.detach().numpy()).flatten(1)[:, :3])


def test_named_outputs():
    p = problem((6,), count=8)

    class Two(nn.Module):
        def forward(self, x):
            return {"a": p.model(x), "b": -p.model(x)}

    want = attack(p.model, p.x, p.y, Linf(0.1), FGSM())
    got = attack(Output(Two(), "a"), p.x, p.y, Linf(0.1), FGSM())
    assert torch.equal(got.adversarial, want.adversarial)
    refused(ModelError, "'c'", model=Output(Two(), "c"), x=p.x, y=p.y)


def test_normalized_models_are_attacked_in_pixels():
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    inner = conv()
    x = torch.rand(10, 3, 5, 5)
    z = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    model = Normalized(inner, mean, std)
    torch.testing.assert_close(model(x), inner(z))
    y = model(x).argmax(1)
    result = attack(model, x, y, Linf(0.03), FGSM(), early_stop=False)
    moved = (result.adversarial - x).abs()
    assert float(moved.max()) <= 0.03 + 1e-7
    assert bool((moved.flatten(1).amax(1) > 0.02).all())
    for wrong in (((0.5,), (0.0,)), ((0.5, 0.5), (1.0, 1.0, 1.0)), ((0.5,), (-1.0,))):
        with pytest.raises(ParameterError):
            Normalized(inner, *wrong)


# ---- options ------------------------------------------------------------------------------------


def test_options_of_the_verb():
    for more in (
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"seed": -1},
        {"seed": "x"},
        {"draws": 0},
        {"budget": 0},
        {"budget": True},
    ):
        name, got = next(iter(more.items()))
        refused(ParameterError, f"The '{name}' parameter of attack must be", f"Got {got!r} instead.", **more)
    refused(ParameterError, "budget", method=PGD(), budget=1)
    refused(ParameterError, "threat", threat=0.1)
    refused(ParameterError, "method", method=PGD)
    refused(ParameterError, "finite eps", threat=L2(torch.inf))
    refused(ParameterError, threat="linf:-1")
    refused(ParameterError, "Did you mean 'pgd'?", method="pgdd")


def test_texts_are_as_good_as_objects():
    p = problem((6,), count=8)
    a = attack(p.model, p.x, p.y, "linf:0.1", "pgd:steps=3,step_size=0.5")
    b = attack(p.model, p.x, p.y, Linf(0.1), PGD(steps=3, step_size=0.5))
    assert torch.equal(a.adversarial, b.adversarial)
    assert a.threat == Linf(0.1)
    assert a.method == "pgd:steps=3,step_size=0.5"
