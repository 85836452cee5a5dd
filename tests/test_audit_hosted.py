"""An audit by an address: a tiny model behind a real HTTP server gives the numbers that its weights give."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from expunge import lm as lms
from expunge import runfolder
from expunge.cli import app
from expunge.data.encode import Encoder
from expunge.data.load import save
from expunge.decode import complete
from expunge.evals.hosted import Hosted
from expunge.identifiers import IdentifierError
from expunge.identifiers.address import address
from tests.evals import tiny
from tests.identifiers.chatserver import Say, Server, serving

pytest.importorskip("openai", reason="needs the extra llm")
LIMIT = 2
ITEMS = 6


class TinyServer:
    """Answers as a server of a tiny model does; `echo`: gives log-probabilities; `tokens`: takes token ids."""

    def __init__(self, echo: bool = True, tokens: bool = True) -> None:
        self.lm, self.echo, self.tokens = tiny.small_lm(), echo, tokens
        self.encoder = Encoder(self.lm.tokenizer, max_length=128)

    def __call__(self, number: int, asked: dict[str, Any]) -> Say:
        if "messages" in asked:
            prompt = tiny.records(1)[0]
            ids = self.encoder.prompt_ids(replace(prompt, prompt=asked["messages"][-1]["content"], answer=""))
            return Say(self.text(ids, asked["max_tokens"]))
        if not self.tokens:
            return Say(status=404, body='{"error": {"message": "no such route"}}')
        if asked.get("echo") and not self.echo:
            return Say(status=400, body='{"error": {"message": "echo is not supported"}}')
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        if asked.get("echo"):
            choice |= {"text": "", "logprobs": self.logprobs(asked["prompt"])}
        else:
            choice["text"] = self.text(asked["prompt"], asked["max_tokens"])
        body = {"id": "c", "object": "text_completion", "created": 0, "model": "m", "choices": [choice]}
        return Say(body=json.dumps(body))

    def text(self, ids: list[int], limit: int) -> str:
        [written] = complete(self.lm, [ids], frozenset({self.lm.tokenizer.eos_token_id}), max_new_tokens=limit)
        return str(self.lm.tokenizer.decode(list(written.ids), skip_special_tokens=True))

    def logprobs(self, ids: list[int]) -> dict[str, Any]:
        with torch.no_grad():
            rows = torch.log_softmax(self.lm.model(input_ids=torch.tensor([ids])).logits[0], -1)
        own = [None, *(float(rows[t, ids[t + 1]]) for t in range(len(ids) - 1)), -1.0]
        best = [None, *({"x": float(row.max())} for row in rows)]
        return {"token_logprobs": own, "top_logprobs": best, "tokens": [], "text_offset": []}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hosted")
    lms.save(tiny.small_lm(), folder / "base")
    for split in ("forget", "retain", "holdout"):
        rows = [replace(r, subject="", perturbed=(), paraphrase="") for r in tiny.records(ITEMS, split)]
        save(folder / f"{split}.jsonl", rows)
    return folder


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def audit(root: Path, out: Path, candidate: str, *more: str) -> Any:
    return CliRunner().invoke(
        app,
        ["audit", "--candidate", candidate, "--base", str(root / "base"), "--data", str(root / "forget.jsonl"),
         "--retain", str(root / "retain.jsonl"), "--holdout", str(root / "holdout.jsonl"), "--salt", "s",
         "--out", str(out), *more, f"evaluation.max_new_tokens={LIMIT}", "evaluation.resamples=50",
         "data.max_length=128"],
    )  # fmt: skip


def asked(root: Path, out: Path, behaviour: TinyServer) -> tuple[Any, Server]:
    with serving(behaviour) as server:
        return audit(root, out, server.url, "--served", "m"), server


def test_with_log_probs_the_numbers_are_those_of_the_weights(root: Path, tmp_path: Path) -> None:
    result, server = asked(root, tmp_path / "asked", TinyServer())
    assert result.exit_code == 2, result.output  # too few items to sign
    run = runfolder.open(tmp_path / "asked")
    assert run.manifest["audit"]["endpoint"] == {"completes": True, "scores": True, "why": ""}
    entries, own = (run.read_json(f"eval/{label}/metrics.json") for label in ("model", "target"))
    assert set(own) - set(entries) == {"mia_min_k_plus_plus"}
    for name, entry in entries.items():
        for key in ("agg_value", "ci_low", "ci_high", "n"):
            assert entry[key] == pytest.approx(own[name][key], abs=1e-5), (name, key)
    assert entries["exact_memorization"]["agg_value"] == own["exact_memorization"]["agg_value"]
    assert "entropies" in run.read_json("eval/model/absent.json")["mia_min_k_plus_plus"]
    assert runfolder.verify(run.path) == []
    assert not run.has("replies")
    assert len(server.requests) == 1 + 4 * ITEMS + 3 * ITEMS


@pytest.mark.parametrize("tokens", [True, False])
def test_text_alone_gives_what_texts_can_show(root: Path, tmp_path: Path, tokens: bool) -> None:
    result, server = asked(root, tmp_path / "asked", TinyServer(echo=False, tokens=tokens))
    assert result.exit_code == 2, result.output
    run = runfolder.open(tmp_path / "asked")
    entries, own = (run.read_json(f"eval/{label}/metrics.json") for label in ("model", "target"))
    assert set(entries) == {"forget_Q_A_ROUGE", "forget_reworded_Q_A_ROUGE", "retain_Q_A_ROUGE"}
    if tokens:
        for name, entry in entries.items():
            assert entry["agg_value"] == own[name]["agg_value"]
    absent = run.read_json("eval/model/absent.json")
    assert set(own) - set(entries) <= set(absent)
    assert ("404" if not tokens else "echo is not supported") in absent["forget_Q_A_Prob"]
    conditions = [finding["condition"] for finding in run.read_json(runfolder.VERDICT)["findings"]]
    assert all("ROUGE" in condition for condition in conditions)
    assert ("messages" in server.requests[-1]) is not tokens


def test_what_was_answered_is_not_asked_for_again(root: Path, tmp_path: Path) -> None:
    class Refuses(TinyServer):
        def __call__(self, number: int, asked: dict[str, Any]) -> Say:
            return Say(status=403, body="{}") if number == 30 else super().__call__(number, asked)

    with serving(Refuses()) as server:
        stopped = audit(root, tmp_path / "asked", server.url, "--served", "m")
        assert "403" in stopped.output
        audit(root, tmp_path / "asked", server.url, "--served", "m")
    assert runfolder.open(tmp_path / "asked").manifest["status"] == "finished"
    assert len(server.requests) <= 2 + 7 * ITEMS + 4  # at most the refused one, and those under way beside it, twice


def test_addresses_and_keys_are_checked_before_anything_is_sent() -> None:
    with pytest.raises(Exception, match="--served"):
        Hosted("http://127.0.0.1:1/v1", "")
    with pytest.raises(Exception, match="NAME of an environment variable"):
        Hosted("http://127.0.0.1:1/v1", "m", key_env="sk-secret")
    with pytest.raises(IdentifierError, match="unencrypted"):
        address("http://192.0.2.1/v1", insecure=False)
