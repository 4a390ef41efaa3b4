"""The pictures that a report of an evaluation shows: what fooled, with the smallest and the largest changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .album import Album
from .board import Question
from .data import Given
from .results import Gallery
from .store import RunFolder, shard_file


def galleries(folder: RunFolder, q: Question, source: Given, evidence: Mapping[str, np.ndarray]) -> list[Gallery]:
    """Of images that can be shown as such; their arrays go into the folder."""
    hit = np.flatnonzero(evidence["success"])
    if not len(hit) or len(q.images.shape) != 4 or q.images.shape[1] not in (1, 3) or not q.threat.unit_range:
        return []
    place = {int(name): at for at, name in enumerate(q.names.tolist())}
    rows = torch.tensor([place[int(name)] for name in evidence["example"]])
    where = _places(folder)
    hit = hit[np.argsort(evidence["distance"][hit], kind="stable")]
    album = Album(source.classes)

    def pictures(some: np.ndarray) -> list[Any]:
        found = []
        for at in some.tolist():
            row = rows[at : at + 1]
            clean = q.images[row]
            point = torch.from_numpy(folder.some(*where[int(evidence["example"][at])])).to(clean.dtype)
            found += album.add(
                q.model,
                clean,
                point,
                q.labels[row],
                q.names[row],
                q.threat,
                str(evidence["fooled_by"][at]),
                "the model",
            )
        return found

    shown = [
        Gallery(id="triptych", title="What the attacks do", kind="triptych", pictures=pictures(hit[:3])),
        Gallery(id="smallest", title="The smallest changes that fooled", kind="grid", pictures=pictures(hit[:8])),
        Gallery(id="largest", title="The largest changes that fooled", kind="grid", pictures=pictures(hit[-8:][::-1])),
    ]
    folder.write_arrays("pictures.safetensors", album.arrays())
    return shown


def _places(folder: RunFolder) -> dict[int, tuple[str, str, int]]:
    """Where the adversarial image of each example lies: the file, the array in it and the row."""
    files = [shard_file(number) for number in sorted(folder.shards())]
    return {
        int(example): (name, "adversarial", row)
        for name in files
        for row, example in enumerate(folder.some(name, "example"))
    }
