"""Ascent on the forget answers, whole or weighted by how likely each token is; and its bounded relatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.presets.preset import EQUAL, MUSE, TOFU, Preset, Published, forget, retain

_IMPORTANCE = "Yang et al., ICML 2025, arXiv 2505.11953"
_ALL_BUT = "satimp:beta1=0,beta2=1"
"""1 - p: it orders tokens as their loss does."""


def _g_effect(settings: Mapping[str, Any]) -> tuple[Published, ...]:
    """What the authors of WGA and TNPO run: 5 epochs of 4 x 4 records, no weight decay."""
    run = {
        "train.num_train_epochs": 5,
        "train.per_device_train_batch_size": 4,
        "train.gradient_accumulation_steps": 4,
        "train.weight_decay": 0,
    }
    rates = (("llama-2-7b", 1e-5), ("phi-1.5", 2e-5))
    return tuple(
        Published("tofu", settings, model, {**run, "train.learning_rate": rate}, source="the authors' code")
        for model, rate in rates
    )


PRESETS: Mapping[str, Preset] = {
    "ga": Preset(
        "plain gradient ascent on the forget set, nothing retained",
        "TOFU, arXiv 2401.06121",
        (forget("ga"),),
        parity=EQUAL,
        published=(TOFU, MUSE),
    ),
    "graddiff": Preset(
        "gradient ascent on the forget set, likelihood on the retain set",
        "TOFU, arXiv 2401.06121; OpenUnlearning's GradDiff",
        (forget("ga"), retain()),
        parity=f"{EQUAL}, and its trajectory",
        published=(TOFU, MUSE),
    ),
    "graddiff-kl": Preset(
        "gradient ascent on the forget set, closeness to the reference on the retain set",
        "TOFU, arXiv 2401.06121; OpenUnlearning's GradDiff with retain_loss_type KL",
        (forget("ga"), retain("kl")),
        differs="the divergence is averaged over answer tokens; kl:positions=all is the peer's number",
        parity=f"{EQUAL} (positions=all)",
    ),
    "npo": Preset(
        "negative preference optimisation: ascent that fades below the reference",
        "arXiv 2404.05868; OpenUnlearning",
        (forget("npo:beta=0.1"), retain()),
        settings={"beta": "0.objective.beta"},
        parity=EQUAL,
        published=(TOFU, MUSE),
    ),
    "simnpo": Preset(
        "NPO without a reference, length-normalised",
        "arXiv 2410.07163; OpenUnlearning",
        (forget("simnpo:beta=4.5,delta=0", coef=0.125), retain()),
        settings={"beta": "0.objective.beta", "delta": "0.objective.delta", "forget": "0.coef", "retain": "1.coef"},
        parity=EQUAL,
        published=(
            TOFU,
            Published("tofu-forget05", {"beta": 2.5, "forget": 0.1375}, source="the authors' repository"),
            Published(
                "tofu-forget10",
                {"beta": 3.5, "delta": 1},
                "llama-3.2-1b",
                {"train.learning_rate": 5e-5},
                source="the best of OpenUnlearning's search",
            ),
            Published("muse-news", {"beta": 0.7, "retain": 0.1}, source="the authors' repository"),
            Published("muse-books", {"beta": 0.75, "retain": 0.1}, source="the authors' repository"),
        ),
    ),
    "wga": Preset(
        "ascent weighted by the target's own probability",
        "arXiv 2502.19301; OpenUnlearning (beta 1)",
        (forget("ga", score="confidence:beta=1"), retain()),
        differs="the authors' code uses beta 5",
        settings={"beta": "0.score.beta"},
        parity=f"{EQUAL}, and its trajectory",
        published=(TOFU, *_g_effect({"beta": 5})),
    ),
    "tnpo": Preset(
        "ascent weighted token by token as NPO weights sequences: less where the reference is left behind",
        "TNPO, Wang et al., ICLR 2025, arXiv 2502.19301, the authors' code",
        (forget("ga", score="tnpo:beta=4"), retain()),
        settings={"beta": "0.score.beta"},
        published=_g_effect({}),
    ),
    "wtnpo": Preset(
        "TNPO, times a power of the target's probability",
        "WTNPO, Wang et al., ICLR 2025, arXiv 2502.19301, the authors' code",
        (forget("ga", score="tnpo:beta=4,alpha=1.5"), retain()),
        settings={"beta": "0.score.beta", "alpha": "0.score.alpha"},
        published=_g_effect({}),
    ),
    "satimp": Preset(
        "ascent weighted by saturation times importance",
        "arXiv 2505.11953, the authors' settings",
        (forget("ga", score="satimp:beta1=5,beta2=0.1"), retain(coef=0.1)),
        parity=EQUAL,
    ),
    "satimp-ou": Preset(
        "SatImp with the settings that OpenUnlearning ships",
        "arXiv 2505.11953; OpenUnlearning",
        (forget("ga", coef=0.1, score="satimp:beta1=5,beta2=1"), retain()),
        parity=EQUAL,
        published=(TOFU,),
    ),
    "simsat": Preset(
        "ascent weighted by saturation alone, a power of the target's probability",
        f"SimSat, {_IMPORTANCE}",
        (forget("ga", score="confidence:beta=5"), retain(coef=0.1)),
        differs="its exponent was not found; 5 as in SatImp. It is wga with another factor on the retain set",
        settings={"beta": "0.score.beta"},
        parity=EQUAL,
    ),
    "simimp": Preset(
        "ascent weighted by importance alone, what the target's probability lacks to 1",
        f"SimImp, {_IMPORTANCE}",
        (forget("ga", score=_ALL_BUT), retain(coef=0.1)),
        differs="its exponent was not found; 1 as where ETW (arXiv 2604.17785) compares with it",
        settings={"beta": "0.score.beta2"},
    ),
    "simsat-hard": Preset(
        "ascent on the share of tokens with the lowest loss",
        f"hard sampling, {_IMPORTANCE}",
        (forget("ga", score="confidence", select="top:r=0.3"), retain(coef=0.1)),
        differs="the quantile is of each answer, and r 0.3 our default; random sampling is control=random",
        settings={"r": "0.select.r"},
    ),
    "simimp-hard": Preset(
        "ascent on the share of tokens with the highest loss",
        f"hard sampling, {_IMPORTANCE}",
        (forget("ga", score=_ALL_BUT, select="top:r=0.3"), retain(coef=0.1)),
        differs="the quantile is of each answer, and r 0.3 our default; random sampling is control=random",
        settings={"r": "0.select.r"},
    ),
    "ihl": Preset(
        "inverted hinge loss: the answer gives way to its strongest rival",
        "LoKU, arXiv 2408.06621",
        (forget("ihl"), retain()),
        differs="without its Fisher-weighted initialisation of adapters",
    ),
    "bst": Preset(
        "ascent against the answer and the model's own likeliest tokens beside it",
        "BS-T, Li et al., ICLR 2026, arXiv 2510.19422",
        (forget("bst:lam=0.3,top_k=10"), retain()),
        differs="lam and k were not published; 0.3 and 10 are our defaults",
    ),
    "task-vector": Preset(
        "the model fine-tuned on the forget set, and what that changed taken from it: no forgetting by gradient",
        "Ilharco et al., arXiv 2212.04089; TOFU and MUSE compare with it",
        (forget("nll"),),
        differs="the factor was tuned by task; method.negate sets it, 1 if not set",
        negate=1.0,
    ),
}
