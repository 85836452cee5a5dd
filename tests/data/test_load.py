"""Every format and layout that records come in, and the message for each that is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expunge.data.load import iterate, load, save
from expunge.data.records import Record, Span
from expunge.errors import DataError
from expunge.recipe import Source

ROWS = [
    {"question": "Who wrote it?", "answer": "Ada, “quickly”."},
    {"question": "Where?\nWhen?", "answer": "In Kuwait, 1972"},
]
PAIRS = [(row["question"], row["answer"]) for row in ROWS]


def lines(path: Path, *rows: Any) -> Source:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")
    return Source(path=str(path))


def one(tmp_path: Path, row: dict[str, Any], columns: dict[str, str] | None = None) -> Record:
    source = lines(tmp_path / "one.jsonl", row)
    return load(source.model_copy(update={"columns": columns or {}}), "forget")[0]


def fault(source: Source, split: Any = "forget") -> str:
    with pytest.raises(DataError) as error:
        load(source, split)
    return str(error.value)


def write(path: Path, kind: str) -> Path:
    """ROWS in one of the formats."""
    if kind == "jsonl":
        lines(path := path / "rows.jsonl", *ROWS)
    elif kind == "json lines in .json":
        lines(path := path / "rows.json", *ROWS)
    elif kind == "json array":
        (path := path / "rows.json").write_text("\ufeff" + json.dumps(ROWS, indent=1), encoding="utf-8")
    elif kind == "json object of one array":
        (path := path / "rows.json").write_text(json.dumps({"version": 1, "data": ROWS}, indent=1), encoding="utf-8")
    elif kind == "json columns":
        columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
        (path := path / "rows.json").write_text(json.dumps(columns, indent=1), encoding="utf-8")
    elif kind == "csv":
        cells = "".join(f'"{q}","{a}"\n' for q, a in PAIRS)
        (path := path / "rows.csv").write_text("\ufeffquestion,answer\n" + cells, encoding="utf-8")
    elif kind == "csv with semicolons":
        cells = "".join(f'"{q}";"{a}"\n' for q, a in PAIRS)
        (path := path / "rows.csv").write_text("question;answer\n" + cells, encoding="utf-8")
    elif kind == "tsv":
        cells = "".join(f'"{q}"\t{a}\n' for q, a in PAIRS)
        (path := path / "rows.tsv").write_text("question\tanswer\n" + cells, encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), path := path / "rows.parquet")
    return path


KINDS = (
    "jsonl",
    "json lines in .json",
    "json array",
    "json object of one array",
    "json columns",
    "csv",
    "csv with semicolons",
    "tsv",
    "parquet",
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_records(kind: str, tmp_path: Path) -> None:
    source = Source(path=str(write(tmp_path, kind)))
    records = load(source, "forget")
    assert [(r.prompt, r.answer) for r in records] == PAIRS
    assert [(r.id, r.split) for r in records] == [("forget-00000", "forget"), ("forget-00001", "forget")]
    assert list(iterate(source, "forget")) == records


LAYOUTS: list[tuple[dict[str, Any], Record]] = [
    ({"prompt": "P", "completion": "C"}, Record("", "P", "C")),
    ({"prompt": "P", "gt": "C"}, Record("", "P", "C")),
    ({"instruction": "P", "output": "C"}, Record("", "P", "C")),
    ({"question": "P", "answer": 1972}, Record("", "P", "1972")),
    ({"text": "T"}, Record("", text="T")),
    ({"document": "T", "title": 3}, Record("", text="T")),
    ({"id": 7, "prompt": "P", "response": "C", "author": "Ada"}, Record("7", "P", "C", subject="Ada")),
    (
        {
            "question": "P",
            "answer": "C",
            "paraphrased_question": "PP",
            "paraphrased_answer": "CC",
            "perturbed_answer": ["x", "y"],
        },
        Record("", "P", "C", paraphrase="CC", prompt_paraphrase="PP", perturbed=("x", "y")),
    ),
    ({"question": "P", "answer": "C", "perturbed_answer": '["x", "y"]'}, Record("", "P", "C", perturbed=("x", "y"))),
    ({"question": "P", "option1": "A", "option2": "C", "answer": "C"}, Record("", "P", "C", perturbed=("A",))),
    ({"question": "P", "choices": ["A", "C", "B"], "answer": 1}, Record("", "P", "C", perturbed=("A", "B"))),
    (
        {"prompt": "P", "ground_truth": ["C", "D"], "target_new": "N", "subject": "Ada", "rephrase_prompt": "PP"},
        Record("", "P", "C", subject="Ada", prompt_paraphrase="PP"),
    ),
    (
        {"messages": [{"role": "user", "content": "P"}, {"role": "assistant", "content": "C"}]},
        Record("", "P", "C"),
    ),
    (
        {
            "messages": [
                {"role": "system", "content": "S"},
                {"role": "user", "content": "Q"},
                {"role": "assistant", "content": "A"},
                {"role": "user", "content": [{"type": "text", "text": "P"}]},
                {"role": "assistant", "content": "C"},
            ]
        },
        Record("", "P", "C", history=(("system", "S"), ("user", "Q"), ("assistant", "A"))),
    ),
    (
        {"conversations": [{"from": "human", "value": "P"}, {"from": "gpt", "value": "C"}]},
        Record("", "P", "C"),
    ),
    (
        {"prompt": [{"role": "user", "content": "P"}], "completion": [{"role": "assistant", "content": "C"}]},
        Record("", "P", "C"),
    ),
    ({"system": "S", "prompt": "P", "completion": "C"}, Record("", "P", "C", history=(("system", "S"),))),
    (
        {"question": "P", "answer": "Ada L", "spans": [{"start": 0, "end": 3, "label": "name"}, [4, 5]]},
        Record("", "P", "Ada L", spans=(Span("answer", 0, 3, 1.0, "name"), Span("answer", 4, 5))),
    ),
    (
        {"text": "Ada L", "spans": [{"field": "text", "start": 0, "end": 3, "weight": 0.5, "source": "gold"}]},
        Record("", text="Ada L", spans=(Span("text", 0, 3, 0.5, "unwanted", "gold"),)),
    ),
]


@pytest.mark.parametrize(("row", "record"), LAYOUTS)
def test_layouts(row: dict[str, Any], record: Record, tmp_path: Path) -> None:
    expected = record if record.id else replace(record, id="forget-00000")
    assert one(tmp_path, row) == expected
    if "choices" not in row and not isinstance(row.get("answer"), int):  # JSON text in CSV cells
        header = ",".join(row)
        cells = ",".join(
            '"' + (v if isinstance(v, str) else json.dumps(v)).replace('"', '""') + '"' for v in row.values()
        )
        (tmp_path / "one.csv").write_text(f"{header}\n{cells}\n")
        if not isinstance(row.get("ground_truth"), list) and not isinstance(row.get("completion"), list):
            assert load(Source(path=str(tmp_path / "one.csv")), "forget") == [expected]


def test_columns_are_mapped(tmp_path: Path) -> None:
    row = {"Frage": "P", "Antwort": "C", "answer": "no", "Person": "Ada"}
    columns = {"prompt": "Frage", "answer": "Antwort", "subject": "Person"}
    assert one(tmp_path, row, columns) == Record("forget-00000", "P", "C", subject="Ada")
    assert one(tmp_path, {"question": "P", "Antwort": "C"}, {"answer": "Antwort"}).answer == "C"
    assert one(tmp_path, {"prompt": "P", "completion": "C", "text": "T"}, {"text": "text"}).text == "T"
    assert one(tmp_path, {"question": "P", "answer": "C", "author": ["x"]}, {"subject": ""}).subject == ""
    assert one(tmp_path, {"id": "x", "question": "P", "answer": "C"}, {"id": ""}).id == "forget-00000"


def test_column_faults_list_the_columns_found(tmp_path: Path) -> None:
    source = lines(tmp_path / "rows.jsonl", {"Frage": "P", "Antwort": "C"})
    assert "Columns found: Frage, Antwort. Say which with columns" in fault(source)
    wrong = source.model_copy(update={"columns": {"answer": "Antwrt"}})
    assert "column 'Antwrt' (for answer) is not there. Columns found: Frage, Antwort." in fault(wrong)
    wrong = source.model_copy(update={"columns": {"anser": "Antwort"}})
    assert "unknown field 'anser'. Did you mean: answer" in fault(wrong)
    both = lines(tmp_path / "both.jsonl", {"question": "Q", "prompt": "P", "answer": "A"})
    assert "several columns could be prompt and answer: prompt + answer, or question + answer" in fault(both)
    both = lines(tmp_path / "both.jsonl", {"prompt": "P", "completion": "A", "text": "PA"})
    assert "the columns completion and text both hold content" in fault(both)


ROW_FAULTS = [
    ({"question": "P", "answer": ""}, "'answer' is empty"),
    ({"question": "P", "answer": None}, "'answer' is empty"),
    ({"question": "P", "answer": " \n"}, "'answer' is empty"),
    ({"question": "P", "answer": {"a": 1}}, "'answer' must be text; found the keys a"),
    ({"question": "P", "answer": True}, "'answer' must be text; found bool"),
    ({"question": "P", "answer": "C", "perturbed_answer": [1, {}]}, "'perturbed_answer' must be text; found the keys"),
    ({"question": "P", "answer": "C", "spans": [[1, 9]]}, "span 1:9 is outside of the answer, which has 1 characters"),
    ({"question": "P", "answer": "C", "spans": [{"start": 0}]}, "a span needs start and end"),
    ({"question": "P", "answer": "C", "spans": [[0, "x"]]}, "must be numbers"),
    ({"question": "P", "answer": "C", "spans": [{"start": 0, "end": 1, "weight": -1}]}, "from 0 to 1e+30; found -1"),
    ({"question": "P", "answer": "C", "spans": [{"start": 0, "end": 1, "field": "anser"}]}, "Did you mean: answer"),
    ({"question": "P", "answer": 5, "choices": ["A"]}, "'answer' is choice 5, but there are 1 choices"),
    ({"question": "P", "answer": "\ud800"}, "'answer' has half of a surrogate pair"),
    ({"messages": [{"role": "user", "content": "P"}]}, "must end with a user and an assistant; its roles are: user"),
    ({"messages": [{"content": "P"}]}, "messages with a role and a content"),
    ({"messages": "Hello"}, "'messages' must be a list"),
]


@pytest.mark.parametrize(("row", "message"), ROW_FAULTS)
def test_row_faults_name_file_and_line(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    good = {"question": "P", "answer": "C"}
    (path := tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n\n" for r in (good, row)))
    text = fault(Source(path=str(path)))
    assert f"{path}, line 3: " in text
    assert message in text
    with pytest.raises(DataError, match="line 3"):
        list(iterate(Source(path=str(path)), "forget"))


def test_faults_are_collected(tmp_path: Path) -> None:
    source = lines(tmp_path / "rows.jsonl", *({"question": "P", "answer": "C" if i == 0 else ""} for i in range(9)))
    text = fault(source)
    assert text.startswith("8 rows cannot be used:")
    assert [f"line {i}:" in text for i in range(1, 10)] == [False] + [True] * 5 + [False] * 3
    assert text.endswith("and 3 more")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"question": "P", "answer": "C"}\n{"question": ', "a.jsonl, line 2: not valid JSON"),
        ("a.json", b'[{"question": ', "a.json: not valid JSON"),
        ("a.json", b'{\n"a": [1], "b": [1, 2]}', "expected an array of objects, or one object a line"),
        ("a.jsonl", b"[1, 2]\n", "line 1: expected an object with columns, or a text; found a list"),
        ("a.jsonl", b"\xff\xfe", "is not UTF-8"),
        ("a.bin", b"\xff\xfe\x00", "is neither UTF-8 text nor one of .json, .jsonl"),
        ("a.csv", b"question,answer\nP,C,D\n", "a.csv, line 2: 3 cells, but the header has 2"),
        ("a.csv", b'question,answer\nP,"C\n', "not valid CSV"),
        ("a.csv", b"question,answer\nP," + b"x" * 140_000, "Texts that long fit into JSON lines or Parquet"),
        ("a.csv", b"question,answer\nP\n", "'answer' is empty"),
        ("a.parquet", b"PAR1 and no more", "is not a whole Parquet file"),
        ("a.jsonl", b"\n\n", "has no records"),
        ("a.jsonl", b"", "has no records"),
        ("a.json", b"", "not valid JSON"),
        ("a.json", b"[]", "has no records"),
    ],
)
def test_broken_files(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in fault(Source(path=str(tmp_path / name)))


def test_skip_and_limit_keep_ids(tmp_path: Path) -> None:
    source = lines(tmp_path / "rows.jsonl", *({"question": f"Q{i}", "answer": "C"} for i in range(9)))
    part = load(source.model_copy(update={"skip": 2, "limit": 3}), "retain", name_prefix="world")
    assert [(r.id, r.prompt, r.split) for r in part] == [(f"world-0000{i}", f"Q{i}", "retain") for i in (2, 3, 4)]
    assert "has no records after the 9 that are skipped" in fault(source.model_copy(update={"skip": 9}))


def test_repeated_ids_are_refused(tmp_path: Path) -> None:
    rows = ({"id": i, "question": "Q", "answer": "C"} for i in ("a", "b", "a"))
    assert "the records 1 and 3 have the same id 'a'" in fault(lines(tmp_path / "rows.jsonl", *rows))


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    lines(tmp_path / "forget.jsonl", *ROWS)
    near = fault(Source(path=str(tmp_path / "forgot.jsonl")))
    assert f"there is no file or folder {tmp_path / 'forgot.jsonl'}. Did you mean {tmp_path / 'forget.jsonl'}?" in near
    unset = Source(path="x").model_copy(update={"path": None})
    assert "names neither a path nor a dataset_name" in fault(unset)


def test_text_files_are_documents(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("Second.\n\nWith two paragraphs.", encoding="utf-8")
    (tmp_path / "sub/a.md").write_text("First.", encoding="utf-8")
    (tmp_path / ".hidden").write_bytes(b"\xff")
    records = load(Source(path=str(tmp_path)), "forget")
    assert [(r.id, r.text[:6]) for r in records] == [("b.txt", "Second"), ("sub/a.md", "First.")]
    assert load(Source(path=str(tmp_path / "b.txt")), "forget")[0].id == "b.txt"
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff")
    assert "image.png is neither UTF-8 text" in fault(Source(path=str(tmp_path)))


def test_folders_with_data_files(tmp_path: Path) -> None:
    assert "has no files" in fault(Source(path=str(tmp_path)))
    lines(tmp_path / "any.jsonl", ROWS[0])
    (tmp_path / "README.md").write_text("not a record")
    assert len(load(Source(path=str(tmp_path)), "forget")) == 1
    lines(tmp_path / "forget.jsonl", *ROWS)
    assert len(load(Source(path=str(tmp_path)), "forget")) == 2
    assert "several data files: any.jsonl, forget.jsonl. Give the path" in fault(Source(path=str(tmp_path)), "retain")


def test_shards_are_one_data_set(tmp_path: Path) -> None:
    for i, row in enumerate(ROWS):
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / f"train-{i:05d}-of-00002.parquet")
    records = load(Source(path=str(tmp_path)), "retain")
    assert [(r.id, r.prompt) for r in records] == [("retain-00000", PAIRS[0][0]), ("retain-00001", PAIRS[1][0])]


def test_a_folder_that_datasets_saved(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    data = DatasetDict({"train": Dataset.from_list(ROWS)})
    data.save_to_disk(str(tmp_path / "saved"))
    assert [r.answer for r in load(Source(path=str(tmp_path / "saved")), "forget")] == [a for _, a in PAIRS]
    assert "has no split 'test'. There are: train" in fault(Source(path=str(tmp_path / "saved"), dataset_split="test"))
    assert len(list(iterate(Source(path=str(tmp_path / "saved/train")), "forget"))) == 2


def test_a_hub_data_set_that_cannot_be_had_is_said_in_our_words(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    text = fault(Source(dataset_name="locuslab/NOT-TOFU", dataset_config="forget01"))
    assert text == (
        "the data set locuslab/NOT-TOFU forget01 was asked for (split 'train'), but HF_HUB_OFFLINE is set and "
        "it is not in the cache. Download it where there is a network, or give a path."
    )


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("Dataset 'a/b' is a gated dataset on the Hub. Visit the dataset page to ask for access.", "accept its terms"),
        ("Couldn't reach 'a/b' on the Hub (ConnectionError)", "the hub cannot be reached and it is not in the cache"),
    ],
    ids=["gated", "no network"],
)
def test_what_the_hub_refuses_is_said_in_our_words(raised: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from huggingface_hub import constants

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError(raised)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    assert said in fault(Source(dataset_name="a/b"))


def test_hub_data_sets_are_read_through_datasets(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    source = Source(dataset_name=str(tmp_path))
    assert [(r.prompt, r.answer) for r in load(source, "forget")] == PAIRS
    assert [r.answer for r in iterate(source, "forget")] == [a for _, a in PAIRS]
    assert "split 'test'" in fault(Source(dataset_name=str(tmp_path), dataset_split="test"))


def test_saved_records_are_read_back(tmp_path: Path) -> None:
    records = [
        Record("a", "P", "Ada", subject="s", perturbed=("x",), spans=(Span("answer", 0, 3, 0.5, "general", "me"),)),
        Record("b", text="T\u2028U", document="doc", offset=7, continues=True),
        Record("c", "", "C", paraphrase="p", prompt_paraphrase="q", history=(("system", "S"), ("user", "Q"))),
    ]
    save(tmp_path / "mine.jsonl", records)
    assert load(Source(path=str(tmp_path / "mine.jsonl")), "forget") == records


def test_iterating_reads_no_more_than_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n" * 3 + "not JSON")
    records = iterate(Source(path=str(path)), "forget")
    assert next(records).answer == ROWS[0]["answer"]
    with pytest.raises(DataError, match="line 4"):
        next(records)


def test_tofu_files(shared: Path) -> None:
    folder = shared / "data/tofu"
    forget = load(Source(path=str(folder / "forget01_perturbed.json")), "forget")
    assert len(forget) == 40
    assert {len(r.perturbed) for r in forget} == {5}
    assert all(r.paraphrase and r.prompt_paraphrase for r in forget)
    assert [forget[i].subject for i in (0, 19, 20, 39)] == ["author-198", "author-198", "author-199", "author-199"]
    retain = load(Source(path=str(folder / "retain99.json")), "retain")
    assert (len(retain), retain[-1].subject) == (3960, "author-197")
    world = load(Source(path=str(folder / "world_facts.json")), "general")
    assert (world[0].answer, world[0].perturbed, world[0].subject) == ("Paris", ("Berlin", "London", "Madrid"), "")
    assert "several data files" in fault(Source(path=str(folder)))


def test_muse_files(shared: Path) -> None:
    folder = shared / "data/muse_news"
    assert len(load(Source(path=str(folder)), "forget")) == 200
    assert len(load(Source(path=str(folder), limit=7), "retain")) == 7
    verbatim = load(Source(path=str(folder / "verbmem_forget.jsonl")), "forget")
    assert all(r.prompt and r.answer for r in verbatim)
    assert load(Source(path=str(folder / "knowmem_forget_qa.jsonl")), "forget")[0].answer == "1472"
    corpus = iterate(Source(path=str(shared / "data/corpus/english_train.parquet")), "general")
    assert next(corpus).text


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"text": "a", "offset": {"x": 1}}, "'offset' must be a whole number; found dict"),
        ({"text": "a", "offset": "Ada"}, "'offset' must be a whole number; found str"),
        ({"question": "q", "answer": "a", "spans": [{"start": float("inf"), "end": 1}]}, "must be numbers"),
        ({"question": "q", "answer": {"told": "the secret"}}, "'answer' must be text; found the keys told"),
        ({"messages": [{"role": "user", "told": "the secret"}]}, "found the keys role, told"),
        ({"question": "q", "answer": "a", "spans": [{"text": "the secret"}]}, "found the keys text"),
    ],
)
def test_cells_of_the_wrong_kind_are_named_and_not_quoted(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    message = fault(lines(tmp_path / "odd.jsonl", row))
    assert says in message
    assert "secret" not in message
