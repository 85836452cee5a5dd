"""What a classifier makes of generated answers: how fluent they read, whether they entail the right answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from expunge import keyed
from expunge.decode import Progress
from expunge.errors import ModelError, unknown
from expunge.evals.table import ENTAILMENT, FLUENCY
from expunge.evaluation import Classifier
from expunge.lm import content_hash, in_our_words
from expunge.runfolder import RunFolder

_LABELS = {FLUENCY: "clean", ENTAILMENT: "entailment"}
_BATCH, _LONGEST = 32, 512


@dataclass(frozen=True)
class Judge:
    """A sequence classifier and the place of the label that counts."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    label: int

    def probabilities(
        self, first: Sequence[str], second: Sequence[str] | None = None, progress: Progress | None = None
    ) -> list[float]:
        """P(label) of each text, or of each pair of texts, in order; texts are cut where the classifier ends."""
        order = sorted(range(len(first)), key=lambda place: len(first[place]))
        out = [0.0] * len(first)
        longest = min(int(self.tokenizer.model_max_length), _LONGEST)
        with torch.inference_mode():
            for start in range(0, len(order), _BATCH):
                places = order[start : start + _BATCH]
                # a text of no token is none for tokenizers that add no token of their own
                texts = [[part[place] or " " for place in places] for part in (first, second) if part is not None]
                ids = self.tokenizer(*texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
                rows = self.model(**ids.to(self.model.device)).logits.float().softmax(-1)[:, self.label]
                for place, value in zip(places, rows.tolist(), strict=True):
                    out[place] = value
                if progress is not None:
                    progress(start + len(places), len(order))
        return out


def load(settings: Classifier, what: str, device: str) -> Judge:
    """The classifier that these settings name, for 'fluency' or 'entailment'; safetensors only, no code of its own.

    ModelError if it cannot be loaded, or has no such label.
    """
    name = settings.model_name_or_path
    with in_our_words(name):
        model = AutoModelForSequenceClassification.from_pretrained(name, use_safetensors=True, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    labels = {str(label).lower(): int(place) for place, label in model.config.id2label.items()}
    wanted = settings.label or _LABELS[what]
    if wanted.lower() not in labels:
        raise ModelError(f"evaluation.{what}: '{name}': {unknown('label', wanted, labels)} Set evaluation.{what}.label")
    return Judge(model.to(device).eval(), tokenizer, labels[wanted.lower()])


def add_columns(
    run: RunFolder, paths: Sequence[str], judges: dict[str, Judge], progress: Progress | None = None
) -> None:
    """Adds what each classifier says to the generation tables, a column for each; what stands there is not asked again.

    Columns of classifiers that are not asked for any more are removed.
    """
    hashes = {what: f"{content_hash(judge.model)} {judge.label}" for what, judge in judges.items()}
    for path in paths:
        file = run.file(path)
        key = keyed.key_of(file)
        bare = {name: value for name, value in key.items() if name not in _LABELS}
        if key == bare | hashes:
            continue
        table: pa.Table = run.read_table(path)
        for what in _LABELS:
            if what in table.column_names and key.get(what) != hashes.get(what):
                table = table.drop_columns([what])
        texts, right = (table.column(name).to_pylist() for name in ("generation", "reference"))
        for what, judge in judges.items():
            if what not in table.column_names:
                found = judge.probabilities(texts, right if what == ENTAILMENT else None, progress)
                table = table.append_column(what, pa.array(found, pa.float64()))
        run.write_table(path, keyed.with_key(table, bare | hashes))
