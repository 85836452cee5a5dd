"""The tables and their numpy view."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expunge import keyed
from expunge.errors import DataError, RunFolderError
from expunge.evals import table
from tests.evals import tiny


def rows() -> pa.Table:
    return tiny.scores(
        [
            {"id": "a", "logp": [-1.0, -2.0, -3.0], "text": "one two"},
            {"id": "a", "variant": "paraphrase", "logp": [-5.0]},
            {"id": "b", "logp": [], "eos": False},
            {"id": "c", "logp": [-4.0], "eos": False, "truncated": True},
        ]
    )


def test_a_variant_becomes_flat_arrays_in_the_order_of_the_table() -> None:
    view = table.answers(rows())
    assert view.ids == ("a", "b", "c")
    assert view.texts[0] == "one two"
    assert view.offsets.tolist() == [0, 3, 3, 4]
    assert view.logp.tolist() == [-1.0, -2.0, -3.0, -4.0]
    assert table.answers(rows(), "paraphrase").logp.tolist() == [-5.0]


def test_without_eos_drops_the_last_token_of_whole_answers_only() -> None:
    view = table.answers(rows()).without_eos()
    assert view.logp.tolist() == [-1.0, -2.0, -4.0]
    assert view.offsets.tolist() == [0, 2, 2, 3]
    assert not view.eos.any()
    assert view.without_eos().logp.tolist() == view.logp.tolist()


def test_an_absent_variant_is_an_error_that_names_the_others() -> None:
    with pytest.raises(DataError, match="no variant 'perturbed:0'; it has answer, paraphrase"):
        table.answers(rows(), "perturbed:0")


def test_missing_and_mistyped_columns_are_named() -> None:
    with pytest.raises(DataError, match="lacks the column 'logp'"):
        table.answers(rows().drop_columns(["logp"]))
    wrong = rows().set_column(9, "logp", pa.array([["x"]] * 4))
    with pytest.raises(DataError, match="column 'logp' should be list<item: float>, found list<item: string>"):
        table.answers(wrong)


def test_the_key_survives_a_file(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    assert keyed.key_of(path) == {}
    pq.write_table(keyed.with_key(rows(), {"model": "abc", "items": "def"}), path)
    assert keyed.key_of(path) == {"model": "abc", "items": "def"}
    assert table.answers(table.read(path)).logp.tolist() == [-1.0, -2.0, -3.0, -4.0]


def test_a_damaged_file_has_no_key_and_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(keyed.with_key(rows(), {"model": "abc"}), path)
    path.write_bytes(path.read_bytes()[:200])
    assert keyed.key_of(path) == {}
    with pytest.raises(RunFolderError, match="not a readable table"):
        table.read(path)
    with pytest.raises(RunFolderError, match="no table"):
        table.read(tmp_path / "other.parquet")


def test_numbers_keep_float32_precision(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(tiny.scores([{"id": "a", "logp": [-1e-7, -0.1]}]), path)
    assert table.answers(table.read(path)).logp.tolist() == [np.float32(-1e-7), np.float32(-0.1)]
