"""Over-forgetting diagnostics: against numbers worked out from whole logits, and over a resumed run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from expunge import runfolder
from expunge.core import IGNORE, Side
from expunge.data.encode import Encoded, Encoder
from expunge.data.records import Record, Span
from expunge.diagnostics import watch
from expunge.fresh import fresh_model
from expunge.lm import LM, Scored
from expunge.recipe import FreshModel
from expunge.refcache import Reference
from expunge.runfolder import DIAGNOSTICS, RunFolder

SMALL = FreshModel(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=300)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return runfolder.create(tmp_path / "run", "unlearn")


@pytest.fixture
def lm() -> LM:
    return fresh_model(SMALL, ["who was ann", "ann was a painter", "the sky is blue"], seed=0)


def sides(lm: LM, source: str = "llm") -> dict[Side, list[Encoded]]:
    encoder = Encoder(lm.tokenizer)
    answer = "ann was a painter"
    span = Span("answer", answer.index("painter"), len(answer), source=source)
    forget = [encoder.encode(Record(f"f{i}", "who was ann", answer, spans=(span,))) for i in range(3)]
    retain = [encoder.encode(Record(f"r{i}", "what is blue", "the sky is blue")) for i in range(20)]
    return {"forget": forget, "retain": retain}


def moved(lm: LM, by: float, seed: int = 1) -> LM:
    """Another model: every weight a little off."""
    rng = torch.Generator().manual_seed(seed)
    other = fresh_model(SMALL, ["who was ann", "ann was a painter", "the sky is blue"], seed=0)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=rng))
    return replace(lm, model=other.model)


def logits(lm: LM, item: Encoded) -> torch.Tensor:
    with torch.no_grad():
        return lm.model(torch.tensor(item.input_ids)[None]).logits[0].double().log_softmax(-1)


def test_every_number_equals_the_one_from_whole_logits(lm: LM, run: RunFolder) -> None:
    data = sides(lm)
    now = moved(lm, 0.1)
    line = watch(lm, data, run).measure(Scored(now.model))
    expected: dict[str, list[float]] = {}
    for side, items in data.items():
        for item in items:
            before, after = logits(lm, item), logits(now, item)
            for t in np.flatnonzero(item.targets != IGNORE):
                kl = float((before[t].exp() * (before[t] - after[t])).sum())
                nll = -float(after[t, item.targets[t]])
                names = [side]
                if side == "forget":
                    names.append("unwanted_words" if item.static["given"][t] > 0 else "general_words")
                for name in names:
                    expected.setdefault(f"kl_{name}", []).append(kl)
                    expected.setdefault(f"nll_{name}", []).append(nll)
    del expected["kl_unwanted_words"]
    assert set(line) == {*expected, "tokens", "spans"}
    for name, values in expected.items():
        assert line[name] == pytest.approx(np.mean(values), rel=1e-4), name
    assert line["spans"] == "given"
    assert line["tokens"] == {n[4:]: len(v) for n, v in expected.items() if n.startswith("nll_")}


def test_the_start_is_at_distance_zero_and_training_the_model_in_place_is_seen(lm: LM, run: RunFolder) -> None:
    """The policy's own head is trained: without a copy the reference would move along with it."""
    watching = watch(lm, sides(lm), run)
    module = Scored(lm.model)
    assert watching.measure(module)["kl_retain"] == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        lm.model.get_output_embeddings().weight.mul_(3.0)
    assert float(watching.measure(module)["kl_retain"]) > 1e-3  # type: ignore[arg-type]


def test_a_reference_of_its_own_is_the_one_compared_with(lm: LM, run: RunFolder) -> None:
    frozen = Reference(Scored(moved(lm, 0.1).model))
    watching = watch(lm, sides(lm), run, frozen)
    assert float(watching.measure(Scored(lm.model))["kl_retain"]) > 1e-3  # type: ignore[arg-type]
    assert frozen.module is not None
    assert watching.measure(frozen.module)["kl_retain"] == pytest.approx(0, abs=1e-6)


def test_gold_spans_go_before_the_annotation(lm: LM, run: RunFolder) -> None:
    assert watch(lm, sides(lm, "gold"), run).measure(Scored(lm.model))["spans"] == "gold"
    bare = {side: [replace(item, static={}) for item in items] for side, items in sides(lm).items()}
    line = watch(lm, bare, run).measure(Scored(lm.model))
    assert line["spans"] is None
    assert "nll_general_words" not in line


def test_a_resumed_run_has_one_line_an_epoch(lm: LM, run: RunFolder) -> None:
    watching, module = watch(lm, sides(lm), run), Scored(lm.model)
    module.train()
    for epoch in (0, 1, 2, 3, 2, 3):
        watching(epoch, module)
    assert module.training
    assert [line["epoch"] for line in run.read_lines(DIAGNOSTICS)] == [0, 1, 2, 3]
    watching(0, module)
    assert [line["epoch"] for line in run.read_lines(DIAGNOSTICS)] == [0]


def test_at_most_so_many_records_evenly_spaced(lm: LM, run: RunFolder) -> None:
    watching = watch(lm, sides(lm), run, records=5)
    ids = [name for one in watching.watched for name in one.batch.ids]
    assert ids == ["f0", "f1", "f2", "r0", "r4", "r8", "r12", "r16"]
    assert not watch(lm, sides(lm), run, records=0).watched
