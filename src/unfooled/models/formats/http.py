"""An HTTP endpoint as a model: `models.load("https://…", answers="labels", classes=10)`.

Each image goes out by POST, in the form that is chosen, and scores or a label come back as JSON. The common ways to
write these are found by themselves; a dotted path names any other (`answer=predictions.0.scores`).
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from ...data.download import cache_folder
from ...errors import Note, ParameterError, must_be
from ..black_box import Answers, BlackBox
from ..endpoint import Address, Caller, Endpoint, Form, Kept, Reader
from ..endpoint.requested import Kind
from ..facts import Facts


def load(
    spec: str,
    weights: Path | None,
    allow_code: bool,
    *,
    answers: Answers = "probabilities",
    classes: int | str | Sequence[str] | None = None,
    form: Kind = "png",
    field: str | None = None,
    answer: str | int = "",
    batch: int | None = None,
    scale: int = 1,
    last: bool = False,
    extra: str | Mapping[str, Any] = "",
    timeout: float = 30.0,
    tries: int = 6,
    rate: float | None = None,
    budget: int | None = None,
    parallel: int = 4,
    header_env: str | None = None,
    cache: str | Path | None = None,
    version: str | int = "",
    repeats: int = 2,
) -> BlackBox:
    """The model behind an address; `{NAME}` in it stands for what the environment variable NAME holds.

    answers:     probabilities, logits or labels: what one image is answered. Scores are score access, labels decisions.
    classes:     how many, or their names in the order of the scores, "cat,dog"; needed for labels, and where scores come
                 by class names.
    form:        png: the body is one PNG. multipart: a form with PNG files. base64: JSON with PNGs. json: JSON with nested
                 lists of numbers, which alone lose nothing: a PNG holds 8 bits, so what is judged is the rounded image.
    field:       the form's field ("file"), or the dotted path to the image in the JSON object ("image"):
                 "instances.*.b64" makes {"instances": [{"b64": …}]}.
    answer:      the dotted path to an image's answer in the JSON document; "*" is the image's place in its request.
    batch:       images in a request, as a list; left out: one image, by itself.
    scale, last: of form=json: whether white is 1 or 255, and whether the channels come last, (H, W, C).
    extra:       of the JSON forms: an object whose entries stand beside the image, such as {"parameters": {"top_k": 10}}.
    timeout:     seconds without a byte before a try counts as failed.
    tries:       of one request. Time-outs, broken connections, 408, 425, 429 (Retry-After is honoured), 5xx and broken JSON
                 are tried again, after 0.5 s, 1 s, 2 s … with jitter; any other refusal is told at once.
    rate:        requests a second at most.
    budget:      images sent at most, sent again ones included. Rate and budget are counted in the cache file: over all runs
                 and processes that share it.
    parallel:    requests at once.
    header_env:  the name of an environment variable with header lines, such as "Authorization: Bearer …". Secrets come from
                 the environment only, and get into no file, message or pickle.
    cache:       the file that answers are kept in as they come, so that a killed run that goes on asks nothing twice (but for
                 requests that were under way); by default one in the user's cache folder (UNFOOLED_CACHE), by address and
                 form.
    version:     what you call the model that answers now. What is kept cannot show that the endpoint has changed since, nor
                 can a run that goes on: its clean answers come from the cache too. After a change, give another version:
                 answers that are kept under one are not used for another. A `Note` says when kept answers are used.
    repeats:     the k-th time that one process asks about one image, it gets the k-th answer that is kept, up to this one,
                 and from then on the same again, so that a deterministic endpoint is not asked in vain. Where these first
                 answers differ, the endpoint is random, and each further question is a new one. 1: never ask twice.

    Raises `ParameterError`; `OutputError` or `DataError` where the cache file cannot be used. Nothing is asked yet.
    """
    if weights is not None:
        raise ParameterError(f"{spec} takes no weights: they are at the endpoint. Leave them out.")
    _check(timeout=timeout, tries=tries, rate=rate, budget=budget, parallel=parallel, repeats=repeats)
    sent, address = Form(form, field, batch, scale, last, extra), Address(spec, header_env)
    reader = Reader(answers, classes, str(answer), sent.listed)
    how = {
        "form": form,
        "field": sent.field,
        "scale": scale,
        "last": last,
        "answer": str(answer),
        "version": str(version),
    }
    endpoint = spec + "".join(f" {name}={value}" for name, value in how.items() if value not in ("", False))
    kept = Kept(Path(cache).expanduser() if cache else _own_file(endpoint), endpoint)
    if held := len(kept):
        since = datetime.fromtimestamp(kept.changed, UTC)
        warnings.warn(
            f"{held} answers of {spec} are kept, the last since {since:%Y-%m-%d %H:%M} UTC, and are used again. "
            "If the model there has changed since, say version=NAME.",
            Note,
            stacklevel=4,
        )
    caller = Caller(address, timeout, tries, partial(kept.reserve, budget=budget, rate=rate), kept.pause)
    asked = {
        "spec": spec, "answers": answers, "classes": classes, "form": form, "field": field, "answer": answer, "batch": batch,
        "scale": scale, "last": last, "extra": sent.extra, "timeout": timeout, "tries": tries, "rate": rate, "budget": budget,
        "parallel": parallel, "header_env": header_env, "cache": cache, "version": version, "repeats": repeats,
    }  # fmt: skip
    function = Endpoint(sent, reader, caller, kept, repeats, parallel, (_again, (asked,)))
    facts = Facts(f"HTTP endpoint that answers {answers}", spec, None, sent.words, reader.names)
    return BlackBox(function, answers, reader.count, facts=facts)


def _again(asked: dict[str, Any]) -> Any:
    """The function of an endpoint in another process, with secrets from the environment there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)  # it was said where the endpoint was first loaded
        return load(weights=None, allow_code=False, **asked).function


def _own_file(endpoint: str) -> Path:
    digest = hashlib.sha256(json.dumps(endpoint).encode()).hexdigest()[:16]
    return cache_folder().parent / "endpoints" / f"{digest}.sqlite"


def _check(**options: Any) -> None:
    """Refuse numbers that are none."""
    for name in ("tries", "parallel", "repeats"):
        if type(options[name]) is not int or options[name] < 1:
            raise must_be("the endpoint", name, "an int of at least 1", options[name])
    if options["budget"] is not None and (type(options["budget"]) is not int or options["budget"] < 0):
        raise must_be("the endpoint", "budget", "an int, how many images may be sent", options["budget"])
    for name in ("timeout", "rate"):
        value = options[name]
        number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
        if not number and not (name == "rate" and value is None):
            raise must_be("the endpoint", name, "a number above 0", value)
