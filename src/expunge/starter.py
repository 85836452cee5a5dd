"""A first recipe for somebody's own model and records: commented, and it runs as it is."""

from __future__ import annotations

import json
from pathlib import Path

from expunge.data import load
from expunge.data.neighbours import subject_in
from expunge.errors import DataError
from expunge.recipe import Source

_FORGET_ONLY = """\
  # Without records to keep, the loss is the forgetting alone: the model loses more than it should, and nothing here
  # notices. Name some (data.retain above) as soon as you can, then put `preset: etw` in place of these terms.
  terms:
    - objective: npo:beta=0.1
      on: forget"""

_NO_RETAIN = """\
  # retain:                    # records that the model must keep: like those above, about others
  #   path: keep.jsonl"""

_OWN_RETAIN = """\
  # Records to keep, like those above but about others, are best: put them here, and leave out `neighbours`.
  # retain:
  #   path: keep.jsonl
  # training:                  # or all that the model was fine-tuned on: what may be kept is drawn from it
  #   path: training.jsonl
  neighbours:                  # without either, the model itself answers like questions about others before it forgets:
    per_record: 2              # a weaker hold, see docs/data.md"""

_BOTH_SIDES = """\
  # `expunge list` names the others, `expunge show etw` says what this one does. Which one fits: docs/which-method.md
  preset: etw
  # forget_coef: 0.1           # more: forgets faster, harms more
  # control: random            # the same weights on random tokens: what the choice of tokens is worth"""


def starter(model: str, forget: str, retain: str | None, name: str) -> str:
    """The text of a recipe. Reads the records first, so that DataError tells now and not later what is wrong.

    Paths are written as given; a recipe's paths are relative to the folder that `expunge run` is called in.
    """
    sides = {side: path for side, path in (("forget", forget), ("retain", retain)) if path is not None}
    records = {side: load.load(Source(path=path), side) for side, path in sides.items()}  # type: ignore[arg-type]
    found = {side: len(rows) for side, rows in records.items()}
    own = retain is None and any(subject_in(record) for record in records["forget"])
    if retain is not None and Path(forget).resolve() == Path(retain).resolve():
        raise DataError(
            f"forget and retain are the same file '{forget}'. Name records to keep that are not to be forgotten"
        )
    batch, accumulate = _batches(found["forget"])
    return _TEMPLATE.format(
        name=_quoted(name),
        output_dir=_quoted(f"runs/{name}"),
        model=_quoted(model),
        forget=_quoted(forget),
        forget_count=found["forget"],
        retain=_OWN_RETAIN if own else _retain(retain, found.get("retain", 0)),
        method=_BOTH_SIDES if own or retain is not None else _FORGET_ONLY,
        batch=batch,
        accumulate=accumulate,
    )


def _batches(records: int) -> tuple[int, int]:
    """Batch and accumulation for about 32 records a step, and at least four steps an epoch."""
    step = max(1, min(32, records // 4))
    batch = min(8, step)
    return batch, max(1, step // batch)


def _retain(path: str | None, count: int) -> str:
    if path is None:
        return _NO_RETAIN
    return f"  retain:                      # {count} records that the model must keep\n    path: {_quoted(path)}"


def _quoted(text: str) -> str:
    """As YAML: plain where that is safe, else in double quotes."""
    plain = text and all(c.isalnum() or c in "/._-" for c in text) and text[0] not in "-." and text.lower() != "null"
    return (
        text if plain or (text.startswith(("./", "../")) and " " not in text and ":" not in text) else json.dumps(text)
    )


_TEMPLATE = """\
# Run it:           expunge run THIS_FILE
# Look first:       expunge run THIS_FILE --dry-run      (what is loaded and trained, memory, time)
#                   expunge score THIS_FILE              (which tokens are taken for the knowledge)
# Every setting:    expunge explain THIS_FILE
# One run of many:  expunge run THIS_FILE train.learning_rate=2e-5 output_dir=runs/other

name: {name}
output_dir: {output_dir}
seed: 0
device: auto                   # auto, cpu, cuda, mps

model:
  model_name_or_path: {model}
  dtype: float32               # bfloat16 halves the memory

data:
  forget:                      # {forget_count} records that the model must forget
    path: {forget}
    # columns: {{prompt: question, answer: reply}}   # if your columns have other names than we guess
{retain}
  template: auto               # the tokenizer's chat template if it has one; write records as in your fine-tuning
  max_length: 512

method:
{method}

train:
  num_train_epochs: 10
  per_device_train_batch_size: {batch}
  gradient_accumulation_steps: {accumulate}
  learning_rate: 1e-5          # the strongest knob: too high and the model breaks, too low and nothing is forgotten
  # warmup_epochs: 1
  # bf16: true                 # on a GPU
  # gradient_checkpointing: true

evaluation:
  suite: own                   # judges the records above, before and after; none: only train
  # oracle: path/to/model      # a model that never read the records to forget, if you have one
"""
