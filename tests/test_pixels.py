"""What stands between pixels and a network: Pillow's resampling in torch, crops, mean and std; torchvision's import."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from unfooled.errors import MissingExtra, ModelError, ParameterError, UnknownName
from unfooled.fingerprint import state_hash
from unfooled.models import Facts, vision
from unfooled.models.pixels import Crop, Flip, Pixels, Resize, check, differs
from unfooled.models.resampling import FILTERS, resize

pytestmark = pytest.mark.usefixtures("one_thread")


def bytes_of(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def floats_of(taken):
    return torch.from_numpy(np.array(taken)).permute(2, 0, 1)[None] / 255


def plain(*steps, mean=(0.0,), std=(1.0,), channels=3):
    return Pixels(nn.Identity(), steps, mean, std, channels, Facts("test"))


@pytest.mark.parametrize("how", FILTERS)
def test_resampling_is_pillows_but_for_rounding(how):
    draw, worst = np.random.default_rng(1), 0.0
    sizes = [(64, 100, 224, 30), (300, 391, 256, 334), (215, 75, 188, 75), *draw.integers(3, 150, (15, 4)).tolist()]
    for height, width, tall, wide in sizes:
        taken = bytes_of(height, width, height)
        theirs = np.asarray(Image.fromarray(taken).resize((wide, tall), Image.Resampling[how.upper()]))
        ours = resize(floats_of(taken), tall, wide, how)
        worst = max(worst, float((ours - floats_of(theirs)).abs().max()) * 255)
    assert worst <= (1e-3 if how == "nearest" else 1.3)


def test_gradients_of_resampling_are_right_and_also_follow_an_inference_pass():
    with torch.inference_mode():
        resize(torch.rand(1, 1, 9, 8, dtype=torch.float64), 5, 11, "bicubic")
    x = (0.4 + 0.2 * torch.rand(1, 1, 9, 8, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: resize(z, 5, 11, "bicubic"), x)


def test_an_unknown_filter_is_named():
    with pytest.raises(UnknownName, match="no filter named 'cubic'.*bicubic"):
        resize(torch.rand(1, 3, 4, 4), 8, 8, "cubic")


@pytest.mark.parametrize(
    ("step", "before", "after"),
    [
        (Resize(256, 256, "shorter"), (375, 500), (256, 341)),
        (Resize(256, 256, "shorter"), (500, 375), (341, 256)),
        (Resize(64, 32, "exact"), (375, 500), (64, 32)),
        (Resize(64, 32, "cover"), (100, 100), (64, 64)),
        (Resize(64, 32, "inside"), (100, 100), (32, 32)),
        (Resize(60, 60, "shorter", multiple=32), (60, 90), (64, 96)),
    ],
)
def test_sizes(step, before, after):
    assert step.size(*before) == after


@pytest.mark.parametrize("sides", [(10, 10), (7, 9), (4, 9), (4, 3), (5, 5)])
def test_crops_are_torchvisions(sides):
    tv = vision.torchvision()
    if tv is None:
        pytest.skip("torchvision is not installed")
    from torchvision.transforms import functional as F

    x = torch.rand(2, 3, *sides)
    for want in ((5, 5), (4, 7), (7, 4)):
        assert torch.equal(Crop(*want)(x), F.center_crop(x, list(want)))


def test_padding_has_its_own_colour():
    out = Crop(4, 4, fill=(0.1, 0.2, 0.3))(torch.ones(1, 3, 2, 2))
    assert torch.allclose(out[0, :, 0, 0], torch.tensor([0.1, 0.2, 0.3]))
    assert torch.equal(out[..., 1:3, 1:3], torch.ones(1, 3, 2, 2))


def test_grey_images_are_repeated_and_other_channels_refused():
    model = plain(mean=(0.5, 0.4, 0.3), std=(0.5, 0.5, 0.5))
    x = torch.rand(2, 1, 4, 4)
    assert torch.equal(model(x), model(x.repeat(1, 3, 1, 1)))
    with pytest.raises(ModelError, match="takes images of 3 channels. Got 4"):
        model(torch.rand(2, 4, 4, 4))
    with pytest.raises(ModelError, match="takes images of 1 channels. Got 3"):
        plain(channels=1)(torch.rand(2, 3, 4, 4))
    with pytest.raises(ModelError, match="takes images \\(N, C, H, W\\). Got \\(2, 48\\)"):
        model(torch.rand(2, 48))


def test_wrong_mean_and_std_are_named():
    with pytest.raises(ParameterError, match="'mean' parameter of Pixels must be 1 or 3 floats"):
        plain(mean=(0.5, 0.5))
    with pytest.raises(ParameterError, match="'std' parameter of Pixels must be floats above 0"):
        plain(std=(0.0,))


def test_its_words_say_what_it_does():
    model = plain(Resize(8, 8, "shorter", "bicubic"), Crop(6, 6), Flip(), mean=(0.485, 0.456, 0.406), std=(0.2,))
    assert model.facts.preprocessing == (
        "resized so that the shorter side is 8 (bicubic); centre 6×6 cut out; channels in the order blue, green, red; "
        "minus mean (0.485, 0.456, 0.406), over std (0.2)"
    )
    assert plain().facts.preprocessing == ""


def test_another_preparation_is_another_model():
    torch.manual_seed(0)
    network = nn.Conv2d(3, 2, 1)
    one, two = (Pixels(network, (), (mean,), (1.0,), 3, Facts()) for mean in (0.0, 0.5))
    assert state_hash(one) != state_hash(two)
    assert state_hash(one) == state_hash(Pixels(network, (), (0.0,), (1.0,), 3, Facts(source="elsewhere")))
    assert set(one.state_dict()) == {"network.weight", "network.bias"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (Resize(64, 64, how="bicubic"), "by up to .* of 256 levels"),
        (Resize(64, 48), "in shape"),
        (Crop(64, 64), "by up to"),
    ],
)
def test_a_preparation_that_differs_is_refused(wrong, said):
    def own(image):
        return floats_of(np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR)))[0]

    assert differs(plain(Resize(64, 64)), own) <= 1.01
    check(plain(Resize(64, 64)), own, "It")
    with pytest.raises(
        ModelError, match=f"It prepares images in a way that is not known here: the result differs {said}"
    ):
        check(plain(wrong), own, "It")


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """A package in torchvision's place; what was imported comes back afterwards."""
    kept = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "torchvision"}
    for name in kept:
        del sys.modules[name]
    (tmp_path / "torchvision").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "torchvision"
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    sys.modules.update(kept)


def test_operators_that_a_torchvision_of_another_torch_misses_are_declared(broken):
    (broken / "part.py").write_text("")
    (broken / "__init__.py").write_text(
        "import torch\nfrom . import part\n"
        "for name in ('unfooled_one', 'unfooled_two'):\n"
        "    torch.library.register_fake('torchvision::' + name, lambda x: x)\n"
        "    if not hasattr(torch.ops.torchvision, name):\n"
        "        raise RuntimeError(f'operator torchvision::{name} does not exist')\n"
    )
    assert vision.torchvision().part is sys.modules["torchvision.part"]


def test_a_torchvision_that_cannot_be_imported_is_told_of(broken):
    (broken / "__init__.py").write_text("raise ImportError('libc10.so: wrong version.\\nmore')")
    with pytest.raises(
        MissingExtra, match="torchvision is installed, but cannot be .* torch 2.*: libc10.so: wrong version. I"
    ):
        vision.torchvision()
    assert "torchvision" not in sys.modules


def test_no_torchvision_is_no_error(monkeypatch):
    monkeypatch.setattr(vision.importlib.util, "find_spec", lambda name: None)
    assert vision.torchvision() is None
