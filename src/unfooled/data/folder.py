"""A folder of images, one folder for each class."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from unfooled.data.base import Dataset
from unfooled.data.sizes import Size, as_bytes, fit_image
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
_GREY = {"1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N", "I"}
_LAYOUT = "The layout is FOLDER/CLASS/IMAGE: one folder for each class, named after it."


@dataclass(frozen=True)
class _Item:
    path: Path
    label: int


def load_folder(spec: Spec, resize: Size | None, crop: Size | None, classes: Mapping[str, int] | None) -> Dataset:
    """The images of ``FOLDER/CLASS/IMAGE`` as uint8, in the order of class and file name.

    RGB unless every image of the range is grey; transparency lies on white; EXIF orientation is applied;
    of an animation the first frame is taken.

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
    items = [_Item(path, indices[folder.name]) for folder in folders for path in _listing(folder) if _is_image(path)]
    if not items:
        raise _no_images(root, folders)
    rows = spec.rows(len(items), name)
    chosen = items[rows]
    if len(chosen) < len(items):
        name = f"{name}[{rows.start}:{rows.stop}]"
    return Dataset(
        images=_read_all(root, chosen, resize, crop),
        labels=torch.tensor([item.label for item in chosen]),
        classes=_names(indices),
        name=name,
        source=f"image folder {root}, {len(items)} images in {len(folders)} classes",
        files=tuple(item.path.relative_to(root).as_posix() for item in chosen),
    )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error}.") from error


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
    return DataError(f"{root} holds no images in its folders {_some([f.name for f in folders])}. {_LAYOUT}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _indices(root: Path, names: list[str], classes: Mapping[str, int] | None) -> dict[str, int]:
    """Class folder → label."""
    if classes is None:
        return {name: index for index, name in enumerate(names)}
    unnamed = [name for name in names if name not in classes]
    if unnamed:
        raise ParameterError(f"classes gives no index for the folders {_some(unnamed)} of {root}.")
    wrong = [
        name for name, index in classes.items() if isinstance(index, bool) or not isinstance(index, int) or index < 0
    ]
    if wrong:
        raise ParameterError(f"classes must give each folder an int >= 0; it does not for {_some(wrong)}.")
    return dict(classes)


def _names(indices: Mapping[str, int]) -> tuple[str, ...]:
    """The class names by index; an index that no folder has is named by its number."""
    named: dict[int, str] = {}
    for name, index in indices.items():
        named[index] = f"{named[index]} / {name}" if index in named else name
    return tuple(named.get(index, str(index)) for index in range(max(named) + 1))


def _read_all(root: Path, items: list[_Item], resize: Size | None, crop: Size | None) -> torch.Tensor:
    mode = "L" if all(_is_grey(root, item.path) for item in items) else "RGB"
    images: torch.Tensor | None = None
    deep = 0
    for row, item in enumerate(items):
        shown = item.path.relative_to(root).as_posix()
        image, was_deep = _read(item.path, f"{root}: {shown}", mode)
        deep += was_deep
        pixels = as_bytes(fit_image(image, resize, crop, f"{root}: {shown}"))
        if images is None:
            images = torch.empty((len(items), *pixels.shape), dtype=torch.uint8)
        if pixels.shape != images.shape[1:]:
            first = items[0].path.relative_to(root).as_posix()
            raise DataError(
                f"{root} holds images of different sizes: {first} is {_size(images[0])}, {shown} is "
                f"{_size(pixels)} (height × width). Set --resize (or --crop) to give them one."
            )
        images[row] = pixels
    assert images is not None  # an empty range was refused before
    if deep:
        warnings.warn(f"{root}: {deep} images of 16 bits were reduced to 8.", Note, stacklevel=4)
    return images


def _size(pixels: torch.Tensor) -> str:
    return f"{pixels.shape[1]}×{pixels.shape[2]}"


def _opened(path: Path, what: str) -> Image.Image:
    try:
        return Image.open(path)
    except UnidentifiedImageError as error:
        raise DataError(f"{what} is not an image that can be read.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{what} cannot be read: {error}.") from error


def _is_grey(root: Path, path: Path) -> bool:
    with _opened(path, f"{root}: {path.relative_to(root).as_posix()}") as image:
        return image.mode in _GREY


def _read(path: Path, what: str, mode: str) -> tuple[Image.Image, bool]:
    """The image in `mode`, upright and opaque; and whether it had 16 bits."""
    with _opened(path, what) as image:
        try:
            image.load()
            image = ImageOps.exif_transpose(image)
            deep = image.mode.startswith("I")
            if deep:
                image = _from_16_bits(image, what)
            return _opaque(image).convert(mode), deep
        except DataError:
            raise
        except Exception as error:  # Pillow's decoders raise many kinds on damaged files
            raise DataError(f"{what} is damaged: {error}.") from error


def _from_16_bits(image: Image.Image, what: str) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(f"{what} has values beyond 16 bits; save it with 8 or 16 bits.")
    return Image.fromarray(np.round(values / 257).astype(np.uint8))  # Pillow's own conversion would clip at 255


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image
