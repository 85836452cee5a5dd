"""vLLM as the writer: a stand-in of its interface gives our own tables; what it cannot read is refused."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from expunge import lm as lms
from expunge import runfolder
from expunge.data.encode import Encoder
from expunge.decode import complete
from expunge.errors import ModelError
from expunge.evals import engine, generation
from expunge.evals.numbers import Bootstrap
from expunge.evals.tofu import Settings, evaluate
from expunge.lm import LM
from tests.evals import tiny


class Engine:
    """Writes as vLLM's LLM does: token ids with the one that stopped them, by the model in the folder."""

    def __init__(self, model: str, dtype: str, trust_remote_code: bool) -> None:
        assert (dtype, trust_remote_code) == ("float32", False)
        assert (Path(model) / "config.json").is_file()

    def generate(self, prompts: Sequence[Mapping[str, Any]], asked: SimpleNamespace, use_tqdm: bool) -> list[Any]:
        stops = frozenset(asked.stop_token_ids)
        ids = [prompt["prompt_token_ids"] for prompt in prompts]
        found = complete(tiny.small_lm(), ids, stops, max_new_tokens=asked.max_tokens)
        ends = [[*text.ids, *([min(stops)] if text.stopped else [])] for text in found]
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=tokens)]) for tokens in ends]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = Engine, SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> LM:
    """The tiny model under the name of its folder."""
    folder = tmp_path_factory.mktemp("engine") / "model"
    lms.save(tiny.small_lm(), folder)
    return dataclasses.replace(tiny.small_lm(), name=str(folder))


@pytest.mark.usefixtures("stand_in")
def test_the_tables_are_our_own(saved: LM, tmp_path: Path) -> None:
    encoder, records = Encoder(saved.tokenizer), tiny.records(5)
    ours = generation.generate(saved, encoder, records, max_new_tokens=8)
    assert engine.generate(saved, encoder, records, max_new_tokens=8).equals(ours)
    assert max(ours.column("n_tokens").to_pylist()) > 0
    run = runfolder.create(tmp_path / "run", "evaluate")
    sets = {name: tiny.records(3, name) for name in ("forget", "retain")}
    how = Settings(max_new_tokens=8, bootstrap=Bootstrap(20), generator="vllm")
    evaluate(saved, encoder, sets, run, "target", settings=how)
    table = run.read_table("eval/target/generations/forget.parquet")
    assert table.equals(generation.generate(saved, encoder, sets["forget"], max_new_tokens=8))


def test_without_it_or_without_a_model_on_disk_it_says_what_to_do(
    saved: LM, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, records = Encoder(saved.tokenizer), tiny.records(2)
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ModelError, match=r"needs vLLM and a GPU: pip install 'expunge\[vllm\]', or set it to own"):
        engine.generate(saved, encoder, records)
    request.getfixturevalue("stand_in")
    with pytest.raises(ModelError, match=r"reads a whole model from disk, and 'tiny' is none"):
        engine.generate(dataclasses.replace(saved, name="tiny"), encoder, records)


@pytest.mark.gpu
def test_vllm_itself_writes_what_we_write(saved: LM) -> None:
    pytest.importorskip("vllm", reason="needs the extra vllm")
    encoder, records = Encoder(saved.tokenizer), tiny.records(5)
    ours = generation.generate(saved, encoder, records, max_new_tokens=8)
    assert engine.generate(saved, encoder, records, max_new_tokens=8).equals(ours)
