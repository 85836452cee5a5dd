"""The model card of an unlearned model: what was removed, how, how well, and what it does not promise."""

from __future__ import annotations

import importlib.metadata
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge import runfolder
from expunge.report import collect, compare, facts, naming, sentences, words
from expunge.report.collect import Cell, Column, View

FILE = "README.md"
_HUB = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_SHOWN = ("forget", "retain", "general", "holdout")
LIMITS = (
    "Unlearning changes weights until the model stops showing what it knew. No number here proves that the knowledge "
    "is gone: other prompts, other languages, more samples, fine-tuning or quantisation may bring some of it back.",
    "Intervals are over the records that were asked about (95 %), not over training runs, and say nothing of other "
    "records.",
    'An oracle is a model trained without the forget set; where there is none, "forgotten" has no reference.',
    "Who may rely on this is for the one who asked for the removal to decide, on the evidence above.",
)
"""What a removal does not prove, in plain words."""
REMOVABLE = (
    "This is an adapter beside its base model. Nothing was removed from the base: whoever takes the adapter off, or "
    "loads the base alone, has the model as it was before."
)


def write(run: str | Path) -> Path:
    """README.md in the run's model folder, with the Hub's metadata; RunFolderError if the path holds no run.

    No text of records is in it: names and settings that share four words in a row with the forget set are blanked.
    """
    [view] = collect.views([run])
    models = collect.columns([view])
    guard = words.Guard(text for model in models for text in sentences.texts(model.folder))
    [view], models = facts.redacted([view], models, guard)
    return view.folder.write_text(f"model/{FILE}", text(view, models))


def text(view: View, models: Sequence[Column]) -> str:
    """The card of one run beside its target and oracle."""
    version = importlib.metadata.version("expunge")
    parts = [
        f"---\n{_metadata(view)}\n---\n",
        f"# {_line(view.name)}\n",
        f"Knowledge was removed from this model by machine unlearning with expunge {version}.\n",
        "## What was removed\n",
        _removed(view),
        "## How\n",
        _how(view),
        "## Results\n",
        _results(models),
        *_verdict(view),
        "## Limits\n",
        "\n".join(textwrap.fill(limit, 118, initial_indent="- ", subsequent_indent="  ") for limit in _limits(view)),
    ]
    return "\n".join(parts) + "\n"


def _limits(view: View) -> Sequence[str]:
    return (REMOVABLE, *LIMITS) if view.manifest.get("removable_adapter") else LIMITS


def _metadata(view: View) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    base = str(_mapping(view.manifest.get("model")).get("name") or "")
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="expunge",
            dataset_name=_set_of(name),
            metric_type=name,
            metric_name=naming.metric(name).title,
            metric_value=round(cell.value, 6),
            metric_args={"ci_low": cell.low, "ci_high": cell.high, "n": cell.n},
        )
        for name, cell in view.own.cells.items()
    ]
    data = ModelCardData(
        model_name=_line(view.name),
        base_model=base if _HUB.fullmatch(base) else None,
        library_name="peft" if view.manifest.get("removable_adapter") else "transformers",
        pipeline_tag="text-generation",
        tags=["machine-unlearning", "expunge"],
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _removed(view: View) -> str:
    rows = ["| set | records | SHA-256, first 16 digits |", "|---|---|---|"]
    sets = _mapping(view.manifest.get("data"))
    for split in _SHOWN:
        entry = _mapping(sets.get(split))
        if entry.get("count"):
            rows.append(f"| {split} | {entry['count']} | `{entry.get('hash') or 'none'}` |")
    note = "The forget set is named by its hash and is not quoted. Who has it can check that it is the one."
    return "\n".join([note, "", *rows]) + "\n"


def _how(view: View) -> str:
    model = _mapping(view.manifest.get("model"))
    lines = {
        "method": view.method,
        "seed": view.manifest.get("seed"),
        "recipe, hash": view.manifest.get("recipe_hash"),
        "model before, hash of its weights": model.get("hash"),
        "parameters": model.get("parameters"),
    }
    return "\n".join(f"- {_line(name)}: `{_line(value)}`" for name, value in lines.items() if value) + "\n"


def _results(models: Sequence[Column]) -> str:
    metrics = compare.ordered([model for model in models if model.role == "run"])
    if not metrics:
        return "This model was not evaluated.\n"
    heads = ["this model" if model.role == "run" else model.role for model in models]
    rows = ["| metric | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for metric in metrics:
        decimals = compare.decimals(metric.name, models)
        cells = [_cell(model.cells.get(metric.name), decimals) for model in models]
        rows.append(f"| {_line(metric.title)} | " + " | ".join(cells) + " |")
    note = "Value [95 % interval]. Target: before; oracle: trained without the forget set."
    return "\n".join([*rows, "", note]) + "\n"


def _cell(cell: Cell | None, decimals: int) -> str:
    if cell is None:
        return "–"
    ends = f" [{compare.shown(cell.low, decimals)}, {compare.shown(cell.high, decimals)}]"
    marks = ("†" if cell.optimistic else "") + (" (void)" if cell.void else "")
    return compare.shown(cell.value, decimals) + (ends if cell.low is not None else "") + marks


def _verdict(view: View) -> list[str]:
    if not view.folder.has(runfolder.VERDICT):
        return []
    found = _mapping(view.folder.read_json(runfolder.VERDICT))
    confidence = collect.number(found.get("confidence"))
    said = f"**{_line(found.get('outcome'))}** for the claim *{_line(found.get('claim'))}*"
    return ["## Verdict\n", said + (f", each bound at {confidence:.0%} confidence.\n" if confidence else ".\n")]


def _set_of(metric: str) -> str:
    part = metric.partition("_")[0]
    return part if part in _SHOWN else "the run's evaluation"


def _line(value: object) -> str:
    """One line that neither Markdown's tables nor its code marks can be broken by."""
    return " ".join(words.visible(str(value), 200).split()).replace("|", "/").replace("`", "'")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
