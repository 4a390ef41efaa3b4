"""The second screen, laid out: threat, eps, attack, target and defense to the left; pictures and curve to the right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..attacks import ATTACKS
from ..attacks.facts import facts
from ..defenses import DEFENSES
from .explore import BOTH, KNOWS, NOT, OPTIONS, Explorer
from .extra import gr
from .look import PRIVATE, TIMED
from .room import Room
from .state import Bench, scale

NORMS = {
    "linf": "L∞: every pixel a little",
    "l2": "L2: the length of the change",
    "l1": "L1: the sum of all changes",
    "l0": "L0: few pixels, as much as they like",
}
UNITS = {"linf": "ε (L∞)", "l2": "ε (L2)", "l1": "ε (L1)", "l0": "ε (pixels that may change)"}
STRENGTHS = {  # lowest, highest, step, and where the slider begins
    "blur": (0.2, 3.0, 0.1, 1.0),
    "percentile": (0, 100, 5, 50),
    "median": (2, 7, 1, 3),
    "bit-depth": (1, 7, 1, 3),
    "jpeg": (0, 100, 5, 75),
    "tv": (0.0, 0.9, 0.1, 0.5),
    "random-shift": (1, 6, 1, 2),
    "resize-pad": (0.5, 1.0, 0.05, 0.9),
    "noise": (0.05, 0.5, 0.05, 0.1),
}


def build(room: Room, subject: gr.State, clock: gr.Number) -> Callable[[Any], None]:
    """Lay the screen out. Gives back what has an event draw it."""
    bench = room.bench
    norm_names = [name for name in NORMS if bench.attacks(name)]
    most, step = scale(norm_names[0], bench.shape)
    with gr.Row(elem_classes="knobs"):
        eps = gr.Slider(
            0, most, _begin(most, step), step=step, label=UNITS[norm_names[0]], elem_id="eps", scale=4, buttons=[]
        )
        find = gr.Button("Smallest ε that fools", variant="primary", elem_id="smallest", min_width=200, scale=1)
    with gr.Row(elem_classes="bench"):
        with gr.Column(scale=1, min_width=260, elem_classes="controls"):
            norm = gr.Dropdown(
                [(NORMS[name], name) for name in norm_names], value=norm_names[0], label="Threat", elem_id="threat"
            )
            names = attack_names(bench, norm_names[0])
            attack = gr.Dropdown(names, value=names[0][1], label="Attack", elem_id="attack")
            target = gr.Dropdown(
                [("any wrong class", -1), *((name, k) for k, name in enumerate(bench.classes))],
                value=-1, label="Target: the model shall say", elem_id="target",
            )  # fmt: skip
            defense = gr.Dropdown(
                [("none", ""), *((name, name) for name in DEFENSES if name in STRENGTHS)],
                value="", label="Defense in front of the model", elem_id="defense",
            )  # fmt: skip
            low, high, fine, at = STRENGTHS["blur"]
            strength = gr.Slider(
                low, high, at, step=fine, label="Strength", visible=False, elem_id="strength", buttons=[]
            )
            knows = gr.Radio([BOTH, NOT, KNOWS], value=BOTH, label="The attacker", visible=False, elem_id="knows")
            halt = gr.Button("Stop", size="sm", elem_id="halt")
        with gr.Column(scale=3, min_width=320):
            status = gr.HTML("", elem_id="status")
            stage = gr.HTML("", elem_id="stage")
            plot = gr.HTML("", elem_id="curve")
    explorer = Explorer(room)
    asked = [norm, eps, attack, target, defense, strength, knows]

    def draw(event: Any) -> None:
        event(explorer.show, [subject, *asked, clock], [status, stage, plot], **TIMED)

    def draw_all(event: Any) -> None:
        draw(event)
        event(explorer.curve, [*asked, clock], plot, **TIMED)

    def renorm(chosen: str, kind: str) -> tuple[Any, Any]:
        high, fine = scale(chosen, bench.shape)
        names = attack_names(bench, chosen)
        keep = kind if kind in [name for _, name in names] else names[0][1]
        slider = gr.Slider(minimum=0, maximum=high, step=fine, value=_begin(high, fine), label=UNITS[chosen])
        return slider, gr.Dropdown(choices=names, value=keep)

    def rewall(chosen: str) -> tuple[Any, Any]:
        low, high, fine, at = STRENGTHS.get(chosen, STRENGTHS["blur"])
        label = OPTIONS[chosen].capitalize() if chosen else "Strength"
        slider = gr.Slider(minimum=low, maximum=high, step=fine, value=at, label=label, visible=bool(chosen))
        return slider, gr.Radio(visible=bool(chosen))

    changed = norm.input(renorm, [norm, attack], [eps, attack], **PRIVATE)
    walled = defense.input(rewall, defense, [strength, knows], **PRIVATE)
    for event in (eps.input, eps.release, target.input):
        draw(event)
    for event in (changed.then, walled.then, attack.input, strength.release, knows.input):
        draw_all(event)
    find.click(explorer.find, [subject, *asked, clock], [status, eps, stage, plot], **TIMED)
    halt.click(explorer.halt, None, status, **PRIVATE)
    return draw_all


def attack_names(bench: Bench, norm: str) -> list[tuple[str, str]]:
    """The attacks for a norm: as people call them, and by name."""
    return [(facts(ATTACKS[name]).title, name) for name in bench.attacks(norm)]


def _begin(most: float, step: float) -> float:
    """Where a slider of eps stands at first: an eighth of its way, on a step."""
    return round(max(1, round(most / 8 / step)) * step, 6)
