"""The model card: what the Hub's own parser reads of it, and that it quotes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from expunge.report import card, sentences, words
from expunge.runfolder import VERDICT, RunFolder
from tests.report import synthetic


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(synthetic.demo(tmp_path / "demo", records=10, epochs=1, names=["etw"]).path / "etw")


def test_the_hubs_parser_reads_results_with_intervals(run: RunFolder) -> None:
    file = card.write(run.path)
    assert file == run.file("model/README.md")
    data = ModelCard.load(file).data
    assert data.model_name == "etw"
    assert data.library_name == "transformers"
    assert "machine-unlearning" in data.tags
    assert data.base_model is None, "a name that is no hub name is not made one"
    metrics = run.read_json("eval/unlearned/metrics.json")
    found = {result.metric_type: result for result in data.eval_results}
    assert set(found) == set(metrics)
    entry = metrics["forget_Q_A_Prob"]
    assert found["forget_Q_A_Prob"].metric_value == pytest.approx(entry["agg_value"], abs=1e-6)
    assert found["forget_Q_A_Prob"].metric_args["ci_high"] == pytest.approx(entry["ci_high"])
    assert found["forget_Q_A_Prob"].dataset_name == "forget"


def test_it_says_what_was_removed_how_and_beside_what(run: RunFolder) -> None:
    run.update(model={"name": "org/tiny", "hash": "abc"})
    run.write_json(VERDICT, {"outcome": "INCONCLUSIVE", "claim": "suppression", "confidence": 0.95})
    file = card.write(run.path)
    text = file.read_text(encoding="utf-8")
    assert "| forget | 10 | `3fd1a9c07be24410` |" in text
    assert "- method: `etw`" in text
    assert "| metric | target | oracle | this model |" in text
    assert "**INCONCLUSIVE** for the claim *suppression*, each bound at 95% confidence." in text
    assert "## Limits" in text
    assert ModelCard.load(file).data.base_model == "org/tiny"


def test_it_holds_no_forget_text_even_where_the_run_is_named_by_it(run: RunFolder) -> None:
    secret = synthetic.facts("forget", 1)[0].answer
    run.update(name=f"run that forgets: {secret}")
    text = card.write(run.path).read_text(encoding="utf-8")
    texts = sentences.texts(run)
    assert words.Guard(texts).finds(secret), "the test could fail"
    assert not words.Guard(texts).finds(text)
    assert "# run 1" in text
    assert str(run.path.parent) not in text


def test_a_run_that_was_not_judged_has_a_card_too(tmp_path: Path) -> None:
    from expunge import recipe, runfolder

    bare = runfolder.create(tmp_path / "bare", "unlearn", recipe.load({"name": "bare"}))
    text = card.write(bare.path).read_text(encoding="utf-8")
    assert "This model was not evaluated." in text
    assert ModelCard(text).data.eval_results is None
