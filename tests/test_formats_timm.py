"""Networks of timm: made and saved here, loaded by name with a checkpoint or from a folder; nothing is fetched."""

import argparse
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import unfooled as uf
from unfooled.errors import MissingData, MissingExtra, ModelError, ParameterError, UnknownName
from unfooled.models import facts_of, load, save_weights, vision

pytestmark = pytest.mark.usefixtures("one_thread")
if vision.torchvision() is None:
    pytest.skip("timm needs torchvision", allow_module_level=True)
timm = pytest.importorskip("timm")


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def made(name, images=None, **options):
    """A network with fresh weights; its answers differ between those images."""
    torch.manual_seed(0)
    network = timm.create_model(name, **options).eval()
    with torch.no_grad():
        head = network.get_classifier()
        head.weight.normal_(0, 1)
        if images:
            head.bias -= raw(network, images).mean(0)
    return network


@pytest.fixture(scope="module")
def photographs():
    """Images of two sizes that are no noise: smooth spots of colour."""
    draw = np.random.default_rng(0)
    coarse = [draw.integers(0, 256, (6, 7, 3), dtype=np.uint8) for _ in range(24)]
    return [Image.fromarray(one).resize((213, 171), Image.Resampling.BICUBIC) for one in coarse]


def pixels_of(images):
    return torch.stack([torch.from_numpy(np.array(one)).permute(2, 0, 1) for one in images]) / 255


def raw(network, images):
    """The pipeline that timm documents: its own transform of each image."""
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=network), is_training=False)
    with torch.no_grad():
        return network(torch.stack([transform(one) for one in images]))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_it_answers_as_timms_own_pipeline(name, photographs, tmp_path):
    network = made(name, photographs, num_classes=7)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    model = load(f"timm:{name}", tmp_path / "w.pth")
    facts, access = facts_of(model)
    assert (facts.size, facts.classes, access) == ((3, 160, 160), (), uf.models.Access.GRADIENT)
    assert "shorter side is 168" in facts.preprocessing
    assert "centre 160×160" in facts.preprocessing
    own, x = raw(network, photographs), pixels_of(photographs)
    with torch.no_grad():
        ours = model(x)
    off = float((ours - own).abs().max())
    assert off < 0.1 * float(own.std())  # timm's pipeline rounds to bytes after resizing
    first, second = own.topk(2).values.T
    clear = first - second > 2 * off
    assert int(clear.sum()) >= 20
    assert torch.equal(ours.argmax(1)[clear], own.argmax(1)[clear])
    assert len(own.argmax(1).unique()) > 2


def test_without_resizing_the_answers_are_the_same(tmp_path, photographs):
    network = made("test_resnet", num_classes=7, pretrained_cfg_overlay={"crop_pct": 1.0, "input_size": (3, 64, 64)})
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "test_resnet", "num_classes": 7, "pretrained_cfg": dict(network.pretrained_cfg)})
    )
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    model = load(f"timm:{tmp_path}")
    small = [one.resize((64, 64)) for one in photographs]
    with torch.no_grad():
        torch.testing.assert_close(model(pixels_of(small)), raw(network, small), rtol=1e-5, atol=1e-5)


def test_gradients_reach_the_users_own_pixels(tmp_path, photographs):
    network = made("test_vit", num_classes=7)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    model = load("timm:test_vit", tmp_path / "w.safetensors")
    x = pixels_of(photographs[:4]).requires_grad_()
    model(x)[:, 0].sum().backward()
    assert x.grad.shape == (4, 3, 171, 213)
    assert bool((x.grad.flatten(1).abs().sum(1) > 0).all())
    grey = model(x.detach()[:, :1])
    assert torch.equal(grey, model(x.detach()[:, :1].repeat(1, 3, 1, 1)))


def test_a_folder_of_timm_gives_labels_and_its_own_statistics(tmp_path):
    network = made("test_resnet", num_classes=3, in_chans=1)
    about = dict(network.pretrained_cfg) | {
        "mean": (0.3,),
        "std": (0.2,),
        "input_size": (1, 32, 32),
        "crop_mode": "squash",
    }
    config = {"architecture": "test_resnet", "num_classes": 3, "label_names": ["cat", "dog", "owl"],
              "model_args": {"in_chans": 1}, "pretrained_cfg": about}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    for spec in (f"timm:{tmp_path}", f"timm:local-dir:{tmp_path}"):
        model = load(spec)
        assert model.facts.classes == ("cat", "dog", "owl")
        assert model.facts.size == (1, 32, 32)
        assert model.facts.preprocessing.endswith("minus mean (0.3), over std (0.2)")
        assert model.facts.preprocessing.startswith("resized to 33×33")
        assert model(torch.rand(2, 1, 28, 28)).shape == (2, 3)
    flat = {
        **about,
        "architecture": "test_resnet",
        "num_classes": 3,
        "labels": ["cat", "dog", "owl"],
        "input_size": [1, 8, 8],
    }
    (tmp_path / "config.json").write_text(json.dumps(flat))  # as older versions saved it
    assert load(f"timm:{tmp_path}", channels=1).facts.classes == ("cat", "dog", "owl")


@pytest.mark.skipif(not hasattr(timm.models, "save_for_hf"), reason="this timm saves no folders")
def test_a_folder_that_timm_saved(tmp_path, photographs):
    network = made("test_vit", num_classes=7, img_size=96)
    timm.models.save_for_hf(
        network,
        tmp_path,
        safe_serialization=True,
        data_config={"input_size": (3, 96, 96)},
        model_config={"label_names": list("abcdefg")},
    )
    model = load(f"timm:{tmp_path}")
    assert (model.facts.size, model.facts.classes) == ((3, 96, 96), tuple("abcdefg"))
    with torch.no_grad():
        assert model(pixels_of(photographs)).shape == (24, 7)


def test_imagenets_names_come_with_its_classes(tmp_path):
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
    classes = load("timm:test_resnet", tmp_path / "w.safetensors").facts.classes
    assert (len(classes), classes[0]) == (1000, "n01440764")


def test_checkpoints_of_every_kind(tmp_path):
    network, other = made("test_resnet", num_classes=4), made("test_resnet", num_classes=4)
    other.get_classifier().weight.data.zero_()
    want = network.get_classifier().weight
    plain = network.state_dict()
    training = {
        "state_dict": other.state_dict(),
        "state_dict_ema": {f"_orig_mod.{name}": value for name, value in plain.items()},
        "args": argparse.Namespace(model="test_resnet"),
        "epoch": 3,
    }
    torch.save(training, tmp_path / "training.pth.tar")
    torch.save({"state_dict": {f"module.{name}": value for name, value in plain.items()}}, tmp_path / "parallel.pth")
    for file in ("training.pth.tar", "parallel.pth"):
        model = load("timm:test_resnet", tmp_path / file, classes=4)
        assert torch.equal(model.network.get_classifier().weight, want)
    save_weights(model, tmp_path / "ours.safetensors", {}, half=False)
    assert torch.equal(load("timm:test_resnet", tmp_path / "ours.safetensors").network.get_classifier().weight, want)


def test_what_the_user_states_goes_before_the_configuration(tmp_path):
    network = made("test_vit", num_classes=4, img_size=64)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    model = load("timm:test_vit", tmp_path / "w.safetensors", size="64x64", mean="0.1,0.2,0.3", std="0.5,0.5,0.6")
    assert model.facts.size == (3, 64, 64)
    assert "minus mean (0.1, 0.2, 0.3), over std (0.5, 0.5, 0.6)" in model.facts.preprocessing
    one = made("test_resnet", num_classes=4, in_chans=1)
    save_file(one.state_dict(), tmp_path / "grey.safetensors")
    grey = load("timm:test_resnet", tmp_path / "grey.safetensors")
    assert grey.facts.size == (1, 160, 160)
    assert grey(torch.rand(2, 1, 28, 28)).shape == (2, 4)


def test_bad_input_is_told_in_one_line(tmp_path):
    network = made("test_resnet", num_classes=4)
    path = tmp_path / "w.safetensors"
    save_file(network.state_dict(), path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text('{"model_type": "vit"}')
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text('{"architecture": "test_resnet", "num_classes": 4}')
    cases = [
        (
            ("timm:test_resnett", path),
            {},
            UnknownName,
            "no network of timm named 'test_resnett'. Did you mean 'test_resnet",
        ),
        (("timm:test_resnet", path), {"classes": 9}, ParameterError, "has 4 classes. Got classes=9"),
        (("timm:test_resnet", path), {"classes": "many"}, ParameterError, "'classes' parameter of timm:test_resnet"),
        (("timm:test_resnet", path), {"mean": 0.5}, ParameterError, "needs mean and std together"),
        (("timm:test_resnet", path), {"rate": 1}, UnknownName, "no option 'rate'.*classes, channels, mean, std, size"),
        (("timm:test_vit", path), {}, ModelError, "The weights in .*w.safetensors do not fit VisionTransformer"),
        (("timm:test_resnet", tmp_path / "no.pth"), {}, MissingData, "no weights file"),
        (("timm:test_resnet.nope", path), {}, ModelError, "[Ii]nvalid pretrained tag"),
        (
            ("timm:test_resnet",),
            {},
            MissingData,
            "hub did not give it .*Without a network, give a checkpoint with --weights",
        ),
        (("timm:someone/something",), {}, MissingData, "hub did not give it"),
        (("timm:./nowhere",), {}, MissingData, "There is no folder ./nowhere"),
        ((f"timm:{tmp_path}/empty",), {}, MissingData, "no config.json in"),
        ((f"timm:{tmp_path}/hf",), {}, ModelError, "names no architecture of timm.*hf:"),
        ((f"timm:{tmp_path}/bare",), {}, MissingData, "There are no weights in"),
    ]
    for arguments, options, error, said in cases:
        with pytest.raises(error, match=said) as caught:
            load(*arguments, **options)
        assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch):
    from unfooled.models.formats import timm as form

    monkeypatch.setattr(form, "torchvision", lambda: None)
    with pytest.raises(MissingExtra, match=r'pip install "unfooled\[hub\]"'):
        load("timm:test_resnet")


def test_weights_of_the_hub_keep_their_head(monkeypatch):
    """The hub cannot be reached in a test: what it would give stands in for it."""
    real = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **more: real(name, **more))
    assert load("timm:test_resnet", classes=1000).facts.source == "the hub"
    with pytest.raises(ParameterError, match="have 1000 classes: a head for 10 would not be trained"):
        load("timm:test_resnet", classes=10)
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **more: real(name, num_classes=0))
    with pytest.raises(ModelError, match="they have no classifier"):
        load("timm:test_resnet")


def test_an_evaluation_runs_on_it(tmp_path, photographs):
    network = made("test_vit", photographs, num_classes=4, img_size=32)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    model = load("timm:test_vit", tmp_path / "w.safetensors", size=32)
    x = pixels_of([one.resize((40, 36)) for one in photographs[:3]])
    with torch.no_grad():
        labels = model(x).argmax(1)
    found = uf.evaluate(model, (x, labels), uf.Linf(32 / 255), "quick")
    assert found.clean_accuracy.value == 1.0
    assert found.robust_accuracy.attacked.value < 1.0


def test_a_checkpoint_of_features_is_no_classifier(tmp_path):
    name = "vit_small_patch14_reg4_dinov2"
    assert timm.get_pretrained_cfg(name).num_classes == 0
    torch.save({"norm.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"w.pth give features: they have no classifier"):
        load(f"timm:{name}", tmp_path / "w.pth")
