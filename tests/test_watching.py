"""The live view: what stands on the screen while a run is made."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from expunge import watching
from expunge.cli import app
from expunge.report import sentences
from expunge.runfolder import RunFolder
from expunge.watching import Watch
from tests.report import synthetic


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(synthetic.demo(tmp_path / "demo", records=12, epochs=2, names=["etw"]).path / "etw")


def test_sentences_fade_as_they_are_forgotten(run: RunFolder) -> None:
    """The gold tokens' ground is warmer before than after, and both means are said."""
    one = watching.chosen(tuple(sentences.read(run).values()))[0]
    [_, prompt, text] = watching.lines(replace(one, prompt="Where?"))
    assert prompt.plain == "Where?"
    assert one.text in text.plain
    before, after = map(float, re.findall(r"([\d.]+) → ([\d.]+)", text.plain)[0])
    assert before > 0.8 > 0.3 > after
    styles = [str(span.style) for span in text.spans if "underline" in str(span.style)]
    assert len(styles) == sum(one.gold)


def test_the_screen_shows_progress_loss_and_sentences(run: RunFolder) -> None:
    screen = io.StringIO()
    watch = Watch(Console(file=screen, force_terminal=True, color_system="truecolor", width=110, height=40))
    with watch.stage("Unlearn with etw") as bar:
        bar(3, 9, "loss -0.1  epoch 1.0")
        watch.epoch(run.path, 1)
        shown = watch._shown
        watch.epoch(run.path, 2)
        assert [one.id for one in watch._shown] == [one.id for one in shown], "the same sentences from epoch to epoch"
        assert len(shown) == watching.SENTENCES
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    for words in ("Unlearn with etw", "loss -0.1  epoch 1.0", "█", "Much of what", " → "):
        assert words in text
    assert "48;2;" in screen.getvalue(), "a coloured ground"
    assert watch._shown == (), "the next stage starts with an empty page"


def test_control_characters_of_a_model_do_not_reach_the_terminal(run: RunFolder) -> None:
    one = next(iter(sentences.read(run).values()))
    evil = replace(one, prompt="a\x1b[2Jb", tokens=("\x1b]0;x\x07", *one.tokens[1:]), start=(-1,) * len(one.tokens))
    assert "\x1b" not in "".join(line.plain for line in watching.lines(evil))


def test_curves_of_constant_and_broken_losses() -> None:
    assert watching.curve([2.0, 2.0]) == "▁▁"
    assert watching.curve([1.0, float("nan")]) == "▁▁"
    assert len(watching.curve(list(range(1000)))) == watching.CURVE


def test_the_verb_watches_a_run(tmp_path: Path) -> None:
    from expunge import synth
    from expunge.data.load import save
    from tests.test_pipeline import settings

    benchmark = synth.make(people=20, seed=0, facts=2, shared=1, pairs=1, general=4)
    for split in ("forget", "retain", "holdout"):
        save(tmp_path / f"{split}.jsonl", benchmark.records(split))
    save(tmp_path / "general.jsonl", benchmark.records("general", ("qa", "sentence")))
    tree = settings(tmp_path, evaluation={"suite": "none"})
    tree["finetune"]["oracle"] = False
    tree["finetune"]["train"]["max_steps"] = 2
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    result = CliRunner().invoke(app, ["run", str(tmp_path / "recipe.yaml"), "--watch"])
    assert result.exit_code == 0, result.output
    assert "Unlearn with etw" in result.output
    assert " → " in result.output, "the last state stays on the screen, also where it is no terminal"
