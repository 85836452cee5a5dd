"""The verbs: what they print, what they write, and how they end when something is wrong."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from expunge import __version__, pipeline, recipe, registry
from expunge.cli import app
from expunge.errors import Interrupted
from expunge.explain import json_schema
from expunge.recipe import Recipe
from expunge.verbs import SECTIONS

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))

OPTIONS = {
    "alternatives": {"--out"},
    "annotations": set(),
    "annotate": {"--with", "--out", "--set", "--plugin", "--yes", "--overwrite"},
    "check": set(),
    "demo": {"--out", "--overwrite"},
    "env": set(),
    "evaluate": {"--suite", "--data", "--oracle", "--recipe", "--out", "--overwrite"},
    "explain": set(),
    "finetune": {"--without", "--overwrite"},
    "init": {"--model", "--forget", "--retain", "--out", "--overwrite"},
    "ledger": set(),
    "list": {"--plugin", "--scorers"},
    "plan": set(),
    "intervene": {"--score", "--share", "--model", "--resamples", "--seed", "--out", "--overwrite"},
    "recall": {"--run", "--control", "--resamples", "--seed", "--out", "--overwrite"},
    "attack": {
        "--address", "--artefacts", "--insecure", "--key-env", "--limit", "--out", "--plan", "--recipe", "--served",
        "--suite",
    },
    "audit": {
        "--base", "--candidate", "--data", "--gate", "--holdout", "--insecure", "--key-env", "--out", "--recipe",
        "--retain", "--salt", "--served",
    },
    "compare": {"--baseline", "--metric", "--out"},
    "diagnose": set(),
    "verdict": {"--gate", "--resamples"},
    "report": {"--out", "--redact", "--chosen", "--figures"},
    "reproduce": {"--out", "--tolerance"},
    "run": {"--dry-run", "--overwrite", "--push-to-hub", "--watch"},
    "schema": set(),
    "score": {"--score", "--select", "--records", "--out"},
    "selectivity": {
        "--score", "--model", "--label", "--select", "--baseline", "--corpus", "--tagger", "--resamples", "--seed",
        "--out", "--overwrite",
    },
    "show": {"--plugin"},
    "snr": {
        "--score", "--r", "--soft", "--direction", "--params", "--model", "--resamples", "--seed", "--out",
        "--overwrite",
    },
    "sweep": {"--jobs", "--judge", "--print-commands", "--overwrite"},
    "synth": {
        "--out", "--people", "--seed", "--language", "--kind", "--layout", "--forget", "--holdout", "--facts",
        "--overwrite",
    },
}  # fmt: skip


def call(*arguments: str, code: int = 0) -> str:
    """What a verb prints on both streams, its exit code checked."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return " ".join(result.output.split())


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with records to forget and to keep, entered."""
    for name, who in (("forget", "Ann"), ("keep", "Bob")):
        rows = [
            {"question": f"Where does {who} live, case {n}?", "answer": f"{who} lives in Rome {n}."} for n in range(8)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_verbs_and_their_options_are_those_listed_here() -> None:
    commands = typer.main.get_group(app).commands
    found = {
        name: {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        for name, command in commands.items()
    }
    assert {name: options - {"--help"} for name, options in found.items()} == OPTIONS


def test_version_and_help() -> None:
    assert call("--version") == f"expunge {__version__}"
    for verb in OPTIONS:
        assert "Usage:" in call(verb, "--help")


def test_every_verb_stands_in_a_section_of_the_help() -> None:
    page = CliRunner().invoke(app, ["--help"]).output
    places = [page.index(f"\n{title}:\n") for title in SECTIONS]
    assert places == sorted(places)
    assert set(re.findall(r"^  ([a-z]+)  ", page, re.MULTILINE)) == set(OPTIONS)


@pytest.mark.parametrize("verb", [("demo",), ("evaluate", "model", "--suite", "own")], ids=["demo", "evaluate"])
def test_a_request_to_make_room_ends_any_verb_with_a_code_of_its_own(verb: tuple[str, ...]) -> None:
    """75 in the midst of judging or writing, and not only of training; what was done is on disk."""
    code = (
        "import sys, time\nfrom expunge import cli, demo, resolve\n"
        "def work(*_, **__):\n    print('under way', flush=True)\n    time.sleep(60)\n"
        f"demo.run = resolve.resolve = work\nsys.argv = ['expunge', *{verb!r}]\ncli.main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "under way\n"
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "give the same command again to go on" in " ".join(told.split())


def test_schema_is_json() -> None:
    assert json.loads(CliRunner().invoke(app, ["schema"]).output) == json_schema()


def test_list_and_show_name_every_kind() -> None:
    everything = call("list")
    for word in ("presets", "etw", "scorers", "entropy", "selectors", "normalised", "objectives", "npo"):
        assert word in everything
    assert "confidence" not in call("list", "objective")
    assert "an annotation" in call("list", "--scorers")
    assert call("list", "--scorers") == call("list", "scorer")
    page = call("show", "entropy")
    assert "nats" in page
    assert "temperature" in page
    assert "Needs: entropy" in page
    assert "2604.17785" in call("show", "etw")


def test_show_finds_methods_of_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_METHODS", {kind: dict(known) for kind, known in registry._METHODS.items()})
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from dataclasses import dataclass\nfrom expunge.core import Needs\nfrom expunge.registry import method\n\n\n"
        "@method('scorer', 'length-of-mine')\n@dataclass(frozen=True)\nclass Mine:\n    '''Ones, from a plugin.'''\n\n"
        "    needs = Needs()\n\n    def __call__(self, forward, state):\n        return forward.mask.float()\n",
        encoding="utf-8",
    )
    assert "Ones, from a plugin." in call("show", "length-of-mine", "--plugin", str(plugin))
    assert "is not a file" in call("list", "--plugin", str(tmp_path / "none.py"), code=2)


def test_misspelt_names_get_a_suggestion() -> None:
    assert "unknown preset or method 'entropi'. Did you mean: entropy" in call("show", "entropi", code=2)
    assert "unknown kind 'scorers'. Did you mean: scorer?" in call("list", "scorers", code=2)


def test_all_faults_of_a_recipe_come_together(mine: Path) -> None:
    (mine / "r.yaml").write_text(
        "modle: {}\ntrain: {learning_rate: -1}\nmethod: {terms: [{objective: npoo, score: entropy:temprature=2}]}\n"
    )
    shown = call("run", "r.yaml", "--dry-run", "--train.bf16=maybe", code=2)
    for part in (
        "modle: unknown key; did you mean 'model'?",
        "train.learning_rate: should be greater than 0 (got '-1')",
        "train.bf16: should be a valid boolean",
        "method.terms.0.objective: unknown objective 'npoo'. Did you mean: npo",
        "method.terms.0.score: unknown setting of scorer 'entropy' 'temprature'. Did you mean: temperature?",
    ):
        assert part in shown
    assert "Traceback" not in shown


def test_what_a_run_needs_is_named(mine: Path) -> None:
    (mine / "r.yaml").write_text("name: x\n")
    shown = call("run", "r.yaml", code=2)
    for part in ("model.model_name_or_path: not set", "data.forget: not set", "method: neither a preset nor terms"):
        assert part in shown
    assert "unknown preset 'etww'. Did you mean: etw" in call("plan", "r.yaml", "method.preset=etww", code=2)


def test_a_misspelt_option_is_not_taken_for_a_setting(mine: Path) -> None:
    (mine / "r.yaml").write_text("name: x\n")
    assert "Did you mean: --dry-run" in call("run", "r.yaml", "--dryrun", code=2)


def test_init_writes_a_recipe_that_resolves(mine: Path) -> None:
    assert "Wrote recipe.yaml" in call("init", "--model", "some/model-1B", "--forget", "forget.jsonl")
    found = recipe.load("recipe.yaml")
    assert found.model.model_name_or_path == "some/model-1B"
    assert (found.method.preset, found.data.retain) == ("etw", None)
    assert found.data.neighbours is not None
    assert (found.train.per_device_train_batch_size, found.train.gradient_accumulation_steps) == (2, 1)
    shown = call("run", "recipe.yaml", "--dry-run")
    for part in (
        "some/model-1B (from the hub)",
        "about 1,000,000,000",
        "forget.jsonl: records 8,",
        "written by the model, those that may be kept of: records about 39",
        "0.1 * ga on forget, score entropy",
        "40 (4 an epoch)",
    ):
        assert part in shown
    assert "exists" in call("init", "--model", "m", "--forget", "forget.jsonl", code=2)
    (mine / "plain.jsonl").write_text(json.dumps({"question": "why so?", "answer": "thus."}) + "\n", encoding="utf-8")
    call("init", "--model", "m", "--forget", "plain.jsonl", "--out", "nobody.yaml")
    nobody = recipe.load("nobody.yaml")
    assert (nobody.data.neighbours, nobody.method.terms[0].objective) == (None, "npo:beta=0.1")
    call("init", "--model", "m", "--forget", "forget.jsonl", "--retain", "keep.jsonl", "--overwrite")
    both = recipe.load("recipe.yaml")
    assert both.method.preset == "etw"
    assert both.data.retain is not None
    assert "the same file" in call(
        "init", "--model", "m", "--forget", "keep.jsonl", "--retain", "keep.jsonl", "--out", "x.yaml", code=2
    )
    assert "none.jsonl" in call("init", "--model", "m", "--forget", "none.jsonl", "--out", "x.yaml", code=2)
    assert not Path("x.yaml").exists()


@pytest.mark.parametrize("name", ["a b: c", "null", "-x", "été", "'q'", "# no", "yes"])
def test_init_quotes_what_yaml_would_misread(mine: Path, name: str) -> None:
    call("init", "--model", name, "--forget", "forget.jsonl")
    assert recipe.load("recipe.yaml").model.model_name_or_path == name


def test_explain_tells_values_and_defaults(mine: Path) -> None:
    (mine / "r.yaml").write_text("train: {learning_rate: 2e-5}\n")
    shown = call("explain", "r.yaml", "seed=3")
    assert "train.learning_rate: 2e-05 (default 1e-05; number > 0) peak step size of AdamW" in shown
    assert "seed: 3 (default 0;" in shown
    assert "finetune: null" in shown
    assert "finetune.train" not in shown
    assert "finetune.train.learning_rate" in call("explain")


def test_env_tells_versions_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    shown = call("env")
    assert "torch" in shown
    assert "HF_TOKEN set" in shown
    assert "verysecret" not in shown


UNSIZED = {"muse-news", "muse-books", "muse-news-scale", "muse-news-sequential", "wmdp-zephyr"}
"""Recipes whose sizes only the hub knows, or that start from the model of another recipe."""


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_shipped_recipes_resolve_and_say_what_they_do(
    file: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    invented = re.search(r"^#\s+expunge (synth .*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    if invented is not None:
        monkeypatch.chdir(tmp_path)
        call(*invented[1].split())
    overrides = []
    if "../shared" in file.read_text(encoding="utf-8"):
        shared = request.getfixturevalue("shared")
        found = recipe.load(file)
        for key, path in (
            ("model.model_name_or_path", found.model.model_name_or_path),
            *((f"data.{side}.path", getattr(found.data, side).path) for side in ("forget", "retain", "holdout")),
        ):
            overrides.append(f"{key}={shared / str(path).removeprefix('../shared/')}")
    shown = call("run", str(file), "--dry-run", *overrides)
    for word in ("model", "parameters", "forget", "loss", "reference", "evaluation", "unlearn", "run folder"):
        assert word in shown
    assert file.stem in UNSIZED or "unknown here" not in shown


class TestEndings:
    """Exit codes: 2 for what the user can mend, 75 for a stop on request, 1 for a fault of ours."""

    @pytest.fixture(autouse=True)
    def _ready(self, mine: Path) -> None:
        call("init", "--model", "m", "--forget", "forget.jsonl", "--retain", "keep.jsonl")

    def ends(self, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, *before: str) -> str:
        def stop(resolved: Recipe) -> None:
            raise error

        monkeypatch.setattr(pipeline, "run", stop)
        return call(*before, "run", "recipe.yaml", code=code)

    def test_a_stop_between_steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        shown = self.ends(monkeypatch, Interrupted("stopped after step 3; give the same command again"), 75)
        assert "stopped after step 3" in shown

    def test_ctrl_c_elsewhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "give the same command again to go on" in self.ends(monkeypatch, KeyboardInterrupt(), 75)

    def test_a_fault_of_ours_is_not_hidden(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ends(monkeypatch, ZeroDivisionError("ours"), 1)

    def test_traceback_on_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ends(monkeypatch, Interrupted("where from"), 1, "--traceback")


def test_score_shows_tokens_and_writes_all_of_them(mine: Path, shared: Path) -> None:
    model = str(shared / "models" / "tiny-english")
    call("init", "--model", model, "--forget", "forget.jsonl", "--retain", "keep.jsonl")
    shown = call(
        "score", "recipe.yaml", "--score", "entropy:temperature=2", "--records", "2", "--out", "scores.parquet"
    )
    assert shown.count("Where does Ann live") == 2
    assert "8 records: scores.parquet" in shown
    import pyarrow.parquet as pq

    table = pq.read_table("scores.parquet")
    assert table.num_rows == 8
    assert "weight" in table.column_names


def test_synth_writes_the_benchmark_in_either_layout(mine: Path) -> None:
    asked = ("synth", "--out", "people", "--people", "20", "--facts", "3", "--seed", "5")
    assert "people/forget.jsonl" in call(*asked)
    rows = [json.loads(line) for line in Path("people/forget.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (len(rows), len({row["subject"] for row in rows})) == (6, 2)
    assert json.loads(Path("people/benchmark.json").read_text())["settings"]["seed"] == 5
    assert "already holds" in call(*asked, code=2)
    assert "forget20.json" in call("synth", "--out", "t", "--people", "20", "--forget", "0.2", "--layout", "tofu")
    assert "zh" in call("synth", "--out", "x", "--people", "20", "--language", "zz", code=2)
    assert "from 20 to 20000" in call("synth", "--out", "x", "--people", "3", code=2)
    assert not Path("x").exists()


def test_annotate_marks_phrases_and_a_recipe_reads_them(mine: Path) -> None:
    (mine / "secrets.txt").write_text("Rome\n", encoding="utf-8")
    shown = call("annotate", "forget.jsonl", "--with", "phrases:file=secrets.txt", "--out", "spans.jsonl")
    assert "8; 0 records without one" in shown
    from expunge import sides
    from expunge.recipe import Source

    records = sides.records_of(Source(path="forget.jsonl", annotations="spans.jsonl"), "forget")
    assert [r.answer[s.start : s.end] for r in records for s in r.spans] == ["Rome"] * 8
    assert "unknown identifier 'phrase'. Did you mean: phrases" in call(
        "annotate", "forget.jsonl", "--with", "phrase:file=x", code=2
    )


def test_annotations_are_compared_and_shown(shared: Path, tmp_path: Path) -> None:
    file = str(shared / "data" / "tofu" / "forget01_annotated.jsonl")
    shown = call("annotations", "compare", file, "--resamples", "50")
    for part in (
        "forget01_annotated (unwanted) held against forget01_annotated (not-general)",
        "jaccard",
        "word",
        "40 records",
    ):
        assert part in shown
    page = tmp_path / "page.html"
    call("annotations", "inspect", file, "--out", str(page))
    assert "<html" in page.read_text(encoding="utf-8")


def test_an_annotation_alone_needs_its_records(mine: Path) -> None:
    (mine / "secrets.txt").write_text("Rome\n", encoding="utf-8")
    call("annotate", "forget.jsonl", "--with", "phrases:file=secrets.txt")
    assert "Name them with --records" in call("annotations", "compare", "spans.jsonl", code=2)
    assert "Name a second file" in call("annotations", "compare", "spans.jsonl", "--records", "forget.jsonl", code=2)


def test_check_finds_what_is_in_both_sets(mine: Path, shared: Path) -> None:
    model = str(shared / "models" / "tiny-english")
    call("init", "--model", model, "--forget", "forget.jsonl", "--retain", "keep.jsonl")
    with (mine / "keep.jsonl").open("a", encoding="utf-8") as file:
        file.write((mine / "forget.jsonl").read_text(encoding="utf-8").splitlines()[0] + "\n")
    assert "error:" in call("check", "recipe.yaml", code=2)
