"""Models: networks, wrappers, weights on disk, loading by text."""

import os
import pickle

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import unfooled as uf
from unfooled.errors import MissingData, ModelError, OutputError, ParameterError, UnknownName
from unfooled.models import BUNDLED, Normalized, Output, SeedCNN, SmallResNet, load, load_weights, save_weights


def test_the_seeds_cnn_has_the_seeds_layers():
    kinds = [type(m).__name__ for m in SeedCNN()]
    assert kinds == (
        ["Conv2d", "ReLU", "MaxPool2d"] * 2
        + ["Flatten"]
        + ["Linear", "ReLU", "Dropout"] * 2
        + ["Linear", "ReLU", "Linear"]
    )
    assert [m.out_features for m in SeedCNN() if isinstance(m, nn.Linear)] == [1000, 500, 250, 10]
    assert all(m.kernel_size == (3, 3) and m.padding == (0, 0) and m.out_channels == 32
               for m in SeedCNN() if isinstance(m, nn.Conv2d))  # fmt: skip
    assert [m.p for m in SeedCNN() if isinstance(m, nn.Dropout)] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("model", "shape"), [(SeedCNN(), (1, 28, 28)), (SeedCNN(3, 32, 7), (3, 32, 32)), (SmallResNet(3, 7), (3, 32, 32))]
)
def test_shapes(model, shape):
    assert model.eval()(torch.rand(2, *shape)).shape == (2, 10 if shape[0] == 1 else 7)


def test_normalized_is_the_model_of_pixels():
    model = Normalized(nn.Identity(), [0.5, 0.25, 0.0], [0.5, 1.0, 2.0])
    x = torch.rand(2, 3, 4, 4)
    mean, std = torch.tensor([0.5, 0.25, 0.0])[:, None, None], torch.tensor([0.5, 1.0, 2.0])[:, None, None]
    assert torch.equal(model(x), (x - mean) / std)
    with pytest.raises(ParameterError, match="'std' parameter of Normalized must be floats above 0"):
        Normalized(nn.Identity(), 0.5, 0.0)
    with pytest.raises(ParameterError, match="as many means as stds"):
        Normalized(nn.Identity(), [0.5], [0.5, 0.5])


def test_output_names_one_of_several():
    class Two(nn.Module):
        def forward(self, x):
            return {"features": x, "scores": 2 * x}

    x = torch.rand(2, 3)
    assert torch.equal(Output(Two(), "scores")(x), 2 * x)
    with pytest.raises(ModelError, match="no 'logit': it is \\['features', 'scores'\\]"):
        Output(Two(), "logit")(x)


def test_weights_survive_the_disk_rounded_to_float16(tmp_path):
    torch.manual_seed(0)
    model = SmallResNet(1, 3)
    save_weights(model, tmp_path / "w.safetensors", {"recipe": "none"})
    again = load_weights(SmallResNet(1, 3), tmp_path / "w.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(
            again.state_dict()[name], value.half().to(value.dtype) if value.is_floating_point() else value
        )
    assert load_file(tmp_path / "w.safetensors")["0.weight"].dtype == torch.float16
    assert list(tmp_path.iterdir()) == [tmp_path / "w.safetensors"]


def test_a_state_dict_of_torch_loads_also_nested_and_from_data_parallel(tmp_path):
    model = SmallResNet(1, 3)
    torch.save({"state_dict": {f"module.{n}": v for n, v in model.state_dict().items()}}, tmp_path / "w.pt")
    again = load_weights(SmallResNet(1, 3), tmp_path / "w.pt")
    assert all(torch.equal(v, again.state_dict()[n]) for n, v in model.state_dict().items())


class Evil:
    def __reduce__(self):
        return print, ("code was run",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, capsys):
    with (tmp_path / "evil.pt").open("wb") as file:
        pickle.dump(Evil(), file)
    torch.save(Evil(), tmp_path / "evil2.pt")
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(ModelError) as caught:
            load_weights(SeedCNN(), tmp_path / name)
        assert "\n" not in str(caught.value)
    assert "code was run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "name"), [(b"<html>404</html>", "w.pt"), (b"<html>404</html>", "w.safetensors"), (b"", "w.pt")]
)
def test_a_file_of_no_weights_is_named(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name} is no weights file"):
        load_weights(SeedCNN(), tmp_path / name)


def test_weights_that_do_not_fit_say_so_in_one_line(tmp_path):
    save_weights(SmallResNet(1, 3), tmp_path / "w.safetensors", {})
    with pytest.raises(ModelError, match="do not fit SeedCNN") as caught:
        load_weights(SeedCNN(), tmp_path / "w.safetensors")
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write .*safetensors"):
        save_weights(SmallResNet(1, 3), tmp_path / "file" / "w.safetensors", {})


FACTORY = """
from torch import nn
from helper import CLASSES
def make(): return nn.Sequential(nn.Flatten(), nn.Linear(4, CLASSES))
def broken(): raise ValueError("no")
def wrong(): return 3
"""


def test_a_factory_in_a_file(tmp_path):
    (tmp_path / "helper.py").write_text("CLASSES = 3")
    (tmp_path / "net.py").write_text(FACTORY)
    file = tmp_path / "net.py"
    model = load(f"{file}:make")
    assert model(torch.rand(1, 1, 2, 2)).shape == (1, 3)
    assert not model.training
    save_weights(model, tmp_path / "w.safetensors", {}, half=False)
    assert torch.equal(load(f"{file}:make", tmp_path / "w.safetensors")[1].weight, model[1].weight)
    for name, error, message in (
        ("mak", UnknownName, "Did you mean 'make'"),
        ("broken", ModelError, "failed: ValueError: no"),
        ("wrong", ModelError, "must return a model, such as an nn.Module. It returned int"),
    ):
        with pytest.raises(error, match=message):
            load(f"{file}:{name}")


def test_unknown_models_and_missing_files():
    with pytest.raises(UnknownName, match="Did you mean 'fashion-mnist/plain'"):
        load("fashion-mnist/plane")
    with pytest.raises(MissingData, match=r"There is no file nowhere\.py"):
        load("nowhere.py:make")
    with pytest.raises(ParameterError, match="names no factory"):
        load("nowhere.py")
    with pytest.raises(ParameterError, match="has no weights of its own"):
        load("seed-cnn")
    with pytest.raises(MissingData, match="There is no weights file nowhere.safetensors"):
        load("seed-cnn", "nowhere.safetensors")


NAMES = [pytest.param(name, marks=[pytest.mark.data] * name.startswith("mnist/")) for name in sorted(BUNDLED)]


@pytest.mark.parametrize("name", NAMES)
def test_bundled_models_are_better_than_chance_by_far(name):
    found = sample(name, 500)
    with torch.no_grad():
        right = uf.models.load(name)(found.floats()).argmax(1) == found.labels
    assert right.float().mean() > (0.95 if name.startswith("mnist/") else 0.75)


LEAST = {  # of 200 images, against five steps of PGD: some points below what was measured
    "fashion-mnist/hardened": 0.5,
    "fashion-mnist/pgd-small": 0.75,
    "fashion-mnist/trades-small": 0.75,
    "fashion-mnist/ibp": 0.72,
    "mnist/pgd-small": 0.9,
    "mnist/ibp": 0.9,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_hardened_model_is_harder(name):
    found, threat = sample(name, 200), "linf:0.3" if name.startswith("mnist/") else "linf:0.1"
    told = uf.attack(uf.models.load(name), found.floats(), found.labels, threat, "pgd:steps=5,step_size=0.3")
    assert told.robust_accuracy > LEAST[name] if name in LEAST else told.robust_accuracy < 0.05


def sample(name, count):
    if name.startswith("mnist/"):
        if "UNFOOLED_DATA" not in os.environ:
            pytest.skip("MNIST is looked for in UNFOOLED_DATA, which is not set")
        return uf.data.load(f"mnist:test[0:{count}]")
    return uf.data.load(f"fashion-mnist-sample[0:{count}]")


def test_a_normalisation_is_part_of_what_a_model_is_recognised_by():
    from unfooled.fingerprint import state_hash

    inner = SeedCNN()
    found = {state_hash(Normalized(inner, mean, std)) for mean, std in ((0.5, 0.5), (0.4, 0.5), (0.5, 0.4), (0.5, 0.5))}
    assert len(found) == 3
