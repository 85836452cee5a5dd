from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from expunge import recipe as recipes
from expunge import runfolder
from expunge.errors import RunFolderError
from expunge.report import page, words
from tests.report import synthetic

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u202egnp\u2028"

DAMAGED = (
    "tokens.parquet",
    "log.jsonl",
    "recipe.yaml",
    "eval/unlearned/metrics.json",
    "eval/unlearned/scores/forget.parquet",
    "eval/unlearned/generations/forget.parquet",
)


class Reader(HTMLParser):
    """Elements, attributes and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


@pytest.fixture(scope="module")
def html(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return page.render([demo], tmp_path_factory.mktemp("page") / "report.html").read_text(encoding="utf-8")


def data_of(html: str) -> dict[str, object]:
    [found] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    read: dict[str, object] = json.loads(found)
    return read


def evil_run(path: Path) -> runfolder.RunFolder:
    """A run in which every text that a page shows is hostile."""
    fact = synthetic.Fact(EVIL, EVIL, EVIL + "?", f"x {EVIL} y", "x")
    recipe = recipes.load({"name": EVIL, "method": {"preset": "etw"}, "data": {"system_prompt": EVIL}})
    run = runfolder.create(path, "unlearn", recipe, name=EVIL)
    run.update(model={"name": EVIL, "hash": EVIL}, data={EVIL: {"hash": EVIL, "count": 3}}, error=EVIL, status="failed")
    run.append_log({"step": 1, "epoch": 1.0, "loss": 1.0, "terms": {EVIL: 2.0}, "drift_by_layer": {EVIL: 1.0}})
    run.write_table("tokens.parquet", synthetic.token_table("etw", [fact], 3))
    huge = synthetic.Fact("huge", "s", "q", "a " + "b" * 100_000, "b")
    for label in ("target", "unlearned"):
        run.write_table(f"eval/{label}/scores/forget.parquet", synthetic.scores([fact, huge], 0.5))
        run.write_table(f"eval/{label}/generations/{'forget'}.parquet", synthetic.generations([fact, huge], 0.5, "etw"))
        run.write_json(
            f"eval/{label}/metrics.json", {EVIL: {"agg_value": 0.5, "n": 1}, "model_utility": {"agg_value": 1}}
        )
    return run


def test_the_page_is_self_contained(html: str) -> None:
    reader = Reader(html)
    for tag, attributes in reader.tags:
        for name, value in attributes.items():
            assert name != "style", "the policy would block it"
            assert not name.startswith("on"), "the policy would block it"
            if name in ("src", "href"):
                assert value is not None
                assert value.startswith(("#", "data:,")), (tag, value)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html)
    assert "@import" not in html
    assert "url(" not in html


def test_the_policy_names_exactly_the_style_and_the_script_of_the_page(html: str) -> None:
    reader = Reader(html)
    [policy] = [a["content"] for tag, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy

    def sha(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    [style] = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    [script] = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert f"style-src 'sha256-{sha(style)}'" in policy
    assert f"script-src 'sha256-{sha(script)}'" in policy
    assert len(script.encode()) < 50_000


def test_the_first_screen_says_what_was_to_be_forgotten_and_quotes_none_of_it(html: str) -> None:
    first = html[html.index('<section id="summary">') : html.index('<section id="metrics">')]
    text = Reader(first).text
    assert "40 records to forget and 40 to keep." in text
    assert "3fd1a9c07be24410" in text
    for question in ("Forgotten?", "Extractable?", "Kept?", "Leaks?"):
        assert question in text
    assert "etw: like the oracle. graddiff and wga: below the oracle." in text
    guard = words.Guard(fact.answer for fact in synthetic.facts("forget", 40))
    assert not guard.finds(text)


def test_a_models_folder_is_named_not_spelt_out(tmp_path: Path) -> None:
    for name, told in (("/home/me/runs/target/model", "target"), ("/models/tiny", "tiny"), ("org/tiny", "org/tiny")):
        run = runfolder.create(tmp_path / "run", "unlearn", overwrite=True)
        run.update(model={"name": name})
        html = page.render([run.path], tmp_path / "report.html").read_text(encoding="utf-8")
        assert f"Model: {told}." in html


def test_many_runs_are_counted_not_listed(tmp_path: Path) -> None:
    names = ["graddiff", "wga", *(f"sweep-{i}" for i in range(4))]
    demo = synthetic.demo(tmp_path / "demo", records=5, epochs=1, names=names)
    html = page.render([demo.path], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h1>6 runs compared</h1>" in html


def test_the_page_says_that_it_contains_forget_text(html: str) -> None:
    assert "Contains forget text." in html
    assert '<meta name="expunge-contains-forget-text" content="yes">' in html
    assert "contains forget text" in Reader(html).text.split("</title>")[0]


def test_cells_like_the_baseline_are_grey_and_like_the_oracle_marked(html: str) -> None:
    rows = re.findall(r"<tr><th scope=\"row\"><span class=\"name\">(.*?)</span>(.*?)</tr>", html, re.DOTALL)
    cells = {name.strip(): re.findall(r"<td class=\"(num[^\"]*)\"(.*?)</td>", rest, re.DOTALL) for name, rest in rows}
    target, oracle, graddiff, wga, etw = cells["Answer probability"]
    assert all(css == "num" for css, _ in (target, oracle, graddiff, wga, etw)), "paired, all differ from graddiff"
    assert "asoracle" in etw[1]
    assert "asoracle" not in graddiff[1]
    assert "minus graddiff: 0.0" in etw[1]
    assert "paired" in etw[1]
    zlib = cells["Membership, zlib"]
    assert zlib[4][0] == "num same", "intervals overlap and there are no values by record"


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    run = evil_run(tmp_path / "run")
    html = page.render([run.path], tmp_path / "report.html").read_text(encoding="utf-8")
    reader = Reader(html)
    assert [tag for tag, _ in reader.tags].count("script") == 2, "the data and the one script"
    assert not [tag for tag, _ in reader.tags if tag == "img"]
    assert "\u202e" not in html
    assert "⟨U+202E⟩" in html
    data = data_of(html)
    assert "alert(1)" in json.dumps(data), "it is there to be read"
    assert len(html.encode()) < 300_000, "100 kB of one letter are cut"


def test_redacted_pages_hold_no_forget_text(demo: Path, tmp_path: Path) -> None:
    shutil.copytree(demo, tmp_path / "demo")
    secret = synthetic.facts("forget", 3)[2]
    settings = {"name": f"to forget {secret.answer}", "data": {"system_prompt": f"Never say: {secret.answer}"}}
    run = synthetic.unlearning(
        tmp_path / "demo" / "extra", "etw", synthetic.facts("forget", 40), synthetic.facts("retain", 5), 2
    )
    run.write_text("recipe.yaml", recipes.dump(recipes.load(settings)))
    run.update(name=settings["name"], error=f"NaN at '{secret.answer}'", status="failed")
    paths = [tmp_path / "demo" / name for name in ("graddiff", "wga", "etw", "extra")]
    open_page = page.render(paths, tmp_path / "open.html").read_text(encoding="utf-8")
    html = page.render(paths, tmp_path / "redacted.html", redact=True).read_text(encoding="utf-8")
    known = [text for fact in synthetic.facts("forget", 40) for text in (fact.prompt, fact.answer)]
    guard = words.Guard(known)
    assert guard.finds(Reader(open_page).text), "the search finds what is there"
    assert not guard.finds(html)
    assert not guard.finds(Reader(html).text)
    for name in (*synthetic.PEOPLE, *synthetic.TOWNS, *synthetic.BOOKS):
        assert name not in html
    assert str(tmp_path) not in html, "nor where it lies on this machine"
    assert "run 4" in html, "a name that quotes is replaced"
    assert "[redacted]" in html
    assert '<meta name="expunge-contains-forget-text" content="no">' in html
    assert "0.113" in html, "the numbers stay"
    assert data_of(html)["tokens"]


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("tokens.parquet", "No run recorded its tokens"),
        ("log.jsonl", "No run has a training log"),
        ("recipe.yaml", "This run recorded no recipe"),
        ("eval", "No metrics: none of the run folders holds an evaluation"),
        ("eval/unlearned/generations", "No answers were generated"),
        ("eval/unlearned/metrics.json", "has no its metrics"),
    ],
)
@pytest.mark.parametrize("redact", [False, True])
def test_whatever_is_missing_is_said(demo: Path, tmp_path: Path, missing: str, says: str, redact: bool) -> None:
    run = tmp_path / "etw"
    shutil.copytree(demo / "etw", run)
    target = run / missing
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    html = page.render([run], tmp_path / "report.html", redact).read_text(encoding="utf-8")
    if "answers" not in says or not redact:
        assert says in html
    assert "What is not here" in html, "target and oracle were left behind"


def test_an_empty_run_and_a_running_one_make_a_page(tmp_path: Path) -> None:
    runfolder.create(tmp_path / "run", "unlearn")
    html = page.render([tmp_path / "run"], tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "does not say how many records were to be forgotten" in html
    assert "has not finished: it is still running, or was killed." in html
    assert html.count("Not measured in this run.") == 4
    assert "Not tested: no attack was run." in html
    assert "No verdict: no gate was written before the run." in html


@pytest.mark.parametrize("file", DAMAGED)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe[1, PAR1"])
def test_damaged_files_do_not_stop_the_page(demo: Path, tmp_path: Path, file: str, content: bytes) -> None:
    shutil.copytree(demo / "etw", tmp_path / "etw")
    (tmp_path / "etw" / file).write_bytes(content)
    for redact in (False, True):
        assert page.render([tmp_path / "etw"], tmp_path / "report.html", redact).stat().st_size > 20_000


def test_json_of_the_wrong_shape_does_not_stop_the_page(demo: Path, tmp_path: Path) -> None:
    shutil.copytree(demo / "etw", tmp_path / "etw")
    run = runfolder.open(tmp_path / "etw")
    run.update(data="x", model=3, environment=[], compared_with="y", created=7, runs=5, status=None)
    run.write_lines("log.jsonl", [{"step": "one", "epoch": None, "loss": "high", "terms": 3, "drift_by_layer": []}])
    odd = {"agg_value": 1, "value_by_index": {"x": None, "y": "z"}, "n": "4", "ci_low": []}
    run.write_json("eval/unlearned/metrics.json", {"a": odd})
    html = page.render([run.path], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "What is not here" in html


def test_a_path_that_is_no_run_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError):
        page.render([tmp_path], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_the_report_is_not_part_of_what_verify_checks(demo: Path, tmp_path: Path) -> None:
    shutil.copytree(demo / "etw", tmp_path / "etw")
    page.render([tmp_path / "etw"], tmp_path / "etw" / "report.html")
    assert runfolder.verify(tmp_path / "etw") == []


def test_the_same_folders_give_the_same_bytes(demo: Path, tmp_path: Path) -> None:
    one, two = (page.render([demo], tmp_path / name).read_bytes() for name in ("one.html", "two.html"))
    assert one == two


def test_settings_that_differ_and_every_recipe_are_there(html: str) -> None:
    assert re.search(r"<code>method.preset</code></th><td><code>graddiff</code></td><td><code>wga</code>", html)
    recipe = recipes.dump(recipes.load({"name": "etw"}))
    assert "gradient_checkpointing: false" in recipe
    assert html.count("gradient_checkpointing: false") == 3


def test_no_torch_is_loaded(demo: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from expunge.report.page import render; import expunge.report.text, expunge.report.heat; "
        "render([sys.argv[1]], sys.argv[2]); sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    )
    subprocess.run([sys.executable, "-c", code, str(demo), str(tmp_path / "r.html")], check=True)


def test_why_a_metric_is_absent_and_which_intervals_are_too_narrow(tmp_path: Path) -> None:
    run = runfolder.create(tmp_path / "run", "unlearn")
    few = {"agg_value": 0.5, "n": 40, "ci_low": 0.4, "ci_high": 0.6, "optimistic": True}
    run.write_json("eval/unlearned/metrics.json", {"forget_Q_A_Prob": few})
    run.write_json("eval/unlearned/absent.json", {"privleak": "there is no <holdout> set", "forget_Q_A_Prob": "x"})
    html = page.render([run.path], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Not measured: PrivLeak (there is no &lt;holdout&gt; set)." in html
    assert "[0.400, 0.600]†" in html
    assert "narrower than it should be" in html
