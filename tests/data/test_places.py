"""Where the prompt's and the answer's characters stand among a record's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pytest

from expunge.data.encode import Encoder
from expunge.data.records import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RECORD = Record(id="r", prompt=" Where was Zoë born? ", answer="Zoë was born in São Paulo.")


def test_every_letter_stands_at_its_own_tokens(
    tokenizers: Mapping[str, PreTrainedTokenizerBase],
) -> None:
    for name, tokenizer in tokenizers.items():
        encoder = Encoder(tokenizer, template="Question: {prompt}\nAnswer: {answer}")
        asked, own = encoder.places(RECORD)
        encoded = encoder.encode(RECORD)
        assert len(asked) == len(own) == len(encoded), name
        for places, text in ((asked, RECORD.prompt), (own, RECORD.answer)):
            covered = np.zeros(len(text), np.bool_)
            for start, end in places.tolist():
                covered[max(start, 0) : max(end, 0)] = True
            assert all(covered[i] for i, letter in enumerate(text) if not letter.isspace()), name
        assert not ((asked[:, 0] >= 0) & (own[:, 0] >= 0)).any(), name
        scored = np.flatnonzero(encoded.offsets[:, 0] >= 0)
        assert np.array_equal(own[scored + 1], encoded.offsets[scored]), name


@pytest.mark.parametrize("record", [Record(id="t", text="A text."), Record(id="e", prompt=" ", answer="x")])
def test_without_a_prompt_no_token_is_the_prompts(
    record: Record, tokenizers: Mapping[str, PreTrainedTokenizerBase]
) -> None:
    for tokenizer in tokenizers.values():
        asked, _ = Encoder(tokenizer, template="{prompt} {answer}").places(record)
        assert (asked == -1).all()


def test_what_is_cut_off_has_no_place(tokenizers: Mapping[str, PreTrainedTokenizerBase]) -> None:
    tokenizer = next(iter(tokenizers.values()))
    asked, own = Encoder(tokenizer, template="{prompt} {answer}", max_length=5).places(RECORD)
    assert len(asked) == len(own) == 5
