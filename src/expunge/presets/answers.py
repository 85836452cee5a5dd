"""Another answer taught in place of the forget answer."""

from __future__ import annotations

from collections.abc import Mapping

from expunge.presets.preset import EQUAL, TOFU, Preset, Published, forget, retain

PRESETS: Mapping[str, Preset] = {
    "idk-nll": Preset(
        "refusals taught in place of the forget answers, likelihood on the retain set",
        "TOFU, arXiv 2401.06121; OpenUnlearning's IdkNLL",
        (forget("alternative"), retain()),
        differs="a mean over sequences of token means; refusals of our own: see data.refusals",
        published=(TOFU,),
    ),
    "idk-dpo": Preset(
        "a refusal preferred over the forget answer",
        "TOFU, arXiv 2401.06121, DPO as in arXiv 2305.18290; OpenUnlearning's DPO with idontknow.jsonl",
        (forget("dpo:beta=0.1"), retain()),
        differs="refusals of our own: see data.refusals",
        settings={"beta": "0.objective.beta"},
        parity=f"{EQUAL}, of both answers",
        published=(TOFU,),
    ),
    "altpo": Preset(
        "another plausible answer of the model itself preferred over the forget answer",
        "AltPO, arXiv 2409.13474",
        (forget("dpo:beta=0.05,alternatives=own"), retain()),
        differs="the model is asked the plain question, and samples that are the old answer again are dropped",
        settings={"beta": "0.objective.beta", "retain": "1.coef"},
        parity=f"{EQUAL}, of both answers",
        published=(
            Published(
                "tofu-forget10",
                {"beta": 0.05, "retain": 1},
                "llama-3.2-1b",
                {"train.learning_rate": 2e-5},
                source="the best of beta .05 .1 .5; retain 1 2 5; learning_rate 1e-5 2e-5 5e-5",
            ),
        ),
    ),
    "bss": Preset(
        "ascent on the forget answer and on answers that the model writes to the same question",
        "BS-S, Li et al., ICLR 2026, arXiv 2510.19422, over ascent",
        (
            forget("ga", coef=0.7),
            forget("alternative:alternatives=own", coef=-0.3),
            retain(),
        ),
        differs="answers are sampled once, from the starting model, at most 5 (data.alternatives); lam was not found: "
        "0.3, so that 1 - lam is the factor of the forget answer",
        settings={"forget": "0.coef", "sampled": "1.coef"},
    ),
    "jensun": Preset(
        "forget tokens turned into a refusal's, retain tokens held at the reference, both by Jensen-Shannon divergence",
        "JensUn, arXiv 2509.02820",
        (forget("jensun", coef=0.5), retain("js", coef=0.5)),
        differs="the refusal's tokens share the mass; jensun:mass=each is the released code",
        settings={"forget": "0.coef", "retain": "1.coef"},
    ),
}
