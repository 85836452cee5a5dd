"""What an assistant model and the retain set's n-grams say otherwise, by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from expunge import lm as lms
from expunge.context import Passage
from expunge.core import IGNORE
from expunge.data.encode import Encoder
from expunge.data.records import Record
from expunge.errors import MethodError
from expunge.lm import LM
from expunge.recipe import Method, TermSpec
from expunge.scorers.contrast import NGram
from expunge.scoretables import ScoreTables
from expunge.sides import encode_all
from expunge.terms import build_term
from tests.fixtures.models import tiny
from tests.fixtures.tokenizers import bpe
from tests.scorers.test_attribution import RECORDS, TEMPLATE, language_model, tables


def tokens(ids: Sequence[int], first: int) -> Passage:
    """A passage of these tokens, scored from place `first` on."""
    targets = [ids[t + 1] if t + 1 >= first else IGNORE for t in range(len(ids) - 1)]
    nowhere = np.full((len(ids), 2), -1)
    return Passage("r", "", "", "", np.array(ids), np.array([*targets, IGNORE]), nowhere, nowhere,
                   np.zeros(len(ids), np.bool_))  # fmt: skip


@dataclass
class Counted:
    """A context of tokens alone."""

    passages: Sequence[Passage]
    retained: Sequence[Passage]

    def texts(self, corpus: str) -> Iterable[str]:
        raise AssertionError("no text was to be read")

    ids = read = disagreement = texts


def test_shares_of_n_grams_by_hand() -> None:
    # forget: 1 2 -> 3 twice, 1 2 -> 4 once. retain: 1 2 -> 3 once, 1 2 -> 4 three times; 2 3 is never continued there
    forget = [tokens([1, 2, 3, 5], 2), tokens([1, 2, 3], 2), tokens([1, 2, 4], 2)]
    retain = [tokens([1, 2, 3], 2), *[tokens([1, 2, 4], 2)] * 3]
    found = NGram().prepare(Counted(forget, retain))  # type: ignore[arg-type]
    assert found[0].tolist() == [pytest.approx(2 / 3 - 1 / 4), 1.0]
    assert found[2].tolist() == [pytest.approx(3 / 4 - 1 / 3)]


def test_at_the_start_the_history_is_shorter() -> None:
    # the first token: 1 in both of the forget set, in one of four of the retain set
    found = NGram(n=2).prepare(Counted([tokens([1, 2], 1)] * 2, [tokens([1, 2], 1), *[tokens([9, 2], 1)] * 3]))  # type: ignore[arg-type]
    assert found[0].tolist() == [0.0], "after 1 comes 2 in both"
    (unigram, _) = NGram(n=1).prepare(Counted([tokens([1, 2], 1)] * 2, [tokens([9, 9], 1)]))  # type: ignore[arg-type]
    assert unigram.tolist() == [0.5], "one token of two, and none of two"


def with_retain(lm: LM, spec: str, retain: list[Record]) -> ScoreTables:
    encoder = Encoder(lm.tokenizer, template=TEMPLATE)
    term = build_term(TermSpec(objective="ga", score=spec), Method())
    records = {"forget": RECORDS, "retain": retain}
    encoded = {side: encode_all(encoder, found) for side, found in records.items()}
    return ScoreTables(lm, encoder, (term,), records, encoded, 0, lambda: ["no text"])  # type: ignore[arg-type]


def test_the_retain_records_of_the_run_are_counted_and_decide_the_table(tmp_path: Path) -> None:
    lm = language_model("llama", max_position_embeddings=128)
    with pytest.raises(MethodError, match=r"compares with retain records, and there are none here. Set data.retain"):
        tables(lm, "ngram").fill("forget")
    same = with_retain(lm, "ngram", RECORDS)
    same.folder = tmp_path
    for item in same.fill("forget"):
        assert item.static["ngram"].tolist() == [0.0] * len(item), "the two sets say the same"
    other = with_retain(lm, "ngram", [Record(id="x", prompt="Who?", answer="Nobody at all.")])
    other.folder = tmp_path
    assert max(item.static["ngram"].max() for item in other.fill("forget")) == 1.0


def test_the_assistant_is_asked_for_its_probabilities(tmp_path: Path) -> None:
    lm = language_model("llama", max_position_embeddings=128)
    base = tiny("llama", vocab_size=420, max_position_embeddings=128, seed=5)
    lms.save(LM(base, bpe(), "base"), tmp_path / "base")
    spec = f"assistant:model={tmp_path / 'base'}"
    item = tables(lm, spec).fill("forget")[0]
    with torch.no_grad():
        own, other = (m(torch.from_numpy(item.input_ids)[None]).logits[0].softmax(-1) for m in (lm.model, base))
    at = np.flatnonzero(item.targets != IGNORE)
    expected = [abs(float(own[t, item.targets[t]] - other[t, item.targets[t]])) for t in at]
    assert item.static[spec][at].tolist() == pytest.approx(expected, abs=1e-6)
    with pytest.raises(MethodError, match=r"write assistant:model=FOLDER \(or su-llm:model=FOLDER\)"):
        tables(lm, "assistant").fill("forget")
