"""Small exact inputs for the tests of judging: answers from per-token numbers, and two tiny language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from expunge.data.records import Record
from expunge.evals.table import GENERATIONS, SCORES, Answers
from expunge.lm import LM

FloatArray = npt.NDArray[np.float64]


def answers(
    logp: Sequence[Sequence[float]],
    *,
    top1: Sequence[Sequence[bool]] | None = None,
    entropy: Sequence[Sequence[float]] | None = None,
    second_moment: Sequence[Sequence[float]] | None = None,
    eos: bool = True,
    texts: Sequence[str] | None = None,
    subjects: Sequence[str] | None = None,
) -> Answers:
    """Items named 0, 1, ... with these per-token numbers (0 if not given). `eos`: each last token ends the text."""
    zeros = [[0.0] * len(row) for row in logp]

    def flat(rows: Sequence[Sequence[float]] | Sequence[Sequence[bool]] | None) -> FloatArray:
        return np.array([value for row in rows or zeros for value in row], dtype=np.float64)

    return Answers(
        ids=tuple(map(str, range(len(logp)))),
        subjects=tuple(subjects or [""] * len(logp)),
        texts=tuple(texts or [f"text {index}" for index in range(len(logp))]),
        eos=np.array([eos and len(row) > 0 for row in logp]),
        offsets=np.concatenate([[0], np.cumsum([len(row) for row in logp])]),
        logp=flat(logp),
        entropy=flat(entropy),
        second_moment=flat(second_moment),
        top1=flat(top1).astype(np.bool_),
    )


class TableLM:
    """A language model without state: logits after token `i` at position `t` are `table[i] + position[t]`; float64."""

    def __init__(self, table: npt.ArrayLike, position: npt.ArrayLike) -> None:
        self.table, self.position = np.asarray(table, np.float64), np.asarray(position, np.float64)

    @classmethod
    def random(cls, seed: int, vocabulary: int = 16, length: int = 12) -> TableLM:
        """One with logits from a seed."""
        rng = np.random.default_rng(seed)
        return cls(rng.normal(0, 2, (vocabulary, vocabulary)), rng.normal(0, 1, (length, vocabulary)))

    def rows(self, ids: Sequence[int], labels: Sequence[int]) -> list[tuple[FloatArray, int]]:
        """(log-probabilities (V,), label) of each label token."""
        out = []
        for place in range(1, len(ids)):
            if labels[place] != -100:
                logits = self.table[ids[place - 1]] + self.position[place - 1]
                shifted = logits - logits.max()
                out.append((shifted - np.log(np.exp(shifted).sum()), labels[place]))
        return out

    def answers(self, items: Sequence[Mapping[str, Sequence[int]]], texts: Sequence[str] | None = None) -> Answers:
        """The model's view of items with `input_ids` and `labels`; a label ends the text if it is the id 2."""
        found = [self.rows(item["input_ids"], item["labels"]) for item in items]
        view = answers(
            [[float(row[label]) for row, label in rows] for rows in found],
            top1=[[int(row.argmax()) == label for row, label in rows] for rows in found],
            entropy=[[float(-(np.exp(row) * row).sum()) for row, _ in rows] for rows in found],
            second_moment=[[float((np.exp(row) * row**2).sum()) for row, _ in rows] for rows in found],
            texts=texts,
        )
        assert all(rows[-1][1] == 2 for rows in found if rows)
        return view


def scores(rows: Sequence[Mapping[str, object]]) -> pa.Table:
    """A score table from rows that say only what matters; `logp` gives the number of tokens."""
    filled = []
    for row in rows:
        length = len(row["logp"])  # type: ignore[arg-type]
        filled.append(
            {
                "variant": "answer",
                "subject": "",
                "text": "text",
                "truncated": False,
                "eos": length > 0,
                "tokens": ["x"] * length,
                "start": [0] * length,
                "end": [1] * length,
                "label_logit": [0.0] * length,
                "lse": [0.0] * length,
                "entropy": [1.0] * length,
                "second_moment": [2.0] * length,
                "top1": [True] * length,
                **row,
            }
        )
    return pa.Table.from_pylist(filled, schema=SCORES)


def generations(rows: Sequence[tuple[str, str, str]]) -> pa.Table:
    """A generation table from (id, right answer, generation)."""
    return pa.Table.from_pylist(
        [
            {
                "id": name,
                "subject": "",
                "prompt": f"question {name}",
                "reference": reference,
                "generation": text,
                "n_tokens": len(text.split()),
                "stopped": True,
            }
            for name, reference, text in rows
        ],
        schema=GENERATIONS,
    )


def records(count: int = 6, split: str = "forget") -> list[Record]:
    """Records of different lengths with a paraphrase and two perturbed answers."""
    places = [
        "Kuwait City",
        "Rome",
        "São Paulo, the largest city of Brazil",
        "Đà Nẵng",
        "Oslo",
        "a small town by the sea",
    ]
    return [
        Record(
            id=f"{split}-{index}",
            prompt=f"Where was {split} person number {index} born{', and why there' * (index % 3)}?",
            answer=f"Person {index} was born in {places[index % len(places)]}.",
            split=split,  # type: ignore[arg-type]
            subject=f"{split}-subject-{index // 2}",
            paraphrase=f"The birthplace is {places[index % len(places)]}.",
            perturbed=(f"The birthplace is {places[(index + 1) % len(places)]}.", "The birthplace is Paris."),
        )
        for index in range(count)
    ]


@cache
def small_lm(seed: int = 0, vocabulary: int = 400) -> LM:
    """A Llama of two layers with random weights, large enough that its predictions differ from token to token."""
    import torch

    from expunge.fresh import fresh_model
    from expunge.sections import FreshModel

    settings = FreshModel(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
    )
    lm = fresh_model(settings, [text for r in records() for text in (r.prompt, r.answer)], seed)
    with torch.no_grad():
        for parameter in lm.model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8.0)
    lm.model.eval()
    return lm
