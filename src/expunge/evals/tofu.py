"""The TOFU suite: load its sets, write each set's tables once, judge from the tables.

Works for any records in sets named as in `measure`: `forget`, `holdout`, and the sets to be kept.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from expunge import keyed, ranks
from expunge.data import load as loader
from expunge.data.records import Record, Split
from expunge.errors import DataError
from expunge.evals import muse, peer
from expunge.evals.judge import Judgement, judge_folder, metrics_from_folder
from expunge.evals.measure import FORGET, HOLDOUT
from expunge.evals.muse import Task
from expunge.evals.numbers import Bootstrap
from expunge.evals.table import ENTAILMENT, FLUENCY, GRAD_NORM
from expunge.evaluation import Classifier
from expunge.recipe import Source
from expunge.runfolder import ITEMS, ITEMS_TABLE, RunFolder

if TYPE_CHECKING:
    from expunge.data.encode import Encoder
    from expunge.decode import Progress
    from expunge.lm import LM

__all__ = ["Settings", "evaluate", "judge_folder", "load_suite", "metrics_from_folder"]

HUB_NAME = "locuslab/TOFU"
_PERTURBED = {
    "retain": "retain_perturbed",
    "real_authors": "real_authors_perturbed",
    "world_facts": "world_facts_perturbed",
}
_SPLITS: Mapping[str, Split] = {"forget": "forget", "retain": "retain", "holdout": "holdout"}
_FORMAT = "1"
OnProgress = Callable[[str, int, int], None]
"""Called with what is being done ('forget: scoring'), how many are done, and how many there are."""


@dataclass(frozen=True)
class Settings:
    """How a model is evaluated. `convention`: expunge or openunlearning (see `measure.CONVENTIONS`).

    `grad_norm`: also measure the gradient of each forget and holdout answer, for the attack that reads it. `variants`:
    which answers are scored. `tasks`: sets by name that are only asked, each in its own way (MUSE's). `classifiers`:
    who reads what was written, by what for: fluency, entailment.
    """

    generate: bool = True
    max_new_tokens: int = 200
    token_budget: int = 2048
    batch_size: int = 32
    convention: str = "expunge"
    grad_norm: bool = False
    variants: Sequence[str] = ("answer", "paraphrase", "perturbed")
    tasks: Mapping[str, Task] = field(default_factory=dict)
    classifiers: Mapping[str, Classifier] = field(default_factory=dict)
    generator: Literal["own", "vllm"] = "own"
    bootstrap: Bootstrap = field(default_factory=Bootstrap)


def load_suite(
    data_dir: str | Path | None,
    forget_split: str = "forget01",
    *,
    limit: int | None = None,
    holdout: Sequence[Record] | None = None,
) -> dict[str, list[Record]]:
    """TOFU's sets by name: forget, retain, real_authors, world_facts, and holdout if there is one.

    `data_dir` is a folder of TOFU's files (forget01_perturbed.json, ...), None the hub's locuslab/TOFU. The holdout set
    is `holdout` if given, else holdout01 beside forget01. Real authors and world facts have no subjects: every item
    stands for itself. DataError if the forget split or one of the other sets is missing.
    """
    names = {"forget": f"{forget_split}_perturbed", **_PERTURBED}
    sets = {name: _read(data_dir, file, name, limit) for name, file in names.items()}
    if holdout is not None:
        sets[HOLDOUT] = list(holdout)[:limit]
    elif forget_split.startswith("forget"):
        file = forget_split.replace("forget", "holdout", 1)
        if data_dir is None or _file(Path(data_dir), file) is not None:
            sets[HOLDOUT] = _read(data_dir, file, HOLDOUT, limit)
    return sets


def evaluate(
    lm: LM,
    encoder: Encoder,
    sets: Mapping[str, Sequence[Record]],
    run: RunFolder,
    label: str,
    *,
    reference: Path | None = None,
    target: Path | None = None,
    settings: Settings | None = None,
    unknown: Mapping[str, str] | None = None,
    progress: OnProgress | None = None,
) -> Judgement:
    """The judgement of a model on the sets; its tables, items, metrics and what is absent are in eval/LABEL of the run.

    A table whose key (model, token ids, settings) is already there is not made again, so that a second evaluation
    computes nothing and an interrupted one goes on with the set it had not finished. `reference` and
    `target` as in `judge_folder`, `unknown` as in `write_judgement`.
    """
    how = settings or Settings()
    if not sets.get(FORGET):
        raise DataError(f"the evaluation needs a forget set; it was given {', '.join(sets) or 'no set'}")
    make_tables(lm, encoder, sets, run, label, how, progress)
    return write_judgement(run, label, reference, target, how, unknown)


def write_judgement(
    run: RunFolder,
    label: str,
    reference: Path | None,
    target: Path | None,
    how: Settings,
    unknown: Mapping[str, str] | None = None,
) -> Judgement:
    """The judgement of the tables in eval/LABEL; its items, metrics and what is absent are written beside them.

    `unknown`: why numbers cannot be had at all, where that is known better than the tables tell.
    """
    folder = run.file(f"eval/{label}")
    judgement = judge_folder(folder, reference, target=target, convention=how.convention, bootstrap=how.bootstrap)
    run.write_json(f"eval/{label}/metrics.json", judgement.entries())
    run.write_json(f"eval/{label}/absent.json", _absent(judgement, unknown or {}))
    run.write_table(f"eval/{label}/{ITEMS_TABLE}", items_table(judgement))
    return judgement


def make_tables(
    lm: LM,
    encoder: Encoder,
    sets: Mapping[str, Sequence[Record]],
    run: RunFolder,
    label: str,
    settings: Settings,
    progress: OnProgress | None = None,
) -> None:
    """Writes the score and generation tables that are not there yet, and removes those of sets no longer asked for.

    Records without a prompt are scored; nothing is generated for them. Each process of a run makes its block of rows.
    """
    from expunge import collective
    from expunge.evals import generation, gradients, scoring
    from expunge.lm import content_hash

    model = content_hash(lm.model)
    wanted: set[str] = set()
    for name, records in sets.items():
        if name in settings.tasks:
            wanted.update(_task_table(lm, encoder, name, records, run, label, model, settings, progress))
            continue
        variants = ("answer",) if name == HOLDOUT else settings.variants
        rows = scoring.items(encoder, records, variants)
        key = {"format": _FORMAT, "model": model, "items": scoring.content_hash(rows)}
        graded = settings.grad_norm and name in (FORGET, HOLDOUT)
        if graded:
            key["grad_norm"] = "l2"
        path = f"eval/{label}/scores/{name}.parquet"
        wanted.add(path)
        if keyed.key_of(run.file(path)) != key:
            own = ranks.here().block(rows)
            scores = scoring.score_items(
                lm, own, token_budget=settings.token_budget, progress=told(progress, f"{name}: scoring")
            )
            if graded:
                norms = gradients.norms(lm, own, progress=told(progress, f"{name}: gradients"))
                scores = scores.append_column(GRAD_NORM, pa.array(norms, pa.float64()))
            scores = pa.concat_tables(collective.gathered(scores))
            run.write_table(path, keyed.with_key(scores, key))
        asked = [record for record in records if record.prompt]
        if not settings.generate or name == HOLDOUT or not asked:
            continue
        path = f"eval/{label}/generations/{name}.parquet"
        wanted.add(path)
        hashed = generation.content_hash(lm, encoder, asked)
        key = {"format": _FORMAT, "model": model, "items": hashed, "max_new_tokens": str(settings.max_new_tokens)}
        key |= {} if settings.generator == "own" else {"generator": settings.generator}
        if _made_by(run, path) != key:
            mine, listener = ranks.here().block(asked), told(progress, f"{name}: generating")
            texts = _written(lm, encoder, mine, settings, listener)
            run.write_table(path, keyed.with_key(pa.concat_tables(collective.gathered(texts)), key))
    collective.wait()
    if ranks.here().main:
        _read_by_classifiers(lm, run, sorted(path for path in wanted if "/generations/" in path), settings, progress)
    collective.wait()
    for what in ("scores", "generations"):
        for file in run.file(f"eval/{label}/{what}").glob("*.parquet"):
            if f"eval/{label}/{what}/{file.name}" not in wanted:
                file.unlink(missing_ok=True)


def _written(
    lm: LM, encoder: Encoder, records: Sequence[Record], settings: Settings, progress: Progress | None
) -> pa.Table:
    """The generation table of these records, by our own decoding or by vLLM."""
    from expunge.evals import engine, generation

    limit = settings.max_new_tokens
    if settings.generator == "vllm":
        return engine.generate(lm, encoder, records, max_new_tokens=limit, progress=progress)
    return generation.generate(
        lm, encoder, records, max_new_tokens=limit, batch_size=settings.batch_size, progress=progress
    )


def _made_by(run: RunFolder, path: str) -> dict[str, str]:
    """What decided a generation table's texts: its key without what classifiers said of them."""
    return {name: value for name, value in keyed.key_of(run.file(path)).items() if name not in (FLUENCY, ENTAILMENT)}


def _read_by_classifiers(
    lm: LM, run: RunFolder, paths: Sequence[str], settings: Settings, progress: OnProgress | None
) -> None:
    """Adds what the classifiers say to the generation tables."""
    if not settings.classifiers and not any(_made_by(run, path) != keyed.key_of(run.file(path)) for path in paths):
        return
    from expunge.evals import classifier

    device = str(lm.device)
    judges = {what: classifier.load(one, what, device) for what, one in settings.classifiers.items()}
    classifier.add_columns(run, paths, judges, told(progress, "classifying answers"))


def _task_table(
    lm: LM,
    encoder: Encoder,
    name: str,
    records: Sequence[Record],
    run: RunFolder,
    label: str,
    model: str,
    settings: Settings,
    progress: OnProgress | None,
) -> list[str]:
    """Writes what the model answers in a task, if it is not there yet; the table's path, if there is one."""
    from expunge import collective

    if not settings.generate:
        return []
    task, path = settings.tasks[name], f"eval/{label}/generations/{name}.parquet"
    digest = hashlib.sha256(repr((task, muse.prompt_ids(encoder, task, records))).encode())
    digest.update(repr([(record.id, record.answer) for record in records]).encode())
    key = {"format": _FORMAT, "model": model, "items": digest.hexdigest()[:16]}
    if _made_by(run, path) != key:
        listener = told(progress, f"{name}: generating")
        own = ranks.here().block(records)
        texts = muse.generate(lm, encoder, task, own, batch_size=settings.batch_size, progress=listener)
        run.write_table(path, keyed.with_key(pa.concat_tables(collective.gathered(texts)), key))
    return [path]


def write_log(run: RunFolder, label: str, reference: Path | None = None) -> Path:
    """The path of eval/LABEL/TOFU_EVAL.json, the evaluation as OpenUnlearning would have logged it."""
    folder = run.file(f"eval/{label}")
    numbers = metrics_from_folder(folder, reference, convention="openunlearning", resamples=2)
    return peer.write_log(folder, folder / peer.LOG_NAME, numbers)


def _absent(judgement: Judgement, unknown: Mapping[str, str]) -> dict[str, str]:
    return {**judgement.absent, **{name: why for name, why in unknown.items() if name not in judgement.numbers}}


def items_table(judgement: Judgement) -> pa.Table:
    """What each mean is the mean of, by record; items for which a metric is not defined are left out."""
    rows = [
        {"metric": name, "id": record, "value": value}
        for name, item in judgement.items.items()
        for record, value in zip(item.ids, item.averaged.tolist(), strict=True)
        if not math.isnan(value)
    ]
    return pa.Table.from_pylist(rows, schema=ITEMS)


def told(progress: OnProgress | None, what: str) -> Callable[[int, int], None] | None:
    """A listener of one piece of work, from one of the whole evaluation."""
    if progress is None:
        return None
    return lambda done, total: progress(what, done, total)


def _read(data_dir: str | Path | None, name: str, set_name: str, limit: int | None) -> list[Record]:
    split: Split = _SPLITS.get(set_name, "general")
    if data_dir is None:
        source = Source(dataset_name=HUB_NAME, dataset_config=name, limit=limit)
    else:
        folder = Path(data_dir).expanduser()
        file = _file(folder, name)
        if file is None:
            found = ", ".join(sorted(p.name for p in folder.glob("*"))[:12]) or "nothing"
            raise DataError(f"the TOFU suite needs {name}.json in '{data_dir}'; the folder holds {found}")
        source = Source(path=str(file), limit=limit)
    return loader.load(source, split, name_prefix=set_name)


def _file(folder: Path, name: str) -> Path | None:
    return next(
        (folder / f"{name}{s}" for s in (".json", ".jsonl", ".parquet") if (folder / f"{name}{s}").is_file()), None
    )
