"""`unfooled evaluate`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import shared, terminal
from .completion import complete

if TYPE_CHECKING:
    from ..assertions import Assertion
    from ..evaluation import Standing
    from ..results import Evaluation


def evaluate(
    context: typer.Context,
    model: shared.ModelArgument = None,
    data: shared.DataArgument = None,
    threat: shared.Threat = "linf:8/255",
    protocol: Annotated[
        str,
        typer.Option(
            help="quick, fast, standard or thorough; see [b]unfooled list protocols[/].",
            autocompletion=complete("protocols"),
        ),
    ] = "fast",
    thorough: Annotated[
        bool, typer.Option("--thorough", help="The same as --protocol thorough: all checks too.")
    ] = False,
    certify: Annotated[
        str | None,
        typer.Option(
            help="Prove first, then attack the rest: auto (what works), or ibp, crown, alpha-crown.",
            autocompletion=complete("certificates"),
        ),
    ] = None,
    precision: Annotated[
        float | None, typer.Option(help="End once the 95 % interval is this wide to either side, such as 0.03.")
    ] = None,
    assertion: Annotated[
        list[str] | None,
        typer.Option(
            "--assert", help='"attacked>=0.4": end once it is certain. Exit 0 holds, 1 fails, 2 undecided, 3 invalid.'
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; by default one of its own in runs/.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the result as JUnit XML into this file.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say how many passes and how long it would take.")] = False,
    model_: shared.ModelOption = None,
    data_: shared.DataOption = None,
    weights: shared.Weights = None,
    options: shared.Options = None,
    allow_code: shared.AllowCode = False,
    defense: shared.Defense = None,
    resize: shared.Resize = None,
    crop: shared.Crop = None,
    classes: shared.Classes = None,
    columns: shared.Columns = None,
    batch_size: shared.Batch = None,
    budget: shared.Budget = None,
    draws: Annotated[int | None, typer.Option(help="Passes that a random model's gradients are averaged over.")] = None,
    seed: shared.Seed = 0,
    ray: Annotated[
        str | None,
        typer.Option(metavar="CLUSTER", help="Examine shards on a Ray cluster: local (this machine), auto, HOST:PORT."),
    ] = None,
    ray_cores: Annotated[
        int | None, typer.Option(help="CPU cores of each worker of the cluster, by default 1. GPUs: one each.")
    ] = None,
    json: shared.Json = False,
) -> None:
    """Evaluate a model: robust accuracy with its interval, whether it can be believed, and a report.

    MODEL may also be a spec file, study.toml, with any of these options. The same command goes on where it was stopped.
    """
    from .. import protocols, proving, report
    from ..assertions import Assertion
    from ..environment import command_line
    from ..evaluation import evaluate as measure
    from ..files import whole
    from ..models.access import access_of
    from ..threats import Threat

    chosen = _chosen(context, model, data)
    allowed = Threat.parse(chosen["threat"])
    chosen["protocol"] = "thorough" if chosen["thorough"] else chosen["protocol"]
    protocols.named(chosen["protocol"], allowed)
    proving.wanted(chosen["certify"], allowed)
    claims = [Assertion.parse(text) for text in chosen["assert"] or []]
    cluster = _cluster(chosen["ray"], chosen["ray_cores"])
    if chosen["out"] is not None:
        terminal.writable(Path(chosen["out"]))
    with terminal.notes_shown():
        found = shared.load_data(chosen["data"], chosen["resize"], chosen["crop"], chosen["classes"], chosen["columns"])
        network, settings = _network(chosen, found)
        if plan:
            stages = protocols.named(chosen["protocol"], allowed, access_of(network))
            shared.show_table(_planned(network, found, allowed, stages))
            return
        place = Path(chosen["out"]) if chosen["out"] else _own_folder(chosen, settings, network, found, allowed)
        with terminal.progress() as bars:
            task = bars.add_task(chosen["protocol"], total=None, note="")
            evaluation = measure(
                network, found, allowed, chosen["protocol"], chosen["certify"], chosen["seed"], chosen["precision"], place,
                assertion=claims, batch_size=chosen["batch_size"], budget=chosen["budget"], draws=chosen["draws"],
                cluster=cluster, settings=settings, command=command_line(),
                progress=lambda at: bars.update(task, **_shown(at)),
            )  # fmt: skip
    page = report.draw(place)
    if junit is not None:
        _write_junit(junit, evaluation, settings["model"], claims, whole)
    if json:
        terminal.out.print_json(evaluation.to_json())
    else:
        shared.show(evaluation)
        _show_findings(evaluation)
        terminal.out.print(f"\nreport: {page}", soft_wrap=True)
    _exit(evaluation, claims, quiet=json)


def _chosen(context: typer.Context, model: str | None, data: str | None) -> dict[str, Any]:
    """The options: those on the command line before those of a spec file, those before the defaults."""
    from .. import spec

    names = {"assertion": "assert", "options": "model_options"}
    params = {names.get(name, name): value for name, value in context.params.items()}
    chosen = dict(params)
    if model is not None and model.endswith(".toml"):
        held = spec.read(model)
        typed = {
            names.get(name, name) for name in context.params
            if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
        }  # fmt: skip
        chosen |= {key: value for key, value in held.items() if key not in typed}
        chosen["model"] = params["model_"] or held.get("model")
    else:
        chosen["model"] = shared.one_of(model, params["model_"], "MODEL")
    if data is not None or params["data_"] is not None:
        chosen["data"] = shared.one_of(data, params["data_"], "DATA")
    for name in ("model", "data"):
        chosen[name] = shared.one_of(chosen[name], None, name.upper())
    return chosen


def _own_folder(chosen: dict[str, Any], settings: dict[str, str], network: Any, found: Any, threat: Any) -> Path:
    """The folder of this question about this model: another question, or a changed model, gets another."""
    from ..fingerprint import of_model

    asked = [
        chosen[name] for name in ("protocol", "certify", "seed", "precision", "assert", "budget", "draws", "classes")
    ]
    return shared.own_folder("evaluate", *settings.values(), threat, *asked, of_model(network, found.floats()))


def _network(chosen: dict[str, Any], found: Any) -> tuple[Any, dict[str, str]]:
    """The model, behind its defense if it has one, and what the report says of where it came from."""
    from .. import defenses
    from ..models.formats import ASKING

    weights = Path(chosen["weights"]) if chosen["weights"] else None
    wall = None if chosen["defense"] is None else defenses.parse(chosen["defense"])
    options = chosen["model_options"]
    network = shared.load_model(chosen["model"], weights, found, options, chosen["allow_code"])
    brought = {name: str(chosen[name] or "") for name in ("model", "weights", "defense", "resize", "crop", "columns")}
    which = [word for word in options or () if word.partition("=")[0].strip() not in ASKING]
    brought["model_options"] = shlex.join(which)
    settings = {name: value for name, value in brought.items() if value} | {"data": chosen["data"]}
    return (network if wall is None else defenses.defend(network, wall)), settings


def _cluster(address: str | None, cores: int | None) -> Any:
    """Where shards are examined; None: in this process."""
    from ..cluster import Ray
    from ..errors import ParameterError

    if address is None:
        if cores is not None:
            raise ParameterError("--ray-cores is for the workers of --ray. Say which cluster: --ray local.")
        return None
    cluster = Ray(address, 1 if cores is None else cores)
    cluster.checked()
    return cluster


def _shown(at: Standing) -> dict[str, Any]:
    """What the progress bar says: the confidence sequence of what is judged, and what is running."""
    from ..results import percent

    note = at.stage or (at.within.attack if at.within else "")
    if at.attacked is not None and at.attacked.n:
        note = f"{percent(at.attacked, interval=True)} {note}"
    share = at.within.ended / max(1, at.within.trials) if at.within else 0.0
    return {"completed": at.done, "total": at.total, "note": note or f"{100 * share:.0f} %"}


def _show_findings(evaluation: Evaluation) -> None:
    """What the defense is worth, and every finding with what was or is to be done about it."""
    if evaluation.defense is not None:
        from ..report.evaluated import gap_words

        for sentence in gap_words(evaluation.defense)[1 if evaluation.defense.gap > 0 else 0 :]:  # the verdict has it
            terminal.sentence(sentence)
    for note in evaluation.notes:
        terminal.sentence(note, "· ")
    if evaluation.findings:
        terminal.out.print()
    shared.show_findings(evaluation.findings)


def _write_junit(file: Path, evaluation: Evaluation, name: str, claims: list[Assertion], whole: Any) -> None:
    from ..junit import junit

    with whole(file) as temporary:
        temporary.write_text(junit(evaluation, name, claims[0] if claims else None), encoding="utf-8")


def _exit(evaluation: Evaluation, claims: list[Assertion], quiet: bool) -> None:
    """The worst verdict is the exit status."""
    worst = 0
    for claim in claims:
        assert evaluation.robust_accuracy is not None
        estimate = getattr(evaluation.robust_accuracy, claim.measure)
        verdict = claim.verdict(estimate, evaluation.trust)
        worst = max(worst, claim.status(verdict), key=(0, 2, 1, 3).index)
        if not quiet:
            terminal.sentence(claim.sentence(verdict, estimate))
    if worst:
        raise typer.Exit(worst)


def _planned(network: Any, found: Any, threat: Any, stages: Any) -> Any:
    """Passes that each attack takes at most, and how long that takes here: nothing fooled, nothing adapted."""
    from ..planning import planned
    from ..results import Table

    rows = [
        [part.attack, f"{part.forward}", f"{part.backward}", f"{part.seconds:.0f}"]
        for part in planned(network, found.floats(), found.labels, threat, stages)
    ]
    total = ["in all", *(str(sum(int(row[k]) for row in rows)) for k in (1, 2)), str(sum(int(row[3]) for row in rows))]
    return Table(
        id="plan", title=f"At most, for {len(found)} images that all hold", strong=[len(rows)],
        columns=["attack", "forward passes an image", "backward", "seconds"], rows=[*rows, total],
    )  # fmt: skip
