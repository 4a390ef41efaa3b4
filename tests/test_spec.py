"""Spec files: what they hold comes back by key, and what is wrong is named by file, line and key."""

import subprocess
import sys

import pytest

from unfooled.errors import MissingData, ParameterError, UnknownName
from unfooled.spec import KEYS, read

WHOLE = """
# a study
model = "nets/model.py:make"
weights = "best.safetensors"
data = "./photos:val[0:100]"
threat = "linf:8/255"
certify = "auto"
protocol = "fast"
defense = "blur:sigma=1"
seed = 3
precision = 0.03
assert = "attacked>=0.4"
out = "/runs/study"
batch_size = 64
budget = 500
draws = 4
resize = 32
crop = "28x28"
columns = "image=scan"
allow_code = true
ray = "local"
ray_cores = 2

[model_options]
rate = 5
answers = "labels"
last = true

[classes]
cat = 3
"big dog" = 5
"""


def spec(tmp_path, words):
    path = tmp_path / "study.toml"
    path.write_bytes(words if isinstance(words, bytes) else words.encode())
    return path


def test_every_key_comes_back(tmp_path):
    found = read(spec(tmp_path, WHOLE))
    assert found.keys() == KEYS.keys()
    assert found == {
        "model": f"{tmp_path}/nets/model.py:make", "weights": f"{tmp_path}/best.safetensors",
        "data": f"{tmp_path}/photos:val[0:100]", "threat": "linf:8/255", "protocol": "fast", "defense": "blur:sigma=1",
        "certify": "auto",
        "seed": 3, "precision": 0.03, "assert": ["attacked>=0.4"], "out": "/runs/study", "batch_size": 64, "budget": 500,
        "draws": 4, "resize": "32", "crop": "28x28", "classes": {"cat": 3, "big dog": 5},
        "model_options": ["rate=5", "answers=labels", "last=true"], "allow_code": True, "columns": "image=scan",
        "ray": "local", "ray_cores": 2,
    }  # fmt: skip
    assert read(spec(tmp_path, "")) == {}


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("data", "mnist:test[0:10]", "mnist:test[0:10]"),
        ("data", "images.npz:train", "{}/images.npz:train"),
        ("data", "../photos", "{}/../photos"),
        ("data", "/data/photos", "/data/photos"),
        ("model", "fashion-mnist/plain", "fashion-mnist/plain"),
        ("model", "model.py:make", "{}/model.py:make"),
        ("model", "net.onnx", "{}/net.onnx"),
        ("model", "timm:resnet18", "timm:resnet18"),
        ("model", "hf:nets/vit", "hf:nets/vit"),
        ("model", "https://example.org/classify", "https://example.org/classify"),
        ("data", "scans.csv:val", "{}/scans.csv:val"),
        ("data", "hf:ORG/NAME:test", "hf:ORG/NAME:test"),
        ("weights", "sub/best.pt", "{}/sub/best.pt"),
    ],
)
def test_paths_are_relative_to_the_file_and_names_stay(tmp_path, key, value, wanted):
    assert read(spec(tmp_path, f'{key} = "{value}"'))[key] == wanted.format(tmp_path)


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert read(spec(tmp_path, 'data = "~/photos"')) == {"data": "/home/me/photos"}


@pytest.mark.parametrize(
    ("words", "line", "says"),
    [
        ("seed = 0\nmodle = 'x'", 2, "There is no key named 'modle'. Did you mean 'model'?"),
        ("\n[thread]\nx = 1", 2, "There is no key named 'thread'. Did you mean 'threat'?"),
        ("\nseed = 'x'", 2, "'seed' must be an int of at least 0. Got 'x' instead."),
        ("seed = true", 1, "'seed' must be"),
        ("seed = -1", 1, "Got -1 instead"),
        ("draws = 0", 1, "'draws' must be an int of at least 1"),
        ("budget = 1.5", 1, "'budget'"),
        ("batch_size = '64'", 1, "'batch_size'"),
        ("model = 3", 1, "'model' must be a text such as"),
        ("model = ''", 1, "'model'"),
        ("\n\nthreat = '8/255'", 3, "'threat' must be a name with options, such as 'linf:8/255'. Got '8/255' instead."),
        ("[threat]\nlinf = 1", 1, "'threat'"),
        ("precision = 0.5", 1, "'precision' must be a half-width"),
        ("precision = nan", 1, "'precision'"),
        ("precision = true", 1, "'precision'"),
        ("assert = 'robust>=1'", 1, "'assert' must be a text such as 'attacked>=0.4'"),
        ("assert = []", 1, "'assert'"),
        ("assert = ['attacked>=0.4', 3]", 1, "'assert'"),
        ("resize = 0", 1, "'resize' must be a side such as 32"),
        ("crop = '32x'", 1, "'crop'"),
        ("seed = 0\n[classes]\ncat = 1\ndog = 'two'", 4, "'classes.dog' must be a class index"),
        ("classes.cat = 1\nclasses.dog = -2", 2, "'classes.dog' must be"),
        ("seed = 0\nclasses = { cat = 'x' }", 2, "'classes.cat' must be"),
        ("classes = 3", 1, "'classes' must be"),
        ("seed = 0\nseed = 1", 2, "this is not TOML"),
        ("model = 'x'\ndata = [", 2, "this is not TOML"),
        ("model = x", 1, "this is not TOML"),
        (b"seed = 1\nmodel = '\xff'", 2, "this is not UTF-8"),
        ("out = 2020-01-01", 1, "'out' must be the path of a folder"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, words, line, says):
    path = spec(tmp_path, words)
    with pytest.raises(ParameterError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}, line {line}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UnknownName) == ("no key" in says)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MissingData, match=r"There is no spec file .*none\.toml"):
        read(tmp_path / "none.toml")


def test_nothing_here_needs_torch():
    modules = "unfooled.spec, unfooled.store, unfooled.comparison, unfooled.cli.runs, unfooled.cli.compare, unfooled.cli.verify"
    done = subprocess.run([sys.executable, "-c", f"import sys, {modules}; print('torch' in sys.modules)"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout == "False\n"
