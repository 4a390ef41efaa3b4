"""Images to answers, by what is kept where it suffices and by asking where it does not."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .answers import Reader
from .calls import Caller
from .kept import Kept
from .requested import Form

Question = tuple[bytes, int]  # an image by the hash of its bytes, and the how manieth time it is asked


class Endpoint:
    """A function from images (N, *shape) in [0, 1] to scores (N, C) in float64, or labels (N,) in int64.

    form, reader, caller, kept:  how images are sent, answers read, requests made, answers kept.
    repeats:   the k-th time that this process asks about one image it gets the k-th answer, up to this number; from then
               on the last of them, if they are all the same, and a new one if they are not.
    parallel:  requests at once.
    remake:    makes the same once more, in another process: no connection, lock or secret is pickled.

    For many threads. Raises `ModelError`, `OutputError`.
    """

    def __init__(
        self,
        form: Form,
        reader: Reader,
        caller: Caller,
        kept: Kept,
        repeats: int,
        parallel: int,
        remake: tuple[Callable[..., Any], tuple[Any, ...]],
    ) -> None:
        self.form, self.reader, self.caller, self.kept = form, reader, caller, kept
        self.repeats, self.parallel, self._remake = repeats, parallel, remake

    def __repr__(self) -> str:
        return f"Endpoint({self.caller.address.shown!r})"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._remake

    def __deepcopy__(self, memo: Any) -> Endpoint:
        return self

    def __call__(self, images: Tensor) -> NDArray[Any]:
        """The answers on images."""
        payloads = self.form.payloads(images)
        keys = [hashlib.sha256(payload).digest()[:16] for payload in payloads]
        asked: Counter[bytes] = Counter()
        numbers = []
        for key in keys:
            asked[key] += 1
            numbers.append(self.kept.times(key) + asked[key])
        content = dict(zip(keys, payloads, strict=True))
        rows: dict[Question, NDArray[Any]] = {}
        some = dict.fromkeys((k, n) for k, n in zip(keys, numbers, strict=True) if n <= self.repeats)
        rows |= self._answered(list(some), content)
        chosen = [(k, n if n <= self.repeats else self._late(k, n)) for k, n in zip(keys, numbers, strict=True)]
        rows |= self._answered([one for one in dict.fromkeys(chosen) if one not in rows], content)
        self.kept.heard(keys)
        if not chosen:
            return np.zeros((0,) if self.reader.answers == "labels" else (0, self.reader.count or 2))
        return np.stack([rows[one] for one in chosen])

    def _late(self, key: bytes, number: int) -> int:
        """The answer that a question beyond `repeats` gets: the last, or where they differ, one of its own."""
        first = [self.reader.row(json.loads(text)) for text in self.kept.answers(key, self.repeats)]
        return self.repeats if all(self.reader.alike(one, other) for one, other in pairwise(first)) else number

    def _answered(self, wanted: Sequence[Question], content: dict[bytes, bytes]) -> dict[Question, NDArray[Any]]:
        rows, missing = {}, []
        for one in wanted:
            text = self.kept.answer(*one)
            if text is None:
                missing.append(one)
            else:
                rows[one] = self.reader.row(json.loads(text))
        size = self.form.batch or 1
        parts = [missing[at : at + size] for at in range(0, len(missing), size)]
        stop = threading.Event()
        if len(parts) <= 1 or self.parallel == 1:
            for part in parts:
                rows |= self._asked(part, content, stop)
            return rows
        with ThreadPoolExecutor(min(self.parallel, len(parts)), "endpoint") as pool:
            waiting = [pool.submit(self._asked, part, content, stop) for part in parts]
            try:
                for ended in sorted(wait(waiting, return_when=FIRST_EXCEPTION).done, key=_went_well):
                    rows |= ended.result()
            finally:
                stop.set()  # those under way end, and what they bring is kept
                for other in waiting:
                    other.cancel()
        return rows

    def _asked(
        self, part: Sequence[Question], content: dict[bytes, bytes], stop: threading.Event
    ) -> dict[Question, NDArray[Any]]:
        """Ask about the images of one request, and keep the answers before anything else is done with them."""
        body, kind = self.form.body([content[key] for key, _ in part])
        document = self.caller.ask(body, kind, len(part), stop)
        found = self.reader.split(document, len(part))
        rows = {one: self.reader.row(said) for one, said in zip(part, found, strict=True)}
        self.kept.keep([(*one, json.dumps(said)) for one, said in zip(part, found, strict=True)])
        return rows


def _went_well(one: Future[Any]) -> bool:
    return one.exception() is None
