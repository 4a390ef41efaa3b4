"""Models as people bring them, made here with their own packages: for each, what to type, and what its own pipeline answers.

Images are PNGs of 40×48 in four classes that are told apart by their colours; each tenth lies in a wrong class, so that no
accuracy is 0 or 1 and none of these images is near a border between classes.
"""

import os
import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

CLASSES = ("cat", "elk", "fox", "owl")
HEIGHT, WIDTH, SIDE = 40, 48, 32
MEAN, STD = (0.5, 0.45, 0.4), (0.25, 0.2, 0.3)


@dataclass
class Brought:
    """A model: `words` to type after `unfooled evaluate`, without the data; `answers`: labels (N,) by its own pipeline."""

    words: list
    answers: np.ndarray
    more: dict = field(default_factory=dict)


def drawn(count, seed):
    """Pictures of each class in turn, and their labels (N,)."""
    draw = np.random.default_rng(seed)
    kinds = np.random.default_rng(5).integers(0, 256, (len(CLASSES), 5, 6, 3))
    labels = np.arange(count) % len(CLASSES)
    coarse = 0.65 * kinds[labels] + 0.35 * draw.integers(0, 256, (count, 5, 6, 3))
    whole = [Image.fromarray(one).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC) for one in coarse.astype(np.uint8)]
    return whole, labels


def photographs(folder, count=40):
    """A folder for each class; returns the pictures and labels in the order in which a folder is read."""
    pictures, labels = drawn(count, seed=1)
    labels = np.where(np.arange(count) % 10 == 9, (labels + 1) % len(CLASSES), labels)
    for at, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        place = folder / CLASSES[label]
        place.mkdir(parents=True, exist_ok=True)
        picture.save(place / f"{at:03d}.png")
    order = sorted(range(count), key=lambda at: (labels[at], at))
    return [pictures[at] for at in order], labels[order]


def stacked(pictures):
    """(N, H, W, C), from 0 to 255."""
    return np.stack([np.asarray(one) for one in pictures])


def small(pictures):
    """As most people prepare images for a network: (N, 3, 32, 32), with mean and std."""
    resized = [
        np.asarray(one.resize((SIDE, SIDE), Image.Resampling.BILINEAR), dtype=np.float32) / 255 for one in pictures
    ]
    images = (np.stack(resized) - np.float32(MEAN)) / np.float32(STD)
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


@torch.no_grad()
def fit(layer, features, labels):
    """A linear layer that tells the classes apart, by ridge regression."""
    inputs = torch.cat([features, torch.ones(len(features), 1)], 1).double()
    wanted = 10 * F.one_hot(torch.from_numpy(labels), len(CLASSES)).double() - 5
    gram = inputs.T @ inputs
    gram += 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    found = torch.linalg.solve(gram, inputs.T @ wanted).float()
    layer.weight.copy_(found[:-1].T)
    layer.bias.copy_(found[-1])


@torch.no_grad()
def network():
    """A convolutional network of (N, 3, 32, 32), prepared as `small` does."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(144, len(CLASSES)),
    ).eval()  # fmt: skip
    pictures, labels = drawn(200, seed=2)
    fit(made[-1], made[:-1](small(pictures)), labels)
    return made


class Whole(nn.Module):
    """The network with its preparation inside: images (N, 3, H, W) in [0, 1], as a server gets them."""

    def __init__(self):
        super().__init__()
        self.network = network()

    def forward(self, images):
        images = F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, STD))
        return self.network((images - mean) / std)


# --- one for each form ----------------------------------------------------------------------------------------


@torch.no_grad()
def timm(folder, pictures):
    from unfooled.models.vision import torchvision

    torchvision()
    import timm

    torch.manual_seed(0)
    made = timm.create_model("test_resnet", num_classes=len(CLASSES)).eval()
    about = {"input_size": (3, 64, 64)}
    transform = timm.data.create_transform(**timm.data.resolve_data_config(about, model=made), is_training=False)

    def prepared(images):
        return torch.stack([transform(one) for one in images])

    some, labels = drawn(120, seed=2)
    features = made.forward_head(made.forward_features(prepared(some)), pre_logits=True)
    fit(made.get_classifier(), features, labels)
    timm.models.save_for_hf(
        made, folder / "timm", safe_serialization=True, data_config=about, model_config={"label_names": list(CLASSES)}
    )
    return Brought([f"timm:{folder / 'timm'}"], made(prepared(pictures)).argmax(1).numpy())


@torch.no_grad()
def transformers(folder, pictures):
    from unfooled.models.vision import torchvision

    torchvision()
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=SIDE, patch_size=8,
        id2label=dict(enumerate(CLASSES)), label2id={name: at for at, name in enumerate(CLASSES)}, initializer_range=0.2,
    )  # fmt: skip
    made = transformers.ViTForImageClassification(config).eval()
    processor = transformers.ViTImageProcessor(size={"height": SIDE, "width": SIDE}, resample=3)
    some, labels = drawn(200, seed=2)
    fit(made.classifier, made.vit(**processor(images=some, return_tensors="pt")).last_hidden_state[:, 0], labels)
    made.save_pretrained(folder / "vit")
    processor.save_pretrained(folder / "vit")
    logits = made(**processor(images=pictures, return_tensors="pt")).logits
    return Brought([f"hf:{folder / 'vit'}"], logits.argmax(1).numpy())


def onnx(folder, pictures, convertible=True):
    import onnx
    import onnxruntime
    from onnx import helper, numpy_helper

    path = folder / ("net.onnx" if convertible else "hard.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network(), (torch.rand(2, 3, SIDE, SIDE),), str(path), dynamo=False, input_names=["images"],
            output_names=["logits"], dynamic_axes={"images": {0: "n"}, "logits": {0: "n"}},
        )  # fmt: skip
    if not convertible:  # an operator that onnx2torch does not have
        held = onnx.load(path)
        held.graph.initializer.append(numpy_helper.from_array(np.float32([0.5]), "bonus"))
        held.graph.node.extend([
            helper.make_node("Hardmax", ["logits"], ["hard"]), helper.make_node("Mul", ["hard", "bonus"], ["more"]),
            helper.make_node("Add", ["logits", "more"], ["answer"]),
        ])  # fmt: skip
        held.graph.output[0].name = "answer"
        onnx.save(held, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    answers = session.run(None, {"images": small(pictures).numpy()})[0].argmax(1)
    options = {"size": SIDE, "mean": ",".join(map(str, MEAN)), "std": ",".join(map(str, STD))}
    return Brought(
        [str(path), *(w for name in options for w in ("--model-option", f"{name}={options[name]}"))], answers
    )


def keras(folder, pictures):
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    keras.utils.set_random_seed(0)
    made = keras.Sequential([
        keras.Input((SIDE, SIDE, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(8, 5, strides=2, activation="relu"),
        keras.layers.Conv2D(8, 3, strides=2, activation="relu"), keras.layers.Flatten(),
        keras.layers.Dense(len(CLASSES), activation="softmax"),
    ])  # fmt: skip

    def prepared(images):
        return keras.ops.image.resize(stacked(images).astype("float32"), (SIDE, SIDE), interpolation="bilinear")

    some, labels = drawn(200, seed=2)
    made.compile("adam", "sparse_categorical_crossentropy")
    made.fit(prepared(some), labels, epochs=12, batch_size=20, verbose=0)
    made.save(folder / "net.keras")
    answers = made.predict(prepared(pictures), verbose=0).argmax(1)
    words = [str(folder / "net.keras"), "--model-option", f"size={SIDE}", "--model-option", "scale=255"]
    return Brought(words, answers)


def sklearn(folder, pictures):
    import skops.io
    from sklearn.svm import SVC

    def flat(images):
        return (stacked(images) / 255).reshape(len(images), -1)

    some, labels = drawn(120, seed=2)
    made = SVC().fit(flat(some), np.array(CLASSES)[labels])
    skops.io.dump(made, folder / "svc.skops")
    answers = np.searchsorted(CLASSES, made.predict(flat(pictures)))
    return Brought([str(folder / "svc.skops"), "--model-option", "last=true"], answers)


SERVICE = """
import numpy as np

KINDS = np.load("kinds.npy")  # a mean image for each class


def answers(images):
    \"\"\"The labels (N,) of images (N, H, W, C) in [0, 1], as anything may give them: here the nearest mean image.\"\"\"
    apart = (np.asarray(images)[:, None] - KINDS) ** 2
    return apart.sum((2, 3, 4)).argmin(1)
"""


def function(folder, pictures):
    some, labels = drawn(120, seed=2)
    images = stacked(some) / 255
    kinds = np.stack([images[labels == label].mean(0) for label in range(len(CLASSES))])
    np.save(folder / "kinds.npy", kinds)
    (folder / "service.py").write_text(SERVICE)
    apart = ((stacked(pictures) / 255)[:, None] - kinds) ** 2
    return Brought(["service"], apart.sum((2, 3, 4)).argmin(1))


@torch.no_grad()
def server(folder, pictures):
    """Drops a connection, answers 429 or breaks off now and then."""
    from endpoint_server import Server

    made = Whole().eval()
    faults = ["", "", "", "drop", *[""] * 40, "wait", "", "half", *[""] * 60, "503", "drop"] * 3
    running = Server(made, faults)
    answers = made(torch.from_numpy(stacked(pictures).transpose(0, 3, 1, 2).copy()).float() / 255).argmax(1).numpy()
    words = [running.url("png"), "--model-option", "answers=probabilities"]
    return Brought(words, answers, {"server": running, "faults": sum(map(bool, faults))})
