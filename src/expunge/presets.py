"""Published methods as points of the algebra: {objective, on, score, select, tokens, coef} terms, nothing else.

A preset is named by its key, `tif`, or with settings of its own, `tif:beta=0.3,preserve=0.005`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from expunge.errors import MethodError, unknown

Term = Mapping[str, Any]


@dataclass(frozen=True)
class Preset:
    """A named method: its terms, where they are published, and how they differ from what its authors ran.

    `settings` names what may be set in the preset's spec (`tif:beta=0.3`) and where it goes: 'TERM.objective.KEY',
    'TERM.coef', or 'TERM.score.mix' for the share of the first of two summed scores. `alternatives` are such specs that
    were published, each with its occasion. `parity`: what was held against numbers of published code.
    `negate`: method.negate, where the recipe does not set it.
    """

    summary: str
    source: str
    terms: tuple[Term, ...]
    differs: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    alternatives: tuple[tuple[str, str], ...] = ()
    parity: str = "from the equation"
    negate: float = 0.0


def _forget(objective: str, coef: float = 1.0, score: str = "uniform", select: str = "raw") -> Term:
    return {"objective": objective, "on": "forget", "score": score, "select": select, "coef": coef}


def _retain(objective: str = "nll", coef: float = 1.0) -> Term:
    return {"objective": objective, "on": "retain", "coef": coef}


def _targeted(preserve: float, *others: Term, score: str = "given", lpl: str = "lpl:beta=0.25") -> tuple[Term, ...]:
    """Unwanted words pushed down, the rest of the same answers held, and other terms."""
    unwanted = _forget(lpl, score=score, select="threshold:value=0")
    return (unwanted, {**unwanted, "objective": "preserve", "tokens": "unselected", "coef": preserve}, *others)


_EQUAL = "values and gradients of OpenUnlearning"
_TIF = "Zhou et al., AAAI 2026, arXiv 2506.03142"
_TUNED = "beta was tuned by model and split, 0.25 is that of the paper's sweep of the preservation weight"
_TIF_SETTINGS = {"beta": "0.objective.beta", "preserve": "1.coef"}


def _tif_betas(name: str) -> tuple[tuple[str, str], ...]:
    """The best betas that the authors publish, as specs of the preset `name`."""
    return (
        (f"{name}:beta=0.32", "Llama-2-7B on TOFU forget01 and forget05"),
        (f"{name}:beta=0.23", "Llama-2-7B on TOFU forget10"),
        (f"{name}:beta=0.3", "Llama-3.2-3B on TOFU forget01"),
        (f"{name}:beta=0.27", "Llama-3.2-3B on TOFU forget05"),
        (f"{name}:beta=0.19", "Llama-3.2-3B on TOFU forget10"),
        (f"{name}:beta=0.2", "MUSE"),
    )


_CRITICAL = "0.5*masking+0.5*frozen:score=entropy"
_TOKENUNLEARN_BASES: Mapping[str, tuple[str, Term, Term]] = {
    "": ("ascent", _forget("ga"), _retain()),
    "-wga": ("ascent weighted by the target's probability", {**_forget("ga"), "modulate": "confidence"}, _retain()),
    "-npo": ("NPO", _forget("npo:beta=0.1"), _retain()),
    "-simnpo": ("SimNPO", _forget("simnpo:beta=4.5,delta=0", coef=0.125), _retain()),
    "-rmu": ("RMU", _forget("rmu:steering_coeff=2"), _retain("activation")),
}


def _token_unlearn(kind: str, select: str, weights: str, settings: Mapping[str, str]) -> dict[str, Preset]:
    """TokenUnlearn over each base method, weighted by `select`."""
    return {
        f"tokenunlearn-{kind}{base}": Preset(
            f"{name} {weights} that notice when the question's subject is hidden, and are uncertain",
            "TokenUnlearn, Wu and Zhou, arXiv 2605.00364",
            ({**forget, "score": _CRITICAL, "select": select}, retain),
            differs="no code is public: what is masked, alpha (0.5), r (0.3) and soft weights are our defaults; scores "
            "are made once from the starting model",
            settings={"alpha": "0.score.mix", **settings},
        )
        for base, (name, forget, retain) in _TOKENUNLEARN_BASES.items()
    }


_IMPORTANCE = "Yang et al., ICML 2025, arXiv 2505.11953"
_ALL_BUT = "satimp:beta1=0,beta2=1"
"""1 - p: it orders tokens as their loss does."""


def _masked(score: str, select: str) -> tuple[Term, ...]:
    """Ascent on the mean of the selected tokens, likelihood on the retain set."""
    return _forget("ga:denominator=selected", score=score, select=select), _retain()


_SELECTIVE = "Selective Unlearning, Wan et al., EMNLP 2025 Findings, arXiv 2506.00876, as ATWU's repository has it"
_PARSED = "the spaCy masks of FUNDIAL, which ETW (arXiv 2604.17785) compares with"
_PARSED_DIFFERS = (
    "ETW's baselines are not spelt out, this is the likeliest reading; a token counts if its characters overlap, and "
    "an answer without any has no loss"
)


PRESETS: Mapping[str, Preset] = {
    "ga": Preset(
        "plain gradient ascent on the forget set, nothing retained",
        "TOFU, arXiv 2401.06121",
        (_forget("ga"),),
        parity=_EQUAL,
    ),
    "graddiff": Preset(
        "gradient ascent on the forget set, likelihood on the retain set",
        "TOFU, arXiv 2401.06121; OpenUnlearning's GradDiff",
        (_forget("ga"), _retain()),
        parity=f"{_EQUAL}, and its trajectory",
    ),
    "graddiff-kl": Preset(
        "gradient ascent on the forget set, closeness to the reference on the retain set",
        "TOFU, arXiv 2401.06121; OpenUnlearning's GradDiff with retain_loss_type KL",
        (_forget("ga"), _retain("kl")),
        differs="the divergence is averaged over answer tokens; kl:positions=all is the peer's number",
        parity=f"{_EQUAL} (positions=all)",
    ),
    "npo": Preset(
        "negative preference optimisation: ascent that fades below the reference",
        "arXiv 2404.05868; OpenUnlearning",
        (_forget("npo:beta=0.1"), _retain()),
        settings={"beta": "0.objective.beta"},
        parity=_EQUAL,
    ),
    "simnpo": Preset(
        "NPO without a reference, length-normalised",
        "arXiv 2410.07163; OpenUnlearning",
        (_forget("simnpo:beta=4.5,delta=0", coef=0.125), _retain()),
        settings={"beta": "0.objective.beta", "delta": "0.objective.delta", "forget": "0.coef", "retain": "1.coef"},
        alternatives=(
            ("simnpo:beta=2.5,forget=0.1375", "TOFU forget05, the authors' repository"),
            (
                "simnpo:beta=3.5,delta=1",
                "Llama-3.2-1B on TOFU forget10: the best of OpenUnlearning, learning_rate 5e-5",
            ),
            ("simnpo:beta=0.7,retain=0.1", "MUSE News, the authors' repository"),
            ("simnpo:beta=0.75,retain=0.1", "MUSE Books, the authors' repository"),
        ),
        parity=_EQUAL,
    ),
    "rmu": Preset(
        "hidden states of forget tokens steered to a random direction, those of retain tokens held at the reference's",
        "WMDP, arXiv 2403.03218; OpenUnlearning's RMU with retain_loss_type EMBED_DIFF",
        (_forget("rmu:steering_coeff=2"), _retain("activation")),
        differs="the peer's layer is 7 of any model; ours is a depth. WMDP trains three layers: see train.trainable",
        parity=f"{_EQUAL} (mean=broadcast), and its direction",
    ),
    "wga": Preset(
        "ascent weighted by the target's own probability",
        "arXiv 2502.19301; OpenUnlearning (beta 1)",
        (_forget("ga", score="confidence:beta=1"), _retain()),
        differs="the authors' code uses beta 5",
        settings={"beta": "0.score.beta"},
        alternatives=(("wga:beta=5", "the authors' code: 5 epochs, weight_decay 0, learning_rate 1e-5"),),
        parity=f"{_EQUAL}, and its trajectory",
    ),
    "satimp": Preset(
        "ascent weighted by saturation times importance",
        "arXiv 2505.11953, the authors' settings",
        (_forget("ga", score="satimp:beta1=5,beta2=0.1"), _retain(coef=0.1)),
        parity=_EQUAL,
    ),
    "satimp-ou": Preset(
        "SatImp with the settings that OpenUnlearning ships",
        "arXiv 2505.11953; OpenUnlearning",
        (_forget("ga", coef=0.1, score="satimp:beta1=5,beta2=1"), _retain()),
        parity=_EQUAL,
    ),
    "simsat": Preset(
        "ascent weighted by saturation alone, a power of the target's probability",
        f"SimSat, {_IMPORTANCE}",
        (_forget("ga", score="confidence:beta=5"), _retain(coef=0.1)),
        differs="its exponent was not found; 5 as in SatImp. It is wga with another factor on the retain set",
        settings={"beta": "0.score.beta"},
        parity=_EQUAL,
    ),
    "simimp": Preset(
        "ascent weighted by importance alone, what the target's probability lacks to 1",
        f"SimImp, {_IMPORTANCE}",
        (_forget("ga", score=_ALL_BUT), _retain(coef=0.1)),
        differs="its exponent was not found; 1 as where ETW (arXiv 2604.17785) compares with it",
        settings={"beta": "0.score.beta2"},
    ),
    "simsat-hard": Preset(
        "ascent on the share of tokens with the lowest loss",
        f"hard sampling, {_IMPORTANCE}",
        (_forget("ga", score="confidence", select="top:r=0.3"), _retain(coef=0.1)),
        differs="the quantile is of each answer, and r 0.3 our default; random sampling is control=random",
        settings={"r": "0.select.r"},
    ),
    "simimp-hard": Preset(
        "ascent on the share of tokens with the highest loss",
        f"hard sampling, {_IMPORTANCE}",
        (_forget("ga", score=_ALL_BUT, select="top:r=0.3"), _retain(coef=0.1)),
        differs="the quantile is of each answer, and r 0.3 our default; random sampling is control=random",
        settings={"r": "0.select.r"},
    ),
    "tnpo": Preset(
        "ascent weighted token by token as NPO weights sequences: less where the reference is left behind",
        "TNPO, Wang et al., ICLR 2025, arXiv 2502.19301, the authors' code",
        (_forget("ga", score="tnpo:beta=4"), _retain()),
        settings={"beta": "0.score.beta"},
    ),
    "wtnpo": Preset(
        "TNPO, times a power of the target's probability",
        "WTNPO, Wang et al., ICLR 2025, arXiv 2502.19301, the authors' code",
        (_forget("ga", score="tnpo:beta=4,alpha=1.5"), _retain()),
        settings={"beta": "0.score.beta", "alpha": "0.score.alpha"},
    ),
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
        (_forget("ga", coef=0.1, score="entropy:temperature=1", select="normalised"), _retain()),
        differs="temperature and forget coefficient were not published; 1 and 0.1 are our defaults",
        settings={"temperature": "0.score.temperature"},
    ),
    **_token_unlearn("hard", "top:r=0.3", "on the top share of tokens", {"r": "0.select.r"}),
    **_token_unlearn("soft", "normalised", "weighted to the tokens", {}),
    "tif": Preset(
        "the logits of annotated words pushed below the reference's, the rest of the same answers held",
        f"TIF, {_TIF}",
        _targeted(0.01),
        differs=f"{_TUNED}; nothing holds the retain set",
        settings=_TIF_SETTINGS,
        alternatives=_tif_betas("tif"),
        parity="values and gradients of the released code",
    ),
    "tif-retain": Preset(
        "TIF, with likelihood on the retain set",
        f"TIF, {_TIF}",
        _targeted(0.01, _retain()),
        differs=_TUNED,
        settings=_TIF_SETTINGS,
        alternatives=_tif_betas("tif-retain"),
        parity="values and gradients of the released code",
    ),
    "tif-mlm": Preset(
        "TIF, where unwanted is what an annotation does not call general: the masked-LM identifier's way",
        f"TIF, {_TIF}",
        _targeted(0.01, score="given:label=not-general"),
        differs=f"{_TUNED}; nothing holds the retain set",
        settings=_TIF_SETTINGS,
        alternatives=_tif_betas("tif-mlm"),
        parity="values and gradients of the released code",
    ),
    "tif-code": Preset(
        "TIF as its released code computes it on TOFU: batch mean inside the sigmoid, general words at full weight",
        f"TIF, {_TIF}: tpo_grad_diff",
        _targeted(1.0, _retain(), lpl="lpl:beta=0.25,sigmoid=batch"),
        differs="sequences without unwanted words are defined, not NaN; needs one micro-batch an update",
        settings=_TIF_SETTINGS,
        alternatives=_tif_betas("tif-code"),
        parity="values and gradients of the released code",
    ),
    "idk-nll": Preset(
        "refusals taught in place of the forget answers, likelihood on the retain set",
        "TOFU, arXiv 2401.06121; OpenUnlearning's IdkNLL",
        (_forget("alternative"), _retain()),
        differs="a mean over sequences of token means; refusals of our own: see data.refusals",
    ),
    "idk-dpo": Preset(
        "a refusal preferred over the forget answer",
        "TOFU, arXiv 2401.06121, DPO as in arXiv 2305.18290; OpenUnlearning's DPO with idontknow.jsonl",
        (_forget("dpo:beta=0.1"), _retain()),
        differs="refusals of our own: see data.refusals",
        settings={"beta": "0.objective.beta"},
        parity=f"{_EQUAL}, of both answers",
    ),
    "altpo": Preset(
        "another plausible answer of the model itself preferred over the forget answer",
        "AltPO, arXiv 2409.13474",
        (_forget("dpo:beta=0.05,alternatives=own"), _retain()),
        differs="the model is asked the plain question, and samples that are the old answer again are dropped",
        settings={"beta": "0.objective.beta", "retain": "1.coef"},
        alternatives=(
            ("altpo:beta=0.05,retain=1", "Llama-3.2-1B on TOFU forget10: best of the grid, learning_rate 2e-5"),
            ("altpo:beta=0.1,retain=2", "the grid: beta .05 .1 .5; retain 1 2 5; learning_rate 1e-5 2e-5 5e-5"),
        ),
        parity=f"{_EQUAL}, of both answers",
    ),
    "undial": Preset(
        "self-distillation: the reference's own prediction with the answer's logit lowered",
        "UNDIAL, arXiv 2402.10052; OpenUnlearning (learning_rate 1e-4, no retain term)",
        (_forget("undial:beta=10"),),
        differs="averaged over the answer; OpenUnlearning's mean over prompt and padding is undial-ou",
        settings={"beta": "0.objective.beta"},
        parity=f"{_EQUAL} (undial-ou)",
    ),
    "undial-ou": Preset(
        "UNDIAL as OpenUnlearning computes it: over prompt and padding too, where it lowers an entry at random",
        "arXiv 2402.10052; OpenUnlearning",
        (_forget("undial:beta=10,positions=predicting"),),
        settings={"beta": "0.objective.beta"},
        parity=_EQUAL,
    ),
    "ceu": Preset(
        "cross-entropy to the model's own prediction without the answer's token; the first answer token is left out",
        "CE-U, arXiv 2503.01224; OpenUnlearning (no retain term)",
        (_forget("ceu:denominator=selected", select="skip:n=1"),),
        parity=_EQUAL,
    ),
    "pdu": Preset(
        "the highest logit of forget tokens brought to the mean, under a bound on the retain loss (primal-dual)",
        "PDU, arXiv 2506.05314; OpenUnlearning, TOFU: learning_rate 1e-5",
        (
            _forget("flatten:top_k=1"),
            {**_retain(), "constraint": {"at_most": 0.3, "start": 100.0, "rate": 5.0, "warmup_epochs": 5.0}},
        ),
        differs="one move of the dual variable an update; OpenUnlearning moves it in each micro-batch, and reads "
        "logits one place on (flatten:positions=own)",
        parity=f"{_EQUAL} (positions=own), and its dual variable",
    ),
    "palu": Preset(
        "the first tokens of annotated spans flattened, the rest of the answer held at the reference's prediction",
        "PALU, Zhai et al., ACL 2026, arXiv 2601.03190",
        (
            _forget(
                "flatten:top_k=50,of=reference,denominator=selected",
                score="given",
                select="threshold:value=0 > onset:n=3",
            ),
            {
                **_forget("kl:direction=reverse,denominator=selected", score="given", select="threshold:value=0"),
                "tokens": "unselected",
            },
            _retain(),
        ),
        differs="K 50 and the first 3 tokens as in its best results; its configuration ships K 1 and whole spans",
        settings={"flatten": "0.coef", "leash": "1.coef", "retain": "2.coef"},
        alternatives=(("palu:leash=0.5,retain=0.5", "the grid: .2 .5 1 2 5 for both; learning_rate 1e-5 to 5e-5"),),
    ),
    "asu": Preset(
        "forget answers taught by the reference with its attention smoothed",
        "ASU, ICLR 2026, arXiv 2603.01285",
        (_forget("kl:attention=2.4"), _retain()),
        differs="temperatures from 2.0 to 2.8 were used, 2.4 is our default; 6 to 8 shallow layers may do",
        settings={"attention": "0.objective.attention", "layers": "0.objective.layers", "retain": "1.coef"},
        alternatives=(("asu:attention=2,layers=0.5", "the first half of the layers"),),
    ),
    "task-vector": Preset(
        "the model fine-tuned on the forget set, and what that changed taken from it: no forgetting by gradient",
        "Ilharco et al., arXiv 2212.04089; TOFU and MUSE compare with it",
        (_forget("nll"),),
        differs="the factor was tuned by task; method.negate sets it, 1 if not set",
        negate=1.0,
    ),
    "ihl": Preset(
        "inverted hinge loss: the answer gives way to its strongest rival",
        "LoKU, arXiv 2408.06621",
        (_forget("ihl"), _retain()),
        differs="without its Fisher-weighted initialisation of adapters",
    ),
    "jensun": Preset(
        "forget tokens turned into a refusal's, retain tokens held at the reference, both by Jensen-Shannon divergence",
        "JensUn, arXiv 2509.02820",
        (_forget("jensun", coef=0.5), _retain("js", coef=0.5)),
        differs="the refusal's tokens share the mass; jensun:mass=each is the released code",
        settings={"forget": "0.coef", "retain": "1.coef"},
    ),
    "atwu": Preset(
        "saturated ascent weighted by a scorer that is trained beside the model to spare what retaining brings back",
        "ATWU, Yuce, Nikolaou, Flammarion, arXiv 2606.06320, the scripts for Llama-3.2-1B on TOFU",
        (_forget("saturated:beta=5", coef=5.0, score="learned"), _retain(coef=0.5)),
        differs="learning rate, both factors and beta were searched for from these values; the scorer moves after the "
        "update, on its records without dropout",
        settings={
            "beta": "0.objective.beta",
            "budget_coef": "0.score.budget_coef",
            "every": "0.score.every",
            "fits": "0.score.fits",
            "forget": "0.coef",
            "retain": "1.coef",
        },
        alternatives=(
            ("atwu:budget_coef=15", "Llama-3.1-8B on TOFU"),
            ("atwu:every=10", "the configuration's default"),
        ),
    ),
    "bst": Preset(
        "ascent against the answer and the model's own likeliest tokens beside it",
        "BS-T, Li et al., ICLR 2026, arXiv 2510.19422",
        (_forget("bst:lam=0.3,top_k=10"), _retain()),
        differs="lam and k were not published; 0.3 and 10 are our defaults",
    ),
}


def get(spec: str) -> Preset:
    """The preset of that name, its settings filled in; MethodError with a suggestion if there is none.

    >>> [term["objective"] for term in get("tif:beta=0.3").terms]
    ['lpl:beta=0.3', 'preserve']
    """
    name, _, rest = spec.partition(":")
    if name.strip() not in PRESETS:
        raise MethodError(unknown("preset", name.strip(), PRESETS))
    preset = PRESETS[name.strip()]
    for pair in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals:
            raise MethodError(f"preset '{spec}': expected key=value after ':', found '{pair}'")
        if not preset.settings:
            raise MethodError(f"preset '{name}' has no settings; found '{key}'. Write its terms to change them")
        if key not in preset.settings:
            raise MethodError(unknown(f"setting of preset '{name}'", key, preset.settings))
        preset = replace(preset, terms=_set(preset.terms, preset.settings[key], f"preset '{name}': {key}", value))
    return preset


def _set(terms: tuple[Term, ...], place: str, what: str, value: str) -> tuple[Term, ...]:
    """The terms with `value` at 'TERM.coef' or 'TERM.score.mix', or as a setting of a spec at 'TERM.objective.KEY'."""
    index, part, *key = place.split(".")
    term = dict(terms[int(index)])
    if key == ["mix"]:
        share = _number(what, value)
        if not 0 <= share <= 1:
            raise MethodError(f"{what} must be from 0 to 1 (got '{value}')")
        first, second = (score.partition("*")[2] for score in term[part].split("+"))
        term[part] = f"{share:g}*{first}+{1 - share:g}*{second}"
    elif key:
        name, _, rest = term[part].partition(":")
        settings = dict(pair.split("=", 1) for pair in rest.split(",") if pair) | {key[0]: value}
        term[part] = f"{name}:" + ",".join(f"{k}={v}" for k, v in settings.items())
    else:
        term[part] = _number(what, value)
    return (*terms[: int(index)], term, *terms[int(index) + 1 :])


def _number(what: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise MethodError(f"{what} must be a number (got '{value}')") from None
