"""Keras 3 models on torch: the same answers as Keras' own, gradients, nothing changed, one line to evaluate, clear refusals."""

import copy
import importlib.util
import os
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

import unfooled as uf
from helpers import assert_same, counted, snapshot
from unfooled import models
from unfooled.checks.preflight import preflight
from unfooled.models import Access

pytestmark = pytest.mark.usefixtures("one_thread")
if importlib.util.find_spec("keras") is None:
    pytest.skip("Keras is not installed", allow_module_level=True)

from unfooled.models.formats.keras import wrap  # noqa: E402
from unfooled.models.formats.keras_model import imported  # noqa: E402

keras = imported()
layers = keras.layers


def network(*, last=("softmax",), rescaling=True, classes=4, activation=None):
    """A small convolutional network on (8, 8, 3) with BatchNorm and dropout, its statistics moved."""
    keras.utils.set_random_seed(3)
    built = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            *([layers.Rescaling(1 / 255)] if rescaling else []),
            layers.Conv2D(5, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(classes, activation=activation, kernel_initializer="orthogonal"),
            *(layers.Activation(name) for name in last),
        ]
    )
    top = 255 if rescaling else 1
    draws = np.random.default_rng(0).random((64, 8, 8, 3)) * top
    for _ in range(20):
        built(draws, training=True)
    return built


def given(images, top=255):
    """Images as Keras' own pipeline would take them."""
    return top * images.permute(0, 2, 3, 1).numpy()


def raw(built, images, top=255):
    return built.predict(given(images, top), verbose=0)


def random_images(count=40, shape=(3, 8, 8)):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def built():
    return network()


def test_its_answers_are_those_of_keras(built):
    images = random_images()
    model = wrap(built, scale=255)
    assert model.access is Access.GRADIENT
    with torch.no_grad():
        logits = model(images)
    assert np.array_equal(logits.argmax(1).numpy(), raw(built, images).argmax(1))
    np.testing.assert_allclose(logits.softmax(1).numpy(), raw(built, images), atol=1e-6)
    assert float((logits.exp().sum(1) - 1).abs().max()) > 0.1  # logits, not logarithms of probabilities
    assert len(set(logits.argmax(1).tolist())) > 1
    assert model.facts.size == (3, 8, 8)


def nested(built):
    entry = keras.Input((8, 8, 3))
    return keras.Model(entry, built(entry))


def by_operation(_):
    inner = network(last=())
    entry = keras.Input((8, 8, 3))
    return keras.Model(entry, keras.ops.softmax(inner(entry)))


@pytest.mark.parametrize(
    "make",
    [nested, by_operation, lambda _: network(last=(), activation="softmax"), lambda _: nested(network(last=(), activation="softmax"))],
)  # fmt: skip
def test_a_softmax_is_cut_off_wherever_it_stands(built, make):
    ends = make(built)
    before = ends.layers[-1].get_config()
    model = wrap(ends, scale=255)
    images = random_images()
    with torch.no_grad():
        logits = model(images)
    assert "the softmax at its end is cut off" in model.facts.preprocessing
    assert float(logits.min()) < 0
    np.testing.assert_allclose(logits.softmax(1).numpy(), raw(ends, images), atol=1e-6)
    assert ends.layers[-1].get_config() == before  # the caller's model has its softmax still
    np.testing.assert_allclose(raw(ends, images).sum(1), 1, atol=1e-5)


def test_one_sigmoid_is_a_classifier_of_two():
    ends = network(last=(), classes=1, activation="sigmoid")
    images = random_images()
    ends.layers[-1].bias.assign([-np.median(wrap(ends, scale=255)(images).detach())])
    logits = models.Classifier(wrap(ends, scale=255))(images).detach()
    assert logits.shape == (40, 2)
    assert np.array_equal(logits.argmax(1).numpy(), (raw(ends, images)[:, 0] > 0.5).astype(int))
    assert len(set(logits.argmax(1).tolist())) == 2


def test_logits_stay_as_they_are():
    ends = network(last=())
    model = wrap(ends, scale=255)
    with torch.no_grad():
        np.testing.assert_allclose(model(random_images()).numpy(), raw(ends, random_images()), atol=1e-5)
    assert "cut off" not in model.facts.preprocessing


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.last = layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.last(x)


def test_what_has_no_graph_answers_as_it_does():
    ends = Subclassed()
    rows = torch.rand(6, 4)
    with pytest.raises(uf.errors.ModelError, match="has no weights yet"):
        wrap(ends)
    ends(rows)
    model = wrap(ends)
    np.testing.assert_allclose(model(rows).detach().numpy(), ends.predict(rows.numpy(), verbose=0), atol=1e-6)
    assert model.facts.size is None


def test_rescaling_within_is_told_of(built):
    assert "Rescaling multiplies by 1/255" in wrap(built).facts.preprocessing
    assert "give the option scale=255" in wrap(built).facts.preprocessing
    assert "give the option" not in wrap(built, scale=255).facts.preprocessing
    assert wrap(network(rescaling=False, last=())).facts.preprocessing == ""


def test_a_missing_scale_is_found():
    """The class is the brightest quadrant; on pixels up to 1 all look black."""
    ends = keras.Sequential([keras.Input((8, 8, 1)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(5)])
    y, x = np.indices((8, 8)) // 4
    quadrants = np.stack([(2 * y + x == q).ravel() for q in range(4)], 1)
    ends.layers[-1].set_weights([np.c_[quadrants, np.zeros(64)].astype(np.float32), np.float32([0, 0, 0, 0, 1])])
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    labels = torch.from_numpy(raw(ends, images).argmax(1))
    found = {scale: preflight(wrap(ends, scale=scale), images, labels, uf.Linf(0.01)) for scale in (1, 255)}
    assert "expects-0-255" in {one.code for one in found[1].findings}
    assert not {"near-chance", "expects-0-255"} & {one.code for one in found[255].findings}


def test_pixels_are_prepared_as_said():
    ends = network(rescaling=False, last=())
    images = random_images(6, (3, 12, 10))
    model = wrap(ends, size="8x8", bgr=True, mean=(0.4, 0.5, 0.6), std="0.2,0.3,0.4", scale=2)
    small = keras.ops.image.resize(images.permute(0, 2, 3, 1), (8, 8)).numpy()
    plain = ((small[..., ::-1] - (0.4, 0.5, 0.6)) / (0.2, 0.3, 0.4) * 2).astype(np.float32)
    np.testing.assert_allclose(model(images).detach().numpy(), ends.predict(plain, verbose=0), atol=1e-4)
    assert model.facts.preprocessing == (
        "resized to 8×8 (bilinear); turned to BGR; less 0.4, 0.5, 0.6, divided by 0.2, 0.3, 0.4; times 2"
    )
    z = images.clone().requires_grad_(True)
    model(z).sum().backward()
    assert z.grad.shape == images.shape
    assert bool((z.grad.flatten(1).abs().sum(1) > 0).all())


def test_gradients_are_those_of_its_logits(built):
    model = wrap(copy.deepcopy(built), scale=255)
    z = random_images(2).requires_grad_(True)
    (gradient,) = torch.autograd.grad(model(z)[:, 0].sum(), z)
    step = 1e-3 * gradient / gradient.norm()
    with torch.no_grad():
        change = (model(z + step) - model(z - step))[:, 0].sum() / 2e-3
    assert float(change) == pytest.approx(float(gradient.norm()), rel=0.02)


def test_nothing_of_it_is_changed(built):
    model, images = wrap(built, scale=255), random_images(12)
    labels = torch.from_numpy(raw(built, images).argmax(1))
    for layer in (built, *built.layers):  # Keras' predict has put some of them into eval mode
        layer.train()
    before, variables = snapshot(built), [np.array(v.numpy()) for v in built.variables]
    found = uf.attack(model, images, labels, uf.Linf(0.1), "pgd:steps=5")
    assert found.success.any()
    assert_same(before, snapshot(built))
    assert [v.trainable for v in built.variables].count(True) == 6
    for kept, variable in zip(variables, built.variables, strict=True):
        np.testing.assert_array_equal(kept, variable.numpy())


def test_passes_are_counted_as_hooks_count_them(built):
    model = wrap(built, scale=255)
    images = random_images(6)
    labels = torch.from_numpy(raw(built, images).argmax(1))
    with counted(model) as seen:
        found = uf.attack(model, images, labels, uf.Linf(0.001), "pgd:steps=4")
    assert seen.forward == int(found.forward.sum())
    assert seen.backward == int(found.backward.sum())


class Always(layers.Layer):
    """A random layer that is never off."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x):
        return self.inner(x, training=True)


def test_a_random_model_is_seen_to_be_random():
    keras.utils.set_random_seed(0)
    ends = keras.Sequential(
        [keras.Input((4,)), layers.Dense(64, activation="relu"), Always(layers.GaussianNoise(0.5)), layers.Dense(3)]
    )
    model, rows = wrap(ends), torch.rand(8, 4)
    drawn = model.drawn.get_state()
    assert not torch.equal(model(rows), model(rows))
    assert not torch.equal(drawn, model.drawn.get_state())
    before = [np.array(v.numpy()) for v in ends.variables]
    with models.untouched(model):
        model(rows)
    for kept, variable in zip(before, ends.variables, strict=True):
        np.testing.assert_array_equal(kept, variable.numpy())
    found = [uf.attack(model, rows, torch.zeros(8, dtype=torch.int64), uf.Linf(0.5), "pgd:steps=3") for _ in range(2)]
    assert torch.equal(found[0].success, found[1].success)


def test_an_evaluation_is_one_line():
    ends = network(rescaling=False)
    images = random_images(32)
    labels = raw(ends, images, 1).argmax(1)
    labels[:4] = (labels[:4] + 1) % 4
    found = uf.evaluate(ends, (images.numpy(), labels), uf.Linf(0.1), "quick")
    assert found.clean_accuracy.value == 28 / 32
    assert found.robust_accuracy.attacked.value < 28 / 32
    assert any(cost.backward for cost in found.attacks)
    assert not {one.code for one in found.findings} & {"probabilities", "limited-access", "no-gradient", "train-mode"}


@pytest.mark.parametrize("shape", [(6,), (5, 5)])
def test_rows_and_grey_images_without_channels(shape):
    keras.utils.set_random_seed(0)
    ends = keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(3, activation="softmax")])
    images = random_images(8, shape)
    answers = ends.predict(images.numpy(), verbose=0)
    np.testing.assert_allclose(wrap(ends)(images).softmax(1).detach().numpy(), answers, atol=1e-6)
    if len(shape) == 2:
        np.testing.assert_allclose(wrap(ends)(images[:, None]).softmax(1).detach().numpy(), answers, atol=1e-6)


def test_channels_first_within():
    keras.utils.set_random_seed(0)
    first = [
        layers.Conv2D(4, 3, data_format="channels_first"),
        layers.GlobalAveragePooling2D(data_format="channels_first"),
    ]
    ends = keras.Sequential([keras.Input((3, 8, 8)), *first, layers.Dense(3)])
    images = random_images(4)
    np.testing.assert_allclose(wrap(ends)(images).detach(), ends.predict(images.numpy(), verbose=0), atol=1e-5)
    assert wrap(ends).facts.size == (3, 8, 8)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.rand(2, 8, 8, 3), r"takes images of shape \(3, 8, 8\)\. Got \(8, 8, 3\)\. .*channels-last"),
        (torch.rand(2, 3, 9, 7), r"Got \(3, 9, 7\)\. Have them resized.*size=8x8"),
        (torch.rand(2, 1, 8, 8), r"takes images of shape \(3, 8, 8\)\. Got \(1, 8, 8\)"),
        (torch.rand(2, 192), r"Got \(192,\)"),
    ],
)
def test_images_that_do_not_fit_are_named(built, images, said):
    with pytest.raises(uf.errors.ModelError, match=said):
        models.Classifier(wrap(built))(images)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scale": 0}, "'scale'.*Got 0"),
        ({"std": 0.0}, "'std'.*above 0.*Got 0.0"),
        ({"mean": "a,b"}, "'mean'.*Got 'a,b'"),
        ({"mean": (0.1, 0.2)}, "'mean'.*one for each channel"),
        ({"size": "big"}, "'size'.*Got 'big'"),
    ],
)
def test_wrong_options_are_named(built, options, said):
    with pytest.raises(uf.errors.ParameterError, match=said):
        wrap(built, **options)


def test_more_than_one_input_is_refused():
    a, b = keras.Input((3,)), keras.Input((3,))
    with pytest.raises(uf.errors.ModelError, match="takes 2 inputs"):
        wrap(keras.Model([a, b], layers.Dense(2)(layers.Add()([a, b]))))
    with pytest.raises(uf.errors.ModelError, match="A Keras model is needed. Got Adam"):
        wrap(keras.optimizers.Adam())


# --- files -----------------------------------------------------------------------------------------


def test_a_stored_model_answers_as_before(built, tmp_path):
    built.save(tmp_path / "model.keras")
    model = models.load(str(tmp_path / "model.keras"), scale=255)
    images = random_images()
    assert np.array_equal(model(images).argmax(1).numpy(), raw(built, images).argmax(1))
    assert model.facts.source.endswith("model.keras")
    assert not model.facts.preprocessing.startswith("its own")


def test_layers_with_code_are_refused(tmp_path):
    entry = keras.Input((4,))
    keras.Model(entry, layers.Dense(2)(layers.Lambda(lambda x: x * 2, name="twice")(entry))).save(
        tmp_path / "code.keras"
    )
    with pytest.raises(
        uf.errors.ModelError, match=r"carry code \(Lambda 'twice'\): opening it runs code.*--allow-code"
    ):
        models.load(str(tmp_path / "code.keras"))
    assert models.load(str(tmp_path / "code.keras"), allow_code=True)(torch.rand(3, 4)).shape == (3, 2)
    held = keras.Sequential([keras.Input((4,)), keras.layers.TorchModuleWrapper(torch.nn.Linear(4, 2))])
    held.save(tmp_path / "torch.keras")
    with pytest.raises(uf.errors.ModelError, match="carry code \\(TorchModuleWrapper"):
        models.load(str(tmp_path / "torch.keras"))


def test_files_that_are_none_are_named(built, tmp_path):
    path = tmp_path / "model.keras"
    with pytest.raises(uf.errors.MissingData, match="no file"):
        models.load(str(path))
    path.write_text("<html>")
    with pytest.raises(uf.errors.ModelError, match="is damaged, or no file that Keras 3 saves"):
        models.load(str(path))
    built.save(path)
    with pytest.raises(uf.errors.ParameterError, match="holds its weights: leave weights.h5 out"):
        models.load(str(path), "weights.h5")
    with pytest.raises(uf.errors.UnknownName, match="no option 'scal'.*scale, mean, std, size, bgr"):
        models.load(str(path), scal=255)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content.replace(b"Conv2D", b"Konv2D") if name == "config.json" else content)
    with pytest.raises(uf.errors.ModelError, match="cannot open .*Konv2D.*file.py:factory"):
        models.load(str(path))


def test_another_backend_is_named(monkeypatch, built):
    monkeypatch.setattr(keras.config, "backend", lambda: "tensorflow")
    with pytest.raises(uf.errors.ModelError, match="imported before, and runs on tensorflow.*KERAS_BACKEND=torch"):
        wrap(built)


def test_a_missing_keras_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(uf.errors.MissingExtra, match=r'pip install "unfooled\[keras\]"'):
        imported()


def test_the_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    imported()
    assert os.environ["KERAS_BACKEND"] == "jax"
    monkeypatch.delenv("KERAS_BACKEND")
    imported()
    assert "KERAS_BACKEND" not in os.environ


@pytest.mark.parametrize(("end", "middle"), [("sigmoid", 0.5), (None, 0.0)])
def test_one_answer_of_a_model_whose_graph_is_not_seen(end, middle):
    keras.utils.set_random_seed(5)

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.flat, self.head = layers.Flatten(), layers.Dense(1, activation=end)

        def call(self, images):
            return self.head(self.flat(images))

    own, images = Own(), random_images()
    own(given(images[:2], 1))
    own.head.bias.assign(-np.mean(np.matmul(given(images, 1).reshape(40, -1), own.head.kernel.numpy()), axis=0))
    expected = raw(own, images, 1).ravel() > middle
    assert 5 < expected.sum() < 35
    model = wrap(own)
    with torch.no_grad():
        assert np.array_equal(models.logits_of(model(images), 40).argmax(1).numpy(), expected)
        assert np.array_equal(model.raw(images).numpy(), expected)


@pytest.mark.slow
def test_it_travels_to_another_process(built, tmp_path):
    """A fresh process has no backend set; Keras is put on torch before anything of it is read."""
    model, images = wrap(built, scale=255), random_images(4)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps((model, images)))
    code = "import pickle, sys; model, images = pickle.load(open(sys.argv[1], 'rb')); print(model(images).argmax(1).tolist())"
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.pkl")], capture_output=True, text=True, env=environment
    )
    assert run.stdout.strip() == str(model(images).argmax(1).tolist()), run.stderr
