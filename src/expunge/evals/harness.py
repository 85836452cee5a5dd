"""Multiple-choice probes through lm-evaluation-harness: WMDP, MMLU, local tasks, or a file of questions with choices.

The harness asks and scores; what is kept is a table of right and wrong by question, and every number comes from it,
with our intervals.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from expunge import keyed, runfolder
from expunge.errors import DataError, MissingExtraError
from expunge.evals.numbers import Bootstrap, Number
from expunge.evals.stats import Sample, weighted_mean
from expunge.evaluation import Harness
from expunge.runfolder import RunFolder

if TYPE_CHECKING:
    from expunge.lm import LM

ANSWERED = pa.schema(
    [
        ("side", pa.string()),
        ("task", pa.string()),
        ("id", pa.string()),
        ("subject", pa.string()),
        ("right", pa.float64()),
    ]
)
"""A row a question: `side` forget or retain, the task, the question's id in it, its subject ('' if it has none), and 1
if the model's choice was right."""
TABLE = "harness.parquet"
_FORMAT = "1"
_SHOTS = "Question: {{question}}\nAnswer:"


def evaluate(lm: LM, probes: Harness, run: RunFolder, label: str, bootstrap: Bootstrap) -> dict[str, Number]:
    """The accuracies of a model, by name; its answers are in eval/LABEL/harness.parquet, its metrics.json has them too.

    A table of the same model and probes that is there already is not made again.
    """
    from expunge.lm import content_hash

    path = f"eval/{label}/{TABLE}"
    text = _read(Path(probes.choices)) if probes.choices else ""
    key = {
        "format": _FORMAT,
        "model": content_hash(lm.model),
        "probes": probes.model_dump_json(),
        "choices": runfolder.text_hash([text]),
    }
    if keyed.key_of(run.file(path)) != key:
        run.write_table(path, keyed.with_key(ask(lm, probes), key))
    numbers = accuracies(run.read_table(path), bootstrap)
    metrics = f"eval/{label}/metrics.json"
    old = run.read_json(metrics) if run.has(metrics) else {}
    run.write_json(metrics, {**old, **{name: number.entry() for name, number in numbers.items()}})
    return numbers


def ask(lm: LM, probes: Harness) -> pa.Table:
    """The table of a model's answers in the schema `ANSWERED`. DataError for a task that cannot be loaded."""
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise MissingExtraError("evaluation.harness", "harness") from None
    with tempfile.TemporaryDirectory() as folder:
        sides = {**dict.fromkeys(probes.forget, "forget"), **dict.fromkeys(probes.retain, "retain")}
        if probes.choices is not None:
            sides |= write_tasks(Path(probes.choices), Path(folder), probes.letters)
        places = [folder, *([probes.include_path] if probes.include_path else [])]
        model = HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=probes.batch_size, device=str(lm.device))
        training = lm.model.training
        try:
            found = simple_evaluate(
                model=model,
                tasks=list(sides),
                num_fewshot=probes.num_fewshot,
                limit=probes.limit,
                bootstrap_iters=0,
                apply_chat_template=probes.apply_chat_template,
                task_manager=TaskManager(include_path=places, include_defaults=bool(probes.forget or probes.retain)),
            )
        except (KeyError, ValueError, OSError, ConnectionError) as error:
            shown = " ".join(str(error).split())[:300]
            raise DataError(f"lm-evaluation-harness cannot ask {', '.join(sides)}: {shown}") from error
        finally:
            lm.model.train(training)
    if found is None:
        raise DataError(f"lm-evaluation-harness returned nothing for {', '.join(sides)}")
    return answered(found, sides)


def answered(found: Mapping[str, Any], sides: Mapping[str, str]) -> pa.Table:
    """The table of the harness's results; a group's subtasks belong to the side of the group."""
    parts = {task: task for task in sides}
    for group, members in (found.get("group_subtasks") or {}).items():
        for member in members:
            parts[member] = parts.get(group, group)
    for _ in parts:  # groups of groups
        parts = {task: parts.get(whole, whole) for task, whole in parts.items()}
    rows = []
    for task, samples in found["samples"].items():
        whole = parts.get(task, task)
        for sample in samples:
            if "acc" not in sample:
                raise DataError(f"task '{task}' gives no accuracy ('acc'). Name multiple-choice tasks")
            document = sample["doc"]
            names = {"side": sides.get(whole, "retain"), "task": whole, "id": f"{task}-{sample['doc_id']}"}
            rows.append({**names, "subject": str(document.get("subject") or ""), "right": float(sample["acc"])})
    return pa.Table.from_pylist(rows, schema=ANSWERED)


def accuracies(table: pa.Table, bootstrap: Bootstrap) -> dict[str, Number]:
    """SIDE_TASK_accuracy of each task with its interval, over subjects where the questions have them."""
    out = {}
    rows = table.to_pylist()
    for side, task in dict.fromkeys((row["side"], row["task"]) for row in rows):
        mine = [row for row in rows if (row["side"], row["task"]) == (side, task)]
        values = pa.array([row["right"] for row in mine]).to_numpy()
        interval = bootstrap(weighted_mean(values), [Sample.of([row["subject"] for row in mine])])
        out[f"{side}_{task}_accuracy"] = Number(interval, "worse" if side == "forget" else "better")
    return out


def write_tasks(choices: Path, folder: Path, letters: bool) -> dict[str, str]:
    """Tasks choices_forget and so on, written as YAML for the harness to read; which side each is on.

    The questions of split forget (or of none) are on the forget side, all others on the retain side.
    """
    splits: dict[str, list[Mapping[str, Any]]] = {}
    for number, line in enumerate(_read(choices).splitlines(), 1):
        row = json.loads(line)
        if not {"question", "choices", "answer"} <= set(row):
            found = ", ".join(row)
            raise DataError(f"{choices}, line {number}: a probe needs question, choices and answer; it has {found}")
        splits.setdefault(str(row.get("split") or "forget"), []).append(row)
    sides = {}
    for split, rows in splits.items():
        data = folder / f"{split}.jsonl"
        data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        task = f"choices_{split}"
        sides[task] = "forget" if split == "forget" else "retain"
        (folder / f"{task}.yaml").write_text(json.dumps(_task(task, data, letters)), encoding="utf-8")  # JSON is YAML
    return sides


def _read(choices: Path) -> str:
    if not choices.is_file():
        raise DataError(f"evaluation.harness.choices: there is no file '{choices}'")
    return choices.read_text(encoding="utf-8")


def _task(name: str, data: Path, letters: bool) -> dict[str, Any]:
    listed = "".join(f"\n{letter}. {{{{choices[{i}]}}}}" for i, letter in enumerate("ABCD"))
    text = "{{question.strip()}}" + listed + "\nAnswer:" if letters else _SHOTS
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(data.parent / "cache")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "num_fewshot": 0,
        "doc_to_text": text,
        "doc_to_choice": ["A", "B", "C", "D"] if letters else "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }
