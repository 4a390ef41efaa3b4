"""What is known of the named data sets: contents, files, checksums, terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
GTSRB = (
    *(f"speed limit {limit}" for limit in (20, 30, 50, 60, 70, 80)),
    "end of limit 80",
    *(f"speed limit {limit}" for limit in (100, 120)),
    "no overtaking",
    "no overtaking by lorries",
    "priority at the next crossing",
    "priority road",
    "give way",
    "stop",
    "no vehicles",
    "no lorries",
    "no entry",
    "danger",
    "bend to the left",
    "bend to the right",
    "double bend",
    "uneven road",
    "slippery road",
    "road narrows on the right",
    "road works",
    "traffic lights",
    "pedestrians",
    "children",
    "cyclists",
    "ice or snow",
    "wild animals",
    "end of all limits",
    "turn right ahead",
    "turn left ahead",
    "straight on",
    "straight on or right",
    "straight on or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no overtaking",
    "end of no overtaking by lorries",
)
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# images and labels, in this order
IDX_FILES: Mapping[str, tuple[str, ...]] = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
CIFAR_BATCHES: Mapping[str, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test": ("test_batch",),
}


@dataclass(frozen=True)
class NamedSet:
    """One named data set.

    Attributes:
        name: what it is called in a spec.
        about: one line.
        classes: the class names.
        counts: how many images each split has.
        shape: (C, H, W) of an image.
        terms: the licence, or what is said about it.
        folders: where it is sought below a base folder.
        url: the official place, ending in a slash; a page to read where nothing is fetched by itself.
        md5: of each file as downloaded, by the name without ``.gz``.
        archive: for a set that comes as one tar: file, md5, the folder it becomes, members.
        package: the Debian package and its folder.
        begins: the first ten labels of each split, which tell sets of the same format apart.
        bundled: the file of this package that holds it.
    """

    name: str
    about: str
    classes: tuple[str, ...]
    counts: Mapping[str, int]
    shape: tuple[int, int, int]
    terms: str
    folders: tuple[str, ...] = ()
    url: str = ""
    md5: Mapping[str, str] = field(default_factory=dict)
    archive: tuple[str, str, str, tuple[str, ...]] | None = None
    package: tuple[str, str] | None = None
    begins: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    bundled: str = ""

    @property
    def fetched(self) -> bool:
        """Whether it is downloaded when no place has it; else the user puts it there."""
        return bool(self.archive or self.md5)

    @property
    def images(self) -> int:
        """The number of images in all splits together."""
        return sum(self.counts.values())


_MNIST = NamedSet(
    name="mnist",
    about="handwritten digits, 28×28 grey (LeCun, Cortes, Burges 1998)",
    classes=DIGITS,
    counts={"train": 60_000, "test": 10_000},
    shape=(1, 28, 28),
    terms="CC BY-SA 3.0 as usually stated",
    folders=("mnist", "mnist/raw", "MNIST/raw", "MNIST"),
    url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    md5={
        "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    begins={"train": (5, 0, 4, 1, 9, 2, 1, 3, 1, 4), "test": (7, 2, 1, 0, 4, 1, 4, 9, 5, 9)},
)

_FASHION = NamedSet(
    name="fashion-mnist",
    about="articles of clothing, 28×28 grey (Xiao, Rasul, Vollgraf 2017)",
    classes=FASHION,
    counts={"train": 60_000, "test": 10_000},
    shape=(1, 28, 28),
    terms="MIT, © 2017 Zalando SE",
    folders=(
        "fashion-mnist",
        "fashion-mnist/raw",
        "FashionMNIST/raw",
        "FashionMNIST",
        "fashion_mnist",
        "fashion_mnist/raw",
    ),
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    md5={
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
    },
    package=("dataset-fashion-mnist", "/usr/share/datasets/fashion-mnist"),
    begins={"train": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5), "test": (9, 2, 1, 1, 6, 1, 4, 6, 5, 7)},
)

_CIFAR10 = NamedSet(
    name="cifar10",
    about="small photographs of ten kinds of things, 32×32 colour (Krizhevsky 2009)",
    classes=CIFAR10,
    counts={"train": 50_000, "test": 10_000},
    shape=(3, 32, 32),
    terms="no formal licence; cite Krizhevsky 2009",
    folders=(
        "cifar-10-batches-bin",
        "cifar-10-batches-py",
        "cifar10/cifar-10-batches-bin",
        "cifar10/cifar-10-batches-py",
        "cifar10",
    ),
    url="https://www.cs.toronto.edu/~kriz/",
    archive=(
        "cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar-10-batches-bin",
        tuple(f"{name}.bin" for names in CIFAR_BATCHES.values() for name in names),
    ),
)

_GTSRB = NamedSet(
    name="gtsrb",
    about="German traffic signs, 43 kinds, colour photographs shrunk to 32×32 (Stallkamp et al. 2012)",
    classes=GTSRB,
    counts={"train": 39_209, "test": 12_630},
    shape=(3, 32, 32),
    terms="free for research; cite Stallkamp et al. 2012",
    folders=("GTSRB", "gtsrb", "gtsrb/GTSRB", "GTSRB/GTSRB"),
    url="https://benchmark.ini.rub.de/gtsrb_dataset.html",
)

_SAMPLE = NamedSet(
    name="fashion-mnist-sample",
    about="the first 1,000 test images of fashion-mnist, bundled: works offline",
    classes=FASHION,
    counts={"test": 1_000},
    shape=(1, 28, 28),
    terms="MIT, © 2017 Zalando SE",
    bundled="fashion-mnist-sample.npz",
)

SETS: dict[str, NamedSet] = {case.name: case for case in (_MNIST, _FASHION, _CIFAR10, _GTSRB, _SAMPLE)}
