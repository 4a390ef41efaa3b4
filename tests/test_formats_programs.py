"""Programs of torch.export, TorchScript, and what else is saved as .pt."""

import contextlib
import copy
import io
import json
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

import unfooled as uf
from unfooled import models
from unfooled.errors import MissingData, ModelError, ParameterError
from unfooled.models import Access, facts_of

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def network():
    return models.load("fashion-mnist/plain")


@pytest.fixture(scope="module")
def some():
    found = uf.data.load("fashion-mnist-sample[0:64]")
    return found.floats(), found.labels


def exported(module, path, shape=(1, 28, 28), rows=2, open_batch=True):
    dynamic = ({0: torch.export.Dim("n")},) if open_batch else None
    program = torch.export.export(module.eval(), (torch.rand(rows, *shape),), dynamic_shapes=dynamic)
    torch.export.save(program, path)
    return str(path)


def traced(module, path, shape=(1, 28, 28)):
    torch.jit.trace(module.eval(), torch.rand(2, *shape)).save(path)
    return str(path)


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    whole = copy.deepcopy(network)
    torch.save(whole, folder / "whole.pth")
    return {
        "exported": exported(network, folder / "m.pt2"),
        "fixed": exported(network, folder / "fixed.pt2", rows=1, open_batch=False),
        "traced": traced(network, folder / "m.pt"),
        "scripted": traced(network, folder / "m.torchscript"),
        "pickled": str(folder / "whole.pth"),
    }


def accuracy(model, images, labels):
    with torch.no_grad():
        return float((models.logits_of(model(images), len(images)).argmax(1) == labels).float().mean())


FORMS = {"exported": "torch.export program", "fixed": "torch.export program", "traced": "TorchScript",
         "scripted": "TorchScript", "pickled": "PyTorch module, pickled"}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_program_answers_as_the_network_that_it_was_made_from(network, some, files, form):
    code = form in ("exported", "fixed", "pickled")
    model = models.load(files[form], allow_code=code)
    assert facts_of(model)[0].format == FORMS[form]
    assert facts_of(model)[1] is Access.GRADIENT
    with torch.no_grad():
        torch.testing.assert_close(model(some[0]), network(some[0]), rtol=1e-4, atol=1e-4)
    assert accuracy(model, *some) == accuracy(network, *some)


@pytest.mark.parametrize("form", ["exported", "traced"])
def test_it_is_evaluated(network, some, files, form):
    few = (some[0][:8], some[1][:8])
    found = uf.evaluate(models.load(files[form], allow_code=True), few, uf.Linf(0.1), "quick")
    assert found.clean_accuracy.value == accuracy(network, *few)
    assert found.robust_accuracy.attacked.value < found.clean_accuracy.value
    assert {one.code for one in found.findings if one.severity != "note"} <= {"quick-protocol", "few-images"}


@pytest.mark.parametrize("form", FORMS)
def test_the_gradients_are_those_of_the_network(network, some, files, form):
    images = some[0][:5].clone().requires_grad_()
    gradients = []
    for model in (network, models.load(files[form], allow_code=True)):
        gradients += torch.autograd.grad(model(images).logsumexp(1).sum(), images)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)


class Rows(nn.Module):
    """A network that a batch size is written into."""

    def __init__(self, rows):
        super().__init__()
        self.rows, self.body = rows, nn.Linear(16, 3)

    def forward(self, images):
        return self.body(images.reshape(self.rows, 16))


@pytest.mark.parametrize("rows", [1, 3])
def test_a_program_for_batches_of_one_size_takes_any(tmp_path, rows):
    torch.manual_seed(0)
    module = Rows(rows)
    model = models.load(exported(module, tmp_path / "m.pt2", (1, 4, 4), rows, open_batch=False), allow_code=True)
    images = torch.rand(7, 1, 4, 4, requires_grad=True)
    torch.testing.assert_close(model(images), module.body(images.flatten(1)))
    (gradient,) = torch.autograd.grad(model(images)[:, 0].sum(), images)
    torch.testing.assert_close(gradient.flatten(1), module.body.weight[:1].expand(7, -1))
    assert facts_of(model)[0].size == (1, 4, 4)
    assert facts_of(model)[0].format == "torch.export program, in pieces"


class Mixes(nn.Module):
    """A network whose answer to an image depends on the others in its batch."""

    def forward(self, images):
        return images.flatten(1) - images.flatten(1).mean(0)


def test_a_program_that_mixes_its_rows_keeps_its_batch_size(tmp_path):
    model = models.load(exported(Mixes(), tmp_path / "m.pt2", (1, 2, 2), 2, open_batch=False), allow_code=True)
    images = torch.rand(4, 1, 2, 2)
    torch.testing.assert_close(model(images), torch.cat([Mixes()(images[:2]), Mixes()(images[2:])]))


@pytest.mark.parametrize("form", ["exported", "traced"])
def test_mean_std_and_size_become_part_of_the_model(tmp_path, form):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5))
    make, name = (exported, "m.pt2") if form == "exported" else (traced, "m.ts")
    path = make(body, tmp_path / name, (3, 8, 8))
    model = models.load(path, allow_code=True, mean=[0.5, 0.4, 0.3], std="0.2,0.2,0.2", size="8x8")
    mean = torch.tensor([0.5, 0.4, 0.3])[:, None, None]
    images = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(model(images), body((images - mean) / 0.2), rtol=1e-4, atol=1e-5)
    assert model(torch.rand(2, 3, 20, 12)).shape == (2, 5)
    assert (
        facts_of(model)[0].preprocessing
        == "resized to 8×8 (bilinear); minus mean (0.5, 0.4, 0.3), over std (0.2, 0.2, 0.2)"
    )


def test_the_channels_of_torchscript_must_be_known(tmp_path):
    path = traced(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), tmp_path / "m.ts", (3, 4, 4))
    with pytest.raises(ParameterError, match="m.ts does not say how many channels.*mean=0,0,0 and std=1,1,1"):
        models.load(path, size=4)
    assert models.load(path, size=4, mean="0,0,0", std="1,1,1")(torch.rand(2, 3, 9, 9)).shape == (2, 5)


def test_an_exported_program_says_what_size_it_takes(files):
    with pytest.raises(
        ModelError, match=r"m.pt2 takes images of shape \(1, 28, 28\). These have \(1, 32, 32\).*size=28 "
    ):
        models.load(files["exported"], allow_code=True)(torch.rand(2, 1, 32, 32))


# --- code -----------------------------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return print, ("code was run",)


@pytest.mark.parametrize("form", ["exported", "pickled"])
def test_what_can_run_code_is_refused_without_leave(files, form):
    with pytest.raises(ModelError, match="opening it runs code that it carries.*--allow-code"):
        models.load(files[form])


def test_an_exported_program_can_run_code_indeed(tmp_path, files, capsys):
    """The reason for the refusal: if torch ever reads programs safely, this fails, and the refusal may go."""
    path = tmp_path / "evil.pt2"
    held = io.BytesIO()
    torch.save((((Evil(),), {})), held)
    with zipfile.ZipFile(files["exported"]) as good, zipfile.ZipFile(path, "w") as bad:
        for name in good.namelist():
            bad.writestr(name, held.getvalue() if "sample_inputs" in name else good.read(name))
    with pytest.raises(ModelError, match="opening it runs code"):
        models.load(str(path))
    assert "code was run" not in capsys.readouterr().out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(Exception):
            torch.export.load(path)
    assert "code was run" in capsys.readouterr().out


def test_pickles_are_not_opened_without_leave(tmp_path, capsys):
    torch.save(Evil(), tmp_path / "a.pt")
    with (tmp_path / "b.pth").open("wb") as file:
        pickle.dump(Evil(), file)
    torch.save({"model": Evil()}, tmp_path / "c.pt")
    for name in ("a.pt", "b.pth", "c.pt"):
        with pytest.raises(ModelError, match="is a pickle of Python objects.*--allow-code"):
            models.load(str(tmp_path / name))
    assert "code was run" not in capsys.readouterr().out


class Writes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "stolen")
        return x.flatten(1)


def test_torchscript_that_writes_to_files_is_refused_without_leave(tmp_path):
    torch.jit.script(Writes()).save(tmp_path / "m.ts")
    with pytest.raises(ModelError, match="TorchScript that writes to files.*--allow-code"):
        models.load(str(tmp_path / "m.ts"))
    assert facts_of(models.load(str(tmp_path / "m.ts"), allow_code=True))[0].format == "TorchScript"


def test_a_checkpoint_that_holds_a_module_is_opened_with_leave(tmp_path, network):
    torch.save({"epoch": 3, "model": copy.deepcopy(network).train()}, tmp_path / "c.pt")
    model = models.load(str(tmp_path / "c.pt"), allow_code=True)
    assert not model.training
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 10)


# --- what is wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}])
def test_weights_alone_are_named(tmp_path, network, wrap):
    torch.save(wrap(network.state_dict()), tmp_path / "w.pt")
    with pytest.raises(ModelError, match="w.pt holds weights, not a network: give them with --weights"):
        models.load(str(tmp_path / "w.pt"))


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04cut", b"\x80\x02"])
@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.ts", "m.pt2"])
def test_files_that_torch_did_not_write(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name} (is no|cannot)") as caught:
        models.load(str(tmp_path / name), allow_code=True)
    assert "\n" not in str(caught.value)


def test_files_cut_short(tmp_path, files):
    for form in FORMS:
        path = tmp_path / files[form].rpartition("/")[2]
        path.write_bytes(Path(files[form]).read_bytes()[:-2000])
        with pytest.raises(ModelError) as caught:
            models.load(str(path), allow_code=True)
        assert "\n" not in str(caught.value)


def test_other_things_in_a_file(tmp_path):
    for held, said in ((torch.rand(3), "a Tensor"), ({"epoch": 3}, "a dict"), ([1, 2], "a list")):
        torch.save(held, tmp_path / "m.pt")
        with pytest.raises(ModelError, match=f"must hold a network. It holds {said}"):
            models.load(str(tmp_path / "m.pt"))


def test_a_class_that_is_not_there(tmp_path, monkeypatch):
    import types

    module = types.ModuleType("once")
    exec("from torch import nn\nclass Net(nn.Module):\n    pass\n", module.__dict__)
    module.Net.__module__ = "once"
    monkeypatch.setitem(__import__("sys").modules, "once", module)
    torch.save(module.Net(), tmp_path / "m.pt")
    monkeypatch.delitem(__import__("sys").modules, "once")
    with pytest.raises(ModelError, match="cannot be unpickled: No module named 'once'.*importable"):
        models.load(str(tmp_path / "m.pt"), allow_code=True)


class Two(nn.Module):
    def forward(self, images, mask):
        return (images * mask).flatten(1)


def test_a_program_of_two_inputs(tmp_path):
    program = torch.export.export(Two(), (torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)))
    torch.export.save(program, tmp_path / "m.pt2")
    with pytest.raises(ModelError, match="m.pt2 must have one input, the images. It has 2"):
        models.load(str(tmp_path / "m.pt2"), allow_code=True)


def test_a_program_of_another_version(tmp_path, files):
    path = tmp_path / "old.pt2"
    with zipfile.ZipFile(files["exported"]) as good, zipfile.ZipFile(path, "w") as bad:
        for name in good.namelist():
            held = good.read(name)
            if name.endswith("models/model.json"):
                held = json.dumps({**json.loads(held), "schema_version": {"major": 1, "minor": 1}}).encode()
            bad.writestr(name, held)
    with pytest.raises(ModelError, match="old.pt2 is no program of torch.export that torch .* can read") as caught:
        models.load(str(path), allow_code=True)
    assert "\n" not in str(caught.value)


def test_missing_files_and_wrong_options(files):
    for name in ("nowhere.pt2", "nowhere.pt"):
        with pytest.raises(MissingData, match=name):
            models.load(name, allow_code=True)
    for form in ("exported", "traced"):
        with pytest.raises(ParameterError, match="leave --weights out"):
            models.load(files[form], "w.safetensors", allow_code=True)
        with pytest.raises(ParameterError, match="mean and std together"):
            models.load(files[form], allow_code=True, mean=0.5)
