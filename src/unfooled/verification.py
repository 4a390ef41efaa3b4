"""A run folder checked from scratch against the model: does every example still hold?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .certificates import certify
from .data import Dataset
from .data.lazy import Lazy, Rows
from .errors import DataError, ParameterError
from .judging import appraise
from .models.classifier import Model
from .results import Record
from .store import RunFolder, shard_file
from .threats import Threat

PROOFS = 50  # certificates that are computed again
TRIES = 4  # judgements that a random model gets to agree with what is recorded; others answer the same each time


class Problem(Record, frozen=True):
    """One thing that does not hold. example: which one; None where it concerns the whole run."""

    example: int | None
    what: str
    recorded: str
    found: str


class Verification(Record, frozen=True):
    """What a check of a run folder found.

    examples:     how many examples were checked on their images; adversarial: how many adversarial ones were.
    unjudged:     examples whose record says that nothing can be said of them (logits that are not finite).
    problems:     what does not hold, by rising example.
    """

    run: str
    threat: str
    examples: int
    adversarial: int
    unjudged: int
    problems: list[Problem]
    notes: list[str]

    @property
    def holds(self) -> bool:
        """Whether every example holds."""
        return not self.problems


def verify(
    folder: str | Path | RunFolder,
    model: Model,
    data: Dataset | tuple[Any, Any],
    threat: Threat | str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    ids: Any = None,
) -> Verification:
    """Check every example of a run folder by forward passes of the model; nothing of the run is believed.

    On each image: the label, and what the model answers. Of each adversarial example: that it is finite, lies in the
    threat's set round its image, is of the size recorded, and still fools the model (a random one by majority). Of the
    first of what is proved: that it can be proved again. Of the answer: that its numbers are those of the evidence.

    data:      the images of the run and their labels.
    threat:    the set; None: the one that the run's spec names.
    progress:  called with the number of examples checked, and of all.
    ids:       (N,) what the run called each image, where it was told; None: row i is example i.

    Raises `DataError` where the folder is damaged, or the data lack its examples; `ModelError` where the model fails.
    """
    run = folder if isinstance(folder, RunFolder) else RunFolder(folder)
    evidence, spec = run.evidence(), run.spec()
    if "method" in spec:
        raise DataError(f"{run.path} holds certificates and no adversarial examples: there is nothing to try again.")
    allowed = _threat(threat, spec)
    images, labels = _given(data)
    n = len(evidence["example"])
    if not n:
        raise DataError(f"{run.path} holds no finished shard: there is nothing to verify yet.")
    called = range(len(images)) if ids is None else torch.as_tensor(ids).tolist()
    row_of = {name: row for row, name in enumerate(called)}
    strange = next((name for name in evidence["example"].tolist() if name not in row_of), None)
    if strange is not None:
        raise DataError(f"{run.path} holds example {strange}, but none of the {len(images)} images given is called so.")
    problems: list[Problem] = []
    seen = np.zeros(n, dtype=bool)
    for number in sorted(run.shards()):
        name = shard_file(number)
        try:
            held = run.arrays(name)
        except DataError:  # it has changed, and what lies there now is checked like anything else
            problems.append(Problem(example=None, what=name, recorded="as it was written", found="changed since"))
            try:
                held = run.found(name)
            except DataError:
                continue
        at = np.searchsorted(evidence["example"], held["example"])
        index = torch.tensor([row_of[name] for name in held["example"].tolist()], dtype=torch.int64)
        rows = {name: column[at] for name, column in evidence.items()}
        points = torch.from_numpy(held["adversarial"])
        clean = images[index]
        problems += _on_images(model, clean, labels[index], rows)
        hit = np.flatnonzero(rows["success"])
        if len(hit):
            mine = {name: column[hit] for name, column in rows.items()}
            problems += _adversarial(model, allowed, clean[hit], labels[index][hit], points[hit], mine)
        seen[at] = True
        progress(int(seen.sum()), n)
    for example in evidence["example"][~seen]:
        problems.append(_problem(example, "adversarial example", "in a shard", "in none"))
    notes = ["The run had target classes; what was checked is that the model is wrong."] if spec.get("targets") else []
    return Verification(
        run=str(run.path),
        threat=str(allowed),
        examples=n,
        adversarial=int(evidence["success"].sum()),
        unjudged=sum(error is not None for error in evidence["error"]),
        problems=[
            *_answer(run, evidence),
            *_proofs(run, model, allowed, images, labels, row_of),
            *sorted(problems, key=lambda p: -1 if p.example is None else p.example),
        ],
        notes=notes,
    )


def _given(data: Dataset | tuple[Any, Any]) -> tuple[Rows, Tensor]:
    """Images and labels; those of a large set are read shard by shard."""
    if isinstance(data, Dataset):
        return data.floats(), data.labels
    images, labels = data
    return images if isinstance(images, Lazy) else torch.as_tensor(images), torch.as_tensor(labels)


def _threat(given: Threat | str | None, spec: dict[str, Any]) -> Threat:
    words = spec.get("threat") if given is None else given
    if words is None or (isinstance(words, str) and "tensor" in words):
        raise ParameterError("The run's spec does not name its threat in full. Give it: verify(…, threat=…).")
    return words if isinstance(words, Threat) else Threat.parse(words)


def _problem(example: Any, what: str, recorded: Any, found: Any) -> Problem:
    return Problem(example=int(example), what=what, recorded=str(recorded), found=str(found))


def _on_images(model: Model, images: Tensor, labels: Tensor, rows: dict[str, np.ndarray]) -> Iterator[Problem]:
    """The labels, and what the model answers on the images."""
    recorded = torch.from_numpy(rows["clean_correct"])
    answer = torch.from_numpy(rows["clean_prediction"])

    def agrees(prediction: Tensor, correct: Tensor, at: Tensor) -> Tensor:
        return (prediction == answer[at]) & (correct == recorded[at])

    prediction, agreed = _judged(model, images, labels, agrees)
    for at, example in enumerate(rows["example"]):
        if rows["label"][at] != labels[at]:
            yield _problem(example, "label", rows["label"][at], int(labels[at]))
        if not agreed[at]:
            words = "right" if recorded[at] else "wrong"
            yield _problem(example, "clean prediction", f"{answer[at]} ({words})", _said(prediction[at]))


def _adversarial(
    model: Model, threat: Threat, images: Tensor, labels: Tensor, points: Tensor, rows: dict[str, np.ndarray]
) -> Iterator[Problem]:
    """The adversarial examples: finite, inside, of the size recorded, and fooling."""
    if points.shape != images.shape:
        raise DataError(f"Its adversarial examples have shape {tuple(points.shape[1:])}, the images "
                        f"{tuple(images.shape[1:])}: these are not the data of the run.")  # fmt: skip
    images = images.to(points.dtype)
    finite = torch.isfinite(points).flatten(1).all(1)
    safe = torch.where(finite.view(-1, *[1] * (points.dim() - 1)), points, images)
    inside, size = threat.contains(safe, images), threat.size(safe - images).double()
    ball = size <= threat.eps * (1 + 1e-5) + 1e-6

    def agrees(prediction: Tensor, correct: Tensor, at: Tensor) -> Tensor:
        return ~correct

    prediction, fools = _judged(model, safe, labels, agrees)
    for at, example in enumerate(rows["example"]):
        if not finite[at]:
            yield _problem(example, "adversarial image", "finite", "NaN or inf in it")
            continue
        if not inside[at]:
            where = "outside the bounds or the mask" if ball[at] else f"size {float(size[at]):.6g}"
            yield _problem(example, "adversarial image", f"inside {threat}", where)
        if not np.isclose(float(size[at]), rows["distance"][at], rtol=1e-4, atol=1e-6):
            yield _problem(example, "distance", f"{rows['distance'][at]:.6g}", f"{float(size[at]):.6g}")
        if not fools[at]:
            yield _problem(example, "fooled", "yes", f"the model answers {_said(prediction[at])}, the label")


def _proofs(
    run: RunFolder, model: Model, threat: Threat, images: Rows, labels: Tensor, row_of: Mapping[int, int]
) -> Iterator[Problem]:
    """The first of what is proved, proved again by the method that is named."""
    proofs = [proof for log in run.logs().values() if log for proof in log.get("proofs", [])][:PROOFS]
    for method in dict.fromkeys(by for _, by, _ in proofs):
        names = [name for name, by, _ in proofs if by == method]
        at = torch.tensor([row_of[name] for name in names])
        again = certify(model, (images[at], labels[at]), threat, method).certified
        for name, sure in zip(names, again.tolist(), strict=True):
            if not sure:
                yield _problem(name, "certificate", f"proved by {method}", "not proved by it")


def _said(prediction: Tensor) -> str:
    return "logits that are not finite" if prediction < 0 else str(int(prediction))


def _judged(
    model: Model, images: Tensor, labels: Tensor, agrees: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """What the model answers first on each image, and whether one of its judgements agrees with the record."""
    open_ = torch.arange(len(images))
    first = torch.empty(0)
    agreed = torch.zeros(len(images), dtype=torch.bool)
    for seed in range(TRIES):
        found = appraise(model, images[open_], labels[open_], seed)
        first = first if seed else found.prediction
        agreed[open_] = agrees(found.prediction, found.clean_correct, open_)
        open_ = (~agreed).nonzero().squeeze(1)
        if not len(open_):
            break
    return first, agreed


def _answer(run: RunFolder, evidence: dict[str, np.ndarray]) -> Iterator[Problem]:
    """The numbers of the answer, where the run has come to one, against the evidence."""
    if not (run.path / "evaluation.json").is_file():
        return
    evaluation = run.evaluation()
    correct = evidence["clean_correct"]
    numbers = {"clean accuracy": (evaluation.clean_accuracy, correct)}
    if evaluation.robust_accuracy is not None:
        numbers["robust accuracy"] = (evaluation.robust_accuracy.attacked, correct & ~evidence["success"])
        names = [name for log in run.logs().values() if log for name, *_ in log.get("proofs", [])]
        numbers["certified accuracy"] = (evaluation.robust_accuracy.certified, np.isin(evidence["example"], names))
    for what, (said, right) in numbers.items():
        if said is not None and not np.isclose(said.value, right.mean(), rtol=0, atol=1e-9):
            yield Problem(example=None, what=what, recorded=f"{said.value:.6g}", found=f"{right.mean():.6g}")
