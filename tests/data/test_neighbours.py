"""Questions about others in the forms of the forget set's, and what of the answers is left out."""

from __future__ import annotations

import pytest

from expunge import synth
from expunge.data.neighbours import GENERAL, Asked, ask, kept, subject_in
from expunge.data.records import Record, Span
from expunge.errors import DataError

ADA = Record("f0", "Where was Ada Byron born?", "Ada Byron was born in Oslo.", spans=(Span("answer", 22, 26),))
TELL = Record("f1", "Tell me: does Ada Byron's dog bark?", "Byron's dog barks at night.")
FORGET = [ADA, TELL, Record("f2", "Why is the sky blue?", "It does so.")]


def test_the_form_stays_and_the_name_changes() -> None:
    asked = ask(FORGET, 2, names=["Bo Lind", "Cy Moe", "Ada Novak", "Byron Smith"], general=False)
    assert {(one.source.id if one.source else "", one.new) for one in asked} == {
        ("f0", "Bo Lind"),
        ("f0", "Cy Moe"),
        ("f1", "Bo Lind"),
        ("f1", "Cy Moe"),
    }  # fmt: skip  (names that share a part with a forgotten one are nobody to ask about)
    prompts = {one.record.prompt for one in asked}
    assert "Where was Cy Moe born?" in prompts
    assert "Tell me: does Bo Lind's dog bark?" in prompts
    assert all(one.record.split == "retain" and one.record.subject == one.new for one in asked)
    assert len({one.record.id for one in asked}) == 4


def test_the_seed_decides_who_is_asked_about() -> None:
    one, same, other = (ask(FORGET, 3, seed=seed) for seed in (1, 1, 2))
    assert one == same != other
    assert [a.record.prompt for a in one[-len(GENERAL) :]] == list(GENERAL)
    assert len(one) == 2 * 3 + len(GENERAL)


@pytest.mark.parametrize(
    ("prompt", "subject", "found"),
    [
        ("Can you say what Jaime Vasconcelos de Sá does?", "", "Jaime Vasconcelos de Sá"),
        ("Can you say what Jaime Vasconcelos does, Anna?", "", "Jaime Vasconcelos"),
        ("Jean-Luc O'Neill was born where?", "", "Jean-Luc O'Neill"),
        ("Who is J. R. Smith?", "", "J. R. Smith"),
        ("Ticket of Miller?", "", "Miller"),
        ("什么是李明的工作？", "李明", "李明"),
        ("where does ada byron live?", "Ada Byron", "ada byron"),
        ("Who is it?", "person-3", ""),
        ("", "Ada", ""),
    ],
)
def test_names_are_found(prompt: str, subject: str, found: str) -> None:
    assert subject_in(Record("r", prompt, "x", subject=subject), frozenset({"ticket"})) == found


def test_the_benchmark_s_subjects_are_found() -> None:
    benchmark = synth.make(people=40, seed=2)
    people = {person.id: person.name for person in benchmark.subjects("forget")}
    records = benchmark.records("forget")
    asked = ask(records, 1, general=False)
    right = sum(one.old == people[one.source.subject] for one in asked if one.source)
    assert len(asked) >= 0.95 * len(records)
    assert right >= 0.95 * len(asked)


def test_answers_that_tell_the_secret_are_left_out() -> None:
    asked = ask([ADA], 1, names=["Bo Lind"], general=False) * 6
    asked = [Asked(_named(one.record, f"r{i}"), one.source, one.old, one.new) for i, one in enumerate(asked)]
    answers = ["Bo Lind is from Bergen.", "Ask Ada Byron.", "In oslo.", None, " ", "Bo Lind was born in oslo."]
    records, why = kept(asked, answers, [ADA])
    assert [(r.id, r.answer) for r in records] == [("r0", "Bo Lind is from Bergen.")]
    assert why == {
        "names a forgotten subject": 1, "says what is to be forgotten": 2, "not finished": 1, "empty": 1
    }  # fmt: skip


def test_without_spans_a_forget_answer_under_another_name_is_still_found() -> None:
    bare = Record("f", "Where was Ada Byron born?", "Ada Byron was born in the small harbour town of Oslo.")
    asked = ask([bare], 2, names=["Bo Lind", "Cy Moe"], general=False)
    said = [f"{one.new} was born in the small harbour town of Oslo." for one in asked]
    said[1] = f"{asked[1].new} grew up on a farm near the sea."
    records, why = kept(asked, said, [bare])
    assert [r.id for r in records] == [asked[1].record.id]
    assert why == {"says what is to be forgotten": 1}


def test_nothing_to_ask_is_said() -> None:
    with pytest.raises(DataError, match="names somebody"):
        ask([Record("t", text="Ada Byron lived in Oslo.")], 2, general=False)
    with pytest.raises(DataError, match="every name"):
        ask([ADA], 2, names=["Ada Byron", "Byron Lee"])


def _named(record: Record, id_: str) -> Record:
    return Record(id_, record.prompt, split=record.split, subject=record.subject)
