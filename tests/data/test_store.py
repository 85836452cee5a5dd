"""Encoded records in a file are the records that were put in, in any order, and leave nothing behind."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import pytest

from expunge import sides
from expunge.data.encode import Encoded, Encoder
from expunge.data.records import Record, Span
from expunge.data.store import Stored

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@pytest.fixture(scope="module")
def encoder(tokenizers: Mapping[str, PreTrainedTokenizerBase]) -> Encoder:
    return Encoder(tokenizers["bpe"], template="{prompt} {answer}", max_length=24)


def records(count: int) -> list[Record]:
    spans = (Span("answer", 0, 3), Span("answer", 0, 2, source="gold"))
    texts = ["Ada", "Ada Sten wrote it, and more than fits into so few tokens as there are here.", "ab cd"]
    return [Record(f"r{i}", f"Who {i}?", texts[i % 3], spans=spans[: i % 3]) for i in range(count)]


def same(one: Encoded, other: Encoded) -> bool:
    for field in fields(Encoded):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, Mapping):
            if set(a) != set(b) or any(a[name].dtype != b[name].dtype or (a[name] != b[name]).any() for name in a):
                return False
        elif isinstance(a, np.ndarray):
            if a.dtype != b.dtype or not np.array_equal(a, b):
                return False
        elif a != b:
            return False
    return True


@pytest.mark.parametrize("count", [0, 1, 64, 65, 3000])
def test_what_is_stored_is_what_was_put_in(encoder: Encoder, count: int) -> None:
    plain = list(sides.encode_all(encoder, records(count)))
    stored = Stored(iter(plain))
    assert len(stored) == count
    order = np.random.default_rng(0).permutation(count).tolist()
    assert all(same(stored[place], plain[place]) for place in order)
    assert [item.id for item in stored] == [item.id for item in plain]
    assert [item.id for item in stored[::7][:3]] == [item.id for item in plain[::7][:3]]
    if count:
        assert same(stored[-1], plain[-1])
    with pytest.raises(IndexError):
        stored[count]


def test_many_records_are_stored_and_few_are_not(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(sides.encode_all(encoder, records(5)), list)
    monkeypatch.setattr(sides, "IN_MEMORY", 4)
    stored = sides.encode_all(encoder, [*records(5), Record("empty", "Q", "")], scored=True)
    assert isinstance(stored, Stored)
    assert [item.id for item in stored] == ["r0", "r1", "r2", "r3", "r4"]


def test_the_file_is_its_owner_s_and_goes_with_the_object(encoder: Encoder) -> None:
    stored = Stored(sides.encode_all(encoder, records(3)))
    path = stored._path
    assert os.stat(path).st_mode & 0o777 == 0o600
    del stored
    gc.collect()
    assert not os.path.exists(path)
