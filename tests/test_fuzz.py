"""What is read from outside is understood or ends in an ExpungeError: 500 inputs each, 10,000 in `make test-all`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from expunge import gate, recipe, registry
from expunge.data import annotations
from expunge.data.encode import Encoder
from expunge.data.load import load
from expunge.data.records import Record, Span
from expunge.errors import ExpungeError
from expunge.identifiers import replies
from expunge.identifiers.locate import locate
from expunge.ledger.chain import ENTRIES, Ledger
from expunge.recipe import Source
from tests.fixtures.tokenizers import MAKERS

Check = Callable[[Path, Any], object]
ENCODERS = [Encoder(MAKERS[name](), template="{prompt}\n{answer}") for name in sorted(MAKERS)[:3]]

ODD = ["", " ", "\n", "Ada", "a\u0301", "👩‍👧", "\ud800", "\x00", "\u202e", "<0x41>", "</s>", "x" * 40]
NUMBERS = [0, 1, -1, 7, 10**40, 0.5, -2.0, 1e308, float("nan"), float("inf")]
NAMES = [
    "id", "question", "answer", "prompt", "text", "messages", "role", "content", "spans", "start", "end", "field",
    "weight", "label", "source", "history", "subject", "perturbed_answer", "alternatives", "choices", "offset",
    "continues", "document", "record_id", "text_hash", "target_spans", "expunge_annotations", "identifier",
    "parameters", "target_words", "phrases", "occurrence", "data", "forget", "path", "method", "terms", "train",
    "conditions", "metric", "at_most", "number", "body",
]  # fmt: skip
SIGNS = [
    "entropy", "gold", "top", "raw", "npo", "ga", "phrases", ":", "r=", "temperature=", "=", ",", "+", "*", ">", "0.5",
    "1e400", "nan", '"', "rank(", "zscore(", ")", " ", "text=", "-1", "\ud800",
]  # fmt: skip
BRACKETS = ['{"spans": [', '"a"', "]", "}", ",", "```json\n", "<think>", "</think>", "\\", "'", "(", "1", " "]


def scalar(draw: Random) -> Any:
    return draw.choice([None, True, False, draw.choice(NUMBERS), draw.choice(ODD), draw.choice(NAMES)])


def tree(draw: Random, depth: int = 3) -> Any:
    """Mappings with the names that we read, lists and scalars."""
    kind = draw.random()
    if depth == 0 or kind < 0.4:
        return scalar(draw)
    if kind < 0.6:
        return [tree(draw, depth - 1) for _ in range(draw.randrange(4))]
    return {draw.choice(NAMES): tree(draw, depth - 1) for _ in range(draw.randrange(5))}


def lines(draw: Random) -> bytes:
    """JSON lines, alike or not; sometimes with a piece cut out or put in."""
    columns = draw.sample(NAMES, 3)
    alike = draw.random() < 0.7
    rows = [{name: tree(draw, 2) for name in columns} if alike else tree(draw) for _ in range(draw.randrange(4))]
    whole = "\n".join(json.dumps(row, ensure_ascii=draw.random() < 0.5) for row in rows).encode(
        "utf-8", "surrogatepass"
    )
    if draw.random() < 0.6:
        return whole
    start = draw.randint(0, len(whole))
    return whole[:start] + draw.randbytes(draw.randrange(4)) + whole[draw.randint(start, len(whole)) :]


def span(draw: Random) -> Span:
    where, label = draw.choice(["prompt", "answer", "text"]), draw.choice(["unwanted", "general", "x"])
    weight = draw.choice([1.0, 0.0, -1.0, 1e308])
    return Span(where, draw.randint(-2, 14), draw.randint(-2, 14), weight, label, draw.choice(["gold", ""]))


def seeded(make: Callable[[Random], Any]) -> st.SearchStrategy[Any]:
    """What `make` draws: many times as fast as nested strategies."""
    return st.integers(0, 2**48).map(lambda seed: make(Random(seed)))


SUFFIXES = [".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet"]
BYTES = st.binary(max_size=80)
LINES = seeded(lines)
YAML = seeded(lambda draw: json.dumps(tree(draw, 4)).encode()) | LINES | BYTES
FILES = st.tuples(st.sampled_from(SUFFIXES), LINES | BYTES)
TABLES = seeded(lambda draw: [{name: scalar(draw) for name in draw.sample(NAMES, 3)} for _ in range(draw.randrange(3))])
TEXT = st.text(max_size=12) | st.sampled_from(ODD)
SPANS = seeded(lambda draw: tuple(span(draw) for _ in range(draw.randrange(3))))
RECORDS = st.tuples(TEXT, TEXT, SPANS, st.booleans())
SPECS = st.tuples(
    st.sampled_from(registry.KINDS),
    st.text('abcentropytopk:=,+*>()" .0123456789e-', max_size=30)
    | seeded(lambda draw: "".join(draw.choices(SIGNS, k=draw.randrange(9))))
    | seeded(lambda draw: {"name": draw.choice(SIGNS), draw.choice(["r", "temperature", "text", "x"]): tree(draw)}),
)
REPLIES = (
    st.text(max_size=40)
    | seeded(lambda draw: json.dumps(tree(draw)))
    | seeded(lambda draw: repr(tree(draw)))
    | seeded(lambda draw: "".join(draw.choices(BRACKETS, k=draw.randrange(14))))
)
OVERRIDES = seeded(lambda draw: [f"{'.'.join(draw.choices(NAMES, k=2))}={scalar(draw)}" for _ in range(2)]) | st.lists(
    st.text(max_size=20), max_size=2
)


def _write(folder: Path, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    return str(folder / name)


def _loads(folder: Path, drawn: tuple[str, bytes]) -> None:
    for record in load(Source(path=_write(folder, "rows" + drawn[0], drawn[1])), "forget"):
        ENCODERS[0].encode(record)


def _loads_table(folder: Path, rows: list[dict[str, Any]]) -> None:
    try:
        pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    except (pa.ArrowException, UnicodeEncodeError, TypeError, OverflowError):
        return  # Arrow has no column of such cells
    load(Source(path=str(folder / "rows.parquet")), "forget")


def _annotates(folder: Path, content: bytes) -> None:
    found = annotations.read(_write(folder, "spans.jsonl", content))
    annotations.attach([Record("r", "Q", "answer")], found)


def _projects(folder: Path, drawn: tuple[str, str, tuple[Span, ...], bool]) -> None:
    prompt, body, spans, raw = drawn
    record = Record("r", text=body, spans=spans) if raw else Record("r", prompt, body, spans=spans)
    for encoder in ENCODERS:
        encoded = encoder.encode(record)
        assert encoded.scored <= len(encoded)
        encoder.places(record)


def _reads_recipe(folder: Path, content: bytes) -> None:
    recipe.load(_write(folder, "recipe.yaml", content))


def _overrides(folder: Path, given: list[str]) -> None:
    recipe.load(None, given)


def _reads_gate(folder: Path, content: bytes) -> None:
    gate.load(_write(folder, "gate.yaml", content))


def _builds(folder: Path, drawn: tuple[registry.Kind, Any]) -> None:
    made = registry.build(*drawn)
    assert registry.build(drawn[0], str(made)) == made


def _reads_reply(folder: Path, reply: str) -> None:
    for phrase in replies.parse(reply).spans:
        for start, end in locate(phrase.text, reply):
            assert 0 <= start < end <= len(reply)


def _reads_ledger(folder: Path, content: bytes) -> None:
    _write(folder, ENTRIES, content)
    Ledger(folder).entries()


CHECKS: dict[str, tuple[st.SearchStrategy[Any], Check]] = {
    "files": (FILES, _loads),
    "tables": (TABLES, _loads_table),
    "annotations": (LINES, _annotates),
    "projection": (RECORDS, _projects),
    "recipes": (YAML, _reads_recipe),
    "overrides": (OVERRIDES, _overrides),
    "gates": (YAML, _reads_gate),
    "specs": (SPECS, _builds),
    "replies": (REPLIES, _reads_reply),
    "ledgers": (LINES, _reads_ledger),
}
named = pytest.mark.parametrize("name", CHECKS)


def run(name: str, folder: Path, count: int, derandomize: bool) -> None:
    inputs, check = CHECKS[name]

    @settings(max_examples=count, deadline=None, derandomize=derandomize, suppress_health_check=list(HealthCheck))
    @given(inputs)
    def only_ours(drawn: Any) -> None:
        try:
            check(folder, drawn)
        except ExpungeError as error:
            assert str(error).strip()

    only_ours()


@named
def test_only_our_errors_come_out(name: str, tmp_path: Path) -> None:
    run(name, tmp_path, 500, derandomize=True)


@pytest.mark.slow
@named
def test_only_our_errors_come_out_of_ten_thousand(name: str, tmp_path: Path) -> None:
    run(name, tmp_path, 10_000, derandomize=False)
