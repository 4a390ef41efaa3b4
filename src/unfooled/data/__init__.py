"""What the user has, as images and labels: named data sets, image folders, tables, ``.npz`` files, the hub's data sets."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from unfooled import errors
from unfooled.data.base import Dataset
from unfooled.data.catalog import NamedSet
from unfooled.data.columns import Chosen, Columns
from unfooled.data.download import Progress, cache_folder
from unfooled.data.folder import load_folder
from unfooled.data.given import Given, given
from unfooled.data.hub import PREFIX, is_hub_folder, load_hub
from unfooled.data.lazy import Fitted, Held, Lazy, is_large
from unfooled.data.named import load_named, sets
from unfooled.data.npz import read_npz
from unfooled.data.sizes import Size, check_size, fit_batch
from unfooled.data.spec import Spec, as_path, parse
from unfooled.data.table import SUFFIXES, holds_pictures, load_table

__all__ = [
    "Dataset",
    "Given",
    "Lazy",
    "NamedSet",
    "Progress",
    "Size",
    "cache_folder",
    "cases",
    "given",
    "load",
    "names",
]


def load(
    spec: str | Path,
    *,
    root: Path | None = None,
    download: bool = True,
    resize: Size | None = None,
    crop: Size | None = None,
    classes: Mapping[str, int] | None = None,
    columns: Columns | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Load what a spec names: ``NAME[:split][range]``.

    ``mnist``, ``mnist:train[0:1000]``, ``cifar10:test:0-1000``, ``photos/``, ``photos:val[0:50]``, ``images.npz``,
    ``images.npz:train``, ``table.csv``, ``table.parquet:test``, ``hf:ORG/NAME:validation[0:500]``, ``hf:FOLDER``. A range
    is half-open. The default split is ``test``. Of a set whose images are many, they are read as they are asked for.

    Args:
        spec: the name of a data set (`names`), the path of an image folder, an ``.npz`` file or a table of paths and
            labels (``.csv``, ``.tsv``, ``.parquet``), or ``hf:`` and the name or folder of a Hugging Face data set.
        root: where named sets are sought first, instead of in ``UNFOOLED_DATA``.
        download: whether a named set may be fetched into the cache (`cache_folder`) when no place has it.
        resize: the shorter side, or (height, width) exactly; bilinear with antialias.
        crop: a centre crop, after resizing.
        classes: for image folders, tables and the hub's data sets, the model's index for each class by its name.
        columns: for tables and the hub's data sets, which columns hold what: ``image=scan,label=diagnosis`` or a mapping.
        progress: called as ``progress(file, bytes, bytes_in_all)`` while downloading.

    Raises:
        UnknownName: no data set and no path has this name.
        MissingData: a named set is nowhere to be had, or a path does not exist.
        MissingExtra: what reads such a file is not installed.
        DataError: a file is damaged or not what is needed; names it.
        ParameterError: the range, the split or an option is not what it must be.
    """
    check_size("resize", resize)
    check_size("crop", crop)
    chosen = Chosen.of(columns)
    text = str(spec)
    if text.startswith(PREFIX):
        return load_hub(parse(text.removeprefix(PREFIX)), resize, crop, classes, chosen)
    wanted = parse(text)
    path = as_path(wanted.name)
    known = {_plain(name): case for name, case in sets().items()}
    case = known.get(_plain(wanted.name))
    if case is None and _is_hub(path):
        return load_hub(wanted, resize, crop, classes, chosen)
    if case is None and path.suffix.lower() in SUFFIXES and path.is_file():
        return load_table(wanted, resize, crop, classes, chosen)
    if columns is not None:
        raise errors.must_be("load", "columns", "left out unless the data are a table or of the hub", columns)
    if case is None and path.is_dir():
        return load_folder(wanted, resize, crop, classes)
    if classes is not None:
        what = "left out unless the data are an image folder, a table or of the hub"
        raise errors.must_be("load", "classes", what, classes)
    if case is not None:
        whole = load_named(case, wanted.split or "test", root, download, progress)
    else:
        whole = _from_file(wanted, path)
    part = _part(whole, wanted)
    return replace(part, images=_sized(part.images, resize, crop, part.name))


def cases() -> tuple[NamedSet, ...]:
    """The named data sets: `name`, `about` (one line), `counts` by split, `images` in all, `terms`."""
    return tuple(sets().values())


def names() -> tuple[str, ...]:
    """The names of the named data sets."""
    return tuple(sets())


def _plain(name: str) -> str:
    """CIFAR-10, cifar_10 and cifar10 are one name; a text with a slash or dot is a path and never matches."""
    return re.sub(r"[-_ ]", "", name.lower())


def _is_hub(path: Path) -> bool:
    """Whether a path holds what `datasets` reads: parquet files of images, or what it saved."""
    if path.is_dir():
        return is_hub_folder(path)
    return path.suffix.lower() in (".parquet", ".pq") and path.is_file() and holds_pictures(path)


def _from_file(wanted: Spec, path: Path) -> Dataset:
    if not path.exists():
        if path.suffix.lower() in (".npz", *SUFFIXES) or re.search(r"[/\\]", wanted.name):
            raise errors.MissingData(f"There is no file or folder {wanted.name!r}.")
        raise errors.unknown("data set", wanted.name, names())
    if path.suffix.lower() != ".npz":
        raise errors.DataError(
            f"{wanted.name} is neither an image folder nor an .npz file (arrays images and labels) nor a table "
            f"({', '.join(SUFFIXES)})."
        )
    arrays = read_npz(path, wanted.split)
    name = f"{wanted.name}:{arrays.split}" if arrays.split else wanted.name
    return Dataset(arrays.images, arrays.labels, arrays.classes, name, f"file {path}")


def _part(whole: Dataset, wanted: Spec) -> Dataset:
    """The range; its own copy, so that the rest of the set is let go."""
    part = whole[wanted.rows(len(whole), whole.name)]
    if part is whole or isinstance(part.images, Lazy):
        return part
    return replace(part, images=part.images.clone(), labels=part.labels.clone())


def _sized(images: Tensor | Lazy, resize: Size | None, crop: Size | None, name: str) -> Tensor | Lazy:
    """Resized and cropped; where the result is large, when its rows are asked for."""
    if resize is None and crop is None:
        return images
    later = Lazy.of(Fitted(images if isinstance(images, Lazy) else Lazy.of(Held(images)), resize, crop, name))
    if isinstance(images, Lazy) or is_large(math.prod(later.shape) * later.dtype.itemsize):
        return later
    return fit_batch(images, resize, crop, name)
