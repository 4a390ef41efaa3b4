"""A whole evaluation: preflight, adaptation, attacks in shards of a random order, checks, verdict."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from . import adapt, protocols, proving, rng
from ._version import __version__
from .adapt import Strategy, Way
from .assertions import Assertion, Verdict
from .attacks import Cascade, Plan
from .board import Question
from .checks.preflight import Preflight, preflight
from .cluster import Ray
from .conclusion import Tally, conclude
from .data import given
from .defenses import Defended
from .engine import FIRST, check_access, check_options, default_batch
from .errors import InternalError, ParameterError, must_be
from .fingerprint import of_data, of_model
from .inputs import Notes, checked_labels, prepared
from .intervals import examples_needed, half_width
from .models.access import Access, access_of
from .models.bring import brought
from .models.classifier import Classifier, Model, Passes, counting
from .models.layout import Compute, preferred
from .pool import Progress
from .results import Estimate, Evaluation, Finding
from .shard import Outcome, Runner, in_turn
from .store import RunFolder
from .threats import Threat

SHARD = 512  # examples; the unit of evidence and of going on after an interruption
PROBED = 8  # images among which one is sought that methods of certification can be tried on
SMALL = 128  # the same where a precision or an assertion may end the run


@dataclass(frozen=True)
class Standing:
    """Where an evaluation is: examples judged of all, what is attacked and proved so far, and what runs within a shard."""

    done: int
    total: int
    attacked: Estimate | None
    certified: Estimate | None = None
    within: Progress | None = None
    stage: str = ""


def evaluate(
    model: Model,
    data: Any,
    threat: Threat | str,
    protocol: str | Plan = "fast",
    certify: str | None = None,
    seed: int = 0,
    precision: float | None = None,
    out: str | Path | None = None,
    *,
    assertion: str | Assertion | Sequence[str | Assertion] | None = None,
    batch_size: int | None = None,
    budget: int | None = None,
    draws: int | None = None,
    surrogate: Model | None = None,
    compute: Compute | None = None,
    ids: Any = None,
    cluster: str | Runner | None = None,
    settings: Mapping[str, str] | None = None,
    command: str = "",
    progress: Callable[[Standing], None] | None = None,
) -> Evaluation:
    """How easily a model is fooled, how sure that is, and how far it can be believed.

    model:      an nn.Module or a callable from images to logits (N, classes); it is left as it was found.
    data:       (images, labels), a `Dataset`, a torch or Hugging Face data set, a DataLoader of such pairs, the name of a
                data set such as "mnist:test[0:1000]", or the folder, table or file of one. Large ones are read by shards.
    threat:     the set the adversary may use, e.g. `Linf(8/255)` or "linf:8/255".
    protocol:   quick, fast, standard or thorough; or any plan of attacks.
    certify:    None: nothing is proved, and the bracket is open below. "auto": what can be proved is (by intervals, then
                CROWN, then alpha-CROWN), and not attacked but for a sample; or one method, such as "crown".
    seed:       of all random numbers and of the order of the examples.
    precision:  end as soon as the 95 % interval of robust accuracy is this far to either side, at most.
    out:        a run folder: the same call goes on where it was stopped, and refuses another model or other data.
    assertion:  such as "attacked>=0.4", or several: end as soon as the answers are certain at 95 %.
    budget:     passes per image at most, of the protocol; adaptation comes on top.
    draws:      passes that gradients of a random model are averaged over; None: as many as it takes, up to 16.
    cluster:    where shards are examined: None: in this process; "local": on all cores of this machine; "auto": on the Ray
                cluster that it belongs to; or a `unfooled.cluster.Ray`. The evidence is the same.
    settings:   what the report shall say of where model and data came from.
    command:    the command line that makes the evaluation again, for the report.
    progress:   called now and then with how far the work is.

    The other options are those of `unfooled.attack`. Raises `DataError`, `ModelError`, `ParameterError`, `OutputError`.
    An example whose logits are not finite is listed and counts as wrong; the evaluation is then invalid. An attack that
    contradicts a certificate ends the run with an `InternalError`; the run folder holds both.
    """
    threat = Threat.parse(threat) if isinstance(threat, str) else threat
    if not isinstance(threat, Threat):
        raise must_be("evaluate", "threat", "a Threat such as Linf(8/255)", threat)
    model, surrogate = brought(model), None if surrogate is None else brought(surrogate)
    plan = protocol if isinstance(protocol, Plan) else _plan(protocol, threat, model, surrogate)
    name = "the plan given" if isinstance(protocol, Plan) else protocol
    check_access(plan, model, surrogate)
    check_options(threat, plan, compute, seed=seed, batch_size=batch_size, draws=draws, budget=budget)
    proving.wanted(certify, threat)
    asked, runner = _Rule.of(precision, assertion, certify), _runner(cluster)
    tell = progress or (lambda standing: None)
    source = given(data)
    notes = Notes()
    images = prepared(source.images, threat, Classifier(model).dtype, notes)
    labels = checked_labels(source.labels, len(images)).cpu()
    names = torch.arange(len(images)) if ids is None else checked_labels(ids, len(images), "ids", least=None).cpu()
    question = Question(
        model, images, labels, names, threat, plan, seed, thorough=name == "thorough", batch_size=batch_size,
        budget=budget, surrogate=surrogate, compute=compute, draws=draws or 1,
    )  # fmt: skip
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    size = SMALL if asked.may_end else SHARD
    with ExitStack() as stack:
        place = out or stack.enter_context(_scratch())
        folder = RunFolder(place)
        asked_of = {"model": _called(model), "data": source.name, **(settings or {})}
        stack.enter_context(folder.running(_spec(question, name, asked_of, size, draws, certify)))
        tell(Standing(0, len(images), None, stage="preflight"))
        found = _preflight(folder, question, order, draws, source.classes)
        question = _proving(folder, _prepared(folder, question, found), order, certify)
        tuned_for = float(_kept(folder, "tuned-for", lambda: asked.tuned_for(len(images))))
        _gather(folder, question, dict(enumerate(order.split(size))), asked, tuned_for, runner, tell)
        answer = conclude(
            folder, question, found, name, source, asked_of, tuned_for, asked.may_end, [*notes.texts], command,
            keep=out is not None,
        )  # fmt: skip
        if out is not None:
            folder.write_evaluation(answer)
        return answer


def _gather(
    folder: RunFolder, q: Question, parts: Mapping[int, Tensor], asked: _Rule, tuned_for: float, runner: Runner,
    tell: Callable[[Standing], None],
) -> None:  # fmt: skip
    """Have the shards examined that the folder does not hold yet, until what was asked for is certain."""
    for log in folder.logs().values():
        _stand(folder, log)
    finished, tally = folder.shards(), Tally.of(folder)
    missing = {number: index for number, index in parts.items() if number not in finished}
    hole = max((number for number in missing if number < max(finished, default=-1)), default=-1)

    def standing() -> Standing:
        return Standing(tally.total, len(q.images), tally.estimate(tuned_for), tally.proved_share(tuned_for))

    now = standing()
    tell(now)
    if not missing or (hole < 0 and asked.ends(now)):  # a rule looks at shards among which none is missing
        return
    with closing(runner(q, missing, asked.may_end, lambda at: tell(replace(now, within=at)))) as arriving:
        for number, outcome in arriving:
            _keep(folder, q, number, parts[number], outcome)
            _stand(folder, outcome.log)
            tally.add(outcome.rows, outcome.log)
            now = standing()
            tell(now)
            if hole <= number < len(parts) - 1 and asked.ends(now):
                break


def _keep(folder: RunFolder, q: Question, number: int, index: Tensor, outcome: Outcome) -> None:
    """Put a shard into the folder; nothing of its images is kept in memory."""
    arrays = {"adversarial": outcome.adversarial.numpy(), "example": q.names[index].numpy()}
    seconds = sum(cost["seconds"] for cost in outcome.log["attacks"])
    folder.add_shard(number, arrays, outcome.rows, seconds, outcome.notes, outcome.log)


class _Contradicted(InternalError):
    """Its evidence is kept, also where no folder was asked for."""


@contextmanager
def _scratch() -> Iterator[str]:
    place = tempfile.mkdtemp(prefix="unfooled-")
    kept = False
    try:
        yield place
    except _Contradicted:
        kept = True
        raise
    finally:
        if not kept:
            shutil.rmtree(place, ignore_errors=True)


def _stand(folder: RunFolder, log: Mapping[str, Any]) -> None:
    """Raise if an attack has contradicted a certificate in this shard."""
    if "contradiction" not in log:
        return
    raise _Contradicted(
        f"A certificate and an attack contradict each other. Example {log['contradiction']['example']}: "
        f"{log['contradiction']['said']}. One of them is wrong, so nothing is concluded; {folder.path} keeps both. "
        "Please report it."
    )


def _runner(cluster: str | Runner | None) -> Runner:
    """Who examines the shards."""
    if cluster is None:
        return in_turn
    runner = Ray(cluster) if isinstance(cluster, str) else cluster
    if not callable(runner):
        raise must_be("evaluate", "cluster", "None, 'local', 'auto', HOST:PORT, or a unfooled.cluster.Ray", cluster)
    if isinstance(runner, Ray):
        runner.checked()
    return runner


def _plan(protocol: str, threat: Threat, model: Model, surrogate: Model | None) -> Plan:
    """What the model's access allows; where a surrogate lends its gradients, first by these."""
    plan = protocols.named(protocol, threat, access_of(model))
    if surrogate is None or access_of(model) is Access.GRADIENT:
        return plan
    lent = protocols.by_gradient(protocols.named(protocol, threat))
    return plan if lent is None else Cascade(lent, plan)


@dataclass(frozen=True)
class _Rule:
    """When the run may end before the last example."""

    precision: float | None
    assertions: tuple[Assertion, ...]

    @classmethod
    def of(
        cls, precision: float | None, assertion: str | Assertion | Sequence[str | Assertion] | None, certify: str | None
    ) -> _Rule:
        if precision is not None and not (isinstance(precision, int | float) and 0 < precision < 0.5):
            raise must_be("evaluate", "precision", "a half-width in (0, 0.5), such as 0.03", precision)
        several = [assertion] if isinstance(assertion, str | Assertion) else assertion or []
        claims = tuple(Assertion.parse(claim) if isinstance(claim, str) else claim for claim in several)
        if certify is None and any(claim.measure == "certified" for claim in claims):
            raise ParameterError(
                "'certified' can be asserted only of what is proved. Say certify='auto' (--certify auto)."
            )
        return cls(precision, claims)

    @property
    def may_end(self) -> bool:
        return self.precision is not None or bool(self.assertions)

    def tuned_for(self, count: int) -> float:
        """The number of examples at which the confidence sequence is narrowest, chosen before any is looked at."""
        return count if self.precision is None else min(count, examples_needed(self.precision))

    def ends(self, now: Standing) -> bool:
        """Whether something was asked for, and all of it is certain by now."""
        if now.attacked is None or not self.may_end:
            return False
        if self.precision is not None and half_width(now.attacked) > self.precision:
            return False
        return all(self._certain(claim, now) for claim in self.assertions)

    @staticmethod
    def _certain(claim: Assertion, now: Standing) -> bool:
        seen = now.attacked if claim.measure == "attacked" else now.certified
        return seen is not None and claim.verdict(seen) in (Verdict.HOLDS, Verdict.FAILS)


def _called(model: Model) -> str:
    function = getattr(model, "function", model)  # of a black box
    return getattr(function, "__name__", type(function).__name__)


def _spec(
    q: Question, protocol: str, settings: Mapping[str, str], shard: int, draws: int | None, certify: str | None
) -> dict[str, Any]:
    """What a run folder goes by: another question is another run."""
    return {
        "kind": "evaluation",
        **settings,
        "threat": str(q.threat),
        "protocol": protocol,
        "plan": str(q.plan),
        "seed": q.seed,
        "images": len(q.images),
        "shard": shard,
        "shards": -(-len(q.images) // shard),
        "budget": q.budget,
        "draws": draws,
        "certify": certify or "",
        "surrogate": "" if q.surrogate is None else of_model(q.surrogate, q.images),
        "model_hash": of_model(q.model, q.images),
        "data_hash": of_data(q.images, q.labels, q.names),
        "unfooled": __version__,
    }


def _preflight(folder: RunFolder, q: Question, order: Tensor, draws: int | None, classes: Sequence[str]) -> Preflight:
    """The preflight on the first examples of the order; its findings are kept, so that a run that goes on has the same."""
    sample = order[:256]
    with rng.forked(q.seed, 0x9F11), _measured("preflight") as cost:
        found = preflight(q.model, q.images[sample], q.labels[sample], q.threat, q.seed, q.names[sample], classes)
    if draws is not None:
        found = replace(found, draws=draws, probe=replace(found.probe, draws=draws))
    told = {"findings": msgspec.to_builtins(list(found.findings)), "draws": found.draws, "cost": cost}
    held = _kept(folder, "preflight", lambda: told)
    findings = tuple(msgspec.convert(held["findings"], list[Finding]))
    return replace(found, findings=findings, draws=held["draws"], probe=replace(found.probe, draws=held["draws"]))


def _proving(folder: RunFolder, q: Question, order: Tensor, certify: str | None) -> Question:
    """The question with what proves; which methods are worth while is found once, and kept."""
    if certify is None:
        return q
    held = folder.kept("means")
    if held is None:
        found = proving.means(q, q.images[order[:PROBED]], certify)
        held = {"methods": len(found.methods), "note": found.note}
        folder.keep("means", held)
    methods = proving.wanted(certify, q.threat)[: held["methods"]]
    return replace(q, certify=methods, doubted=proving.drawn(q.names, q.seed))


def _prepared(folder: RunFolder, q: Question, found: Preflight) -> Question:
    """The question with what adaptation adds to it."""
    held = folder.kept("strategy")
    with rng.forked(q.seed, 0xADA7):
        if held is None:
            with _measured("adaptation, on the preflight's sample") as cost:
                strategy = adapt.plan(q.model, found, q.seed)
            folder.keep("strategy", {**strategy.to_json(), "cost": cost})
        else:
            ways: tuple[Way, ...] = adapt.rebuild(q.model, found, held["ways"]) if held["ways"] else ()
            strategy = Strategy.from_json(held, ways)
        layout = _kept(folder, "layout", lambda: _layout(q))
        bare = q.model.alone if isinstance(q.model, Defended) else adapt.undefended(q.model, found.probe)
    compute = q.compute or Compute(layout=layout)
    return replace(q, strategy=strategy, undefended=bare, draws=found.draws, compute=compute)


@contextmanager
def _measured(part: str) -> Iterator[dict[str, Any]]:
    """What happens inside, as a `Cost` in plain numbers, filled in at the end."""
    cost: dict[str, Any] = {"part": part}
    passes, start = Passes(), time.perf_counter()
    with counting(passes):
        yield cost
    cost |= {"forward": passes.forward, "backward": passes.backward, "seconds": round(time.perf_counter() - start, 3)}


def _layout(q: Question) -> str:
    """Settled once for all shards, since another layout rounds differently."""
    if q.budget is not None:
        return "same"
    victim = Classifier(q.model)
    device = victim.device or q.images.device
    looks = len(q.images) // FIRST * sum(stage.attack.steps * stage.trials for stage in q.plan.stages())
    x = q.images[: q.batch_size or default_batch(math.prod(q.images.shape[1:]), device)].to(device)
    return preferred(victim, x, looks)


def _kept(folder: RunFolder, name: str, make: Callable[[], Any]) -> Any:
    """What the folder keeps under the name; made and kept at the first start."""
    held = folder.kept(name)
    if held is None:
        held = make()
        folder.keep(name, held)
    return held
