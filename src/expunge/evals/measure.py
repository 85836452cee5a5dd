"""What the tables of one model say item by item: from score and generation tables to named per-item metrics.

Sets are named: `forget`, `holdout`, and any number of sets of what is to be kept: TOFU's `retain`, `real_authors`,
`world_facts`, or others. No model, no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from expunge.errors import RunFolderError, unknown
from expunge.evals import metrics, table
from expunge.evals.metrics import PerItem
from expunge.evals.table import Answers

FORGET, HOLDOUT = "forget", "holdout"
ASKED = ("forget_verbmem", "forget_knowmem", "retain_knowmem")
"""Sets of MUSE that are asked and never scored."""
TOFU_UTILITY = ("retain", "real_authors", "world_facts")
_PREFIX = {"real_authors": "ra", "world_facts": "wf"}


@dataclass(frozen=True)
class Convention:
    """How a metric is computed where definition and published code differ.

    `epsilon` is added to denominators; `floor`: extraction strength is never below 1 / n; `strip_prompt`: the prompt's
    text is removed from the right answer before ROUGE; `empty`: min-k score of an answer without a token;
    `privleak_reference`: the AUC that PrivLeak compares with where there is no oracle (None: it is absent then).
    """

    epsilon: float = 0.0
    floor: bool = False
    strip_prompt: bool = False
    empty: float = math.nan
    privleak_reference: float | None = None


CONVENTIONS: Mapping[str, Convention] = {
    "expunge": Convention(),
    "openunlearning": Convention(metrics.PEER_EPSILON, True, True, 0.0, 0.5),
}


def convention(name: str) -> Convention:
    """The convention of a name; RunFolderError with a suggestion if there is none."""
    if name not in CONVENTIONS:
        raise RunFolderError(unknown("convention", name, CONVENTIONS))
    return CONVENTIONS[name]


@dataclass(frozen=True)
class Measured:
    """One set under one model: the right answers, losses of all variants, and generations if there are any."""

    answers: Answers
    loss: PerItem
    paraphrase: PerItem | None
    perturbed: tuple[PerItem, ...]
    generations: pa.Table | None

    @classmethod
    def of(cls, scores: pa.Table, generations: pa.Table | None = None) -> Measured:
        """The view of a set's tables."""
        names = table.variants(scores)
        losses = {name: metrics.average_loss(table.answers(scores, name)) for name in names}
        wrong = sorted((name for name in names if name.startswith("perturbed:")), key=lambda n: int(n.split(":")[1]))
        return cls(
            table.answers(scores),
            losses["answer"],
            losses.get("paraphrase"),
            tuple(losses[name] for name in wrong),
            generations,
        )


def prefix(name: str) -> str:
    """How OpenUnlearning's metric names begin for a set: retain, ra, wf; other sets go by their own name."""
    return _PREFIX.get(name, name)


def per_item(name: str, measured: Measured, how: Convention) -> dict[str, PerItem]:
    """The teacher-forced and generation metrics of one set, by OpenUnlearning's names, as far as its tables go."""
    found = _answer_metrics(name, measured, how)
    if name == FORGET:
        found["exact_memorization"] = metrics.exact_memorization(measured.answers)
        found["extraction_strength"] = metrics.extraction_strength(measured.answers, floor=how.floor)
    return {key: metrics.over(item, measured.loss) for key, item in found.items()}


def _answer_metrics(name: str, measured: Measured, how: Convention) -> dict[str, PerItem]:
    start = prefix(name)
    found = {f"{start}_Q_A_Prob": metrics.probability(measured.loss)}
    if measured.paraphrase is not None:
        found[f"{start}_Q_A_PARA_Prob"] = metrics.probability(measured.paraphrase)
    if measured.perturbed:
        found[f"{start}_Q_A_PERT_Prob"] = _mean(measured.loss, [metrics.probability(p) for p in measured.perturbed])
        right = measured.loss if measured.paraphrase is None else measured.paraphrase
        forms = {"_truth_ratio": "closer_to_1"} if name == FORGET else {"_Truth_Ratio": "true_better"}
        for ending, form in forms.items():
            found[start + ending] = metrics.truth_ratio(right, measured.perturbed, form, how.epsilon)
        if measured.paraphrase is None:
            found[f"{start}_Q_A_Prob_normalised"] = metrics.probability_with_options(
                measured.loss, measured.perturbed, how.epsilon
            )
    if measured.generations is not None:
        found[f"{start}_Q_A_ROUGE"] = metrics.rouge(measured.generations, how.strip_prompt)["rougeL_recall"]
    return found


def tofu_truth_ratio(measured: Measured) -> PerItem | None:
    """The truth ratio of a utility set as TOFU's own code has it: arithmetic mean of the wrong answers."""
    if not measured.perturbed:
        return None
    right = measured.loss if measured.paraphrase is None else measured.paraphrase
    return metrics.over(metrics.truth_ratio(right, measured.perturbed, "tofu_utility"), measured.loss)


def attacks(measured: Measured, how: Convention) -> dict[str, PerItem]:
    """Membership scores of a set's answers, low for members: loss, zlib, min-k and min-k++ with k = 40%.

    The gradient norm is among them where the score table has it, and min-k++ unless it lacks every entropy.
    """
    spread = not np.isnan(measured.answers.entropy).all()
    norms = metrics.gradient_norm(measured.answers)
    return {
        "mia_loss": measured.loss,
        "mia_zlib": metrics.zlib_score(measured.loss, measured.answers.texts),
        "mia_min_k": metrics.min_k(measured.answers, empty=how.empty),
        **({"mia_min_k_plus_plus": metrics.min_k_plus_plus(measured.answers, empty=how.empty)} if spread else {}),
        **({} if norms is None else {"mia_gradnorm": norms}),
    }


def read_sets(folder: Path) -> dict[str, Measured]:
    """Every set of an evaluation folder (eval/LABEL of a run) that was scored; RunFolderError if it has no table."""
    files = sorted((folder / "scores").glob("*.parquet"))
    if not files and not any((folder / "generations").glob("*.parquet")):
        raise RunFolderError(f"'{folder}' holds no score tables (scores/*.parquet). Evaluate a model into it first.")
    sets = {}
    for file in files:
        generations = folder / "generations" / file.name
        texts = table.read(generations) if generations.is_file() else None
        sets[file.stem] = Measured.of(table.read(file), texts)
    return sets


def read_texts(folder: Path) -> dict[str, pa.Table]:
    """The answers of sets that were asked and not scored, by set."""
    files = sorted((folder / "generations").glob("*.parquet"))
    return {file.stem: table.read(file) for file in files if not (folder / "scores" / file.name).is_file()}


@dataclass(frozen=True)
class Reference:
    """What an oracle, or another model to compare with, says on the same items; None where it says nothing.

    `ratios`: truth ratios of the forget set. `losses`: by set, forget and holdout. `min_k`: membership scores by set;
    `min_k_auc`: their AUC, where a log holds no more than that. `aucs`: of every attack that needs no second model.
    """

    name: str
    ratios: PerItem | None = None
    losses: Mapping[str, PerItem] | None = None
    min_k: Mapping[str, PerItem] | None = None
    min_k_auc: float | None = None
    aucs: Mapping[str, float] | None = None


def reference_of(name: str, sets: Mapping[str, Measured], how: Convention) -> Reference:
    """The reference that an evaluated model is."""
    ratios = None
    if FORGET in sets:
        ratios = per_item(FORGET, replace(sets[FORGET], generations=None), how).get("forget_truth_ratio")
    both = {name: sets[name] for name in (FORGET, HOLDOUT) if name in sets}
    complete = len(both) == 2
    all_scores = {name: attacks(measured, how) for name, measured in both.items()}
    scores = {name: found["mia_min_k"] for name, found in all_scores.items()}
    return Reference(
        name,
        ratios,
        {name: measured.loss for name, measured in both.items()} if complete else None,
        scores if complete else None,
        metrics.auc(scores[FORGET], scores[HOLDOUT]) if complete else None,
        {a: metrics.auc(x, all_scores[HOLDOUT][a]) for a, x in all_scores[FORGET].items() if a in all_scores[HOLDOUT]}
        if complete
        else None,
    )


def paired(reference: PerItem, own: PerItem) -> PerItem | None:
    """The reference's numbers on our items: matched by id, or by position for a log that only counts; else None."""
    if set(reference.ids) >= set(own.ids):
        place = {name: index for index, name in enumerate(reference.ids)}
        order = [place[name] for name in own.ids]
    elif len(reference) == len(own) and all(name.isdigit() for name in reference.ids):
        order = list(range(len(own)))
    else:
        return None
    terms = None if reference.terms is None else reference.terms[order]
    return PerItem(own.ids, own.subjects, reference.values[order], terms)


def _mean(like: PerItem, parts: Sequence[PerItem]) -> PerItem:
    by_id = [dict(zip(part.ids, part.values.tolist(), strict=True)) for part in parts]
    rows = [[values[name] for values in by_id if name in values] for name in like.ids]
    return PerItem(like.ids, like.subjects, np.array([np.mean(row) if row else math.nan for row in rows]))
