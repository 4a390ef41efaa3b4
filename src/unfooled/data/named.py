"""The data sets that are known by name: what they hold, where they are sought, how they are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unfooled.data import catalog, gtsrb, npz
from unfooled.data.base import Dataset
from unfooled.data.catalog import NamedSet
from unfooled.data.checks import check_labels, refuse
from unfooled.data.cifar import read_binary, read_pickled
from unfooled.data.download import Progress, cache_folder, fetch, fetch_members
from unfooled.data.idx import read_idx
from unfooled.errors import MissingData, must_be

Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8]]
Reader = Callable[[NamedSet, str, Sequence[Path]], Arrays]
Layout = tuple[tuple[str, ...], Reader]  # the files that one folder must have, and how they are read


@dataclass(frozen=True)
class Found:
    """The files of one split, and how to read them."""

    paths: tuple[Path, ...]
    read: Reader
    source: str


@dataclass
class Search:
    """One search; `looked` collects the places for the message when it fails."""

    case: NamedSet
    split: str
    looked: list[str] = field(default_factory=list)

    def run(self, bases: Sequence[Path]) -> Found | None:
        """The first place that has every file.

        Loose files in a base come last: their names do not say which set they are.
        """
        layouts = _layouts(self.case, self.split)
        for base in bases:
            self.looked.append(str(base) if base.is_dir() else f"{base} (no such folder)")
            for folder in _existing(base, self.case.folders):
                if found := self._in(folder, layouts):
                    return found
            if found := self._in(base, _archives(self.case)):
                return found
        if self.case.package and (found := self._in(Path(self.case.package[1]), layouts)):
            return Found(found.paths, found.read, f"Debian's package {self.case.package[0]}, {found.source}")
        for base in bases:
            if found := self._in(base, layouts):
                return found
        return None

    def _in(self, folder: Path, layouts: Sequence[Layout]) -> Found | None:
        for files, read in layouts:
            paths = [_variant(folder, name) for name in files]
            there = [path for path in paths if path]
            if len(there) == len(files):
                return Found(tuple(there), read, str(folder))
            if there:
                absent = next(name for name, path in zip(files, paths, strict=True) if path is None)
                self.looked.append(f"{folder} (has {there[0].name} but no {absent})")
        return None


def load_named(case: NamedSet, split: str, root: Path | None, download: bool, progress: Progress | None) -> Dataset:
    """One whole split of a named set.

    Args:
        case: which set.
        split: which of its splits.
        root: the folder to look in instead of ``UNFOOLED_DATA``.
        download: whether it may be fetched into the cache when no place has it.
        progress: called while downloading.

    Raises:
        MissingData: no place has it, and it may not or cannot be downloaded.
        DataError: a file is damaged or is not what its name says.
    """
    if split not in case.counts:
        raise must_be("load", "split", " or ".join(map(repr, case.counts)) + f" for {case.name}", split)
    if case.bundled:
        with resources.as_file(resources.files("unfooled") / "assets" / case.bundled) as path:
            bundle = npz.read_npz(path, None)
        note = "bundled with unfooled: the first 1,000 test images of Fashion-MNIST"
        return Dataset(bundle.images, bundle.labels, case.classes, case.name, note)
    bases = [*_own_folder(root), cache_folder()]
    search = Search(case, split)
    found = search.run(bases)
    if found is None and download and case.fetched:
        try:
            _download(case, split, progress)
        except MissingData as error:
            raise MissingData(f"{error} {_advice(search)}") from error
        found = search.run(bases[-1:])
    if found is None:
        raise MissingData(f"{case.name}:{split} is not on this computer. {_advice(search)}")
    images, labels = found.read(case, split, found.paths)
    _check_identity(case, split, found.paths[-1], labels)
    return Dataset(
        torch.from_numpy(images),
        torch.from_numpy(labels.astype(np.int64)),
        case.classes,
        f"{case.name}:{split}",
        found.source,
    )


def _own_folder(root: Path | None) -> list[Path]:
    """What the user points at: `root`, else the environment's folder."""
    chosen = root or os.environ.get("UNFOOLED_DATA")
    return [Path(chosen).expanduser()] if chosen else []


def _existing(base: Path, folders: Sequence[str]) -> Iterator[Path]:
    return (base / folder for folder in folders if (base / folder).is_dir())


def _variant(folder: Path, name: str) -> Path | None:
    """The file under this name, gzipped, or as other unpackers spell it (t10k-images.idx3-ubyte)."""
    for candidate in (name, f"{name}.gz", name.replace("-idx", ".idx"), name.replace("-idx", ".idx") + ".gz"):
        if (folder / candidate).is_file():
            return folder / candidate
    return None


def _layouts(case: NamedSet, split: str) -> list[Layout]:
    """The ways in which the set's own folder may hold the split."""
    if case.name == "gtsrb":
        return [*gtsrb.archives(), *gtsrb.layouts(split)]
    if case.archive is None:
        return [(catalog.IDX_FILES[split], _from_idx), *_archives(case)]
    batches = catalog.CIFAR_BATCHES[split]
    binary = tuple(f"{name}.bin" for name in batches)
    return [(binary, _from_binary), (batches, _from_pickles), *_archives(case)]


def _archives(case: NamedSet) -> list[Layout]:
    """The set as one npz file, as Keras names it."""
    if case.name == "gtsrb":
        return gtsrb.archives()
    return [((f"{name}.npz",), _from_npz) for name in sorted({case.name, case.name.replace("-", "_")})]


def _from_idx(case: NamedSet, split: str, paths: Sequence[Path]) -> Arrays:
    count = case.counts[split]
    images, labels = read_idx(paths[0], (count, *case.shape[1:])), read_idx(paths[1], (count,))
    check_labels(paths[1], labels, len(case.classes))
    return images[:, None], labels


def _from_binary(case: NamedSet, split: str, paths: Sequence[Path]) -> Arrays:
    return _joined(case, split, paths, read_binary)


def _from_pickles(case: NamedSet, split: str, paths: Sequence[Path]) -> Arrays:
    return _joined(case, split, paths, read_pickled)


def _joined(case: NamedSet, split: str, paths: Sequence[Path], read: Callable[[Path, int], Arrays]) -> Arrays:
    parts = [read(path, case.counts[split] // len(paths)) for path in paths]
    for path, (_, labels) in zip(paths, parts, strict=True):
        check_labels(path, labels, len(case.classes))
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _from_npz(case: NamedSet, split: str, paths: Sequence[Path]) -> Arrays:
    bundle = npz.read_npz(paths[0], split)
    if tuple(bundle.images.shape) != (case.counts[split], *case.shape) or bundle.images.dtype != torch.uint8:
        needed = (case.counts[split], *case.shape)
        raise refuse(
            paths[0],
            f"holds {bundle.images.dtype} of shape {tuple(bundle.images.shape)}; "
            f"{case.name}:{split} is uint8 of shape {needed}",
        )
    check_labels(paths[0], bundle.labels.numpy(), len(case.classes))
    return np.asarray(bundle.images), bundle.labels.numpy().astype(np.uint8)


def _check_identity(case: NamedSet, split: str, path: Path, labels: NDArray[np.uint8]) -> None:
    """MNIST and Fashion-MNIST have the same file names and sizes: the first labels tell them apart."""
    begins = tuple(labels[:10].tolist())
    for other in catalog.SETS.values():
        if other.name != case.name and other.begins.get(split) == begins:
            raise refuse(path, f"holds {other.name}, not {case.name}")


def _download(case: NamedSet, split: str, progress: Progress | None) -> None:
    cache = cache_folder()
    if case.archive:
        file, md5, folder, members = case.archive
        fetch_members(_address(case, file), cache / folder, members, md5, progress)
        return
    for file in catalog.IDX_FILES[split]:
        target = cache / case.name / f"{file}.gz"
        if not target.exists():
            fetch(_address(case, target.name), target, case.md5[file], progress)


def _address(case: NamedSet, file: str) -> str:
    mirror = os.environ.get("UNFOOLED_MIRROR")
    base = f"{mirror.rstrip('/')}/{case.name}/" if mirror else case.url
    return base + file


def _advice(search: Search) -> str:
    """Where it was sought, and the ways to get it."""
    case = search.case
    ways = [f"set UNFOOLED_DATA to the folder that holds {case.folders[0]}/", f"download it from {case.url}"]
    if case.package:
        ways.insert(0, f"apt-get install {case.package[0]}")
    return f"Looked in {', '.join(dict.fromkeys(search.looked))}. To get it: {'; or '.join(ways)}."


def sets() -> Mapping[str, NamedSet]:
    """The known sets by name."""
    return catalog.SETS
