"""MNIST, Fashion-MNIST and CIFAR-10: where they are sought, how they are read, downloaded and refused."""

import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
import threading
from collections import OrderedDict
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from unfooled import data, errors
from unfooled.data import catalog

REAL = os.environ.get("UNFOOLED_DATA")
COUNTS = {"train": 25, "test": 10}
MNIST_TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    monkeypatch.setenv("UNFOOLED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("UNFOOLED_MIRROR", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("UNFOOLED_DATA", raising=False)


@pytest.fixture
def tiny(monkeypatch):
    """The same sets with a few images, and no package folder."""
    for name, case in list(catalog.SETS.items()):
        if not case.bundled:
            monkeypatch.setitem(catalog.SETS, name, replace(case, counts=COUNTS, package=None))


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def arrays(count, shape=(28, 28), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8), (np.arange(count) % 10).astype(np.uint8)


def put_idx(folder, split="test", pack=gzip.compress, suffix=".gz", seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = arrays(COUNTS[split], seed=seed)
    for name, array in zip(catalog.IDX_FILES[split], (images, labels), strict=True):
        (folder / (name + suffix)).write_bytes(pack(idx(array)))
    return images, labels


def put_cifar(folder):
    folder.mkdir(parents=True, exist_ok=True)
    kept = {}
    for number, name in enumerate([*catalog.CIFAR_BATCHES["train"], "test_batch"]):
        images, labels = arrays(10 if name == "test_batch" else 5, (3, 32, 32), seed=number)
        records = np.concatenate([labels[:, None], images.reshape(len(images), -1)], 1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
        kept[name] = images, labels
    return kept


# ---- where sets are found


@pytest.mark.parametrize("place", ["mnist", "mnist/raw", "MNIST/raw", ""])
@pytest.mark.parametrize(("pack", "suffix"), [(gzip.compress, ".gz"), (bytes, "")])
def test_mnist_in_every_layout(tiny, tmp_path, monkeypatch, place, pack, suffix):
    images, labels = put_idx(tmp_path / "d" / place, pack=pack, suffix=suffix)
    monkeypatch.setenv("UNFOOLED_DATA", str(tmp_path / "d"))
    ds = data.load("mnist", download=False)
    assert ds.name == "mnist:test"
    assert ds.source == str(tmp_path / "d" / place)
    assert torch.equal(ds.images, torch.from_numpy(images[:, None]))
    assert ds.labels.tolist() == labels.tolist()
    assert ds.classes == tuple("0123456789")
    assert data.load("MNIST:test:2-4", download=False).labels.tolist() == [2, 3]


def test_root_comes_before_the_environment(tiny, tmp_path, monkeypatch):
    put_idx(tmp_path / "env" / "mnist", seed=1)
    images, _ = put_idx(tmp_path / "root" / "mnist", seed=2)
    monkeypatch.setenv("UNFOOLED_DATA", str(tmp_path / "env"))
    assert torch.equal(data.load("mnist", root=tmp_path / "root").images[:, 0], torch.from_numpy(images))


def test_keras_npz(tiny, tmp_path):
    images, labels = arrays(10)
    np.savez(tmp_path / "mnist.npz", x_test=images, y_test=labels, x_train=images, y_train=labels)
    assert torch.equal(data.load("mnist", root=tmp_path).images[:, 0], torch.from_numpy(images))
    with pytest.raises(errors.DataError, match=r"mnist\.npz holds .*mnist:train is uint8 of shape \(25, 1, 28, 28"):
        data.load("mnist:train", root=tmp_path)
    np.savez(tmp_path / "mnist.npz", x_test=images, y_test=labels + 1)
    with pytest.raises(errors.DataError, match=r"label 10 at position 9; labels go from 0 to 9"):
        data.load("mnist", root=tmp_path)


def test_a_package_folder(tiny, tmp_path, monkeypatch):
    put_idx(tmp_path / "usr")
    case = replace(catalog.SETS["fashion-mnist"], package=("dataset-fashion-mnist", str(tmp_path / "usr")))
    monkeypatch.setitem(catalog.SETS, "fashion-mnist", case)
    ds = data.load("fashion-mnist", download=False)
    assert ds.source == f"Debian's package dataset-fashion-mnist, {tmp_path / 'usr'}"
    assert ds.classes[9] == "Ankle boot"


def test_missing_says_where_and_how(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("UNFOOLED_DATA", str(tmp_path / "nowhere"))
    case = replace(catalog.SETS["fashion-mnist"], package=("dataset-fashion-mnist", "/nonexistent"))
    monkeypatch.setitem(catalog.SETS, "fashion-mnist", case)
    with pytest.raises(errors.MissingData) as caught:
        data.load("fashion-mnist:train", download=False)
    text = str(caught.value)
    for part in [
        "fashion-mnist:train is not on this computer",
        f"{tmp_path / 'nowhere'} (no such folder)",
        str(tmp_path / "cache" / "data"),
        "apt-get install dataset-fashion-mnist",
        "UNFOOLED_DATA",
        "http://fashion-mnist.s3",
    ]:
        assert part in text
    assert "\n" not in text


def test_half_a_set_is_named(tiny, tmp_path):
    put_idx(tmp_path / "mnist")
    (tmp_path / "mnist" / f"{MNIST_TEST[1]}.gz").unlink()
    with pytest.raises(errors.MissingData, match=rf"has {MNIST_TEST[0]}.gz but no {MNIST_TEST[1]}"):
        data.load("mnist", root=tmp_path, download=False)


def test_one_set_is_not_taken_for_the_other(tiny, tmp_path):
    put_idx(tmp_path)
    heads = catalog.SETS["mnist"].begins["test"]
    (tmp_path / f"{MNIST_TEST[1]}.gz").write_bytes(gzip.compress(idx(np.array(heads, np.uint8))))
    with pytest.raises(errors.DataError, match="holds mnist, not fashion-mnist"):
        data.load("fashion-mnist", root=tmp_path, download=False)
    assert data.load("mnist", root=tmp_path).labels.tolist() == list(heads)


def test_bad_split():
    with pytest.raises(errors.ParameterError, match="'split' parameter of load must be 'train' or 'test' for mnist"):
        data.load("mnist:val")


# ---- damaged idx files

IMAGES = idx(arrays(10)[0])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not an idx file: it is empty"),
        (b"<!DOCTYPE html><html><body>404", "web page"),
        (b"\x89PNG\r\n", "begins with the bytes 89 50 4e 47"),
        (IMAGES[:9], "truncated within its header"),
        (IMAGES[:-1], "is truncated: it holds 7839 values where its header promises 7840"),
        (IMAGES + b"x", "has bytes after its end"),
        (idx(arrays(9)[0]), r"its shape is \(9, 28, 28\); \(10, 28, 28\) is needed"),
        (idx(arrays(10)[1]), "holds 1 dimensions"),
        (b"\0\0\x0d\3" + IMAGES[4:], "idx type 13"),
        (gzip.compress(IMAGES, mtime=0)[:-3], "damaged"),
        (gzip.compress(IMAGES, mtime=0)[:3000], "damaged"),
        (gzip.compress(IMAGES, mtime=0)[:-6] + b"\1\2\3\4\5\6", "damaged.*CRC"),
        (gzip.compress(IMAGES, mtime=0)[:20] + b"\xff" * 50 + gzip.compress(IMAGES)[70:], "damaged"),
        (gzip.compress(IMAGES, mtime=0)[:10] + b"\xff" + gzip.compress(IMAGES)[11:], "damaged.*block type"),
        (gzip.compress(b"<html>", mtime=0), "web page"),
    ],
)
def test_damaged_idx_files_are_named(tiny, tmp_path, content, says):
    put_idx(tmp_path / "mnist")
    bad = tmp_path / "mnist" / f"{MNIST_TEST[0]}.gz"
    bad.write_bytes(content)
    with pytest.raises(errors.DataError, match=says) as caught:
        data.load("mnist", root=tmp_path)
    assert str(caught.value).startswith(str(bad))
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, errors.MissingData)


def test_labels_beyond_nine(tiny, tmp_path):
    put_idx(tmp_path / "mnist")
    labels = np.array([0, 1, 2, 10, 4, 5, 6, 7, 8, 200], np.uint8)
    (tmp_path / "mnist" / f"{MNIST_TEST[1]}.gz").write_bytes(idx(labels))
    with pytest.raises(errors.DataError, match=r"t10k-labels.*label 10 at position 3"):
        data.load("mnist", root=tmp_path)


# ---- CIFAR-10


def test_cifar_binary(tiny, tmp_path):
    kept = put_cifar(tmp_path / "cifar-10-batches-bin")
    test = data.load("cifar10", root=tmp_path)
    assert torch.equal(test.images, torch.from_numpy(kept["test_batch"][0]))
    train = data.load("CIFAR-10:train", root=tmp_path)
    assert len(train) == 25
    assert torch.equal(train.images[20:], torch.from_numpy(kept["data_batch_5"][0]))
    assert train.labels[5:10].tolist() == [0, 1, 2, 3, 4]
    assert test.classes[:2] == ("airplane", "automobile")


def test_damaged_cifar_files_are_named(tiny, tmp_path):
    put_cifar(tmp_path / "cifar-10-batches-bin")
    bad = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    good = bad.read_bytes()
    for content, says in [
        (good[:-1], r"has 30729 bytes; 10 images need 30730"),
        (good + b"1", r"has 30731 bytes"),
        (b"<html>", "web page"),
        (good[:3073] + b"\x0b" + good[3074:], "label 11 at position 1"),
    ]:
        bad.write_bytes(content)
        with pytest.raises(errors.DataError, match=rf"test_batch\.bin.*{says}"):
            data.load("cifar10", root=tmp_path)


def old_pickle(images, labels):
    """As numpy 1 and Python 2 wrote CIFAR's files: protocol 2, byte strings, numpy.core."""
    content = pickle.dumps({b"data": images.reshape(len(images), -1), b"labels": labels}, protocol=2)
    return content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


@pytest.mark.parametrize(
    "dump", [old_pickle, lambda i, y: pickle.dumps({b"data": i.reshape(len(i), -1), b"labels": y})]
)
def test_cifar_pickles(tiny, tmp_path, dump):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    images, labels = arrays(10, (3, 32, 32))
    (folder / "test_batch").write_bytes(dump(images, labels.tolist()))
    ds = data.load("cifar10", root=tmp_path)
    assert torch.equal(ds.images, torch.from_numpy(images))
    assert ds.labels.tolist() == labels.tolist()
    ds.images[0] = 0  # writable, so that torch has nothing to warn of


class Evil:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (Path(self.target),)


IMAGES_C = arrays(10, (3, 32, 32))[0].reshape(10, -1)


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ({b"data": IMAGES_C, b"labels": OrderedDict()}, "this pickle wants collections.OrderedDict"),
        ({b"data": np.array([{}], object), b"labels": [0]}, "this pickle wants an array of dtype 'O8'"),
        ({b"data": IMAGES_C[:9], b"labels": [0] * 9}, r"not uint8 of shape \(10, 3072\)"),
        ({b"data": b"x", b"labels": [0] * 10}, "not uint8"),
        ({b"data": IMAGES_C, b"labels": [0] * 9}, "not 10 small integers"),
        ({b"data": IMAGES_C, b"labels": [0] * 9 + [300]}, "not 10 small integers"),
        ({b"data": IMAGES_C, b"labels": [0] * 9 + [10]}, "label 10 at position 9"),
        ({b"data": IMAGES_C}, "is not a CIFAR-10 Python batch"),
        ([1, 2], "is not a CIFAR-10 Python batch"),
    ],
)
def test_other_pickles_are_refused(tiny, tmp_path, batch, says):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(pickle.dumps(batch))
    with pytest.raises(errors.DataError, match=rf"test_batch.*{says}"):
        data.load("cifar10", root=tmp_path)


def test_a_pickle_runs_nothing(tiny, tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    target = tmp_path / "touched"
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": Evil(target)}))
    with pytest.raises(errors.DataError, match="this pickle wants"):
        data.load("cifar10", root=tmp_path)
    assert not target.exists()
    (folder / "test_batch").write_bytes(b"<html>")
    with pytest.raises(errors.DataError, match="web page"):
        data.load("cifar10", root=tmp_path)


# ---- downloads, from a server of our own


class Server:
    """Files by path; `cut` sends half of what it promised, `asked` is what was asked for."""

    def __init__(self):
        self.files, self.asked, self.encodings, self.cut = {}, [], set(), False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                outer.encodings.add(self.headers["Accept-Encoding"])
                content = outer.files.get(self.path)
                if content is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if outer.cut else content)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server(tiny, monkeypatch):
    server = Server()
    monkeypatch.setenv("UNFOOLED_MIRROR", server.url + "/")
    yield server
    server.http.shutdown()
    server.http.server_close()


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def mnist(server, monkeypatch):
    """MNIST's tiny test split on the server, its checksums known."""
    images, labels = arrays(10)
    sums = {}
    for name, array in zip(MNIST_TEST, (images, labels), strict=True):
        content = gzip.compress(idx(array))
        server.files[f"/mnist/{name}.gz"] = content
        sums[name] = md5(content)
    monkeypatch.setitem(catalog.SETS, "mnist", replace(catalog.SETS["mnist"], md5=sums))
    return images


def left_behind(tmp_path):
    return [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] + [
        path.name for path in (tmp_path / "cache").rglob(".download-*")
    ]


def test_download(server, mnist, tmp_path):
    seen = []
    ds = data.load("mnist[0:3]", progress=lambda *report: seen.append(report))
    assert torch.equal(ds.images[:, 0], torch.from_numpy(mnist[:3]))
    assert ds.source == str(tmp_path / "cache" / "data" / "mnist")
    size = len(server.files[f"/mnist/{MNIST_TEST[0]}.gz"])
    assert (f"{MNIST_TEST[0]}.gz", size, size) in seen
    assert len(server.asked) == 2
    assert sorted(left_behind(tmp_path)) == [f"{name}.gz" for name in MNIST_TEST]
    data.load("mnist")
    assert len(server.asked) == 2  # from the cache
    assert server.encodings == {"identity"}
    (tmp_path / "cache" / "data" / "mnist" / f"{MNIST_TEST[1]}.gz").unlink()
    data.load("mnist")
    assert server.asked[2:] == [f"/mnist/{MNIST_TEST[1]}.gz"]  # only what is missing


def test_no_download_where_told_so(server, mnist):
    with pytest.raises(errors.MissingData, match="not on this computer"):
        data.load("mnist", download=False)
    assert server.asked == []


def test_wrong_checksum_leaves_nothing(server, mnist, tmp_path):
    server.files[f"/mnist/{MNIST_TEST[0]}.gz"] = b"<html>a captive portal</html>"
    with pytest.raises(errors.DataError, match=r"gave another file than expected.*web page") as caught:
        data.load("mnist")
    assert not isinstance(caught.value, errors.MissingData)
    assert left_behind(tmp_path) == []


def test_broken_transfer_leaves_nothing(server, mnist, tmp_path):
    server.cut = True
    with pytest.raises(errors.MissingData, match=r"the transfer broke off.*UNFOOLED_DATA"):
        data.load("mnist")
    assert left_behind(tmp_path) == []
    server.cut = False
    assert len(data.load("mnist")) == 10


def test_not_found(server, mnist, tmp_path):
    server.files.clear()
    with pytest.raises(errors.MissingData, match=rf"{server.url}/mnist/.*the server answered 404.*To get it"):
        data.load("mnist")
    assert left_behind(tmp_path) == []


def test_no_network(tiny):
    with pytest.raises(errors.MissingData, match=r"the server cannot be reached.*Looked in .*UNFOOLED_DATA") as caught:
        data.load("mnist")
    assert "\n" not in str(caught.value)


def test_an_unwritable_cache(server, mnist, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(errors.OutputError, match=r"cannot be written.*UNFOOLED_CACHE"):
        data.load("mnist")


def tar_of(folder, extra=()):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for entry in extra:
            tar.addfile(entry)
        for path in sorted(folder.iterdir()):
            tar.add(path, f"cifar-10-batches-bin/{path.name}")
    return buffer.getvalue()


def serve_cifar(server, monkeypatch, content):
    case = catalog.SETS["cifar10"]
    archive = (case.archive[0], md5(content), *case.archive[2:])
    monkeypatch.setitem(catalog.SETS, "cifar10", replace(case, archive=archive))
    server.files["/cifar10/cifar-10-binary.tar.gz"] = content


def test_cifar_download_takes_only_its_members(server, tmp_path, monkeypatch):
    kept = put_cifar(tmp_path / "made")
    (tmp_path / "made" / "readme.html").write_text("hello")
    outside, link = tarfile.TarInfo("../../../escaped"), tarfile.TarInfo("x/test_batch.bin")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    serve_cifar(server, monkeypatch, tar_of(tmp_path / "made", [outside, link]))
    ds = data.load("cifar10")
    assert torch.equal(ds.images, torch.from_numpy(kept["test_batch"][0]))
    assert len(data.load("cifar10:train")) == 25
    assert len(server.asked) == 1
    assert sorted(left_behind(tmp_path)) == sorted(f"{name}.bin" for name in kept)
    assert not list(tmp_path.rglob("escaped"))


def test_cifar_download_that_lacks_a_member(server, tmp_path, monkeypatch):
    put_cifar(tmp_path / "made")
    (tmp_path / "made" / "data_batch_3.bin").unlink()
    serve_cifar(server, monkeypatch, tar_of(tmp_path / "made"))
    with pytest.raises(errors.DataError, match=r"cifar-10-binary.tar.gz lacks data_batch_3.bin"):
        data.load("cifar10")
    assert left_behind(tmp_path) == []


def test_cifar_download_that_is_no_tar(server, tmp_path, monkeypatch):
    serve_cifar(server, monkeypatch, b"hello")
    with pytest.raises(errors.DataError, match=r"not a readable tar"):
        data.load("cifar10")
    assert left_behind(tmp_path) == []


def test_the_cache_folder_follows_the_platform(monkeypatch, tmp_path):
    assert data.cache_folder() == tmp_path / "cache" / "data"
    monkeypatch.delenv("UNFOOLED_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if os.name == "posix" and os.uname().sysname == "Linux":
        assert data.cache_folder() == tmp_path / "xdg" / "unfooled" / "data"


# ---- the real sets


def real(spec):
    try:
        return data.load(spec, root=REAL and Path(REAL), download=False)
    except errors.MissingData as error:
        pytest.skip(f"{spec} is missing: {error}")


@pytest.mark.data
@pytest.mark.parametrize(
    ("spec", "shape", "begins"),
    [
        ("mnist:test", (10_000, 1, 28, 28), [7, 2, 1, 0]),
        ("mnist:train", (60_000, 1, 28, 28), [5, 0, 4, 1]),
        ("fashion-mnist:test", (10_000, 1, 28, 28), [9, 2, 1, 1]),
        ("fashion-mnist:train", (60_000, 1, 28, 28), [9, 0, 0, 3]),
        ("cifar10:test", (10_000, 3, 32, 32), [3, 8, 8, 0]),
        ("cifar10:train", (50_000, 3, 32, 32), [6, 9, 9, 4]),
    ],
)
def test_real_sets(spec, shape, begins):
    ds = real(spec)
    assert ds.images.shape == shape
    assert ds.labels[:4].tolist() == begins
    low, high = (5000, 7000) if "train" in spec and "cifar" not in spec else (800, 5001)
    counts = ds.labels.bincount(minlength=10)
    assert low <= counts.min() <= counts.max() <= high


@pytest.mark.data
def test_published_means():
    """The channel means that everyone uses for normalisation."""
    assert real("mnist:train").images.numpy().mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert real("fashion-mnist:train").images.numpy().mean() / 255 == pytest.approx(0.2860, abs=5e-5)
    means = real("cifar10:train").images.numpy().mean((0, 2, 3)) / 255
    assert means.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-4)


@pytest.mark.data
def test_the_sample_is_the_start_of_the_test_split():
    whole, sample = real("fashion-mnist:test[0:1000]"), data.load("fashion-mnist-sample")
    assert torch.equal(whole.images, sample.images)
    assert torch.equal(whole.labels, sample.labels)
    assert whole.classes == sample.classes
