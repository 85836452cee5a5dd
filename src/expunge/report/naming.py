"""What the metrics are called, which question each answers, and what it means in one line."""

from __future__ import annotations

import math
from dataclasses import dataclass

GROUPS = ("Forgotten?", "Kept?", "Leaks?", "Composite", "Other")
HEADLINES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Forgotten?", "Does it still say the answers?", ("forget_knowmem_ROUGE", "forget_Q_A_Prob", "forget_Q_A_ROUGE")),
    (
        "Extractable?",
        "Does a beginning bring back the rest?",
        (
            "forget_verbmem_ROUGE",
            "extraction_strength",
            "exact_memorization",
        ),
    ),
    (
        "Kept?",
        "Does it still know everything else?",
        (
            "model_utility",
            "retain_knowmem_ROUGE",
            "retain_Q_A_Prob",
            "retain_Q_A_ROUGE",
        ),
    ),
    ("Leaks?", "Can one tell what was in the forget set?", ("privleak", "mia_min_k", "mia_loss")),
)
"""The four questions of the first screen, and for each the metrics that answer it, best first."""

_AUC = "AUC of telling forget from holdout records"
_SINGLE = {
    "forget_quality": ("Forgotten?", "Forget quality (p)", "p of the KS test against the oracle's truth ratios"),
    "forget_quality_ks": ("Forgotten?", "Forget quality (KS)", "largest gap to the oracle's curve of truth ratios"),
    "extraction_strength": ("Forgotten?", "Extraction strength", "share of the answer that its beginning brings"),
    "exact_memorization": ("Forgotten?", "Exact memorisation", "share of answer tokens that are the top guess"),
    "forget_verbmem_ROUGE": ("Forgotten?", "Verbatim memorisation", "ROUGE-L F1 of a forget text's continuation"),
    "forget_knowmem_ROUGE": ("Forgotten?", "Knowledge memorisation", "ROUGE-L F1 of answers about forget texts"),
    "retain_knowmem_ROUGE": ("Kept?", "Retained knowledge", "ROUGE-L F1 of answers about what is to be kept"),
    "model_utility": ("Kept?", "Model utility", "harmonic mean over all that is to be kept"),
    "model_utility_tofu": ("Kept?", "Model utility, TOFU's", "the same with TOFU's own truth ratio"),
    "privleak": ("Leaks?", "PrivLeak", "membership signal against the oracle's, percent; 0 is ideal"),
    "mia_min_k": ("Leaks?", "Membership, min-k", _AUC),
    "mia_min_k_plus_plus": ("Leaks?", "Membership, min-k++", _AUC),
    "mia_loss": ("Leaks?", "Membership, loss", _AUC),
    "mia_zlib": ("Leaks?", "Membership, zlib", _AUC),
    "mia_reference": ("Leaks?", "Membership, reference", _AUC),
    "forget_excess_Prob": ("Forgotten?", "Excess probability", "of forget over holdout answers; 0 is ideal"),
    "forget_excess_extraction": ("Forgotten?", "Excess extraction", "of forget over holdout answers; 0 is ideal"),
    "ou_memorization": ("Composite", "Memorisation score", "OpenUnlearning's: how much less than the target's"),
    "ou_privacy": ("Composite", "Privacy score", "OpenUnlearning's: how near the oracle's membership signal"),
    "ou_utility": ("Composite", "Utility score", "OpenUnlearning's, without fluency: share of the target's utility"),
    "ou_aggregate": ("Composite", "Aggregate", "OpenUnlearning's: harmonic mean of the three"),
    "ou_aggregate_without_privacy": ("Composite", "Aggregate without privacy", "OpenUnlearning's Table 6"),
    "etw_aggregate": ("Composite", "ETW's aggregate", "degenerate: an untouched model scores 0, its best"),
    "mia_gradnorm": ("Leaks?", "Membership, gradient norm", _AUC),
    "set_drift": ("Leaks?", "Drift of the two sets", "AUC of telling forget from holdout records by words alone"),
}
_SETS = {"forget": "", "retain": "Retain", "ra": "Real authors", "wf": "World facts"}
_ENDINGS = {
    "Q_A_Prob": ("answer probability", "mean probability of the true answer, per token"),
    "Q_A_Prob_normalised": ("probability among options", "the true answer's share, beside the wrong ones"),
    "Q_A_ROUGE": ("ROUGE-L", "recall of the true answer in the generated one"),
    "truth_ratio": ("truth ratio", "wrong answers against the right one in other words"),
    "Truth_Ratio": ("truth ratio", "how clearly the right answer beats wrong ones"),
    "Q_A_PARA_Prob": ("paraphrase probability", "the answer in other words"),
    "Q_A_PERT_Prob": ("wrong-answer probability", "mean over the wrong answers"),
    "fluency": ("fluency", "how surely a classifier finds a generated answer clean"),
    "entailment": ("entailment", "how surely a classifier finds the true answer entailed by the generated one"),
    "repetition": ("repetition", "share of each generated answer's runs of four words that it wrote before"),
    "accuracy": ("accuracy", "share of multiple-choice questions answered right"),
}
_OPEN = {
    "KL_oracle": ("KL to the oracle", "mean KL(oracle || model) of the answer's tokens, in nats", 0.0),
    "KL_oracle_informative": ("KL to the oracle, marked words", "over tokens in marked spans", 0.0),
    "KL_oracle_structural": ("KL to the oracle, other words", "over tokens outside of marked spans", 0.0),
    "KL_target": ("KL to the start", "mean KL(target || model) of the answer's tokens, in nats", 0.0),
    "KL_target_informative": ("KL to the start, marked words", "over tokens in marked spans", 0.0),
    "perplexity": ("perplexity", "exp of the mean loss a token", 1.0),
    "KL_target_structural": ("KL to the start, other words", "over tokens outside of marked spans", 0.0),
}
"""Endings of metrics that may be as large as they like, and the lowest value that each can have."""
_ENDINGS |= {ending: (title, what) for ending, (title, what, _) in _OPEN.items()}
_RATES = {"_tpr_at_1_fpr": "1 %", "_tpr_at_5_fpr": "5 %"}
_LEAKS = ("mia_", "privleak")
IDEALS = {"privleak": 0.0}
"""What an oracle has by definition, where its evaluation does not say it."""


_BOUNDS = {"privleak": (-100.0, math.inf), "etw_aggregate": (0.0, math.inf)}


@dataclass(frozen=True)
class Metric:
    """How a metric is shown: its group, its title, and what it is in one line."""

    name: str
    group: str
    title: str
    what: str


def metric(name: str) -> Metric:
    """The metric of a name; one that is not known goes by its name, in the group that its name suggests.

    >>> metric("ra_Truth_Ratio").title, metric("forget_Q_A_ROUGE").title, metric("zeta").group
    ('Real authors: truth ratio', 'ROUGE-L', 'Other')
    """
    if name in _SINGLE:
        return Metric(name, *_SINGLE[name])
    for ending, share in _RATES.items():
        if name.endswith(ending):
            title = metric(name.removesuffix(ending)).title
            return Metric(name, "Leaks?", f"{title}, at {share}", f"members found where {share} of others are")
    for ending, (title, what) in _ENDINGS.items():
        if name.endswith(f"_{ending}"):
            part = name.removesuffix(f"_{ending}")
            whose = _SETS.get(part, part.replace("_", " ").capitalize())
            group = "Forgotten?" if part == "forget" or part.startswith("forget_") else "Kept?"
            return Metric(name, group, f"{whose}: {title}" if whose else title[0].upper() + title[1:], what)
    if name.startswith(_LEAKS):
        return Metric(name, "Leaks?", name, "")
    group = "Forgotten?" if name.startswith("forget") else "Kept?" if name.startswith(tuple(_SETS)) else "Other"
    return Metric(name, group, name, "")


def bounds(name: str) -> tuple[float, float]:
    """The lowest and highest value that a metric can have; infinite for one that is not known.

    >>> bounds("forget_Q_A_Prob"), bounds("privleak"), bounds("retain_KL_oracle"), bounds("seconds")
    ((0.0, 1.0), (-100.0, inf), (0.0, inf), (-inf, inf))
    """
    lowest = next((low for ending, (_, _, low) in _OPEN.items() if name.endswith(f"_{ending}")), None)
    if lowest is not None:
        return lowest, math.inf
    share = name in _SINGLE or name.startswith("mia_") or any(name.endswith(f"_{ending}") for ending in _ENDINGS)
    return _BOUNDS.get(name, (0.0, 1.0) if share else (-math.inf, math.inf))


def order(name: str) -> tuple[int, int, int, str]:
    """A sort key: by question, what is known by name first, then set by set in the order of their measures."""
    found = metric(name)
    if name in _SINGLE:
        return GROUPS.index(found.group), 0, list(_SINGLE).index(name), ""
    ending = next((e for e in _ENDINGS if name.endswith(f"_{e}")), "")
    part = name.removesuffix(f"_{ending}") if ending else ""
    whose = list(_SETS).index(part) if part in _SETS else len(_SETS)
    return GROUPS.index(found.group), 1 + whose, list(_ENDINGS).index(ending) if ending else len(_ENDINGS), name
