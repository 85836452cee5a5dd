"""The TIF presets: their terms, their settings, the published betas, and annotations of general words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest
import torch

from expunge import presets
from expunge.core import Batch, Forward
from expunge.data.collate import collate
from expunge.data.encode import Encoder, static_names
from expunge.data.records import Record, Span
from expunge.errors import MethodError
from expunge.recipe import Method
from expunge.terms import Term, build_terms

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWER = "Basil Mahfouz was born in Kuwait City."


def shape(terms: tuple[Term, ...]) -> list[tuple[str, str, str, float]]:
    return [(str(t.objective), t.on, t.tokens, t.coef) for t in terms]


def test_tif_is_lpl_on_the_annotation_and_a_hundredth_of_preserve_beside_it() -> None:
    terms = build_terms(Method(preset="tif"))
    assert shape(terms) == [("lpl", "forget", "selected", 1.0), ("preserve", "forget", "unselected", 0.01)]
    assert {(str(t.score), str(t.select)) for t in terms} == {("given", "threshold:value=0.0")}
    assert {(t.objective.sigmoid, t.objective.space) for t in terms[:1]} == {("sequence", "logit")}  # type: ignore[attr-defined]


def test_the_others_differ_from_tif_as_they_say() -> None:
    retain = build_terms(Method(preset="tif-retain"))
    assert shape(retain)[2:] == [("nll", "retain", "selected", 1.0)]
    assert shape(retain)[:2] == shape(build_terms(Method(preset="tif")))
    mlm = build_terms(Method(preset="tif-mlm"))
    assert shape(mlm) == shape(build_terms(Method(preset="tif")))
    assert {str(t.score) for t in mlm} == {"given:label=not-general"}
    code = build_terms(Method(preset="tif-code"))
    assert shape(code) == [
        ("lpl:sigmoid=batch", "forget", "selected", 1.0),
        ("preserve", "forget", "unselected", 1.0),
        ("nll", "retain", "selected", 1.0),
    ]


@pytest.mark.parametrize("name", [name for name in presets.PRESETS if name.startswith("tif")])
def test_every_published_beta_is_a_spec_that_builds(name: str) -> None:
    betas = []
    for found in presets.PRESETS[name].published:
        assert found.source
        betas.append(build_terms(Method(preset=found.spec(name)))[0].objective.beta)  # type: ignore[attr-defined]
    assert betas == [0.32, 0.32, 0.23, 0.3, 0.27, 0.19, 0.2]


def test_settings_reach_their_terms_and_wrong_ones_are_named() -> None:
    terms = build_terms(Method(preset="tif-code: beta=0.5, preserve=0.005"))
    assert shape(terms)[:2] == [
        ("lpl:beta=0.5,sigmoid=batch", "forget", "selected", 1.0),
        ("preserve", "forget", "unselected", 0.005),
    ]
    for preset, message in [
        ("tif:bta=1", r"unknown setting of preset 'tif' 'bta'. Did you mean: beta"),
        ("tif:beta", r"expected key=value"),
        ("tif:preserve=much", r"preserve must be a number \(got 'much'\)"),
        ("tif:beta=-1", r"beta"),
        ("ga:beta=1", r"preset 'ga' has no settings"),
        ("tiff", r"Did you mean: tif"),
    ]:
        with pytest.raises(MethodError, match=message):
            build_terms(Method(preset=preset))


def test_forget_coef_scales_both_forget_terms_alike() -> None:
    """MUSE's form of TIF: npo_coeff * (LPL + pl_coeff * PL) + coeff * NLL."""
    terms = build_terms(Method(preset="tif-retain", forget_coef=0.1, retain_coef=2.0))
    assert [t.coef for t in terms] == [0.1, pytest.approx(0.001), 2.0]


@pytest.mark.parametrize("control", ["none", "shuffle", "invert"])
def test_preserve_reads_exactly_what_lpl_leaves(control: str) -> None:
    """Also under a control: the shuffled mask of `lpl` has the same size, and `preserve` its complement."""
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[0, 0], mask[:, -1] = False, False
    given = torch.zeros(2, 12)
    given[0, 2:5] = 1.0
    given[1, [1, 7]] = 0.5
    ids = torch.zeros(2, 12, dtype=torch.long)
    batch = Batch(ids, torch.where(mask, 1, -100), mask, ("a", "b"), {"given": given}, torch.tensor([1, 2]))
    lpl, preserve = build_terms(Method(preset="tif", control=control))
    unwanted, general = (t.weights(Forward.before(batch)) for t in (lpl, preserve))
    assert torch.equal(unwanted.mask ^ general.mask, mask)
    if control == "none":
        assert torch.equal(unwanted.mask, given > 0)
    if control == "shuffle":
        assert unwanted.mask.sum(1).tolist() == [3, 2]
        assert not torch.equal(unwanted.mask, given > 0)


@pytest.mark.parametrize("name", ["bpe", "bpe-prefix", "unigram", "spm-bytes", "bert-like"])
def test_words_that_are_not_called_general_are_unwanted(
    name: str, tokenizers: Mapping[str, PreTrainedTokenizerBase]
) -> None:
    """The masked-LM identifier marks `was born in`; every other word is selected, the end token is not."""
    encoder = Encoder(tokenizers[name], template="Question: {prompt}\nAnswer: {answer}")
    spans = tuple(
        Span("answer", ANSWER.index(word), ANSWER.index(word) + len(word), label="general", source="tif-mlm")
        for word in ("was", "born", "in")
    )
    records = [Record("a", "Where?", ANSWER, spans=spans), Record("b", "Who?", "Basil.")]
    names = static_names(records)
    assert names == ("not-general", "not-general@tif-mlm")
    items = [encoder.encode(record, static_names=names) for record in records]
    batch = collate(items, pad_id=0, draws=[0, 0])
    term = build_terms(Method(preset="tif-mlm"))[0]
    chosen = term.weights(Forward.before(batch)).mask
    for row, (item, record) in enumerate(zip(items, records, strict=True)):
        inside = [item.offsets[t] for t in chosen[row].nonzero()[:, 0].tolist()]
        characters = {c for start, end in inside for c in range(start, end)}
        general = {c for span in record.spans for c in range(span.start, span.end)}
        expected = {c for c in range(len(record.answer)) if not record.answer[c].isspace()} - general
        assert expected <= characters
        assert not characters & general
        assert all(start >= 0 for start, _ in inside)


def test_tif_without_an_annotation_says_what_is_missing() -> None:
    ids = torch.zeros(1, 4, dtype=torch.long)
    batch = Batch(ids, torch.tensor([[1, 1, 1, -100]]), ids == 0, ("a",))
    for preset, label in (("tif", "unwanted"), ("tif-mlm", "general")):
        with pytest.raises(MethodError, match=rf"spans labelled '{label}'"):
            build_terms(Method(preset=preset))[0].weights(Forward.before(batch))
