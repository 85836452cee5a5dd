"""Classifiers of answers: what they say stands beside the texts, enters utility and leak@k, and is asked once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from expunge import registry, runfolder
from expunge.attacks.scene import Scene
from expunge.data.encode import Encoder
from expunge.errors import DataError, ModelError
from expunge.evals import classifier
from expunge.evals.numbers import Bootstrap
from expunge.evals.reductions import FORGET
from expunge.evals.tofu import Settings, evaluate
from expunge.evaluation import Classifier
from expunge.recipe import Data
from tests.evals import tiny
from tests.fixtures.tokenizers import bpe

LABELS = {0: "noise", 1: "Clean", 2: "entailment"}
BASE = Settings(max_new_tokens=6, bootstrap=Bootstrap(resamples=20))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of three labels with random weights, large enough that texts differ."""
    tokenizer = bpe()
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64, initializer_range=0.5, id2label=LABELS, label2id={v: k for k, v in LABELS.items()},
    )  # fmt: skip
    path = tmp_path_factory.mktemp("classifier")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        BertForSequenceClassification(config).save_pretrained(path)
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(path)
    return path


def settings(folder: Path, **labels: str) -> Settings:
    named = {what: Classifier(model_name_or_path=str(folder), label=label or None) for what, label in labels.items()}
    return dataclasses.replace(BASE, classifiers=named)


def test_each_text_or_pair_gets_its_probability_whatever_stands_beside_it(folder: Path) -> None:
    judge = classifier.load(Classifier(model_name_or_path=str(folder)), "fluency", "cpu")
    texts = ["Oslo.", "a much longer answer about Lima and Hanoi " * 20, "", "no"]
    together = judge.probabilities(texts)
    assert together == pytest.approx([judge.probabilities([text])[0] for text in texts], abs=1e-6)
    assert len(set(together)) == len(texts)
    other = dataclasses.replace(judge, label=0)
    assert judge.probabilities(["Oslo."], ["Lima."]) != other.probabilities(["Oslo."], ["Lima."])
    assert judge.probabilities(["Oslo."], ["Lima."]) != judge.probabilities(["Lima."], ["Oslo."])


def test_a_label_that_is_not_there_and_a_model_that_is_none_say_so(folder: Path, tmp_path: Path) -> None:
    named = Classifier(model_name_or_path=str(folder), label="cleen")
    with pytest.raises(
        ModelError, match=r"evaluation\.fluency: .*'cleen'.*Did you mean: clean.*Set evaluation\.fluency"
    ):
        classifier.load(named, "fluency", "cpu")
    with pytest.raises(ModelError, match="cannot load"):
        classifier.load(Classifier(model_name_or_path=str(tmp_path)), "fluency", "cpu")


def test_what_is_said_stands_beside_the_texts_and_is_asked_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runfolder.create(tmp_path / "run", "evaluate")
    lm = tiny.small_lm()
    encoder, sets = Encoder(lm.tokenizer), {name: tiny.records(4, name) for name in ("forget", "retain")}
    how = settings(folder, fluency="", entailment="")
    plain = evaluate(lm, encoder, sets, run, "target", settings=BASE)
    found = evaluate(lm, encoder, sets, run, "target", settings=how)
    assert set(found.numbers) - set(plain.numbers) == {
        f"{side}_{what}" for side in ("forget", "retain") for what in ("fluency", "entailment")
    }
    judge = classifier.load(how.classifiers["entailment"], "entailment", "cpu")
    table = run.read_table("eval/target/generations/forget.parquet")
    said = judge.probabilities(table.column("generation").to_pylist(), table.column("reference").to_pylist())
    assert table.column("entailment").to_pylist() == pytest.approx(said)
    assert found.numbers["forget_entailment"].interval.value == pytest.approx(sum(said) / len(said))
    assert (found.numbers["forget_entailment"].higher, found.numbers["forget_fluency"].higher) == ("worse", "better")
    assert found.numbers["forget_fluency"].interval.low < found.numbers["forget_fluency"].interval.high

    monkeypatch.setattr(classifier.Judge, "probabilities", lambda *_: pytest.fail("it was asked again"))
    assert evaluate(lm, encoder, sets, run, "target", settings=how).numbers == found.numbers
    bare = evaluate(lm, encoder, sets, run, "target", settings=BASE)
    assert set(bare.numbers) == set(plain.numbers)


def test_leak_at_k_by_entailment(folder: Path) -> None:
    lm = tiny.small_lm()
    judge = classifier.load(Classifier(model_name_or_path=str(folder)), "entailment", "cpu")
    scene = Scene("own", {"own": lambda: lm}, {FORGET: tiny.records(2, FORGET)}, Data(), max_new_tokens=4)
    attack = registry.build("attack", "sampling:k=1,draws=2,temperatures=1,score=entailment")
    with pytest.raises(DataError, match=r"Set evaluation\.entailment"):
        attack.budget(scene, "T1")
    told = dataclasses.replace(scene, entails=judge.probabilities)
    assert attack.budget(told, "T1").written > 0
    rows = list(attack.rows(told, "own", "T1", lambda done, total: None))
    assert len(rows) == 2 + 2 * 2
    assert all(0 < row.value < 1 for row in rows)
