"""The verb: `attack`, and `perturb`, its bare loop for training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from . import attacks, rng
from .attacks.base import Attack, Plan, Stage
from .attacks.budget import deal
from .attacks.targeting import by_logits, by_malt
from .errors import DataError, ModelError, ParameterError, must_be
from .goals import Goal
from .inputs import Notes, check_classes, checked_images, checked_labels
from .ledger import Ledger, Trace
from .losses import Loss
from .models import memory
from .models.access import Access, access_of
from .models.bring import brought
from .models.classifier import Classifier, Model, untouched
from .models.layout import Compute, fast_twin
from .oracle import QUERIES, GradientQuery, Look, Observer, Oracle, Query
from .pool import Pool, Progress, Work, screen, starts_at_image
from .results import AttackCost
from .threats import Threat

NEARER = 0.25  # of a stage's images: getting nearer than all before it on so many is as good as fooling one
FIRST = 10  # of a first stage with early stop, few examples are expected to need all looks: one in so many


@dataclass(frozen=True, repr=False)
class Result:
    """What an attack did, one row per image.

    adversarial:    (N, *shape) the adversarial image; the attack's last point where it did not fool; the image itself
                    where the model was wrong on it.
    success:        (N,) right on the image, wrong on `adversarial`, which lies in the threat's set: confirmed.
    distance:       (N,) float64 size of the change: 0 where the model was wrong on the image, inf where not fooled, so
                    that `(distance > eps).mean()` is robust accuracy.
    clean_correct:  (N,) right on the image.
    clean_prediction:  (N,) int64 what the model answers on the image.
    forward, backward:  (N,) int64 passes spent on each image.
    fooled_by:      (N,) int64 which of `parts` the adversarial image comes from; -1 where not fooled.
    parts:          what each stage of the plan did, in order.
    trace:          when which distance was reached: the query curves.
    notes:          what was converted or is doubtful.
    outside:        points outside the threat's set that the attack has shown: none, unless it is broken.
    """

    adversarial: Tensor
    success: Tensor
    distance: Tensor
    clean_correct: Tensor
    clean_prediction: Tensor
    forward: Tensor
    backward: Tensor
    threat: Threat
    method: str
    fooled_by: Tensor
    parts: tuple[AttackCost, ...]
    trace: Trace
    notes: tuple[str, ...] = ()
    outside: int = 0

    def __repr__(self) -> str:
        return (
            f"Result({self.method} with {self.threat} on {len(self.success)} images: clean accuracy "
            f"{self.clean_accuracy:.4f}, robust accuracy {self.robust_accuracy:.4f})"
        )

    @property
    def clean_accuracy(self) -> float:
        """The share of images that the model gets right."""
        return float(self.clean_correct.double().mean())

    @property
    def robust_accuracy(self) -> float:
        """The share of images that the model gets right and that were not fooled: an upper bound of the truth."""
        return float((self.clean_correct & ~self.success).double().mean())


def attack(
    model: Model,
    images: Any,
    labels: Any,
    threat: Threat | str,
    method: Plan | str,
    *,
    targets: Any = None,
    seed: int = 0,
    batch_size: int | None = None,
    early_stop: bool = True,
    draws: int = 1,
    budget: int | None = None,
    surrogate: Model | None = None,
    compute: Compute | None = None,
    ids: Any = None,
    clean_correct: Tensor | None = None,
    observer: Observer | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Result:
    """Attack a model on images; see `Result` for what comes back.

    model:       an nn.Module or a callable from images to logits (N, classes); it is left as it was found.
    images:      (N, *shape) floats inside the threat's bounds.
    labels:      (N,) the true classes.
    threat:      the set the adversary may use, e.g. `Linf(8/255)` or "linf:8/255".
    method:      an attack or a plan, e.g. `PGD(steps=40, step_size=0.1)` or "pgd:steps=40,step_size=0.1".
    targets:     (N,) classes that the model shall answer; None: any wrong one.
    seed:        of all random numbers; batch size and order do not matter.
    batch_size:  rows in work at a time; None: by the size of an image.
    early_stop:  end an image at its first success; else every step is taken.
    draws:       forward passes to average a gradient over, for a random model (EOT, Athalye et al. 2018).
    budget:      passes (forward and backward) per image at most; shared out over the trials before the start. A surrogate,
                 or a `compute` that changes the passes, costs a confirming pass for each look; the up to 20 passes that
                 confirm a point of a random model come on top.
    surrogate:   take gradients from this model; the verdict stays with `model`.
    compute:     how the passes are computed; see `Compute`.
    ids:         (N,) integers that the random numbers belong to and that errors name; None: a hash of each image and label.
    clean_correct:  (N,) bools, the images that count as right where that has been judged before: of a random model a second
                 judgement may be another. None: judged here.
    observer:    called with every look by gradient; it must not change what it sees.
    progress:    called now and then with how far the work is.

    Raises `DataError`, `ModelError` (also on non-finite logits) or `ParameterError`.
    """
    threat = Threat.parse(threat) if isinstance(threat, str) else threat
    plan = attacks.parse(method) if isinstance(method, str) else method
    check_options(threat, plan, compute, seed=seed, batch_size=batch_size, draws=draws, budget=budget)
    notes = Notes()
    model, surrogate = brought(model), None if surrogate is None else brought(surrogate)
    with torch.inference_mode(False), untouched(model, *([] if surrogate is None else [surrogate])):
        check_access(plan, model, surrogate)
        victim = Classifier(model)
        x = checked_images(images, threat, victim.dtype, notes)
        y = checked_labels(labels, len(x)).cpu()
        t = None if targets is None else _checked_targets(targets, y, plan)
        given_ids = None if ids is None else checked_labels(ids, len(x), "ids", least=None).cpu()
        if clean_correct is not None and (clean_correct.dtype != torch.bool or clean_correct.shape != (len(x),)):
            raise must_be("attack", "clean_correct", f"None or a tensor of {len(x)} bools", tuple(clean_correct.shape))
        device = victim.device or x.device
        batch = batch_size or default_batch(x[0].numel(), device)
        memory.keep_freed()
        ledger = Ledger(x, threat)
        stages: Sequence[Stage] = plan.stages()
        helper = None if surrogate is None else Classifier(surrogate)
        called = torch.arange(len(x)) if given_ids is None else given_ids
        oracle = Oracle(
            victim,
            helper,
            called,
            draws,
            first=lambda logits: _first_answer(logits, y, t, called, notes, access_of(model)),
            observer=observer,
        )
        compute = compute or Compute()
        if budget is not None and compute.layout == "auto":  # a point from elsewhere costs a pass to confirm
            compute = replace(compute, layout="same")
        faster = _Faster(victim, x[:batch], compute, gradients=helper is None)
        if early_stop and budget is None:
            faster.adopt(oracle, len(x) // FIRST, stages[:1], device)
        else:  # all looks are taken; a budget is dealt by what a look costs, so that is settled before
            faster.adopt(oracle, len(x), stages, device)
            faster.open.clear()
        leads = any(stage.needs for stage in stages)
        common = Work(
            stages[0].attack, threat, x, y, t, given_ids, seed, early_stop, leads=leads, clean_correct=clean_correct
        )
        logits: Tensor | None = None
        if not _screens_in_passing(stages, common, oracle, device):
            with rng.forked(seed, len(stages)):
                logits = screen(common, oracle, ledger, batch, device)
        stages = deal(stages, budget, oracle, logits)
        parts, ends = _run(stages, common, oracle, ledger, batch, device, logits, faster, progress)
    if ledger.outside:
        notes.add(f"{ledger.outside} points of {plan} lay outside {threat} and were not counted: the attack is broken.")
    for text in ledger.notes:
        notes.add(text)
    return Result(
        adversarial=ledger.adversarial,
        success=ledger.fooled.to(x.device),
        distance=torch.where(ledger.correct, ledger.distance, 0.0).to(x.device),
        clean_correct=ledger.correct.to(x.device),
        clean_prediction=ledger.prediction.to(x.device),
        forward=oracle.forward.to(x.device),
        backward=oracle.backward.to(x.device),
        threat=threat,
        method=str(plan),
        fooled_by=torch.where(ledger.fooled, torch.bucketize(ledger.winner, ends, right=True), -1).to(x.device),
        parts=parts,
        trace=ledger.trace(),
        notes=tuple(notes.texts),
        outside=ledger.outside,
    )


def check_access(plan: Plan, model: Model, surrogate: Model | None) -> None:
    """Raise `ModelError` where a plan asks for more than the model lets an attacker see."""
    given = access_of(model)
    for stage in plan.stages():
        needs = stage.attack.access
        if needs > given and not (needs == Access.GRADIENT and surrogate is not None):
            raise ModelError(
                f"The attack {stage.attack.name} needs {needs.words}; this model gives {given.words}. Attacks that it can "
                f"be asked for: {', '.join(known(given))}. Or take gradients from another model: surrogate=."
            )


def known(access: Access) -> list[str]:
    """The attacks that no more than this access is needed for."""
    return [name for name, kind in attacks.ATTACKS.items() if kind.access <= access]


def _checked_targets(targets: Any, labels: Tensor, plan: Plan) -> Tensor:
    found = checked_labels(targets, len(labels), "targets").cpu()
    same = (found == labels).nonzero()
    if len(same):
        raise DataError(f"The target of example {int(same[0])} is its own label; it must be another class.")
    if any(stage.targets for stage in plan.stages()):
        raise ParameterError("'targets' were given for a plan that chooses its own (Targeted). Give one or the other.")
    return found


def _screens_in_passing(stages: Sequence[Stage], work: Work, oracle: Oracle, device: torch.device) -> bool:
    """Whether the first looks tell what the model makes of the images, so that no clean pass is needed."""
    alone = oracle.shows_victim(Access.GRADIENT) and oracle.draws == 1 and not any(stage.targets for stage in stages)
    return alone and starts_at_image(work, oracle, device)


def _run(
    stages: Sequence[Stage],
    common: Work,
    oracle: Oracle,
    ledger: Ledger,
    batch: int,
    device: torch.device,
    logits: Tensor | None,
    faster: _Faster,
    progress: Callable[[Progress], None] | None,
) -> tuple[tuple[AttackCost, ...], Tensor]:
    """Run the stages, each on what those before it left; `logits` (N, C) are the clean ones, if they are known.

    What each did, and the trial numbers at which each ends.
    """
    parts: list[AttackCost] = []
    ends = [0]
    promising: list[bool] = []  # has a stage fooled an image, or got nearer than all before it on enough of them?
    for at, stage in enumerate(stages):
        work = replace(common, attack=stage.attack, trials=stage.trials, offset=ends[-1], examples=ledger.open())
        idle = stage.needs and not any(promising[-stage.needs :])
        before, lead, start = _spent(oracle, ledger), ledger.lead[work.examples], time.perf_counter()
        with rng.forked(common.seed, at):
            if len(work.examples) and not idle:
                if at:
                    faster.adopt(oracle, len(work.examples), (stage,), device)
                if logits is not None and stage.targets:
                    aims = _aims(stage, work, oracle, logits, batch, device)
                    work = replace(work, aims=aims, trials=stage.restarts * aims.shape[1])
                Pool(work, oracle, ledger, batch, device, progress).run()
        fooled, forward, backward = (now - then for now, then in zip(_spent(oracle, ledger), before, strict=True))
        cost = AttackCost(
            attack=str(stage), examples=0 if idle else len(work.examples), fooled=fooled, forward=forward,
            backward=backward, seconds=round(time.perf_counter() - start, 3),
        )  # fmt: skip
        parts.append(cost)
        closer = int((ledger.lead[work.examples] < lead - 1e-3 * lead.abs()).sum())
        nearer = closer >= NEARER * max(1, len(lead)) and not oracle.random  # of a random model luck alone comes nearer
        promising.append(fooled > 0 or nearer)
        ends.append(ends[-1] + work.trials)
    return tuple(parts), torch.tensor(ends[1:])


class _Faster:
    """Puts a faster form of the victim under the oracle's gradients or scores, once a run proves long enough for it."""

    def __init__(self, victim: Classifier, images: Tensor, compute: Compute, gradients: bool) -> None:
        self.victim, self.images, self.compute = victim, images, compute
        self.open = {True, False} if gradients else {False}  # backward passes, forward passes alone

    def adopt(self, oracle: Oracle, examples: int, stages: Sequence[Stage], device: torch.device) -> None:
        """Look whether it pays for these stages on so many examples."""
        for backward in tuple(self.open):
            asked = [s for s in stages if (s.attack.access == Access.GRADIENT) == backward]
            looks = examples * sum(s.trials * s.attack.steps for s in asked)
            if not looks:
                continue
            with rng.forked(0):
                twin = fast_twin(self.victim, self.images.to(device), self.compute, looks, backward)
            if twin is not None:
                self.open.remove(backward)
                if backward:
                    oracle.surrogate = twin
                else:
                    oracle.scorer = twin


def _spent(oracle: Oracle, ledger: Ledger) -> tuple[int, int, int]:
    """Images fooled, forward and backward passes, so far."""
    return int(ledger.fooled.sum()), int(oracle.forward.sum()), int(oracle.backward.sum())


def _aims(stage: Stage, work: Work, oracle: Oracle, logits: Tensor, batch: int, device: torch.device) -> Tensor:
    """The classes (N, T) that the trials of the stage's examples aim at, in order."""
    aims = by_logits(logits, work.labels, stage.targets)
    for example in work.examples.split(batch) if stage.order == "malt" else ():
        x, y = work.images[example.to(work.images.device)].to(device), work.labels[example].to(device)
        near = by_malt(oracle, work.threat, x, y, example, logits[example].to(device), stage.targets)
        aims[example] = near.cpu()
    return aims


def default_batch(size: int, device: torch.device) -> int:
    """Rows in work at a time: what keeps a small CNN's activations near the cores, fewer for large images."""
    most = 128 if device.type == "cpu" else 1024
    return max(8, min(most, most * 4096 // size))


def _first_answer(
    logits: Tensor, labels: Tensor, targets: Tensor | None, called: Tensor, notes: Notes, access: Access
) -> None:
    """Judge labels by the model's number of classes, and warn of probabilities."""
    check_classes(labels, logits.shape[1], called)
    if targets is not None:
        check_classes(targets, logits.shape[1], called, "targets")
    logits = logits.detach()
    if access is Access.DECISION:  # one for the class, zero for the others: no probabilities
        return
    shares = bool(((logits >= 0) & (logits <= 1)).all()) and bool(((logits.sum(1) - 1).abs() < 1e-5).all())
    if shares:
        notes.add(
            "The model returns probabilities, not logits: losses saturate on them and attacks look weaker than they "
            "are. Return what goes into the softmax."
        )


def check_options(threat: Threat, plan: Plan, compute: Compute | None, **counts: Any) -> None:
    """Judge what a verb was given, before any work; `counts` are ints of at least 1 (the seed: 0) or None."""
    if not isinstance(threat, Threat):
        raise must_be("attack", "threat", "a Threat such as Linf(8/255)", threat)
    if not isinstance(plan, Plan):
        raise must_be("attack", "method", "an attack or a plan such as PGD(steps=40)", plan)
    for stage in plan.stages():
        if not isinstance(threat, stage.attack.norms):
            norms = ", ".join(norm.__name__ for norm in stage.attack.norms)
            raise ParameterError(f"{stage.attack.name} works for {norms}, not for {type(threat).__name__}.")
        if threat.eps == torch.inf and not stage.attack.minimal:
            raise ParameterError(f"{stage.attack.name} needs a finite eps; minimum-norm attacks take inf.")
    if compute is not None and not isinstance(compute, Compute):
        raise must_be("attack", "compute", "a Compute such as Compute(layout='same')", compute)
    for name, got in counts.items():
        least = 0 if name == "seed" else 1
        if got is not None and (isinstance(got, bool) or not isinstance(got, Integral) or int(got) < least):
            raise must_be("attack", name, f"an int of at least {least}", got)


@dataclass(frozen=True, kw_only=True)
class _Steered(GradientQuery):
    """Looks by another loss than the one that the attack names."""

    steered: Loss

    def look(self, z: Tensor, loss: str | Loss = "cross_entropy", row: Tensor | None = None) -> Look:
        """Look at points (M, *shape)."""
        return super().look(z, self.steered, row)


def perturb(
    model: Model,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    method: Attack,
    *,
    seed: int = 0,
    ids: Tensor | None = None,
    loss: Loss | None = None,
) -> Tensor:
    """The bare loop of an attack, for training: its last points (N, *shape) after `method.steps` looks.

    No row is filtered, tested or confirmed, and the model stays in the mode that it is in.

    loss:  what gradients are taken of, (N, C) logits and a `Goal` to (N,), instead of the loss that the attack names.
    """
    everything = torch.arange(len(images), device=images.device)
    zeros = torch.zeros_like(everything)
    oracle = Oracle(Classifier(model), None, torch.arange(len(images)))
    kind: Callable[..., Query] = QUERIES[method.access] if loss is None else partial(_Steered, steered=loss)
    query = kind(
        x=images,
        goal=Goal(labels),
        threat=threat,
        ids=everything if ids is None else ids,
        trial=zeros,
        restart=zeros,
        seed=seed,
        oracle=oracle,
        example=torch.arange(len(images)),
        seen=lambda _: None,
    )
    state = replace(method.init(query, images), k=zeros)
    for _ in range(method.steps):
        state = method.step(query, state)
        state = replace(state, k=state.k + 1)
    return state.x.detach()
