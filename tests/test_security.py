"""What must not happen: code that comes with data is run, secrets are written down, any file is a plugin."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from expunge import environment, registry, runfolder
from expunge import lm as lms
from expunge.errors import MethodError, ModelError
from expunge.recipe import Model
from tests.evals import tiny

SOURCE = Path(__file__).resolve().parent.parent / "src" / "expunge"
DANGEROUS = {
    "eval", "exec", "pickle.load", "pickle.loads", "marshal.load", "marshal.loads", "torch.load", "joblib.load",
    "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load", "shutil.unpack_archive", "tarfile.open",
    "zipfile.ZipFile",
}  # fmt: skip
TOKEN = "hf_Zq7NotARealToken91c4"


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """(where, what, the call) of every call in the source; `what` with its dots."""
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield f"{file.relative_to(SOURCE)}:{node.lineno}", ast.unparse(node.func), node


def test_nothing_in_the_source_runs_what_it_reads() -> None:
    found = [(where, what) for where, what, _ in calls() if what in DANGEROUS or what.endswith(".extractall")]
    assert found == []


def test_no_call_trusts_remote_code_or_a_shell() -> None:
    for where, what, call in calls():
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert given.get("trust_remote_code", "False") == "False", where
        assert given.get("shell", "False") == "False", where
        if what.endswith(".from_pretrained"):
            assert "trust_remote_code" in given, f"{where}: say that no code is trusted"


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    lms.save(tiny.small_lm(), folder)
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    code = {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}
    settings |= {"model_type": "mine", "architectures": ["Mine"], "auto_map": code}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    trace = tmp_path / "ran"
    (folder / "mine.py").write_text(f"open({str(trace)!r}, 'w')", encoding="utf-8")
    with pytest.raises(ModelError):
        lms.load(Model(model_name_or_path=str(folder)))
    assert not trace.exists()


@pytest.mark.parametrize("name", ["plugin.txt", "plugin.so", "folder", "../nowhere.py"])
def test_a_plugin_is_a_python_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    for file in ("plugin.txt", "plugin.so"):
        (tmp_path / file).write_text("raise SystemExit", encoding="utf-8")
    with pytest.raises(MethodError, match="is not a"):
        registry.load_plugin(tmp_path / name)


def test_tokens_of_the_environment_are_written_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "EXPUNGE_LEDGER_SALT"):
        monkeypatch.setenv(name, TOKEN)
    run = runfolder.create(tmp_path / "run", "measure")
    run.finish()
    shown = json.dumps(environment.facts())
    assert "HF_TOKEN" in shown
    assert TOKEN not in shown + "".join(file.read_text("utf-8") for file in run.path.iterdir())
