from __future__ import annotations

import base64
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from expunge import runfolder
from expunge.errors import RunFolderError
from expunge.report import collect, sentences, tokenview
from expunge.runfolder import TOKENS
from tests.report import synthetic


def unpack(text: str) -> np.ndarray:
    whole = np.frombuffer(base64.b64decode(text), dtype="<u2").astype(float)
    return np.where(whole == 65535, np.nan, whole * tokenview.STEP)


def run_with(path: Path, rows: list[dict[str, object]], schema: pa.Schema = TOKENS) -> runfolder.RunFolder:
    run = runfolder.create(path, "unlearn")
    run.write_table("tokens.parquet", pa.Table.from_pylist(rows, schema=schema))
    return run


def row(key: str, epoch: float = 0, **changes: object) -> dict[str, object]:
    two = {"weight": [1.0, 2.0], "gold": [0.0, 1.0], "logp": [-0.5, -0.1], "entropy": [0.2, 0.3]}
    return {"id": key, "epoch": epoch, "tokens": ["A", " b"], "start": [0, 2], "end": [1, 3], **two, **changes}


def test_numbers_survive_packing_to_a_thousandth() -> None:
    values = np.array([0.0, 0.0004, 0.0006, 1.2345, 65.0, 1000.0, np.inf, np.nan, -1.0])
    back = unpack(tokenview.pack_numbers(values))
    assert back[:5].tolist() == pytest.approx([0, 0, 0.001, 1.234, 65.0], abs=6e-4)
    assert back[5] == back[6] == pytest.approx(65.534)
    assert math.isnan(back[7])
    assert back[8] == 0


def test_what_is_packed_is_what_the_run_recorded(demo: Path) -> None:
    seen = collect.views([demo])
    models = [model for model in collect.columns(seen) if model.role != "run"]
    packed = tokenview.pack(seen, models)
    assert packed["runs"] == ["graddiff", "wga", "etw"]
    assert packed["models"] == ["target", "oracle"]
    assert packed["total"] == len(packed["records"]) == 40
    record = packed["records"][0]
    fact = synthetic.facts("forget", 1)[0]
    assert record["prompt"] == fact.prompt, "joined from the generation table"
    assert "".join(record["tokens"][:-1]) == fact.answer
    assert "".join(record["tokens"][i] for i in record["gold"]).strip() == "Bergheim"
    assert record["special"] == [len(record["tokens"]) - 1]
    table = seen[2].folder.read_table("tokens.parquet").to_pylist()
    wanted = [line for line in table if line["id"] == record["id"]]
    assert record["runs"][2]["epochs"] == [line["epoch"] for line in wanted]
    for place, line in enumerate(wanted):
        assert unpack(record["runs"][2]["weight"][place]) == pytest.approx(line["weight"], abs=6e-4)
        assert unpack(record["runs"][2]["nll"][place]) == pytest.approx([-v for v in line["logp"]], abs=6e-4)
    scores = models[1].folder.read_table("eval/oracle/scores/forget.parquet").to_pylist()[0]
    assert unpack(record["models"][1]) == pytest.approx([-v for v in scores["logp"]], abs=6e-4)


def test_the_first_record_shown_is_one_that_was_forgotten(demo: Path) -> None:
    seen = collect.views([demo])
    packed = tokenview.pack(seen)
    shown = packed["records"][packed["first"]]
    assert shown["gold"]
    falls = [sentences.read(view.folder)[shown["id"]].forgotten for view in seen]
    everyone = [s.forgotten for s in sentences.read(seen[2].folder).values()]
    assert np.mean(falls) >= np.median(everyone)


def test_redacted_tokens_say_nothing_not_even_their_length(demo: Path) -> None:
    packed = tokenview.pack(collect.views([demo]), redact=True)
    record = packed["records"][3]
    assert set(record["tokens"]) == {"▬ "}
    assert (record["id"], record["prompt"]) == ("record 4", "")
    assert "Varnholt" not in json.dumps(packed)
    assert unpack(record["runs"][0]["weight"][0]).sum() > 0, "the numbers stay"


def test_many_records_are_sampled_evenly_and_long_ones_thinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_with(tmp_path / "run", [row(f"r{i:04d}", e) for i in range(400) for e in range(30)])
    packed = tokenview.pack(collect.views([run.path]))
    assert len(packed["records"]) == 200
    assert packed["total"] == 400
    assert (packed["records"][0]["id"], packed["records"][-1]["id"]) == ("r0000", "r0399")
    epochs = packed["records"][0]["runs"][0]["epochs"]
    assert len(epochs) == tokenview.MAX_EPOCHS
    assert (epochs[0], epochs[-1]) == (0, 29)
    monkeypatch.setattr(tokenview, "MAX_BYTES", 60_000)
    small = tokenview.pack(collect.views([run.path]))
    assert len(json.dumps(small)) < 80_000
    assert 10 <= len(small["records"]) < 200
    assert small["records"][0]["runs"][0]["epochs"][-1] == 29, "the last epoch stays"


def test_a_long_answer_is_cut_and_says_by_how_much(tmp_path: Path) -> None:
    n = 1000
    long = {"tokens": ["x" * 100] * n, **{k: [0.0] * n for k in ("weight", "gold", "logp", "entropy")}}
    run = run_with(tmp_path / "run", [row("a", start=list(range(n)), end=list(range(1, n + 1)), **long)])
    [record] = tokenview.pack(collect.views([run.path]))["records"]
    assert record["more"] == n - tokenview.MAX_TOKENS
    assert len(record["tokens"][0]) < 120


def test_runs_with_other_tokens_keep_their_own(tmp_path: Path) -> None:
    run_with(tmp_path / "one", [row("a")])
    run_with(tmp_path / "two", [row("a", tokens=["Ab", "!"])])
    run_with(tmp_path / "none", [row("b")])
    [record] = tokenview.pack(collect.views([tmp_path / "one", tmp_path / "two"]))["records"]
    assert record["tokens"] == ["A", " b"]
    assert "tokens" not in record["runs"][0]
    assert record["runs"][1]["tokens"] == ["Ab", "!"]
    both = tokenview.pack(collect.views([tmp_path / "one", tmp_path / "none"]))
    assert [[r is None for r in record["runs"]] for record in both["records"]] == [[False, True], [True, False]]


def test_rows_that_do_not_fit_are_left_out(tmp_path: Path) -> None:
    torn = row("a", 1, weight=[1.0])
    holes = row("b", 0, logp=[None, -0.1], gold=[1.0], start=[0])
    run = run_with(tmp_path / "run", [row("a", 0), torn, holes, row("c", 0, tokens=[], weight=None)])
    found = sentences.read(run)
    assert sorted(found) == ["a", "b"]
    assert len(found["a"].frames) == 1
    assert (found["b"].gold, found["b"].start) == ((False, False), (-1, -1))
    [_, b] = tokenview.pack(collect.views([run.path]))["records"]
    assert math.isnan(unpack(b["runs"][0]["nll"][0])[0])


def test_a_table_without_its_columns_is_an_error_to_read_and_absent_to_show(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", [{"id": "a"}], pa.schema([("id", pa.string())]))
    with pytest.raises(RunFolderError, match="lacks the columns epoch, tokens"):
        sentences.read(run)
    assert tokenview.pack(collect.views([run.path])) == {}


@pytest.mark.parametrize(
    ("tokens", "start", "end", "text", "shown"),
    [
        (("He", "llo", "world"), (0, 2, 6), (2, 5, 11), "Hello world", ("He", "llo", " world")),
        (("�", "�", "x"), (0, 0, 1), (1, 1, 2), "éx", ("é", "�", "x")),
        (("a", "b"), (-1, -1), (-1, -1), "ab", ("a", "b")),
        (("a", "b"), (0, 1), (1, 99), "ab", ("a", "b")),
        (("a", "b"), (0, 1), (1, 2), "", ("a", "b")),
    ],
)
def test_pieces_are_slices_of_the_text(
    tokens: tuple[str, ...], start: tuple[int, ...], end: tuple[int, ...], text: str, shown: tuple[str, ...]
) -> None:
    assert sentences.pieces(tokens, start, end, text) == shown
