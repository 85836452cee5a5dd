"""Published methods as points of the algebra: {objective, on, score, select, tokens, coef} terms, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.errors import MethodError, unknown

Term = Mapping[str, Any]


@dataclass(frozen=True)
class Preset:
    """A named method: its terms, where they are published, and how they differ from what its authors ran."""

    summary: str
    source: str
    terms: tuple[Term, ...]
    differs: str = ""


def _forget(objective: str, coef: float = 1.0, score: str = "uniform", select: str = "raw") -> Term:
    return {"objective": objective, "on": "forget", "score": score, "select": select, "coef": coef}


def _retain(objective: str = "nll", coef: float = 1.0) -> Term:
    return {"objective": objective, "on": "retain", "coef": coef}


PRESETS: Mapping[str, Preset] = {
    "ga": Preset(
        "plain gradient ascent on the forget set, nothing retained",
        "TOFU, arXiv 2401.06121",
        (_forget("ga"),),
    ),
    "graddiff": Preset(
        "gradient ascent on the forget set, likelihood on the retain set",
        "TOFU, arXiv 2401.06121; OpenUnlearning's GradDiff",
        (_forget("ga"), _retain()),
    ),
    "graddiff-kl": Preset(
        "gradient ascent on the forget set, closeness to the reference on the retain set",
        "TOFU, arXiv 2401.06121; OpenUnlearning's GradDiff with retain_loss_type KL",
        (_forget("ga"), _retain("kl")),
        differs="the divergence is averaged over answer tokens; kl:positions=all is the peer's number",
    ),
    "npo": Preset(
        "negative preference optimisation: ascent that fades below the reference",
        "arXiv 2404.05868; OpenUnlearning",
        (_forget("npo:beta=0.1"), _retain()),
    ),
    "simnpo": Preset(
        "NPO without a reference, length-normalised",
        "arXiv 2410.07163; OpenUnlearning",
        (_forget("simnpo:beta=4.5,delta=0", coef=0.125), _retain()),
    ),
    "wga": Preset(
        "ascent weighted by the target's own probability",
        "arXiv 2502.19301; OpenUnlearning (beta 1)",
        (_forget("ga", score="confidence:beta=1"), _retain()),
        differs="the authors' code uses beta 5",
    ),
    "satimp": Preset(
        "ascent weighted by saturation times importance",
        "arXiv 2505.11953, the authors' settings",
        (_forget("ga", score="satimp:beta1=5,beta2=0.1"), _retain(coef=0.1)),
    ),
    "satimp-ou": Preset(
        "SatImp with the settings that OpenUnlearning ships",
        "arXiv 2505.11953; OpenUnlearning",
        (_forget("ga", coef=0.1, score="satimp:beta1=5,beta2=1"), _retain()),
    ),
    "etw": Preset(
        "ascent weighted by the entropy of the model's own prediction, weights summing to the number of tokens",
        "Koh, Baek, Kim, Kim, ACL 2026, arXiv 2604.17785",
        (_forget("ga", coef=0.1, score="entropy:temperature=1", select="normalised"), _retain()),
        differs="temperature and forget coefficient were not published; 1 and 0.1 are our defaults",
    ),
}


def get(name: str) -> Preset:
    """The preset of that name; MethodError with a suggestion if there is none."""
    if name not in PRESETS:
        raise MethodError(unknown("preset", name, PRESETS))
    return PRESETS[name]
