from __future__ import annotations

import pytest

from expunge.report import words


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\u202egnp.exe", "⟨U+202E⟩gnp.exe"),
        ("a\u2066b\u2069", "a⟨U+2066⟩b⟨U+2069⟩"),
        ("nul\x00 bell\x07", "nul⟨U+0000⟩ bell⟨U+0007⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("line\nbreak\ttab", "line\nbreak\ttab"),
        ("نص عربي", "نص عربي"),
        ("👩\u200d🔬", "👩\u200d🔬"),
        ("\ufeffbom", "⟨U+FEFF⟩bom"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text: str, shown: str) -> None:
    assert words.visible(text) == shown


def test_long_text_is_cut_and_says_so() -> None:
    shown = words.visible("a" * 100_000)
    assert shown == "a" * words.MAX_TEXT + "… (98,500 more characters)"


def test_a_token_is_one_line_and_never_empty() -> None:
    assert words.token("\n\n") == "↵↵"
    assert words.token("") == "∅"
    assert len(words.token("x" * 100_000)) < 120


def test_the_guard_finds_four_words_whatever_their_case_and_marks() -> None:
    guard = words.Guard(["Ilse Varnholt was born in Bergheim."])
    assert guard.finds("note: ILSE varnholt — was, born")
    assert not guard.finds("Ilse Varnholt was famous")
    assert guard.clean("one line\nIlse Varnholt was born here\nlast") == "one line\n[redacted]\nlast"


def test_forget_text_spread_over_lines_is_found() -> None:
    guard = words.Guard(["Ilse Varnholt was born in Bergheim."])
    assert guard.clean("Ilse Varnholt\nwas born") == "[redacted]"
