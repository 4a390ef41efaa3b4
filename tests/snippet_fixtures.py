"""What the snippets of the pages find beside them: small models in every form, and pictures in folders, tables and files.

All are made here, of the bundled images; nothing is fetched. The pictures are clothes in colour, 40×40, one folder for each
class; `net` reads them, and the other forms hold the same network.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import unfooled as uf
from unfooled.models import vision

SNIPPETS = Path(__file__).parent.parent / "docs" / "snippets"
SIDE, EACH = 40, 4  # of a picture, and pictures in a class


class Fixtures:
    """Made once, in a folder of their own, and copied to where they are needed."""

    def __init__(self, store):
        self.store = store

    def put(self, name, folder):
        place = self.store / name
        if not place.exists():
            place.parent.mkdir(exist_ok=True)
            MAKERS.get(name, copied)(place, self)
        (shutil.copytree if place.is_dir() else shutil.copy)(place, folder / place.name)

    def path(self, name):
        if not (self.store / name).exists():
            MAKERS[name](self.store / name, self)
        return self.store / name


def copied(place, fixtures):
    """A file that is a snippet itself, such as net.py."""
    (source,) = SNIPPETS.rglob(place.name)
    place.write_text("".join(line for line in source.open() if not line.startswith("#:")))


def examples(place, fixtures):
    shutil.copytree(SNIPPETS.parent.parent / "examples", place)


def clothes():
    """Images (N, 3, 40, 40) in [0, 1], labels by the names of the classes in sorted order, and these names."""
    data = uf.data.load("fashion-mnist-sample")
    names = [name.lower().replace("/", "-").replace(" ", "-") for name in data.classes]
    order = sorted(names)
    images = torch.nn.functional.interpolate(data.floats(), (SIDE, SIDE), mode="bilinear").expand(-1, 3, -1, -1)
    return images, torch.tensor([order.index(names[label]) for label in data.labels.tolist()]), order


def photos(place, fixtures):
    images, labels, names = clothes()
    for label, name in enumerate(names):
        (place / name).mkdir(parents=True)
        for at, image in enumerate(images[labels == label][:EACH]):
            pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
            Image.fromarray(pixels).save(place / name / f"{at:02d}.png")


def grey(place, fixtures):
    """Four classes whose names sort in another order than the bundled network's."""
    data = uf.data.load("fashion-mnist-sample")
    for name, label in (("bag", 8), ("boot", 9), ("coat", 4), ("dress", 3)):
        (place / name).mkdir(parents=True)
        for at, image in enumerate(data.images[data.labels == label][:EACH]):
            Image.fromarray(image[0].numpy()).save(place / name / f"{at:02d}.png")


def fashion(place, fixtures):
    place.write_text('import unfooled as uf\n\n\ndef make():\n    return uf.models.load("fashion-mnist/plain")\n')


SPLIT = """import unfooled as uf
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = uf.models.SeedCNN()

    def forward(self, images):
        return self.network(images.mean(1, keepdim=True))


def make():
    return Net()
"""


def split_photos(place, fixtures):
    """Pictures of 28×28 in a folder `test`, in the order of classes that the bundled networks have."""
    data = uf.data.load("fashion-mnist-sample")
    for label in range(10):
        folder = place / "test" / f"{label}-thing"
        folder.mkdir(parents=True)
        for at, image in enumerate(data.images[data.labels == label][:20]):
            Image.fromarray(image[0].numpy()).convert("RGB").save(folder / f"{at:02d}.png")


def split_network(place, fixtures):
    place.write_text(SPLIT)


def split_weights(place, fixtures):
    held = uf.models.load("fashion-mnist/hardened")
    uf.models.save_weights(torch.nn.ModuleDict({"network": held}), place, {}, half=False)


def made():
    """The network of own-model/net.py, with fresh weights."""
    found = importlib.util.spec_from_file_location("net", SNIPPETS / "own-model" / "net.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    torch.manual_seed(0)
    return module.make()


def weights(place, fixtures):
    """Those of a short training."""
    images, labels, _ = clothes()
    network = made()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(6):
        for rows in torch.randperm(len(images)).split(50):
            loss = torch.nn.functional.cross_entropy(network(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    uf.models.save_weights(network, place, {}, half=False)


def network(fixtures):
    model = made()
    return uf.models.load_weights(model, fixtures.path("net.safetensors")).eval()


def onnx(place, fixtures, model=None, side=SIDE):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model or network(fixtures), (torch.rand(2, 3, side, side),), str(place), dynamo=False, input_names=["images"],
            output_names=["logits"], dynamic_axes={"images": {0: "n"}, "logits": {0: "n"}},
        )  # fmt: skip


def bare(place, fixtures):
    """The network without its normalisation, for images of 32×32."""
    onnx(place, fixtures, network(fixtures).model.eval(), 32)


def exported(place, fixtures):
    shapes = ({0: torch.export.Dim("n")},)
    torch.export.save(
        torch.export.export(network(fixtures), (torch.rand(2, 3, SIDE, SIDE),), dynamic_shapes=shapes), place
    )


def scripted(place, fixtures):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network(fixtures), torch.rand(2, 3, SIDE, SIDE)).save(str(place))


def keras(place, fixtures):
    from unfooled.models.formats.keras_model import imported

    k = imported()
    k.utils.set_random_seed(0)
    images, labels, _ = clothes()
    built = k.Sequential(
        [
            k.Input((SIDE, SIDE, 3)), k.layers.Rescaling(1 / 255), k.layers.Conv2D(8, 5, strides=4, activation="relu"),
            k.layers.Flatten(), k.layers.Dense(10, activation="softmax"),
        ]
    )  # fmt: skip
    built.compile("adam", "sparse_categorical_crossentropy")
    built.fit(255 * images.permute(0, 2, 3, 1).numpy(), labels.numpy(), epochs=3, batch_size=50, verbose=0)
    built.save(place)


def mobilenet(place, fixtures):
    vision.torchvision()
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(timm.create_model("mobilenetv3_small_050", num_classes=10).state_dict(), place)


def vit(place, fixtures):
    vision.torchvision()
    import transformers

    torch.manual_seed(0)
    names = dict(enumerate(clothes()[2]))
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8,
        id2label=names, label2id={name: label for label, name in names.items()}, initializer_range=0.2,
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(place)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(place)


def digits():
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    return rows / 16, labels


def svc(place, fixtures):
    from sklearn.svm import SVC
    from skops.io import dump

    rows, labels = digits()
    dump(SVC().fit(rows[:1000], labels[:1000]), place)


def rows(place, fixtures):
    held, labels = digits()
    np.savez(place, images=held[1000:1020], labels=labels[1000:1020])


def table(place, fixtures):
    """Paths of the photographs and what they show, by columns that do not say so; half of them are the split `test`."""
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    files = sorted(fixtures.path("photos").rglob("*.png"))
    held = {
        "scan": [file.relative_to(fixtures.store).as_posix() for file in files],
        "diagnosis": [file.parent.name for file in files],
        "split": ["test" if at % 2 else "val" for at in range(len(files))],
    }
    found = pyarrow.table(held)
    if place.suffix == ".parquet":
        pyarrow.parquet.write_table(found, place)
    else:
        pyarrow.csv.write_csv(found.drop_columns("split"), place)


MAKERS = {
    "examples": examples, "split/photos": split_photos, "split/net.py": split_network, "split/net.safetensors": split_weights,
    "photos": photos, "clothes": grey, "fashion.py": fashion, "net.safetensors": weights, "net.onnx": onnx, "bare.onnx": bare,
    "net.pt2": exported, "net.pt": scripted, "net.keras": keras, "mobilenet.safetensors": mobilenet, "vit": vit,
    "svc.skops": svc, "rows.npz": rows, "scans.csv": table, "scans.parquet": table,
}  # fmt: skip


@contextmanager
def endpoint():
    """The address HOST:PORT of docs/snippets/endpoint/serve.py, running."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PORT": str(port), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen([sys.executable, SNIPPETS / "endpoint" / "serve.py"], env=environment)
    try:
        _wait(port, server)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def _wait(port, server):
    for _ in range(600):
        assert server.poll() is None, "the endpoint has ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the endpoint does not answer")
