"""Rewordings by a model at an address: parts apart, asked once, and forget text sent only where it was told to go."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from expunge import recipe, registry, runfolder
from expunge.attacks.rewording import Rewording
from expunge.attacks.rewordings import PARTS
from expunge.attacks.scene import Scene
from expunge.attacks.unmerge import Unmerge
from expunge.attacks.writer import FILE, Writer, of_part, read
from expunge.errors import DataError, MethodError
from expunge.evals.hosted import Hosted
from expunge.evals.reductions import PLAIN, Row
from expunge.runfolder import RunFolder
from tests.attacks import village
from tests.attacks.test_verb import call, root, unlearned
from tests.identifiers.chatserver import Say, serving

pytest.importorskip("openai", reason="needs the extra llm")
__all__ = ["root"]  # a fixture
VERBS = ("Say", "Tell", "Explain", "Report", "Name", "Give")


def forms(question: str) -> list[str]:
    return [f"{verb} it, whichever way number {k} goes: {question[::-1][:12]}" for k, verb in enumerate(VERBS)]


def replies(number: int, asked: Mapping[str, Any]) -> Say:
    """The first reply to each question is no list; the next one is."""
    text = asked["messages"][-1]["content"]
    question = text.split("\n")[1]
    return Say(json.dumps(forms(question)) if "The last reply" in text else "I would rather not.")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return runfolder.create(tmp_path / "run", "unlearn")


def test_it_is_asked_once_and_again_where_the_reply_is_no_list(run: RunFolder) -> None:
    questions = ["Where is Ann?", "Who is Bob?", "Where is Ann?"]
    with serving(replies) as server:
        writer = Writer(Hosted(server.url, "m"), run)
        found = writer(questions)
        assert len(server.requests) == 4
        assert found == {question: forms(question) for question in questions}
        assert writer(questions) == found
        assert len(server.requests) == 4
    assert set(run.read_json(FILE)) == set(questions)


def test_what_cannot_be_read_leaves_the_question_out(run: RunFolder) -> None:
    with serving(lambda number, asked: Say("")) as server:
        assert Writer(Hosted(server.url, "m"), run)(["Where is Ann?"]) == {"Where is Ann?": []}
        assert len(server.requests) == 3
    assert read("[1, null, {}]", "q") == []
    assert read('["a", "q", "", "b"] and (more)', "q") == ["a", "b"]
    assert read('["a", broken] and ["b"]', "q") == []
    assert read(json.dumps(["x" * 401, "short"]), "q") == ["short"]
    assert sorted(text for part in PARTS for text in of_part(list("abcde"), part)) == list("abcde")


def scene(write: Callable[[Sequence[str]], Mapping[str, Sequence[str]]] | None) -> Scene:
    sets = {name: village.people(name) for name in ("forget", "retain", "holdout")}
    return Scene("own", {"own": lambda: village.fresh(0)}, sets, village.DATA, writer=write)  # type: ignore[arg-type]


class Written:
    """A writer without a server."""

    name = "m"

    def __init__(self, write: Callable[[str], list[str]]) -> None:
        self.write = write

    def __call__(self, questions: Sequence[str]) -> dict[str, list[str]]:
        return {question: self.write(question) for question in questions}


def test_probes_of_another_part_or_of_training_are_left_out() -> None:
    attack = Rewording(kinds="written", writer="m")
    kept, dropped = attack.probes(scene(Written(forms)), "written")
    records = scene(None).examined(asked=True)
    assert dropped == 0
    assert [probe.prompt for probe in kept["written 1"]] == [forms(record.prompt)[2] for record in records]
    assert [probe.id for probe in kept["written 2"]] == [record.id for record in records]

    def sly(question: str) -> list[str]:
        found = forms(question)
        return [found[0], found[1], question + " ", found[3], found[4], found[0].lower()]

    kept, dropped = attack.probes(scene(Written(sly)), "written")
    forget = [record for record in records if record.split == "forget"]
    assert "written 1" not in kept or len(kept["written 1"]) == len(records) - len(forget)
    assert "written 2" not in kept
    assert dropped == len(records) + len(forget)


def test_without_an_address_or_a_name_it_says_what_to_do() -> None:
    with pytest.raises(MethodError, match="kinds=written and writer=NAME"):
        registry.build("attack", "rewording:kinds=written")
    with pytest.raises(MethodError, match="kinds=written and writer=NAME"):
        registry.build("attack", "rewording:kinds=frame,writer=m")
    attack = Rewording(kinds="written", writer="other")
    for given in (None, Written(forms)):
        with pytest.raises(DataError, match="Give --address URL"):
            attack.budget(scene(given), "written")


def test_a_run_is_attacked_with_what_a_server_writes(root: Path, tmp_path: Path) -> None:
    settings = recipe.load(root / "recipe.yaml").model_copy(update={"output_dir": str(tmp_path / "study/run")})
    path = unlearned(settings, tmp_path)
    with serving(replies) as server:
        arguments = (str(path), "--suite", "rewording:kinds=written,writer=m", "--limit", "3")
        missing = call(*arguments)
        assert "Give --address URL" in " ".join(missing.output.split())
        done = call(*arguments, "--address", server.url, "--served", "m")
        assert done.exit_code == 0, done.output
        asked = len(server.requests)
        assert call(*arguments, "--address", server.url, "--served", "m").exit_code == 0
        assert len(server.requests) == asked > 0
    [entry] = runfolder.open(path).read_json("attacks.json")["attacks"].values()
    assert entry["n"] > 0


def test_an_adapter_beside_its_base_is_taken_off() -> None:
    """What the base knows comes back, whatever the ranks say; without a base nothing is taken off."""
    sets = {name: village.people(name) for name in ("forget", "retain", "holdout")}
    models = {"own": lambda: village.fresh(1), "target": lambda: village.fresh(0)}
    beside = Scene("own", models, sets, village.DATA, beneath={"own": lambda: village.fresh(0)})
    found: dict[str, list[Row]] = {}
    for label in ("own", "target"):
        for row in Unmerge(ranks="1").rows(beside, label, "all", lambda done, total: None):
            found.setdefault(f"{label} {row.condition}", []).append(row)
    assert set(found) == {f"own {PLAIN}", "own rank 1", "own adapter taken off", f"target {PLAIN}", "target rank 1"}
    base = [row.value for row in found[f"target {PLAIN}"]]
    assert [row.value for row in found["own adapter taken off"]] == pytest.approx(base, rel=1e-5)
    assert [row.value for row in found[f"own {PLAIN}"]] != pytest.approx(base, rel=1e-2)
