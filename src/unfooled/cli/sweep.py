"""`unfooled sweep`: accuracy over eps, over a defense's strength, and the seed's study."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ParameterError, unknown
from . import shared, terminal
from .completion import complete

if TYPE_CHECKING:
    from torch import nn

    from ..album import Album
    from ..data import Dataset
    from ..results import Evaluation
    from ..studies.common import Say

STUDIES = ("seed",)


def sweep(
    model: shared.ModelArgument = None,
    data: shared.DataArgument = None,
    study: Annotated[
        str | None, typer.Option(help="A whole study: [b]seed[/], the student's project both ways.")
    ] = None,
    threat: Annotated[str, typer.Option(help="Norm and largest eps.")] = "linf:0.4",
    eps: Annotated[
        str | None, typer.Option(help="Grid: 0,0.1,0.2 or FROM:TO:STEP; else 9 values up to the threat's.")
    ] = None,
    method: Annotated[
        str, typer.Option("--attack", "--method", help="An attack or a plan.", autocompletion=complete("attacks"))
    ] = "fgsm",
    defense: Annotated[
        str | None,
        typer.Option(
            help="A defense whose strength varies: blur, percentile, median.", autocompletion=complete("defenses")
        ),
    ] = None,
    strengths: Annotated[str | None, typer.Option(help="Its grid, such as 0:2.2:0.1.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder, else one in runs/; for the study runs/seed/DATA.")
    ] = None,
    model_: shared.ModelOption = None,
    data_: shared.DataOption = None,
    weights: shared.Weights = None,
    options: shared.Options = None,
    allow_code: shared.AllowCode = False,
    resize: shared.Resize = None,
    crop: shared.Crop = None,
    classes: shared.Classes = None,
    columns: shared.Columns = None,
    seed: shared.Seed = 0,
    json: shared.Json = False,
) -> None:
    """Measure accuracy over a range of eps, or of a defense's strength, both ways."""
    from .. import report
    from ..store import RunFolder

    if study is not None and study not in STUDIES:
        raise unknown("study", study, STUDIES)
    if study is not None and data is None and model is not None and data_ is None:
        model, data = None, model  # sweep --study seed cifar10
    spec = shared.one_of(data, data_, "DATA")
    chosen = model if model_ is None else shared.one_of(model, model_, "MODEL")
    if study is None and chosen is None:
        raise ParameterError("MODEL is missing: give it as an argument or as --model.")
    question = {"model": chosen, "weights": weights, "model_options": options,
                "data": spec, "study": study, "threat": threat, "eps": eps,
                "attack": method, "defense": defense, "strengths": strengths, "resize": resize, "crop": crop,
                "classes": classes, "columns": columns, "seed": seed}  # fmt: skip
    usual = Path("runs/seed") / Path(spec).name if study else shared.own_folder("sweep", *question.values())
    folder = RunFolder(terminal.writable(out or usual))
    with terminal.notes_shown(), folder.running({k: str(v) for k, v in question.items() if v is not None}):
        found = shared.load_data(spec, resize, crop, classes, columns)
        with terminal.progress() as bars:
            task = bars.add_task("starting", total=1.0, note="")

            def say(text: str, share: float) -> None:
                bars.update(task, description=text, completed=share)

            if study is not None:
                evaluation, album = _seed(chosen, weights, found, spec, folder.path, seed, say)
            else:
                network = shared.load_model(str(chosen), weights, found, options, allow_code)
                settings = {"model": str(chosen), "data": found.name, "seed": str(seed)}
                evaluation, album = _plain(network, found, threat, eps, method, defense, strengths, settings, say)
        if album.clean:
            folder.write_arrays("pictures.safetensors", album.arrays())
        folder.write_evaluation(evaluation)
        page = report.draw(folder)
    if json:
        terminal.out.print_json(evaluation.to_json())
    else:
        shared.show(evaluation)
        terminal.out.print(f"\nreport: {page}", soft_wrap=True)


def _plain(
    network: nn.Module,
    data: Dataset,
    threat: str,
    eps: str | None,
    method: str,
    defense: str | None,
    strengths: str | None,
    settings: dict[str, str],
    say: Say,
) -> tuple[Evaluation, Album]:
    from .. import attacks
    from ..studies import sweeps
    from ..threats import L0, Threat

    allowed, plan = Threat.parse(threat), attacks.parse(method)
    radii = None if eps is None else shared.grid(eps, "eps")
    if defense is None:
        if strengths is not None:
            raise ParameterError("--strengths needs a --defense whose strength varies, such as blur.")
        if radii is None and not math.isfinite(allowed.eps):
            raise ParameterError("The threat's eps is the largest of the grid, so it must be finite; or give --eps.")
        whole = isinstance(allowed, L0)
        radii = radii or sorted({round(allowed.eps * k / 8, 0 if whole else 10) for k in range(9)})
        return sweeps.over_eps(network, data, allowed, radii, plan, settings, say)
    if strengths is None:
        raise ParameterError("--defense needs --strengths, such as 0:2.2:0.1 for blur.")
    return sweeps.over_strength(
        network,
        data,
        allowed,
        radii or [allowed.eps],
        plan,
        defense,
        shared.grid(strengths, "strengths"),
        settings,
        say,
    )


def _seed(
    model: str | None, weights: Path | None, data: Dataset, spec: str, place: Path, seed: int, say: Say
) -> tuple[Evaluation, Album]:
    from ..studies.seed import study

    network, about = _network(model, weights, data, spec, place, seed, say)
    settings = {"data": data.name, "model": about, "seed": str(seed)}
    return study(network, data.whole(), data.labels, data.classes, settings, seed=seed, say=say)


def _network(
    model: str | None, weights: Path | None, data: Dataset, spec: str, place: Path, seed: int, say: Say
) -> tuple[nn.Module, str]:
    """The model that is named; else the weights that the study trained before; else a CNN trained now."""
    from .. import data as datasets
    from ..studies.seed import trained

    if model is not None or weights is not None:
        return shared.load_model(model or "seed-cnn", weights, data), str(model or weights)
    name = spec.partition(":")[0].partition("[")[0]
    if name not in datasets.names() or name.endswith("sample"):
        raise ParameterError(f"The study has no training images for {spec!r}: give --model (and --weights).")
    return trained(name, lambda: shared.load_data(f"{name}:train"), place / "model.safetensors", seed, say)
