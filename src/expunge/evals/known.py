"""Does the model know what it is to forget? 'Nothing to unlearn' is a valid answer, and better before than after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from expunge.data.encode import Encoder
from expunge.data.preflight import Finding
from expunge.data.records import Record
from expunge.evals import metrics, scoring, table
from expunge.lm import LM

LEVEL = 0.2
"""Probability a token (geometric mean over the answer) from which an answer counts as known, without a holdout set.

OpenUnlearning's TOFU models have .11 to .17 on average for authors they never saw, and .88 and more for those they did.
"""
_EXAMPLES = 3


def unknown_records(
    lm: LM, encoder: Encoder, forget: Sequence[Record], holdout: Sequence[Record] = (), *, token_budget: int = 2048
) -> list[Finding]:
    """A warning with the forget records that the model gives no more probability than records it never saw.

    'Never saw' is the 95th percentile of the holdout set, if it has at least 20 records, else `LEVEL`. An empty list if
    every record is known.
    """
    own = probabilities(lm, encoder, forget, token_budget)
    other = probabilities(lm, encoder, holdout, token_budget) if len(holdout) >= 20 else {}
    level = float(np.quantile(list(other.values()), 0.95)) if other else LEVEL
    missing = [key for key, value in own.items() if not value > level]
    if not missing:
        return []
    whose = "the 95th percentile of the holdout set" if other else "our level without a holdout set"
    verdict = "there is nothing to unlearn" if len(missing) == len(own) else "there is nothing to unlearn in these"
    message = (
        f"the model gives {len(missing)} of {len(own)} forget answers at most {level:.2f} probability a token "
        f"({whose}): {verdict}"
    )
    return [Finding("not-known", "warning", len(missing), tuple(missing[:_EXAMPLES]), message)]


def probabilities(lm: LM, encoder: Encoder, records: Sequence[Record], token_budget: int) -> dict[str, float]:
    """exp(-mean loss) of each record's answer, by id; records without a scored token are left out."""
    if not records:
        return {}
    scores = scoring.score(lm, encoder, records, ("answer",), token_budget=token_budget)
    found = metrics.probability(metrics.average_loss(table.answers(scores)))
    return {key: float(v) for key, v in zip(found.ids, found.values, strict=True) if np.isfinite(v)}
