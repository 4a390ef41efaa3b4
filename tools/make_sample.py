"""Write the bundled sample: the first 1,000 test images of Fashion-MNIST.

Needs Debian's package dataset-fashion-mnist: python tools/make_sample.py [TARGET]
The bytes are the same at every run.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np

from unfooled import data

TARGET = Path(__file__).parent.parent / "src" / "unfooled" / "assets" / "fashion-mnist-sample.npz"
DEBIAN = Path("/usr/share/datasets")  # holds fashion-mnist/
PROVENANCE = """\
Images 0 to 999 (in order) of the test split of Fashion-MNIST, unchanged, and their labels.
Authors: Han Xiao, Kashif Rasul, Roland Vollgraf. "Fashion-MNIST: a novel image dataset for
benchmarking machine learning algorithms", 2017, arXiv:1708.07747.
https://github.com/zalandoresearch/fashion-mnist
Taken from Debian's package dataset-fashion-mnist. License: MIT (Expat).

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def packed(arrays: dict[str, np.ndarray]) -> bytes:
    """An npz file with fixed dates, so that equal arrays give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content.getvalue(), compresslevel=9)
    return buffer.getvalue()


def main() -> None:
    """Write the sample to the path given, or to its place in the package."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    sample = data.load("fashion-mnist:test[0:1000]", root=DEBIAN, download=False)
    target.write_bytes(
        packed(
            {
                "images": sample.images[:, 0].numpy(),
                "labels": sample.labels.numpy().astype(np.uint8),
                "classes": np.array(sample.classes),
                "provenance": np.array(PROVENANCE),
            }
        )
    )
    print(f"{target}: {target.stat().st_size} bytes, {len(sample)} images from {sample.source}")


if __name__ == "__main__":
    main()
