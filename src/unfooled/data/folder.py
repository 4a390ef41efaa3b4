"""A folder of images, one folder for each class."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from unfooled.data.base import Dataset
from unfooled.data.columns import check_indices, listed, named
from unfooled.data.pictures import OnDisk, load_pictures
from unfooled.data.sizes import Size
from unfooled.data.spec import Spec
from unfooled.errors import DataError, Note, ParameterError

_SUFFIXES = {
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
    ".webp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
}
_LAYOUT = "The layout is FOLDER/CLASS/IMAGE: one folder for each class, named after it."


@dataclass(frozen=True)
class _Item:
    path: Path
    label: int


def load_folder(spec: Spec, resize: Size | None, crop: Size | None, classes: Mapping[str, int] | None) -> Dataset:
    """The images of ``FOLDER/CLASS/IMAGE``, in the order of class and file name, as `load_pictures` reads them.

    Args:
        spec: the folder, a split (a folder in it) and the range; files outside the range are not opened.
        resize, crop: as `unfooled.data.load`.
        classes: the index of each class folder; by default their place in sorted order.

    Raises:
        DataError: the layout is another, an image cannot be read, or sizes differ; says which.
        ParameterError: the range leaves the folder, or `classes` lacks a folder.
    """
    root = Path(spec.name).expanduser()
    name = spec.name
    if spec.split:
        root, name = root / spec.split, f"{spec.name}:{spec.split}"
        if not root.is_dir():
            raise ParameterError(f"{spec.name} holds no folder {spec.split!r}.")
    folders = _class_folders(root)
    indices = _indices(root, [folder.name for folder in folders], classes)
    inside = [(path, indices[folder.name]) for folder in folders for path in _listing(folder)]
    items = [_Item(path, label) for path, label in inside if _is_image(path)]
    if not items:
        raise _no_images(root, folders)
    _note_deeper(root, [path for path, _ in inside if path.is_dir()])
    rows = spec.rows(len(items), name)
    chosen = items[rows]
    if len(chosen) < len(items):
        name = f"{name}[{rows.start}:{rows.stop}]"
    files = tuple(item.path.relative_to(root).as_posix() for item in chosen)
    return Dataset(
        images=load_pictures(OnDisk(str(root), tuple(item.path for item in chosen), files), resize, crop),
        labels=torch.tensor([item.label for item in chosen]),
        classes=named(indices),
        name=name,
        source=f"image folder {root}, {len(items)} images in {len(folders)} classes",
        files=files,
    )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error}.") from error


def _note_deeper(root: Path, folders: list[Path]) -> None:
    """Say that images lie deeper than those of the classes: they are left out, and their folder may be no class."""
    first = next((path for folder in folders for path in _listing(folder) if _is_image(path)), None)
    if first is not None:
        warnings.warn(
            f"{root} holds images deeper than in its class folders, such as {first.relative_to(root)}: they are left out, "
            f"and {first.relative_to(root).parts[0]!r} counts as a class. {_LAYOUT}",
            Note,
            stacklevel=4,
        )


def _class_folders(root: Path) -> list[Path]:
    inside = _listing(root)
    folders = [path for path in inside if path.is_dir() and path.name[0] not in "._"]
    if folders:
        return folders
    if any(_is_image(path) for path in inside):
        raise DataError(f"{root} holds images but no class folders. {_LAYOUT}")
    raise DataError(f"{root} holds no images. {_LAYOUT}")


def _no_images(root: Path, folders: list[Path]) -> DataError:
    for folder in folders:
        if any(_is_image(path) for path in folder.glob("*/*")):
            return DataError(
                f"{root} holds images only one level deeper: to read its part {folder.name!r}, "
                f"give {root}:{folder.name}. {_LAYOUT}"
            )
    return DataError(f"{root} holds no images in its folders {listed([f.name for f in folders])}. {_LAYOUT}")


def _indices(root: Path, names: list[str], classes: Mapping[str, int] | None) -> dict[str, int]:
    """Class folder → label."""
    if classes is None:
        return {name: index for index, name in enumerate(names)}
    unnamed = [name for name in names if name not in classes]
    if unnamed:
        raise ParameterError(f"classes gives no index for the folders {listed(unnamed)} of {root}.")
    check_indices(classes)
    return dict(classes)
