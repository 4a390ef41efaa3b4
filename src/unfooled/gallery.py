"""The pictures that a report of an evaluation shows: what fooled, with the smallest and the largest changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .album import Album
from .board import Question
from .data import Given
from .results import Gallery
from .store import RunFolder, shard_file


def galleries(folder: RunFolder, q: Question, source: Given, evidence: Mapping[str, np.ndarray]) -> list[Gallery]:
    """Of images that can be shown as such; their arrays go into the folder."""
    hit = np.flatnonzero(evidence["success"])
    if not len(hit) or q.images.dim() != 4 or q.images.shape[1] not in (1, 3) or not q.threat.unit_range:
        return []
    place = {int(name): at for at, name in enumerate(q.names.tolist())}
    rows = torch.tensor([place[int(name)] for name in evidence["example"]])
    points = _points(folder, q, place)
    hit = hit[np.argsort(evidence["distance"][hit], kind="stable")]
    album = Album(source.classes)

    def pictures(some: np.ndarray) -> list[Any]:
        found = []
        for at in some.tolist():
            row = rows[at : at + 1]
            found += album.add(
                q.model, q.images[row], points[row], q.labels[row], q.names[row], q.threat,
                str(evidence["fooled_by"][at]), "the model",
            )  # fmt: skip
        return found

    shown = [
        Gallery(id="triptych", title="What the attacks do", kind="triptych", pictures=pictures(hit[:3])),
        Gallery(id="smallest", title="The smallest changes that fooled", kind="grid", pictures=pictures(hit[:8])),
        Gallery(id="largest", title="The largest changes that fooled", kind="grid", pictures=pictures(hit[-8:][::-1])),
    ]
    folder.write_arrays("pictures.safetensors", album.arrays())
    return shown


def _points(folder: RunFolder, q: Question, place: Mapping[int, int]) -> Tensor:
    points = q.images.clone()
    for number in sorted(folder.shards()):
        held = folder.arrays(shard_file(number))
        at = torch.tensor([place[int(name)] for name in held["example"]])
        points[at] = torch.from_numpy(held["adversarial"]).to(points.dtype)
    return points
