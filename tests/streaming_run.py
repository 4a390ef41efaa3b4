"""Evaluate N made images of one size in shards; print the peak memory of the process in MiB.

Run by test_streaming: memory has a peak per process, so each size gets one of its own.
"""

import json
import resource
import sys

import torch

import unfooled as uf
from unfooled import evaluation
from unfooled.data.lazy import Lazy, Source


class Made(Source):
    """Grey images, each with one channel a little lighter. It counts the rows that are asked for at once."""

    def __init__(self, count: int, side: int) -> None:
        self.shape, self.dtype, self.most = (count, 3, side, side), torch.uint8, 0

    def read(self, rows: torch.Tensor) -> torch.Tensor:
        self.most = max(self.most, len(rows))
        images = torch.empty((len(rows), *self.shape[1:]), dtype=torch.uint8)
        for at, row in enumerate(rows.tolist()):
            images[at] = 126 + row % 5
            images[at, row % 3] += 3
        return images


class Brightest(torch.nn.Module):
    """The channel with the largest mean."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(60 * torch.eye(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) @ self.weight


def main(count: int, side: int, shard: int, out: str) -> None:
    torch.set_num_threads(1)
    evaluation.SHARD = shard
    source = Made(count, side)
    rows = torch.arange(count)
    labels = torch.where(rows % 32 == 0, rows % 3, (rows + 1) % 3)  # most are wrong, so that little is attacked
    data = uf.data.Dataset(Lazy.of(source), labels, ("red", "green", "blue"), "made", "made in the test")
    found = uf.evaluate(Brightest(), data, "linf:4/255", "quick", out=out)
    said = {
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "examples": len(found.examples),
        "clean": found.clean_accuracy.value,
        "robust": found.robust_accuracy.attacked.value,
        "most": source.most,
        "pictures": sum(len(gallery.pictures) for gallery in found.galleries),
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), sys.argv[4])
