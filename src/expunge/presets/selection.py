"""Ascent on some of the tokens: which ones, a score of models, texts or states says."""

from __future__ import annotations

from collections.abc import Mapping

from expunge.presets.preset import Preset, Published, Term, forget, retain


def _masked(score: str, select: str) -> tuple[Term, ...]:
    """Ascent on the mean of the selected tokens, likelihood on the retain set."""
    return forget("ga:denominator=selected", score=score, select=select), retain()


_SELECTIVE = "Selective Unlearning, Wan et al., EMNLP 2025 Findings, arXiv 2506.00876, as ATWU's repository has it"
_PARSED = "the spaCy masks of FUNDIAL, which ETW (arXiv 2604.17785) compares with"
_PARSED_DIFFERS = (
    "ETW's baselines are not spelt out, this is the likeliest reading; a token counts if its characters overlap, and "
    "an answer without any has no loss"
)
_CRITICAL = "0.5*masking+0.5*frozen:score=entropy"
_TOKENUNLEARN_BASES: Mapping[str, tuple[str, Term, Term]] = {
    "": ("ascent", forget("ga"), retain()),
    "-wga": ("ascent weighted by the target's probability", {**forget("ga"), "modulate": "confidence"}, retain()),
    "-npo": ("NPO", forget("npo:beta=0.1"), retain()),
    "-simnpo": ("SimNPO", forget("simnpo:beta=4.5,delta=0", coef=0.125), retain()),
    "-rmu": ("RMU", forget("rmu:steering_coeff=2"), retain("activation")),
}


def _token_unlearn(kind: str, select: str, weights: str, settings: Mapping[str, str]) -> dict[str, Preset]:
    """TokenUnlearn over each base method, weighted by `select`."""
    return {
        f"tokenunlearn-{kind}{end}": Preset(
            f"{name} {weights} that notice when the question's subject is hidden, and are uncertain",
            "TokenUnlearn, Wu and Zhou, arXiv 2605.00364",
            ({**base, "score": _CRITICAL, "select": select}, other),
            differs="no code is public: what is masked, alpha (0.5), r (0.3) and soft weights are our defaults; scores "
            "are made once from the starting model",
            settings={"alpha": "0.score.mix", **settings},
        )
        for end, (name, base, other) in _TOKENUNLEARN_BASES.items()
    }


PRESETS: Mapping[str, Preset] = {
    "seul": Preset(
        "ascent on tokens that the starting model finds less likely than the mean of their answer, short gaps filled",
        "SEUL, arXiv 2402.05813, as re-implemented in ATWU's repository",
        _masked("frozen:score=surprisal", "threshold:k=0 > fill:gap=2"),
        differs="a threshold a sequence, k 0; a k of theirs is -k here, where scores are losses",
    ),
    "su-llm": Preset(
        "ascent on tokens whose probability an assistant model that lacks the knowledge sees otherwise, and neighbours",
        _SELECTIVE,
        _masked("assistant", "threshold:k=0 > expand:c=2"),
        differs="the paper's threshold and c were not found: above the mean of the answer, c 2; needs a model: "
        "su-llm:model=FOLDER",
        settings={"model": "0.score.model"},
    ),
    "su-ngram": Preset(
        "ascent on tokens that follow their history in the forget set but not in the retain set, and neighbours",
        _SELECTIVE,
        _masked("ngram:n=3", "threshold:k=0 > expand:c=2"),
        differs="the paper's threshold and c were not found: above the mean of the answer, c 2",
        settings={"n": "0.score.n"},
    ),
    "scn": Preset(
        "ascent on the noun chunks of the answer, as `expunge annotate --with spacy` marks them",
        _PARSED,
        _masked("given", "threshold:value=0"),
        differs=_PARSED_DIFFERS,
    ),
    "sce": Preset(
        "ascent on the named entities of the answer, as `expunge annotate --with spacy:what=entities` marks them",
        _PARSED,
        _masked("given", "threshold:value=0"),
        differs=_PARSED_DIFFERS,
    ),
    "etw": Preset(
        "ascent weighted by the entropy of the model's own prediction, weights summing to the number of tokens",
        "Koh, Baek, Kim, Kim, ACL 2026, arXiv 2604.17785",
        (forget("ga", coef=0.1, score="entropy:temperature=1", select="normalised"), retain()),
        differs="temperature and forget coefficient were not published; 1 and 0.1 are our defaults",
        settings={"temperature": "0.score.temperature"},
    ),
    **_token_unlearn("hard", "top:r=0.3", "on the top share of tokens", {"r": "0.select.r"}),
    **_token_unlearn("soft", "normalised", "weighted to the tokens", {}),
    "asu-gap": Preset(
        "ascent weighted to the tokens whose loss rises when attention is smoothed",
        "our proposal, from ASU, ICLR 2026, arXiv 2603.01285",
        (forget("ga", score="attention-gap", select="normalised"), retain()),
        settings={"attention": "0.score.attention", "layers": "0.score.layers"},
    ),
    "influence": Preset(
        "ascent on the tokens whose gradient conflicts least with that of the retain set",
        "our proposal, after the G-effect, arXiv 2502.19301",
        _masked("influence", "top:r=0.3"),
        settings={"r": "0.select.r"},
    ),
    "dto": Preset(
        "ascent on the tokens that the end of the answer rests on, the rest held at the reference; no retain set",
        "DTO, ICLR 2026 submission, withdrawn; no arXiv number was found",
        (
            forget("ga", score="delta", select="top:r=0.2"),
            {**forget("kl", score="delta", select="top:r=0.2"), "tokens": "unselected"},
        ),
        differs="from its reviews: the share of tokens, of the suffix, the perturbation and the direction of the "
        "divergence were not found; 0.2, half, not being attended to, and forward are our defaults",
        settings={"r": "0.select.r 1.select.r", "leash": "1.coef"},
    ),
    "atwu": Preset(
        "saturated ascent weighted by a scorer that is trained beside the model to spare what retaining brings back",
        "ATWU, Yuce, Nikolaou, Flammarion, arXiv 2606.06320, the scripts for Llama-3.2-1B on TOFU",
        (forget("saturated:beta=5", coef=5.0, score="learned"), retain(coef=0.5)),
        differs="learning rate, both factors and beta were searched for from these values; the scorer moves after the "
        "update, on its records without dropout",
        settings={
            "beta": "0.objective.beta",
            "budget": "0.score.budget",
            "budget_coef": "0.score.budget_coef",
            "forget": "0.coef",
            "retain": "1.coef",
        },
        published=(
            Published("tofu", {}, "llama-3.2-1b", source="the authors' scripts: where their search starts"),
            Published(
                "tofu", {"budget_coef": 15}, "llama-3.1-8b", source="the authors' scripts: where their search starts"
            ),
        ),
    ),
}
