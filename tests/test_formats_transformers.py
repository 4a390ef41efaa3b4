"""Image classifiers of transformers: made and saved here, loaded from their folder; nothing is fetched."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import unfooled as uf
from unfooled.errors import MissingData, MissingExtra, ModelError
from unfooled.models import facts_of, load, vision
from unfooled.models.formats import transformers as form

pytestmark = pytest.mark.usefixtures("one_thread")
torchvision = vision.torchvision()
transformers = pytest.importorskip("transformers")
NAMES = {0: "cat", 1: "dog", 2: "owl", 3: "fox", 4: "elk"}


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def vit(**options):
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8,
        id2label=NAMES, label2id={name: index for index, name in NAMES.items()}, initializer_range=0.2, **options,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config).eval()


def convnext():
    torch.manual_seed(0)
    config = transformers.ConvNextConfig(
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        id2label=NAMES,
        initializer_range=0.2,
        layer_scale_init_value=1.0,
    )
    return transformers.ConvNextForImageClassification(config).eval()


def processors():
    """Of several kinds, each of which prepares images in its own way."""
    t = transformers
    return {
        "exact": t.ViTImageProcessor(size={"height": 32, "width": 32}),
        "bicubic": t.ViTImageProcessor(size={"height": 32, "width": 32}, resample=3, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]),
        "lanczos": t.ViTImageProcessor(size={"height": 32, "width": 32}, resample=1),
        "rescaled": t.ViTImageProcessor(size={"height": 32, "width": 32}, rescale_factor=1 / 127.5, image_mean=[1.0] * 3, image_std=[1.0] * 3),
        "not rescaled": t.ViTImageProcessor(size={"height": 32, "width": 32}, do_rescale=False, image_mean=[127.0] * 3, image_std=[60.0] * 3),
        "not normalised": t.ViTImageProcessor(size={"height": 32, "width": 32}, do_normalize=False),
        "clip": t.CLIPImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}),
        "padded": t.CLIPImageProcessor(size={"shortest_edge": 27}, crop_size={"height": 32, "width": 32}),
        "convnext": t.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.875),
        "levit": t.LevitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        "poolformer": t.PoolFormerImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        "mobilevit": t.MobileViTImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}),
        "efficientnet": t.EfficientNetImageProcessor(size={"height": 32, "width": 32}, rescale_factor=1 / 127.5, rescale_offset=True, do_normalize=False),
    }  # fmt: skip


KINDS = ("exact", "bicubic", "lanczos", "rescaled", "not rescaled", "not normalised", "clip", "padded", "convnext", "levit",
         "poolformer", "mobilevit", "efficientnet")  # fmt: skip


@pytest.fixture(scope="module")
def photographs():
    draw = np.random.default_rng(0)
    coarse = [draw.integers(0, 256, (5, 6, 3), dtype=np.uint8) for _ in range(24)]
    return [Image.fromarray(one).resize((60, 47), Image.Resampling.BICUBIC) for one in coarse]


def pixels_of(images):
    return torch.stack([torch.from_numpy(np.array(one)).permute(2, 0, 1) for one in images]) / 255


def raw(network, processor, images):
    with torch.no_grad():
        return network(pixel_values=processor(images=images, return_tensors="pt")["pixel_values"]).logits


def centred(network, processor, images):
    """The network with answers that differ between the images."""
    with torch.no_grad():
        network.classifier.bias -= raw(network, processor, images).mean(0)
    return network


def saved(folder, network, processor):
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return f"hf:{folder}"


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_as_its_own_processor_and_network(kind, photographs, tmp_path):
    processor = processors()[kind]
    network = centred(vit(), processor, photographs)
    model = load(saved(tmp_path, network, processor))
    facts, access = facts_of(model)
    assert (facts.size, facts.classes) == ((3, 32, 32), tuple(NAMES.values()))
    assert (facts.format, access) == ("transformers, ViTForImageClassification", uf.models.Access.GRADIENT)
    own = raw(network, processor, photographs)
    with torch.no_grad():
        ours = model(pixels_of(photographs))
    off = float((ours - own).abs().max())
    assert off < 0.1 * float(own.std())  # a processor rounds to bytes after resizing
    first, second = own.topk(2).values.T
    clear = first - second > 2 * off
    assert int(clear.sum()) >= 16
    assert torch.equal(ours.argmax(1)[clear], own.argmax(1)[clear])
    assert len(own.argmax(1).unique()) > 2


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("levit", "poolformer", "convnext", "padded")])
def test_without_resizing_the_answers_are_the_same(kind, photographs, tmp_path):
    processor = processors()[kind]
    side = {"clip": 40, "mobilevit": 36}.get(kind, 32)
    small = [one.resize((side, side)) for one in photographs]
    network = vit()
    model = load(saved(tmp_path, network, processor))
    with torch.no_grad():
        torch.testing.assert_close(model(pixels_of(small)), raw(network, processor, small), rtol=1e-4, atol=1e-4)


def test_a_convnext_with_its_crop(photographs, tmp_path):
    processor = processors()["convnext"]
    network = centred(convnext(), processor, photographs)
    model = load(saved(tmp_path, network, processor))
    assert "shorter side is 36 (bicubic); centre 32×32" in model.facts.preprocessing
    own = raw(network, processor, photographs).argmax(1)
    with torch.no_grad():
        assert float((model(pixels_of(photographs)).argmax(1) == own).float().mean()) >= 23 / 24


def test_gradients_reach_the_users_own_pixels(photographs, tmp_path):
    model = load(saved(tmp_path, vit(), processors()["clip"]))
    x = pixels_of(photographs[:4]).requires_grad_()
    model(x)[:, 0].sum().backward()
    assert x.grad.shape == (4, 3, 47, 60)
    assert bool((x.grad.flatten(1).abs().sum(1) > 0).all())
    assert model(x.detach()[:, :1]).shape == (4, 5)


def test_an_evaluation_runs_on_it_and_on_the_bare_network(photographs, tmp_path):
    network = centred(vit(), processors()["exact"], photographs)
    model = load(saved(tmp_path, network, processors()["exact"]))
    x = pixels_of(photographs[:3])
    with torch.no_grad():
        labels = model(x).argmax(1)
    found = uf.evaluate(model, (x, labels), uf.Linf(32 / 255), "quick")
    assert found.clean_accuracy.value == 1.0
    assert found.robust_accuracy.attacked.value < 1.0
    small = torch.nn.functional.interpolate(x, (32, 32))
    with torch.no_grad():
        bare = network(small).logits.argmax(1)
    assert bool(uf.attack(network, small, bare, uf.Linf(32 / 255), "pgd:steps=10").success.any())


def test_names_that_are_only_numbers_are_no_names(tmp_path):
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=16
    )
    model = load(saved(tmp_path, transformers.ViTForImageClassification(config), processors()["exact"]))
    assert model.facts.classes == ()
    assert model(torch.rand(1, 3, 9, 9)).shape == (1, 2)


def test_other_weights_and_another_processor(tmp_path):
    network = vit()
    network.save_pretrained(tmp_path / "model")
    processors()["bicubic"].save_pretrained(tmp_path / "processor")
    with torch.no_grad():
        network.classifier.bias += 7
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    model = load(f"hf:{tmp_path}/model", tmp_path / "w.safetensors", processor=f"{tmp_path}/processor")
    assert torch.equal(model.network.model.classifier.bias, network.classifier.bias)
    assert "(bicubic)" in model.facts.preprocessing


def test_weights_of_low_precision_are_computed_with_in_float32(tmp_path):
    model = load(saved(tmp_path, vit().to(torch.bfloat16), processors()["exact"]))
    assert model(torch.rand(1, 3, 8, 8)).dtype == torch.float32


@pytest.mark.skipif(torchvision is None, reason="timm needs torchvision")
def test_a_network_of_timm_within_transformers(photographs, tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=3)
    timm.models.save_for_hf(network, tmp_path, safe_serialization=True, model_config={"label_names": ["a", "b", "c"]})
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("model_args", None)  # which some versions of transformers give to timm twice
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = load(f"hf:{tmp_path}")
    same = load(f"timm:{tmp_path}")
    assert model.facts.preprocessing == same.facts.preprocessing
    assert model.facts.classes == same.facts.classes == ("a", "b", "c")
    x = pixels_of(photographs[:4])
    with torch.no_grad():
        torch.testing.assert_close(model(x), same(x))


def test_bad_input_is_told_in_one_line(tmp_path):
    whole = tmp_path / "whole"
    saved(whole, vit(), processors()["exact"])
    (tmp_path / "empty").mkdir()
    headless = tmp_path / "headless"
    vit().vit.save_pretrained(headless)
    processors()["exact"].save_pretrained(headless)
    vit().save_pretrained(tmp_path / "no-processor")
    no_weights = tmp_path / "no-weights"
    vit().config.save_pretrained(no_weights)
    text = tmp_path / "text"
    transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(text)
    wrong = tmp_path / "wrong.safetensors"
    state = load_file(whole / "model.safetensors")
    save_file({**state, "classifier.weight": torch.zeros(9, 32), "classifier.bias": torch.zeros(9)}, wrong)
    code = tmp_path / "code"
    saved(code, vit(), processors()["exact"])
    config = json.loads((code / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.Config", "AutoModelForImageClassification": "mine.Net"},
    }
    (code / "config.json").write_text(json.dumps(config))
    (code / "mine.py").write_text("raise SystemExit('code was run')\n")
    cases = [
        (("hf:someone/something",), {}, MissingData, "hub did not give it .*Without a network, give the folder"),
        (("hf:./nowhere",), {}, MissingData, "There is no folder ./nowhere"),
        ((f"hf:{tmp_path}/empty",), {}, ModelError, "transformers cannot load"),
        (
            (f"hf:{headless}",),
            {},
            ModelError,
            "no trained classifier: it has no weights for classifier.bias, classifier.weight",
        ),
        ((f"hf:{tmp_path}/no-processor",), {}, MissingData, "holds no preprocessor_config.json"),
        ((f"hf:{no_weights}",), {}, MissingData, "holds no weights"),
        ((f"hf:{text}",), {}, ModelError, "is no image classifier: transformers knows none of the kind 'bert'"),
        ((f"hf:{whole}", wrong), {}, ModelError, "wrong.safetensors do not fit ViTForImageClassification"),
        ((f"hf:{code}",), {}, ModelError, "runs code that it carries.*--allow-code"),
    ]
    for arguments, options, error, said in cases:
        with pytest.raises(error, match=said) as caught:
            load(*arguments, **options)
        assert "\n" not in str(caught.value)


def test_code_runs_where_it_is_allowed(tmp_path):
    spec = saved(tmp_path, vit(), processors()["exact"])
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.Config", "AutoModelForImageClassification": "mine.Net"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text(
        "from transformers import ViTConfig, ViTForImageClassification\n"
        "class Config(ViTConfig):\n    model_type = 'mine'\n"
        "class Net(ViTForImageClassification):\n    config_class = Config\n"
    )
    assert load(spec, allow_code=True)(torch.rand(1, 3, 8, 8)).shape == (1, 5)


def test_a_processor_that_is_not_understood_is_refused(tmp_path):
    cases = {
        "perceiver": (
            transformers.PerceiverImageProcessor(),
            "prepares images in a way that is not known here.*in shape",
        ),
        "siglip2": (transformers.Siglip2ImageProcessor(), "settings of the image processor Siglip2ImageProcessor"),
    }
    for name, (processor, said) in cases.items():
        with pytest.raises(ModelError, match=said):
            load(saved(tmp_path / name, vit(), processor))


def test_it_leaves_the_logging_of_transformers_as_it_was(tmp_path, capfd):
    spec = saved(tmp_path, vit(), processors()["exact"])
    transformers.utils.logging.set_verbosity(logging.WARNING)
    capfd.readouterr()
    load(spec)
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.get_verbosity() == logging.WARNING
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(form.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r'pip install "unfooled\[hub\]"'):
        load("hf:anything")
