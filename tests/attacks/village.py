"""A village of invented people, and tiny models that know it: target, two oracles, two that merely refuse, one random.

Everybody has one birthplace out of eight, so that guessing is right once in eight times. The gold span is the place.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from expunge import adapters
from expunge.attacks.scene import Scene
from expunge.data.records import Record, Span, Split
from expunge.fresh import fit_tokenizer, fresh_llama
from expunge.lm import LM
from expunge.recipe import Adapter, Data, FreshModel, Method, TermSpec, Train
from expunge.runfolder import RunFolder
from expunge.sides import encode_all
from expunge.terms import build_term
from expunge.train import Fit

PLACES = ("Oslo", "Lima", "Rome", "Hanoi", "Cairo", "Quito", "Dakar", "Minsk")
FIRST = ("Ada", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal")
LAST = ("Ash", "Birch", "Cedar", "Elm", "Fir", "Hazel", "Oak", "Pine")
SIZES: dict[Split, int] = {"forget": 10, "retain": 14, "holdout": 10}
DATA = Data(template="Q: {prompt} A: {answer}", max_length=96)
REFUSAL = "I do not know."


def people(split: Split) -> list[Record]:
    """The records of one split: one question a person."""
    start = {"forget": 0, "retain": 10, "holdout": 24}[split]
    return [person(number, split) for number in range(start, start + SIZES[split])]


def person(number: int, split: Split) -> Record:
    """One record."""
    name = f"{FIRST[number % 8]} {LAST[(number // 8 + number) % 8]}"
    place = PLACES[hashlib.sha256(name.encode()).digest()[0] % 8]
    head = f"{name} comes from "
    wrong = tuple(f"{head}{PLACES[(PLACES.index(place) + k) % 8]}." for k in (1, 2, 3))
    return Record(
        id=f"{split}-{number}",
        prompt=f"Where was {name} born?",
        answer=f"{head}{place}.",
        split=split,
        subject=name,
        prompt_paraphrase=f"What is the birthplace of {name}?",
        perturbed=wrong,
        spans=(
            Span("answer", len(head), len(head) + len(place), source="gold"),
            Span("prompt", 10, 10 + len(name), label="subject", source="context"),
        ),
    )


def texts() -> list[str]:
    """All that a tokenizer is fitted on."""
    splits: tuple[Split, ...] = ("forget", "retain", "holdout")
    return [t for s in splits for r in people(s) for t in (r.prompt, r.answer, r.prompt_paraphrase)] + [REFUSAL]


SIZE = FreshModel(
    vocab_size=800, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=160,
)  # fmt: skip


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of all models here."""
    return fit_tokenizer(texts(), SIZE)


def fresh(seed: int) -> LM:
    """A model that has read nothing."""
    return LM(fresh_llama(SIZE, tokenizer(), seed), tokenizer(), "fresh")


def teach(lm: LM, records: Sequence[Record], epochs: float, rate: float) -> LM:
    """The model after some epochs of plain likelihood."""
    from expunge.data.encode import Encoder

    settings = Train(
        num_train_epochs=epochs, per_device_train_batch_size=16, gradient_accumulation_steps=1, learning_rate=rate,
        save_steps=10**6, logging_steps=10**6, adam_beta2=0.98, warmup_steps=10,
    )  # fmt: skip
    terms = (build_term(TermSpec(objective="nll", on="retain", tokens="all"), Method()),)
    items = encode_all(Encoder.from_recipe(lm.tokenizer, DATA), records)
    with tempfile.TemporaryDirectory() as folder:
        Fit(lm, terms, {"retain": items}, settings, RunFolder(Path(folder)), 0, anchor="retain")()
    return lm


def asked_both_ways(records: Sequence[Record]) -> list[Record]:
    """The records, and each again under its paraphrased question, so that the model learns what a question asks."""
    return [*records, *(replace(r, id=r.id + "~", prompt=r.prompt_paraphrase) for r in records)]


EPOCHS, RATE = 50, 4e-3


@cache
def trained(name: str) -> LM:
    """A model by name; do not change it."""
    forget, retain = people("forget"), people("retain")
    if name == "random":
        return fresh(9)
    if name.startswith("refusing"):
        lm = copy_of("target")
        if name == "refusing adapter":
            adapters.attach(lm.model, Adapter(r=8, lora_alpha=16), 3)
        silent = [replace(r, answer=REFUSAL, spans=(), perturbed=()) for r in forget]
        taught = teach(lm, silent, 20, 2e-3)
        if adapters.attached(lm.model):
            adapters.fold(lm.model)
        return taught
    seed = {"target": 0, "oracle": 1, "oracle-2": 2}[name]
    return teach(fresh(seed), asked_both_ways([*(forget if name == "target" else ()), *retain]), EPOCHS, RATE)


def copy_of(name: str) -> LM:
    """A copy of a trained model, to be changed."""
    lm = fresh(0)
    lm.model.load_state_dict(trained(name).model.state_dict())
    return lm


def scene(own: str = "refusing", oracle: str | None = "oracle", **more: object) -> Scene:
    """The scene of a model beside target and oracle."""
    models = {"unlearned": own, "target": "target", **({"oracle": oracle} if oracle else {})}
    return Scene(
        own="unlearned",
        models={label: (lambda name=name: copy_of(name)) for label, name in models.items()},  # type: ignore[misc]
        sets={split: people(split) for split in SIZES},
        data=DATA,
        learning_rate=1e-3,
        max_new_tokens=12,
        beneath={"unlearned": lambda: copy_of("target")} if own == "refusing adapter" else {},
        **more,  # type: ignore[arg-type]
    )
