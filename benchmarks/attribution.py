"""What masking attribution costs: CPU time and tokens, as multiples of one plain scoring pass over the same records.

    python benchmarks/attribution.py MODEL --questions FILE --texts FILE [--system TEXT]

One process, plain pass and attribution by turns, medians of --repeats. Beside it the same with every sequence read by
itself (`apart`). The table is printed as Markdown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

from expunge import lm as lms
from expunge import trees
from expunge.data.encode import Encoder
from expunge.data.load import load
from expunge.data.records import Record
from expunge.lm import LM
from expunge.recipe import Method, Model, Source, TermSpec
from expunge.scoretables import ScoreTables
from expunge.sides import encode_all
from expunge.terms import build_term

PLAIN = "frozen"
FORMS = {
    "questions": ("masking", "masking:replace=___", "masking:hide=question", "masking:hide=context",
                  "0.5*masking+0.5*frozen", "0.5*masking+0.5*masking:hide=question"),
    "texts": ("masking:hide=context", "masking:hide=context,window=64", "0.5*masking:hide=context+0.5*frozen"),
}  # fmt: skip


def tables(lm: LM, encoder: Encoder, records: Sequence[Record], score: str) -> ScoreTables:
    """What prepares the score of these records, kept nowhere."""
    term = build_term(TermSpec(objective="ga", score=score, select="top"), Method())
    return ScoreTables(
        lm, encoder, (term,), {"forget": records}, {"forget": encode_all(encoder, records)}, 0, lambda: ()
    )


def cost(lm: LM, made: ScoreTables) -> tuple[float, int]:
    """CPU seconds and tokens, padding included, of the preparation."""
    sent: list[int] = []
    hook = lm.model.base_model.register_forward_hook(
        lambda module, args, kwargs, out: sent.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    began = time.process_time()
    made.fill("forget")
    seconds = time.process_time() - began
    hook.remove()
    return seconds, sum(sent)


def row(lm: LM, make: Callable[[str], ScoreTables], form: str, repeats: int) -> tuple[float, float]:
    """Ratio of CPU times and of tokens to the plain pass."""
    pairs = [(cost(lm, make(PLAIN)), cost(lm, make(form))) for _ in range(repeats)]
    return median(b[0] / a[0] for a, b in pairs), pairs[0][1][1] / pairs[0][0][1]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--questions", required=True)
    parser.add_argument("--texts", required=True)
    parser.add_argument("--system", default="", help="what stands before every question")
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    lm = lms.load(Model(model_name_or_path=asked.model))
    template = f"{asked.system}Question: {{prompt}}\nAnswer: {{answer}}"
    encoder = Encoder(lm.tokenizer, template=template, max_length=asked.max_length)
    usable = trees.usable
    print("| records | score | CPU time | tokens | CPU time, apart | tokens, apart |\n|---|---|---|---|---|---|")
    for kind, forms in FORMS.items():
        records = load(Source(path=getattr(asked, kind), limit=asked.limit), "forget")
        for form in forms:
            found = []
            for share in (usable, lambda lm: False):
                trees.usable = share  # type: ignore[assignment]
                found += row(lm, partial(tables, lm, encoder, records), form, asked.repeats)
            print(f"| {kind} | `{form}` | " + " | ".join(f"{number:.2f}" for number in found) + " |", flush=True)


if __name__ == "__main__":
    main()
