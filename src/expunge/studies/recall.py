"""Does unlearning a score's tokens alone take away the knowledge, or only its wording? Runs compared on paraphrases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from expunge import runfolder
from expunge.errors import RunFolderError
from expunge.evals import metrics, paired
from expunge.evals.measure import FORGET, Measured
from expunge.evals.metrics import PerItem
from expunge.evals.paired import Paired
from expunge.runfolder import RunFolder
from expunge.studies import sheets
from expunge.studies.sheets import Sheet, Table, shown

QUESTION = "recall"
_LABEL = "unlearned"
_KINDS = {"answer": "the answer as it was trained", "paraphrase": "the answer in other words"}


def run(
    runs: Sequence[Path],
    controls: Sequence[Path],
    out: Path,
    *,
    overwrite: bool = False,
    resamples: int = 2000,
    seed: int = 0,
) -> RunFolder:
    """The folder with the comparison and its page. Runs of several seeds count by the mean of each record."""
    found = compare(runs, controls, resamples=resamples, seed=seed)
    folder = runfolder.create(out, "measure", overwrite=overwrite, name=QUESTION)
    with runfolder.recording(folder):
        folder.update(question=QUESTION, runs=[str(p) for p in runs], controls=[str(p) for p in controls])
        folder.write_json(f"{sheets.FOLDER}/recall.json", [one.as_json() for one in found])
        sheets.write(folder, _sheet(found))
    return folder


def compare(runs: Sequence[Path], controls: Sequence[Path], *, resamples: int = 2000, seed: int = 0) -> list[Paired]:
    """Probability of answer and paraphrase under the runs and under the control runs, paired by forget record.

    RunFolderError if a run has no evaluation of the forget set with paraphrases, or the runs have no record in common.
    """
    sides = [[_measured(path) for path in paths] for paths in (runs, controls)]
    ids = sorted(set.intersection(*({*one["answer"].ids} for side in sides for one in side)))
    if not ids:
        raise RunFolderError("the runs were evaluated on different forget records. Compare runs of the same data.")
    first = sides[0][0]["answer"]
    subjects = dict(zip(first.ids, first.subjects, strict=True))
    out = []
    for kind in _KINDS:
        one, other = (np.mean([_values(m[kind], ids) for m in side], axis=0) for side in sides)
        who = [subjects[key] for key in ids]
        out.append(paired.compare(kind, one.tolist(), other.tolist(), who, resamples=resamples, seed=seed))
    return out


def _measured(path: Path) -> dict[str, PerItem]:
    folder = runfolder.open(path)
    table = f"eval/{_LABEL}/scores/{FORGET}.parquet"
    if not folder.has(table):
        raise RunFolderError(f"run '{path}' has no '{table}'. Evaluate it: set evaluation.suite to own or tofu.")
    found = Measured.of(folder.read_table(table))
    if found.paraphrase is None:
        raise RunFolderError(f"the forget records of run '{path}' have no paraphrases, so nothing can be compared.")
    paraphrase = metrics.over(found.paraphrase, found.loss)
    return {"answer": metrics.probability(found.loss), "paraphrase": metrics.probability(paraphrase)}


def _values(item: PerItem, ids: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    found = dict(zip(item.ids, item.values.tolist(), strict=True))
    return np.array([found[key] for key in ids], np.float64)


def _sheet(found: Sequence[Paired]) -> Sheet:
    rows = tuple(
        (_KINDS[one.name], shown(one.first), shown(one.second), shown(one.difference), f"{one.p:.4f}") for one in found
    )
    columns = ("probability of", "unlearned on picked tokens", "on matched random tokens", "difference", "p")
    note = f"Mean probability a token, paired over {found[0].difference.n} forget records; lower is more forgotten."
    return Sheet(
        "Does unlearning the picked tokens reach the knowledge?",
        "If only the wording were gone, paraphrases would be as likely as after unlearning random tokens.",
        (Table("Recall", note, columns, rows),),
        (),
    )
