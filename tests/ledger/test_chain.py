"""A ledger notices every change, cut and torn line, and outlives a crash in the middle of an append."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from expunge.data.records import Record, Span
from expunge.errors import ExpungeError
from expunge.ledger import salted
from expunge.ledger.chain import ENTRIES, HEAD, Ledger, LedgerError
from expunge.ledger.privacy import leaks
from expunge.ledger.salted import Salt, record_hash, salt_of, spans_hash


@pytest.fixture
def book(tmp_path: Path) -> Ledger:
    """A ledger of four entries."""
    made = Ledger(tmp_path / "book")
    for number in range(4):
        made.append("request", {"request": f"case-{number}", "value": [1.5, None, "é"]})
    return made


def lines(book: Ledger) -> list[bytes]:
    return (book.path / ENTRIES).read_bytes().splitlines(keepends=True)


def write(book: Ledger, what: list[bytes]) -> None:
    (book.path / ENTRIES).write_bytes(b"".join(what))


def test_entries_follow_from_each_other(book: Ledger) -> None:
    entries = book.entries()
    assert [entry.number for entry in entries] == [0, 1, 2, 3]
    assert [entry.previous for entry in entries] == ["0" * 64, *(entry.hash for entry in entries[:-1])]
    assert entries[2].body["request"] == "case-2"


@pytest.mark.parametrize("place", range(4))
def test_a_changed_byte_anywhere_is_noticed(book: Ledger, place: int) -> None:
    whole = lines(book)
    for at in range(0, len(whole[place]) - 1, 7):
        changed = bytes([whole[place][at] ^ 1])
        write(book, [*whole[:place], whole[place][:at] + changed + whole[place][at + 1 :], *whole[place + 1 :]])
        entries, faults = book.read()
        assert faults, (place, at)
        assert len(entries) <= place
        with pytest.raises(LedgerError):
            book.append("request", {})


def test_a_line_taken_out_put_in_or_moved_is_noticed(book: Ledger) -> None:
    a, b, c, d = lines(book)
    for order in ([a, c, d], [b, c, d], [a, b, b, c, d], [a, c, b, d], [a, b, c, d, d]):
        write(book, order)
        assert book.read()[1], order


def test_entries_cut_off_at_the_end_are_noticed_by_the_head(book: Ledger) -> None:
    for kept in range(4):
        write(book, lines(book)[:kept] if kept else [])
        assert book.read()[1] == [f"{4 - kept} of 4 entries were cut off at the end"]
        (book.path / ENTRIES).unlink()
        fresh = Ledger(book.path)
        (book.path / HEAD).unlink()
        for number in range(4):
            fresh.append("request", {"request": f"case-{number}"})


def test_a_rewritten_ledger_is_consistent_but_lacks_the_hash_that_was_kept(book: Ledger) -> None:
    kept = book.entries()[-1].hash
    for file in (ENTRIES, HEAD):
        (book.path / file).unlink()
    book.append("request", {"request": "another"})
    assert book.read()[1] == []
    assert kept not in {entry.hash for entry in book.entries()}


def test_without_its_head_the_end_is_unproven(book: Ledger) -> None:
    (book.path / HEAD).unlink()
    assert "cut off at the end is unknown" in book.read()[1][0]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_an_append_torn_by_a_crash_is_recovered(book: Ledger, share: float) -> None:
    whole = lines(book)
    write(book, [*whole, whole[-1][: int(share * len(whole[-1]))]])
    assert book.read()[1] == []
    assert book.append("request", {"request": "next"}).number == 4
    assert [entry.number for entry in book.entries()] == [0, 1, 2, 3, 4]


def test_an_append_whose_head_was_not_written_is_recovered(book: Ledger) -> None:
    head = (book.path / HEAD).read_bytes()
    book.append("request", {"request": "case-4"})
    (book.path / HEAD).write_bytes(head)
    assert book.read()[1] == []
    assert book.append("request", {"request": "case-5"}).number == 5
    assert book.read()[1] == []


_FORKS = """
import os, sys
from pathlib import Path
from expunge.ledger.chain import Ledger

def forked(work):
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    return child
"""


def forks(tmp_path: Path, code: str) -> None:
    """Runs code that may fork, in a process of one thread."""
    subprocess.run([sys.executable, "-c", _FORKS + code, str(tmp_path)], check=True, timeout=120)


def test_a_kill_at_any_moment_leaves_a_ledger_that_goes_on(tmp_path: Path) -> None:
    """The child ends without a word before the n-th cut, sync or rename of three appends."""
    code = """
def dying(left):
    def dies(real):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
            return real(*args, **kwargs)
        return call
    os.fsync, os.ftruncate, Path.replace = dies(os.fsync), dies(os.ftruncate), dies(Path.replace)

def three(moment):
    dying([moment])
    for number in range(3):
        Ledger(Path(sys.argv[1]) / str(moment)).append("request", {"request": f"case-{number}"})

ends = [os.waitstatus_to_exitcode(os.waitpid(forked(lambda: three(moment)), 0)[1]) for moment in range(20)]
assert ends[:15] == [9] * 15 and ends[-1] == 0, ends
"""
    forks(tmp_path, code)
    held = set()
    for moment in range(20):
        book = Ledger(tmp_path / str(moment))
        entries, faults = book.read()
        assert faults == [], moment
        held.add(len(entries))
        assert book.append("request", {"request": "after"}).number == len(entries)
        assert len(book.entries()) == len(entries) + 1
    assert held == {0, 1, 2, 3}


def test_two_processes_do_not_write_over_each_other(tmp_path: Path) -> None:
    code = """
def ten(name):
    for number in range(10):
        Ledger(Path(sys.argv[1])).append("request", {"by": name})

assert [os.waitpid(child, 0)[1] for child in [forked(lambda: ten("a")), forked(lambda: ten("b"))]] == [0, 0]
"""
    forks(tmp_path, code)
    assert sorted(entry.body["by"] for entry in Ledger(tmp_path).entries()) == ["a"] * 10 + ["b"] * 10


def test_the_salt_is_made_once_and_is_its_owner_s_alone(tmp_path: Path) -> None:
    book = Ledger(tmp_path)
    salt = salt_of(book)
    assert salt_of(book) == salt
    assert (tmp_path / salted.FILE).stat().st_mode & 0o777 == 0o600
    assert salt.secret.hex() not in repr(salt)
    (tmp_path / salted.FILE).chmod(0o644)
    with pytest.raises(LedgerError, match="chmod 600"):
        salt_of(book)


def test_another_salt_a_short_one_or_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = Ledger(tmp_path)
    book.append("ledger", {"salt_check": salt_of(book).check})
    monkeypatch.setenv(salted.VARIABLE, "ab" * 32)
    with pytest.raises(LedgerError, match="not the one"):
        salt_of(book)
    monkeypatch.setenv(salted.VARIABLE, "secret-words")
    with pytest.raises(LedgerError, match="hex digits") as raised:
        salt_of(book)
    assert "secret-words" not in str(raised.value)
    monkeypatch.delenv(salted.VARIABLE)
    (tmp_path / salted.FILE).unlink()
    with pytest.raises(LedgerError, match="has no file 'salt'"):
        salt_of(book)


def test_hashes_of_one_text_differ_between_requests_and_salts() -> None:
    record = Record("r", "Born when?", "1956")
    keys = [Salt(bytes([i]) * 32).key(name) for i in (1, 2) for name in ("case-1", "case-2")]
    assert len({record_hash(key, record) for key in keys}) == 4
    moved = Record("r", "Born when?", "1956", spans=(Span("answer", 0, 4),))
    assert record_hash(keys[0], record) == record_hash(keys[0], moved)
    assert spans_hash(keys[0], [record]) != spans_hash(keys[0], [moved])


def test_texts_are_found_in_what_is_passed_on() -> None:
    record = Record("r", "Where was Basil born?", "In Kuwait City, in 1956.", spans=(Span("answer", 3, 14),))
    assert leaks("case-0017, 64 records", [record]) == []
    for text in ("note: kuwait city", "WHERE WAS BASIL BORN", "x in kuwait city, in 1956. x"):
        assert leaks(text, [record]) == ["r"], text
    chinese = Record("r", "谁写的?", "这本书是由王小明在北京写成的。")
    assert leaks("记录:由王小明在北京", [chinese]) == ["r"]


def test_errors_are_for_users() -> None:
    assert issubclass(LedgerError, ExpungeError)
    with pytest.raises(LedgerError, match="expunge ledger add"):
        Ledger(Path("nowhere")).entries()


def test_the_file_is_json_a_line(book: Ledger) -> None:
    rows = [json.loads(line) for line in lines(book)]
    assert set(rows[0]) == {"number", "kind", "time", "previous", "body", "hash"}
    assert os.stat(book.path / ENTRIES).st_size == sum(map(len, lines(book)))
