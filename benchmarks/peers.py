"""The attacks of the peers, as `PEERS[attack][library]`; an attack's last part is its norm: "pgd-linf", "fmn-l0".

How each library is called: `libraries.py`.
"""

from __future__ import annotations

import math

from .libraries import (
    Call,
    Peer,
    adv_lib,
    art,
    foolbox,
    pyautoattack,
    torchattacks,
    where_right,
    whole_autoattack,
)  # fmt: skip

PGD_STEP = 0.1  # of eps, in PGD and BIM alike, for everyone
TARGETS = 9  # AutoAttack's, of APGD-T and FAB-T; 5 for APGD-T in L1
INF = math.inf


def _hop_rounds(queries: int) -> int:
    """HopSkipJump's iterations that fit: each takes 100·√t for the gradient and about 20 for its searches."""
    left, rounds = queries - 70, 0
    while left > 0:
        rounds += 1
        left -= int(100 * math.sqrt(rounds)) + 20
    return max(1, rounds - (left < 0))


def cw_rounds(steps: int) -> tuple[int, int]:
    """C&W's rounds of its search for the constant, and the steps of each: 9 rounds of 20 steps at least, else fewer.

    adv-lib's fails below 10 steps a round.
    """
    rounds = min(9, max(1, steps // 20))
    return rounds, steps // rounds


def _official(norm: str) -> str:
    return norm.capitalize()


_P = {"linf": INF, "l2": 2, "l1": 1, "l0": 0}
_HUGE = {"linf": 1.0, "l2": 1e4, "l1": 1e6}  # FAB returns only what lies within its eps


def _apgd(norm: str, loss: str) -> dict[str, Peer]:
    official, short = _official(norm), {"ce": "cross_entropy", "dlr": "difference_logits_ratio"}[loss]
    found = {
        "pyautoattack": pyautoattack(
            "autopgd_base",
            lambda m, c: m.APGDAttack(
                c.model, n_iter=c.steps, norm=official, eps=c.eps, loss=loss, seed=c.seed, use_largereps=norm == "l1"
            ),
        ),
        "adv-lib": adv_lib(
            lambda a, c, x, y: a.apgd(
                c.model, x, y, eps=c.eps, norm=_P[norm], n_iter=c.steps, loss_function=loss, use_large_reps=norm == "l1"
            )
        ),
    }
    if norm != "l1":
        found["torchattacks"] = torchattacks(
            lambda t, c: t.APGD(c.model, norm=official, eps=c.eps, steps=c.steps, loss=loss, seed=c.seed)
        )
        found["art"] = art(
            lambda a, c: a.AutoProjectedGradientDescent(
                c.model, norm=_P[norm], eps=c.eps, eps_step=2 * c.eps, max_iter=c.steps, nb_random_init=1,
                batch_size=c.batch_size, loss_type=short, verbose=False,
            )
        )  # fmt: skip
    return found


def _apgd_t(norm: str, targets: int) -> dict[str, Peer]:
    official = _official(norm)
    found = {
        "pyautoattack": pyautoattack(
            "autopgd_base",
            lambda m, c: m.APGDAttack_targeted(
                c.model, n_iter=c.steps, norm=official, eps=c.eps, seed=c.seed, n_target_classes=targets,
                use_largereps=norm == "l1",
            ),
        ),
        "adv-lib": adv_lib(
            lambda a, c, x, y: a.apgd_targeted(
                c.model, x, y, eps=c.eps, norm=_P[norm], n_iter=c.steps, num_targets=targets, use_large_reps=norm == "l1"
            )
        ),
    }  # fmt: skip
    if norm != "l1":
        found["torchattacks"] = torchattacks(
            lambda t, c: t.APGDT(c.model, norm=official, eps=c.eps, steps=c.steps, seed=c.seed, n_classes=10)
        )
    return found


def _fab(norm: str, targeted: bool) -> dict[str, Peer]:
    """FAB as a minimum-norm attack; FAB-T with an eps, as in AutoAttack, where adv-lib's minimum over targets fits too."""
    official = _official(norm)

    def eps(c: Call) -> float:
        return _HUGE[norm] if c.eps is None else c.eps

    found = {
        "pyautoattack": pyautoattack(
            "fab_pt",
            lambda m, c: m.FABAttack_PT(
                c.model, norm=official, n_iter=c.steps, eps=eps(c), seed=c.seed, targeted=targeted,
                n_target_classes=TARGETS,
            ),
        ),
        "adv-lib": adv_lib(
            lambda a, c, x, y: a.fab(
                c.model, x, y, norm=_P[norm], n_iter=c.steps, restarts=TARGETS if targeted else None,
                targeted_restarts=targeted,
            )
        ),
    }  # fmt: skip
    if norm != "l1":
        found["torchattacks"] = torchattacks(
            lambda t, c: t.FAB(
                c.model, norm=official, eps=eps(c), steps=c.steps, seed=c.seed, multi_targeted=targeted, n_classes=10
            )
        )
    return found


def _square(norm: str) -> dict[str, Peer]:
    official = _official(norm)
    return {
        "pyautoattack": pyautoattack(
            "square",
            lambda m, c: m.SquareAttack(
                c.model, norm=official, n_queries=c.steps, eps=c.eps, seed=c.seed, resc_schedule=False
            ),
        ),
        "torchattacks": torchattacks(
            lambda t, c: t.Square(
                c.model, norm=official, eps=c.eps, n_queries=c.steps, seed=c.seed, resc_schedule=False
            )
        ),
        "art": art(
            lambda a, c: a.SquareAttack(
                c.model, norm=_P[norm], max_iter=c.steps, eps=c.eps, batch_size=c.batch_size, verbose=False
            )
        ),
    }


def _fmn(norm: str) -> dict[str, Peer]:
    name = {"linf": "LInfFMNAttack", "l2": "L2FMNAttack", "l1": "L1FMNAttack", "l0": "L0FMNAttack"}[norm]
    return {
        "foolbox": foolbox(lambda f, c: getattr(f, name)(steps=c.steps)),
        "adv-lib": adv_lib(lambda a, c, x, y: a.fmn(c.model, x, y, norm=_P[norm], steps=c.steps)),
    }


def _pgd(norm: str) -> dict[str, Peer]:
    """L1 is left out: foolbox's and ART's only rescale, so that they leave no sparse point."""
    name = {"linf": "LinfProjectedGradientDescentAttack", "l2": "L2ProjectedGradientDescentAttack"}[norm]
    kind = {"linf": "PGD", "l2": "PGDL2"}[norm]
    found = {
        "foolbox": foolbox(lambda f, c: getattr(f, name)(steps=c.steps, rel_stepsize=PGD_STEP)),
        "torchattacks": torchattacks(
            lambda t, c: getattr(t, kind)(c.model, eps=c.eps, alpha=PGD_STEP * c.eps, steps=c.steps)
        ),
        "art": art(
            lambda a, c: a.ProjectedGradientDescent(
                c.model, norm=_P[norm], eps=c.eps, eps_step=PGD_STEP * c.eps, max_iter=c.steps, num_random_init=1,
                batch_size=c.batch_size, verbose=False,
            )
        ),
    }  # fmt: skip
    if norm == "linf":
        found["adv-lib"] = adv_lib(
            lambda a, c, x, y: a.pgd_linf(c.model, x, y, ε=c.eps, steps=c.steps, relative_step_size=PGD_STEP)
        )
    return found


def _deepfool(norm: str) -> dict[str, Peer]:
    name = {"linf": "LinfDeepFoolAttack", "l2": "L2DeepFoolAttack"}[norm]
    found = {
        "foolbox": foolbox(lambda f, c: getattr(f, name)(steps=c.steps)),
        "adv-lib": adv_lib(lambda a, c, x, y: a.df(c.model, x, y, steps=c.steps, norm=_P[norm])),
    }
    if norm == "l2":
        # torchattacks' returns the pair (points, classes) only from another method; its images are one-by-one
        found["torchattacks"] = torchattacks(lambda t, c: t.DeepFool(c.model, steps=c.steps))
        found["art"] = art(lambda a, c: a.DeepFool(c.model, max_iter=c.steps, batch_size=c.batch_size, verbose=False))
    return found


def _pdpgd(norm: str) -> dict[str, Peer]:
    return {"adv-lib": adv_lib(lambda a, c, x, y: a.pdpgd(c.model, x, y, norm=_P[norm], num_steps=c.steps))}


def _cw() -> dict[str, Peer]:
    """torchattacks' has no search for the constant: it takes 1 and all the steps."""
    return {
        "foolbox": foolbox(
            lambda f, c: f.L2CarliniWagnerAttack(binary_search_steps=cw_rounds(c.steps)[0], steps=cw_rounds(c.steps)[1])
        ),
        "torchattacks": torchattacks(lambda t, c: t.CW(c.model, steps=c.steps)),
        "art": art(
            lambda a, c: a.CarliniL2Method(
                c.model, binary_search_steps=cw_rounds(c.steps)[0], max_iter=cw_rounds(c.steps)[1],
                batch_size=c.batch_size, verbose=False,
            )
        ),
        "adv-lib": adv_lib(
            lambda a, c, x, y: a.carlini_wagner_l2(
                c.model, x, y, binary_search_steps=cw_rounds(c.steps)[0], max_iterations=cw_rounds(c.steps)[1]
            )
        ),
    }  # fmt: skip


def _hopskipjump(norm: str) -> dict[str, Peer]:
    return {
        "foolbox": where_right(foolbox(lambda f, c: f.HopSkipJumpAttack(steps=_hop_rounds(c.steps), constraint=norm))),
        "art": where_right(
            art(
                lambda a, c: a.HopSkipJump(
                    c.model, batch_size=c.batch_size, norm=_P[norm], max_iter=_hop_rounds(c.steps), verbose=False
                )
            )
        ),
    }


PEERS: dict[str, dict[str, Peer]] = {
    "fgsm-linf": {
        "foolbox": foolbox(lambda f, c: f.LinfFastGradientAttack()),
        "torchattacks": torchattacks(lambda t, c: t.FGSM(c.model, eps=c.eps)),
        "art": art(lambda a, c: a.FastGradientMethod(c.model, norm=INF, eps=c.eps, batch_size=c.batch_size)),
    },
    "fgsm-l2": {
        "foolbox": foolbox(lambda f, c: f.L2FastGradientAttack()),
        "art": art(lambda a, c: a.FastGradientMethod(c.model, norm=2, eps=c.eps, batch_size=c.batch_size)),
    },
    "bim-linf": {
        "foolbox": foolbox(lambda f, c: f.LinfBasicIterativeAttack(steps=c.steps, rel_stepsize=PGD_STEP)),
        "torchattacks": torchattacks(
            lambda t, c: t.BIM(c.model, eps=c.eps, alpha=PGD_STEP * c.eps, steps=c.steps)
        ),
        "art": art(
            lambda a, c: a.BasicIterativeMethod(
                c.model, eps=c.eps, eps_step=PGD_STEP * c.eps, max_iter=c.steps, batch_size=c.batch_size, verbose=False
            )
        ),
    },
    "pgd-linf": _pgd("linf"),
    "pgd-l2": _pgd("l2"),
    "mi-fgsm-linf": {
        "foolbox": foolbox(
            lambda f, c: f.LinfMomentumIterativeFastGradientMethod(steps=c.steps, rel_stepsize=1 / c.steps)
        ),
        "torchattacks": torchattacks(lambda t, c: t.MIFGSM(c.model, eps=c.eps, alpha=c.eps / c.steps, steps=c.steps)),
        "art": art(
            lambda a, c: a.MomentumIterativeMethod(
                c.model, eps=c.eps, eps_step=c.eps / c.steps, max_iter=c.steps, batch_size=c.batch_size, verbose=False
            )
        ),
    },
    "apgd-ce-linf": _apgd("linf", "ce"),
    "apgd-ce-l2": _apgd("l2", "ce"),
    "apgd-ce-l1": _apgd("l1", "ce"),
    "apgd-dlr-linf": _apgd("linf", "dlr"),
    "apgd-dlr-l2": _apgd("l2", "dlr"),
    "apgd-t-linf": _apgd_t("linf", TARGETS),
    "apgd-t-l2": _apgd_t("l2", TARGETS),
    "apgd-t-l1": _apgd_t("l1", 5),
    "fab-linf": _fab("linf", targeted=False),
    "fab-l2": _fab("l2", targeted=False),
    "fab-l1": _fab("l1", targeted=False),
    "fab-t-linf": _fab("linf", targeted=True),
    "fab-t-l2": _fab("l2", targeted=True),
    "fab-t-l1": _fab("l1", targeted=True),
    "square-linf": _square("linf"),
    "square-l2": _square("l2"),
    "square-l1": _square("l1"),
    "deepfool-linf": _deepfool("linf"),
    "deepfool-l2": _deepfool("l2"),
    "superdeepfool-l2": {
        "adv-lib": adv_lib(lambda a, c, x, y: a.sdf(c.model, x, y, steps=c.steps)),
    },
    "cw-l2": _cw(),
    "ddn-l2": {
        "foolbox": foolbox(lambda f, c: f.DDNAttack(steps=c.steps)),
        "adv-lib": adv_lib(lambda a, c, x, y: a.ddn(c.model, x, y, steps=c.steps, levels=None)),
    },
    "fmn-linf": _fmn("linf"),
    "fmn-l2": _fmn("l2"),
    "fmn-l1": _fmn("l1"),
    "fmn-l0": _fmn("l0"),
    "sigma-zero-l0": {
        "adv-lib": adv_lib(lambda a, c, x, y: a.sigma_zero(c.model, x, y, num_steps=c.steps)),
    },
    "pdpgd-linf": _pdpgd("linf"),
    "pdpgd-l2": _pdpgd("l2"),
    "pdpgd-l1": _pdpgd("l1"),
    "hopskipjump-linf": _hopskipjump("linf"),
    "hopskipjump-l2": _hopskipjump("l2"),
    "autoattack-linf": {"pyautoattack": whole_autoattack("linf")},
    "autoattack-l2": {"pyautoattack": whole_autoattack("l2")},
    "autoattack-l1": {"pyautoattack": whole_autoattack("l1")},
}  # fmt: skip

EXTRA: dict[str, dict[str, Peer]] = {  # for `quality.py` only
    "apgd-t5-linf": _apgd_t("linf", 5),
    "apgd-t5-l2": _apgd_t("l2", 5),
    "apgd-t5-l1": _apgd_t("l1", 5),
    "pdgd-l2": {"adv-lib": adv_lib(lambda a, c, x, y: a.pdgd(c.model, x, y, num_steps=c.steps))},
    "alma-l2": {"adv-lib": adv_lib(lambda a, c, x, y: a.alma(c.model, x, y, num_steps=c.steps, init_lr_distance=0.1))},
    "alma-l1": {
        "adv-lib": adv_lib(
            lambda a, c, x, y: a.alma(c.model, x, y, num_steps=c.steps, distance="l1", init_lr_distance=0.5)
        )
    },
}

MINIMAL = ("fab", "deepfool", "superdeepfool", "cw", "ddn", "fmn", "sigma-zero", "pdpgd", "hopskipjump")


def norm_of(attack: str) -> str:
    """The norm in an attack's name."""
    return attack.rpartition("-")[2]


def family(attack: str) -> str:
    """An attack's name without its norm."""
    return attack.rpartition("-")[0]


def minimal(attack: str) -> bool:
    """Whether it looks for the smallest change, so that it takes no eps. (FAB-T takes AutoAttack's.)"""
    return family(attack) in MINIMAL
