"""The loop: `Fit` turns terms and batches into updates, with checkpoints, a log, and a clean stop.

Samples, partners and dropout depend on seed, epoch and index only, so a run that was killed and resumed has the same
weights, bit for bit on a CPU, as one that was not. Of several processes each takes its share of a step's micro-batches;
all make the same update from the sum of their gradients, which is that of one process with all of them.
"""

from __future__ import annotations

import math
import re
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import LoggerType
from torch import Tensor, nn

from expunge import adapters, checkpoint, collective, ranks
from expunge.alternatives import Alternatives
from expunge.combine import Apart, Combine, measured_step, rescaled_step
from expunge.core import Batch, Forward, Needs, Side
from expunge.data.collate import collate
from expunge.data.encode import Encoded
from expunge.errors import Interrupted, MethodError, TrainingError, unknown
from expunge.halving import is_out_of_memory, parted, require_halvable
from expunge.learned import Learned, Update, loss_of
from expunge.lm import LM, Scored
from expunge.recipe import Train
from expunge.refcache import Reference
from expunge.runfolder import RunFolder
from expunge.sam import Sam
from expunge.sampling import Sampler, record_draw
from expunge.schedules import learning_rate, schedule
from expunge.scoretables import ScoreTables
from expunge.step import Step, accumulate
from expunge.terms import Term, TermValue, coupled, labels, weight_report
from expunge.trace import observe

OnStep = Callable[[Mapping[str, Any], int], None]
OnEpoch = Callable[[int, Scored], bool | None]
_ADVICE = "A lower learning_rate or forget_coef, or a bounded objective such as npo, may help"
_LEARNED, _SCORES = "learned", "scores"
"""The parts of a checkpoint's further tensors."""
_LAYER = re.compile(r"\b(?:layers|h|blocks)\.(\d+)\.")


@dataclass
class Fit:
    """One training run in progress. `sides[anchor]` decides how long an epoch is; other sides supply partners.

    `combine` makes the gradient where it is not that of the sum of the terms; `updates`, one number a step, is how far
    each step must move the parameters. `on_step(entry, total)` sees every log line, `on_epoch(epochs_done, module)` the
    model before training (0) and after each epoch, and says True where that one was the last. Where a micro-batch does
    not fit into memory, all are parted, `parts` to each, and the step is made again.
    """

    lm: LM
    terms: tuple[Term, ...]
    sides: Mapping[Side, Sequence[Encoded]]
    settings: Train
    run: RunFolder
    seed: int
    anchor: Side = "forget"
    reference: Reference | None = None
    tables: ScoreTables | None = None
    alternatives: Mapping[Side, Alternatives] = field(default_factory=dict)
    combine: Combine | None = None
    updates: Sequence[float] | None = None
    learned: Learned = field(default_factory=Learned)
    on_step: OnStep | None = None
    on_epoch: OnEpoch | None = None
    accelerator: Accelerator = field(init=False)
    module: Scored = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    sampler: Sampler = field(init=False)
    total: int = field(init=False)
    parts: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        s = self.settings
        self.accelerator = _accelerator(s, self.lm.device, self.run)
        _warn_if_coupled(self.terms, s.gradient_accumulation_steps)
        self.module = Scored(self.lm.model, naive=s.head == "naive", bf16=s.bf16)
        _choose_trainable(self.lm.model, s.trainable)
        if s.gradient_checkpointing:
            with warnings.catch_warnings():  # its new name is not in every version that we accept
                warnings.simplefilter("ignore", FutureWarning)
                self.lm.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.optimizer = adamw(self.module, s)
        self.sampler, self.total = schedule(s, self.sides, self.seed, self.anchor)

    def __call__(self) -> None:
        """Trains to the end, resuming from the newest whole checkpoint of the run if there is one."""
        start = {name: p.detach().clone() for name, p in self.module.named_parameters() if p.requires_grad}
        done = self._resume()
        if self.settings.report_to:
            self.accelerator.init_trackers("expunge", self.settings.model_dump(mode="json", exclude={"report_to"}))
        if done == 0 and self.on_epoch is not None:
            self.on_epoch(0, self.module)
        with stop_requests() as stop:
            while done < self.total:
                self._refresh(done)
                self.module.train()
                self._update(done, start)
                done += 1
                epoch, rest = divmod(done, self.sampler.steps_per_epoch)
                if (
                    not rest
                    and self.on_epoch is not None
                    and collective.any_of(bool(self.on_epoch(epoch, self.module)))
                ):
                    break
                if collective.any_of(stop.is_set()):
                    self._save(done)
                    raise Interrupted(
                        f"stopped after step {done} of {self.total}; everything is in '{self.run.path}'. "
                        "Give the same command again to go on"
                    )
                if done % (self.settings.save_steps or self.sampler.steps_per_epoch) == 0 and done < self.total:
                    self._save(done)
        if self.settings.report_to:
            self.accelerator.end_training()
        self._require_finite(done)
        self.module.eval()
        self.lm.model.eval()

    def batches(self, step: int) -> list[dict[Side, Batch]]:
        """This process's micro-batches of step `step` (from 0): a pure function of the seed and the step."""
        epoch = self.sampler.epoch_of(step)
        return [
            {side: self._collate(side, chosen[side], epoch) for side in self.sides}
            for chosen in parted(ranks.here().share(self.sampler.micro_batches(step)), self.parts)
        ]

    def _collate(self, side: Side, indices: Sequence[int], epoch: int) -> Batch:
        items = [self.sides[side][i] for i in indices]
        draws = [record_draw(self.seed, item.id) for item in items]
        batch = collate(items, self.lm.pad_id, draws)
        if side in self.alternatives:
            others = [self.alternatives[side].at(item.id, epoch) for item in items]
            batch = replace(batch, alternative=collate(others, self.lm.pad_id))
        return batch.to(self.lm.device)

    def _update(self, done: int, start: Mapping[str, Tensor]) -> None:
        began = time.perf_counter()
        rate = learning_rate(self.settings, done, self.total, self.sampler.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        micro, (values, means, matched) = self._fitting(done)
        means = collective.summed(means[: len(self.terms)])
        loss = loss_of(self.learned.bound(self.terms), means)
        norm = float(nn.utils.clip_grad_norm_(self._trained(), self.settings.max_grad_norm or math.inf))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._broken(done, loss, norm, micro)
        logged = (done + 1) % self.settings.logging_steps == 0 or done + 1 == self.total
        moved = self._move(done, logged)
        seen = Update(
            done + 1, self.total, done / self.sampler.steps_per_epoch, means, lambda *asked: self._seen(micro, *asked)
        )
        learned = self.learned.update(seen)
        if logged:
            entry = {
                "step": done + 1,
                "epoch": (done + 1) / self.sampler.steps_per_epoch,
                "learning_rate": rate,
                "loss": loss,
                "terms": dict(zip(labels(self.terms), means, strict=True)),
                "grad_norm": norm,
                **matched,
                **learned,
                **moved,
                **drift(self.module, start),
                **_shares(_everywhere(weight_report(values))),
                "tokens": int(collective.summed([sum(int(b.mask.sum()) for m in micro for b in m.values())])[0]),
                "seconds": time.perf_counter() - began,
            }
            self.run.append_log(entry)
            if self.settings.report_to:
                self.accelerator.log(_numbers(entry), step=done + 1)
            if self.on_step is not None:
                self.on_step(entry, self.total)

    def _refresh(self, done: int) -> None:
        """Prepared scores made anew from the model as it is, where that is due."""
        if self.tables is not None and self.tables.refresh(done):
            self.sides = {side: self.tables.fill(side) for side in self.sides}

    def _fitting(
        self, done: int
    ) -> tuple[list[dict[Side, Batch]], tuple[list[TermValue], list[float], dict[str, float]]]:
        """A step's micro-batches and their gradient, in smaller parts as long as memory does not suffice."""
        while True:
            self.optimizer.zero_grad()
            micro = self.batches(done)
            try:
                return micro, self._gradient(micro, done)
            except FloatingPointError:
                self._broken(done, math.nan, math.nan, micro)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                largest = max(len(batch) for batches in micro for batch in batches.values())
                require_halvable(self.terms, largest, ranks.here().size, error)
            self.parts *= 2
            if self.lm.device.type == "cuda":
                torch.cuda.empty_cache()
            warnings.warn(
                f"out of memory at step {done + 1}: micro-batches of {largest} records are parted in two, to the same "
                "result. A smaller train.per_device_train_batch_size would not have to find out",
                stacklevel=3,
            )
            self.run.update(micro_batches_parted=self.parts)

    def _gradient(
        self, micro: Sequence[Mapping[Side, Batch]], done: int
    ) -> tuple[list[TermValue], list[float], dict[str, float]]:
        """Leaves the gradient where the optimiser reads it; values and mean of each term, numbers for the log."""
        own = ranks.here()
        seeds = [record_draw(self.seed, f"step-{done}-{own.rank + k * own.size}") for k in range(len(micro))]
        terms = self.learned.bound(self.terms)
        if self.combine is None:
            step = Step(terms, self.reference, joined=self.settings.head == "fused")
            values, means = accumulate(step, self.module, micro, Tensor.backward, seeds)
            trained = self._trained()
            for parameter, gradient in zip(
                trained, collective.sum_gradients([p.grad for p in trained], trained), strict=True
            ):
                parameter.grad = gradient
            return values, means, {}

        def read(apart: Apart) -> tuple[list[TermValue], list[float]]:
            step = Step(apart.split.terms, self.reference, joined=False)  # apart, each side has a graph of its own
            sides = {term.on for term in step.terms}
            own = [{side: batch for side, batch in batches.items() if side in sides} for batches in micro]
            found = accumulate(step, self.module, own, Tensor.backward, seeds, apart)
            apart.sum_over_processes()
            return found

        apart = Apart(self._trained(), self.combine.split(terms))
        values, means = read(apart)
        report = Sam(self.settings.sam_radius)(apart, read) if self.settings.sam_radius else {}
        return values, means, report | apart.meet(self.combine)

    def _move(self, done: int, logged: bool) -> dict[str, float]:
        """Takes the optimiser's step; how far it went, if that is logged or decided by another run."""
        if self.updates is not None:
            moved, scale = rescaled_step(self.optimizer, self._trained(), self.updates[done])
            return {"update_norm": moved, "update_scale": scale}
        if logged:
            return {"update_norm": measured_step(self.optimizer, by_layer(self.module))}
        self.optimizer.step()
        return {}

    def _seen(self, micro: Sequence[Mapping[Side, Batch]], side: Side, needs: Needs) -> list[Forward]:
        """The micro-batches of a side, those of all processes, through the model as it is now."""
        own = [observe(self.module, sides[side], needs, self.reference) for sides in micro]
        return ranks.here().all_of(collective.gathered(own))

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self.module.parameters() if p.requires_grad]

    def _broken(self, done: int, loss: float, norm: float, micro: Sequence[Mapping[Side, Batch]]) -> NoReturn:
        """Keeps the weights as they were before this step, and says where it broke."""
        self.optimizer.zero_grad()
        self._save(done)
        first = next(iter(micro[0].values()))
        raise TrainingError(
            f"loss {loss} with gradient norm {norm} at step {done + 1} of {self.total}, in a batch with records "
            f"{', '.join(first.ids[:4])}. The state after step {done} is kept in '{self.run.path}/checkpoints'. "
            f"{_ADVICE}"
        )

    def _save(self, done: int) -> None:
        self._require_finite(done)
        collective.require_alike((float(p.detach().double().sum()) for p in self._trained()), "the sum of a weight")
        if not ranks.here().main:
            return
        root = self.run.file("checkpoints")
        parts = {_LEARNED: self.learned.state(), _SCORES: {} if self.tables is None else self.tables.state()}
        extra = {f"{part}/{name}": tensor for part, own in parts.items() for name, tensor in own.items()}
        keep = self.settings.save_total_limit
        checkpoint.save(
            root, done, self.module, self.optimizer, {"total": self.total, "parts": self.parts}, keep, extra
        )

    def _require_finite(self, done: int) -> None:
        """TrainingError, and nothing written over earlier checkpoints, if the last update broke the weights."""
        for name, parameter in self.module.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                found, _ = checkpoint.latest(self.run.file("checkpoints"))
                kept = f"The state after step {found.step} is kept" if found else "No earlier state was kept"
                raise TrainingError(
                    f"step {done} of {self.total} left weights that are not finite, in {name}. {kept} in "
                    f"'{self.run.path}/checkpoints'. {_ADVICE}"
                )

    def _resume(self) -> int:
        collective.wait()
        found, skipped = checkpoint.latest(self.run.file("checkpoints"))
        if skipped:
            self.run.update(checkpoints_passed_over=skipped)
        if found is None:
            self.run.write_lines("log.jsonl", [])
            return 0
        self.parts = int(found.restore(self.module, self.optimizer).get("parts", 1))
        self.learned.restore(_part(found.extra, _LEARNED))
        if self.tables is not None:
            self.tables.restore(_part(found.extra, _SCORES))
            self.sides = {side: self.tables.fill(side) for side in self.sides}
        self.run.trim_log(found.step)
        return found.step


def clear_checkpoints(run: RunFolder) -> None:
    """Removes the checkpoints of a run that is over: its result is in model/."""
    if ranks.here().main:
        shutil.rmtree(run.file("checkpoints"), ignore_errors=True)


def adamw(module: nn.Module, settings: Train) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only (not on biases and norms)."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (settings.adam_beta1, settings.adam_beta2)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, eps=settings.adam_epsilon)


def drift(module: nn.Module, start: Mapping[str, Tensor]) -> dict[str, Any]:
    """{'drift': ||theta - theta_0||_2, 'drift_by_layer': {layer or parameter group: the same}}."""
    squares: dict[str, float] = {}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in start:
                moved = float((parameter.float() - start[name].float()).pow(2).sum())
                squares[_layer(name)] = squares.get(_layer(name), 0.0) + moved
    return {"drift": math.sqrt(sum(squares.values())), "drift_by_layer": {k: math.sqrt(v) for k, v in squares.items()}}


def by_layer(module: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters that train, in groups: each layer's, the embedding's, the rest."""
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(_layer(name), []).append(parameter)
    return list(groups.values())


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, so that work ends at a step; a second Ctrl-C interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def request(number: int, frame: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _part(extra: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint that were saved under `part`."""
    return {name.removeprefix(f"{part}/"): tensor for name, tensor in extra.items() if name.startswith(f"{part}/")}


def _layer(name: str) -> str:
    found = _LAYER.search(name)
    if found:
        return f"layer.{found[1]}"
    return "embedding" if "embed" in name or "wte" in name or "wpe" in name else "head and norm"


def _shares(report: Mapping[str, float]) -> dict[str, float | None]:
    scored, weight = report["scored"], report["weight"]
    return {
        "selected_share": report["selected"] / scored if scored else None,
        "weight_on_gold": report["gold"] / weight if weight and not math.isnan(report["gold"]) else None,
        "flat": report["flat"],
        "empty": report["empty"],
    }


def _accelerator(settings: Train, device: torch.device, run: RunFolder) -> Accelerator:
    """One for this run. Precision is the module's matter: accelerate fixes its own for the life of the process."""
    asked = list(settings.report_to)
    known = [tracker.value for tracker in LoggerType]
    for name in asked:
        if name not in known:
            raise TrainingError(f"train.report_to: {unknown('tracker', name, known)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what it says about trackers is said below
        made = Accelerator(
            cpu=device.type == "cpu",
            device_placement=False,
            mixed_precision="no",
            log_with=asked or None,
            project_dir=str(run.path) if asked else None,
        )
    there = {str(getattr(tracker, "value", tracker)) for tracker in made.log_with}
    if absent := [name for name in asked if name not in {*there, LoggerType.ALL.value}]:
        raise TrainingError(f"train.report_to={','.join(absent)}: not installed. Install it with pip, or leave it out")
    started = ranks.here().size
    if settings.num_processes not in (None, started):
        raise TrainingError(
            f"train.num_processes={settings.num_processes}, and {started} {'was' if started == 1 else 'were'} started. "
            f"Start them with: torchrun --nproc_per_node {settings.num_processes} --no-python expunge run RECIPE"
        )
    return made


def _everywhere(report: Mapping[str, float]) -> dict[str, float]:
    """The numbers of a report over all processes."""
    return dict(zip(report, collective.summed(list(report.values())), strict=True))


def _numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    """The entry's numbers for a tracker, those of mappings under 'outer/inner'."""
    flat = {key: value for key, value in entry.items() if isinstance(value, (int, float))}
    inner = {f"{key}/{k}": v for key, values in entry.items() if isinstance(values, Mapping) for k, v in values.items()}
    return {**flat, **inner}


def _warn_if_coupled(terms: Sequence[Term], accumulation: int) -> None:
    several = ranks.here().size
    found = coupled(terms) if accumulation * several > 1 else []
    if found and several > 1:
        warnings.warn(
            f"{', '.join(found)}: the sequences of a micro-batch enter one another's loss, so that {several} processes "
            "change it. Use one, or the form of the objective that takes sequences one by one",
            stacklevel=4,
        )
    elif found:
        warnings.warn(
            f"{', '.join(found)}: the sequences of a micro-batch enter one another's loss, so that "
            f"train.gradient_accumulation_steps={accumulation} changes it. Set it to 1 with a larger "
            "train.per_device_train_batch_size, or use the form of the objective that takes sequences one by one",
            stacklevel=4,
        )


def _choose_trainable(model: nn.Module, pattern: str | None) -> None:
    """All parameters, or those of the adapter if there is one; of these, the ones whose name the pattern finds."""
    beside = adapters.attached(model)
    if adapters.quantised(model) and not beside:
        raise TrainingError("quantised weights cannot be trained. Set train.adapter to train one beside them")
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad or not beside]
    chosen = {name for name in names if pattern is None or re.search(pattern, name)}
    if not chosen:
        raise MethodError(f"train.trainable='{pattern}' finds no parameter. Names look like: {', '.join(names[:3])}")
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(name in chosen)
