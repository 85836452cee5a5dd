"""Parts of speech from spaCy: with a pipeline that tags by rule, and what is said where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from expunge.data import tagging
from expunge.errors import DataError, MissingExtraError
from expunge.evals.selectivity import bare


def test_without_spacy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(MissingExtraError, match="spacy"):
        tagging.pipeline("")


def test_the_share_of_a_words_uses_that_carry_content(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy")
    blank = spacy.blank("en")
    rules = blank.add_pipe("attribute_ruler")
    for text, pos in (("Rome", "PROPN"), ("lives", "VERB"), ("in", "ADP"), ("She", "PRON")):
        rules.add([[{"ORTH": text}]], {"POS": pos})
    rules.add([[{"ORTH": "live"}, {"ORTH": "lives"}]], {"POS": "NOUN"})
    blank.to_disk(tmp_path / "tagger")
    found = tagging.content_share(["She lives in Rome.", "In Rome!"], str(tmp_path / "tagger"), bare)
    assert found == {"she": 0, "lives": 1, "in": 0, "rome": 1}


def test_a_pipeline_that_is_not_there_or_does_not_tag() -> None:
    pytest.importorskip("spacy")
    with pytest.raises(DataError, match="cannot open 'none_at_all'"):
        tagging.content_share(["Rome"], "none_at_all", bare)
    with pytest.raises(DataError, match="tags no parts of speech"):
        tagging.content_share(["Rome"], "", bare)
